"""Which hosts and addresses an event may make this worker talk to."""

import ipaddress
from collections.abc import Iterable

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_AZURE_WIRE_SERVER = ipaddress.IPv4Address("168.63.129.16")  # hands out credentials, from a public address


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
    if parsed == _AZURE_WIRE_SERVER or parsed.is_multicast or parsed.is_reserved or not parsed.is_global:
        return False
    return not (isinstance(parsed, ipaddress.IPv6Address) and (parsed.is_site_local or parsed in _LOCAL_NAT64))


def _embedded(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address leads to, where it is a mapped, 6to4 or NAT64 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
