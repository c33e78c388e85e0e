"""Which addresses are public, and which hosts are listed."""

import pytest

from worker.images.fetch.addresses import is_listed, is_public


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "1.1.1.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_an_address_on_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # metadata of AWS, Azure, GCP
        "169.254.170.2",  # credentials of ECS tasks
        "168.63.129.16",  # Azure's wire server
        "100.64.0.1",
        "100.100.100.200",  # metadata of Alibaba Cloud
        "192.0.0.192",  # metadata of Oracle Cloud
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",  # metadata of AWS over IPv6
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
        "not an address",
        "",
    ],
)
def test_every_other_address_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"])
def test_ipv6_that_stands_for_a_public_ipv4_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("cdn.example.com", "cdn.example.com"),
        ("CDN.Example.com.", "cdn.example.com"),
        ("a.example.com", "*.example.com"),
        ("a.b.example.com", "*.Example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
    ],
)
def test_a_listed_host_is_listed(host: str, allowed: str) -> None:
    assert is_listed(host, ["other.org", allowed])


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.com", "*.example.com"),
        ("badexample.com", "*.example.com"),
        ("example.com.evil.org", "*.example.com"),
        ("sub.cdn.example.com", "cdn.example.com"),
        ("anything.org", "*"),
        ("", "*.example.com"),
        (".example.com", "*.example.com"),
    ],
)
def test_any_other_host_is_not(host: str, allowed: str) -> None:
    assert not is_listed(host, [allowed])
