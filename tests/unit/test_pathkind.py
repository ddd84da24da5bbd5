"""What kind of way an address is."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from omninervous.core.pathkind import Network, PathKind, kind_of
from omninervous.wire.address import Endpoint

LAN: tuple[Network, ...] = (ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/64"))
OWN = Endpoint("203.0.113.5", 7)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("198.51.100.9", PathKind.LAN),
        ("2001:db8:1::9", PathKind.LAN),
        ("192.168.7.7", PathKind.LAN),
        ("10.1.2.3", PathKind.LAN),
        ("fd00::1", PathKind.LAN),
        ("2001:db8:2::9", PathKind.IPV6),
        ("203.0.113.5", PathKind.DIRECT),
        ("203.0.113.6", PathKind.NAT),
        ("100.64.0.1", PathKind.NAT),
    ],
)
def test_kinds(host: str, kind: PathKind) -> None:
    assert kind_of(Endpoint(host, 7), LAN, (OWN,)) is kind


def test_a_peer_that_names_no_addresses_is_taken_at_its_word() -> None:
    assert kind_of(Endpoint("203.0.113.6", 7), LAN, None) is PathKind.DIRECT


def test_a_lan_is_preferred_to_ipv6_and_that_to_the_rest() -> None:
    ranks = [kind.rank for kind in (PathKind.LAN, PathKind.IPV6, PathKind.DIRECT, PathKind.NAT)]
    assert ranks == [2, 1, 0, 0]
