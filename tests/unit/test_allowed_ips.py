"""Cryptokey routing."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from omninervous.core.allowed_ips import AllowedIps

ONE, TWO = b"1" * 32, b"2" * 32


def networks(*texts: str) -> list[IPv4Network | IPv6Network]:
    return [ip_network(text) for text in texts]


def owner(routes: AllowedIps, text: str) -> bytes | None:
    return routes.lookup(ip_address(text).packed)


def test_the_longest_prefix_wins() -> None:
    routes = AllowedIps()
    routes.assign(ONE, networks("10.0.0.0/8", "0.0.0.0/0", "fd00::/8"))
    routes.assign(TWO, networks("10.9.0.0/16", "10.9.0.7/32"))
    assert owner(routes, "10.9.3.1") == TWO
    assert owner(routes, "10.8.3.1") == ONE
    assert owner(routes, "192.0.2.1") == ONE
    assert owner(routes, "fd12::1") == ONE
    assert owner(routes, "2001:db8::1") is None


def test_a_prefix_belongs_to_the_last_who_claimed_it() -> None:
    routes = AllowedIps()
    routes.assign(ONE, networks("10.9.0.0/24"))
    routes.assign(TWO, networks("10.9.0.0/24"))
    assert owner(routes, "10.9.0.1") == TWO


def test_assigning_again_replaces_and_nothing_removes() -> None:
    routes = AllowedIps()
    routes.assign(ONE, networks("10.9.0.0/24"))
    routes.assign(ONE, networks("10.8.0.0/24"))
    assert owner(routes, "10.9.0.1") is None
    routes.assign(ONE, ())
    assert owner(routes, "10.8.0.1") is None


def test_families_are_apart() -> None:
    routes = AllowedIps()
    routes.assign(ONE, networks("0.0.0.0/0"))
    assert owner(routes, "::") is None
