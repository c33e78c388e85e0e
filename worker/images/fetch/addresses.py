"""Which hosts and addresses an event may make this worker talk to."""

import ipaddress
from collections.abc import Iterable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1
_NOT_PUBLIC = (
    # what `is_global` lets pass, in some or all versions of Python
    ipaddress.ip_network("192.0.0.0/24"),  # RFC 6890, 2.2.2; Oracle's metadata
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's wire server, which hands out credentials
    ipaddress.ip_network("64:ff9b:1::/48"),  # RFC 8215
    ipaddress.ip_network("fec0::/10"),  # RFC 3879
)


def is_listed(host: str, allowed_hosts: Iterable[str]) -> bool:
    """Whether a host is one of the names, or lies below one written as `*.example.com` (which is not itself below)."""
    host = _normal(host)
    for allowed in map(_normal, allowed_hosts):
        if host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]) and host != allowed[1:]):
            return True
    return False


def _normal(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def is_public(address: str) -> bool:
    """Whether a numeric address is on the internet, for all to reach.

    False for private, loopback, link-local (there the clouds keep their metadata), shared (RFC 6598), multicast,
    reserved and unspecified ones, and for IPv6 addresses that stand for such an IPv4 address.
    """
    try:
        parsed = _embedded(ipaddress.ip_address(address))
    except ValueError:
        return False
    if parsed.is_multicast or parsed.is_reserved or not parsed.is_global:
        return False
    return not any(parsed in network for network in _NOT_PUBLIC)


def _embedded(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address leads to, where it is a mapped, 6to4 or NAT64 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
