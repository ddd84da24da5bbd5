from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from omninervous.core.discovery import Answer, Ask, Discovery, Stage
from omninervous.core.events import PeerConfig
from omninervous.core.identity import synthetic_mac
from omninervous.core.own import OwnAddress
from omninervous.core.queries import Target
from omninervous.core.roster import Roster
from omninervous.errors import RemoteError
from omninervous.wire.frame import (
    ARP_REQUEST,
    BROADCAST_MAC,
    ETHERTYPE_IPV4,
    build_arp_reply,
    build_ethernet,
    eui64_link_local,
)
from omninervous.wire.neighbour import NEIGHBOUR_SOLICITATION, build_neighbour_advertisement
from tests.datapaths import arp_frame, discovery_frame, neighbour_message
from tests.nodes import at, cluster, context, identity, membership

OWN, FRIEND = identity("own"), identity("friend")
STOCK = PeerConfig(b"s" * 32, None, None, allowed_ips=(IPv4Network("10.9.0.0/24"),))
SENDER = IPv4Address("10.200.0.1")
NEARER = PeerConfig(b"t" * 32, None, None, allowed_ips=(IPv4Network("10.9.0.128/25"),))


def discovery() -> tuple[Discovery, Roster]:
    ctx = context("own", peers=(STOCK, NEARER))
    own = OwnAddress(ctx)
    own.granted()
    roster = Roster(OWN.x25519_public, cluster().public, 100)
    roster.learn(at(1.0), membership("friend"))
    return Discovery(ctx, roster, own), roster


def who_has(target: IPv4Address, sender: IPv4Address = SENDER) -> bytes:
    return arp_frame(ARP_REQUEST, (OWN.mac, sender), (bytes(6), target))


def solicit(target: IPv6Address, source: IPv6Address | None = None) -> bytes:
    group = IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + target.packed[13:])
    body = neighbour_message(NEIGHBOUR_SOLICITATION, target, None if source is not None else OWN.mac)
    return discovery_frame(OWN.mac, body, source or eui64_link_local(OWN.mac), group)


def test_a_known_vip_is_answered_here() -> None:
    machine, roster = discovery()
    friend = roster.find(FRIEND.x25519_public)
    assert friend is not None and friend.claim is not None
    request = who_has(friend.claim.address)
    assert machine.handle_frame(request) == Answer(FRIEND.x25519_public, build_arp_reply(request, FRIEND.mac))


def test_known_ipv6_addresses_are_answered_here() -> None:
    machine, _ = discovery()
    for target in (FRIEND.ula, eui64_link_local(FRIEND.mac)):
        request = solicit(target)
        reply = build_neighbour_advertisement(request, FRIEND.mac)
        assert machine.handle_frame(request) == Answer(FRIEND.x25519_public, reply)


def test_unknown_addresses_of_the_overlay_are_asked_for() -> None:
    machine, _ = discovery()
    stranger = identity("stranger")
    assert machine.handle_frame(who_has(IPv4Address("10.207.0.1"))) == Ask(Target(address=IPv4Address("10.207.0.1")))
    assert machine.handle_frame(solicit(stranger.ula)) == Ask(Target(address=stranger.ula))
    assert machine.handle_frame(solicit(eui64_link_local(stranger.mac))) == Ask(Target(mac=stranger.mac))


def test_addresses_outside_of_the_overlay_are_not_asked_for() -> None:
    machine, _ = discovery()
    for frame in (who_has(IPv4Address("192.168.1.1")), solicit(IPv6Address("2001:db8::1"))):
        with pytest.raises(RemoteError, match="unresolved"):
            machine.handle_frame(frame)


def test_probes_are_answered_if_the_address_is_taken_but_never_asked_on() -> None:
    machine, roster = discovery()
    friend = roster.find(FRIEND.x25519_public)
    assert friend is not None and friend.claim is not None
    nobody = IPv4Address(0)
    assert isinstance(machine.handle_frame(who_has(friend.claim.address, nobody)), Answer)
    for frame in (who_has(IPv4Address("10.207.0.1"), nobody), solicit(identity("x").ula, IPv6Address(0))):
        with pytest.raises(RemoteError, match="address_probe"):
            machine.handle_frame(frame)


def test_our_own_addresses_are_not_resolved() -> None:
    machine, _ = discovery()
    with pytest.raises(RemoteError, match="own_address"):
        machine.handle_frame(solicit(OWN.ula))


def test_routes_of_stock_peers_answer_with_a_synthetic_mac_the_longest_prefix_first() -> None:
    machine, _ = discovery()
    for host, peer in (("10.9.0.2", STOCK), ("10.9.0.200", NEARER)):
        request = who_has(IPv4Address(host))
        reply = build_arp_reply(request, synthetic_mac(peer.x25519))
        assert machine.handle_frame(request) == Answer(peer.x25519, reply)


def test_unicast_frames_are_staged_or_asked_for_by_mac() -> None:
    machine, _ = discovery()
    known = build_ethernet(FRIEND.mac, OWN.mac, ETHERTYPE_IPV4, bytes(20))
    unknown = build_ethernet(b"\x02\0\0\0\0\x01", OWN.mac, ETHERTYPE_IPV4, bytes(20))
    assert machine.handle_frame(known) == Stage(FRIEND.x25519_public, known)
    assert machine.handle_frame(unknown) == Ask(Target(mac=unknown[:6]))
    with pytest.raises(RemoteError, match="unresolved"):
        machine.handle_frame(build_ethernet(BROADCAST_MAC, OWN.mac, ETHERTYPE_IPV4, bytes(20)))


def test_waiting_frames_are_bounded() -> None:
    machine, _ = discovery()
    targets = [Target(mac=number.to_bytes(6, "big")) for number in range(300)]
    for target in targets:
        for number in range(6):
            machine.wait(target, bytes([number]))
    assert machine.settle(targets[0]) == [] and machine.settle(targets[-1]) == [bytes([n]) for n in range(4)]
    assert machine.settle(targets[-1]) == []
