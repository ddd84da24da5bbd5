from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from omninervous.lab.nat import Forward, NatKind, NatPolicy, nat_ruleset

CLIENT, OTHER = IPv4Address("192.168.1.2"), IPv4Address("192.168.1.3")


def rules(policy: NatPolicy) -> str:
    return nat_ruleset(policy, "wan0", "lan0", IPv4Address("198.51.100.11"))


def test_every_box_but_a_router_translates_what_leaves() -> None:
    for kind in NatKind:
        assert ('oifname "wan0" masquerade' in rules(NatPolicy(kind, CLIENT))) is (kind is not NatKind.ROUTER)


def test_a_box_can_know_the_way_to_one_host_only() -> None:
    policy = NatPolicy(NatKind.PORT_RESTRICTED, only_towards=IPv4Address("198.51.100.10"))
    assert 'oifname "wan0" ip daddr 198.51.100.10 masquerade' in rules(policy)


def test_a_forward_is_for_tcp_and_udp() -> None:
    text = rules(NatPolicy(NatKind.PORT_RESTRICTED, forwards=(Forward(5201, CLIENT),)))
    assert "tcp dport 5201 dnat to 192.168.1.2" in text and "udp dport 5201 dnat to 192.168.1.2" in text


def test_a_cone_without_its_client_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="full-cone"):
        rules(NatPolicy(NatKind.FULL_CONE))


def test_a_hairpin_leads_each_port_to_its_client_and_shows_the_public_address() -> None:
    text = rules(NatPolicy(NatKind.PORT_RESTRICTED, hairpin=(Forward(7001, CLIENT), Forward(7002, OTHER))))
    assert 'iifname "lan0" ip daddr 198.51.100.11 udp dport 7002 dnat to 192.168.1.3' in text
    assert 'oifname "lan0" ip saddr 192.168.1.2 meta l4proto udp snat to 198.51.100.11' in text
