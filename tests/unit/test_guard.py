"""What a member may say on our segment, and what not. MEMBER sends to us; VICTIM is a third machine."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from omninervous.core.guard import SourceGuard, check_frame, check_routed_packet
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.frame import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST_MAC,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    build_ethernet,
    eui64_link_local,
)
from omninervous.wire.neighbour import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION
from tests.datapaths import arp_frame, discovery_frame, icmpv6, ipv4, ipv6, neighbour_message, udp

OURS, MEMBER, VICTIM = (bytes([2, 0, 0, 0, 0, n]) for n in (1, 2, 3))
OUR_IP, MEMBER_IP, VICTIM_IP = (IPv4Address(f"10.200.0.{n}") for n in (1, 2, 3))
OUR_IP6, MEMBER_IP6, VICTIM_IP6 = (IPv6Address(f"fd6f:6d6e:6900::{n}") for n in (1, 2, 3))
MEMBER_LL, VICTIM_LL = eui64_link_local(MEMBER), eui64_link_local(VICTIM)
ALL_NODES, UNSPECIFIED = IPv6Address("ff02::1"), IPv6Address("::")
UDP = udp(b"x")
TAG = bytes.fromhex("8100002a")


def v4(source: IPv4Address, payload: bytes = UDP, protocol: int = 17, destination: bytes = OURS) -> bytes:
    return build_ethernet(destination, MEMBER, ETHERTYPE_IPV4, ipv4(source, OUR_IP, payload, protocol))


def v6(source: IPv6Address, payload: bytes = UDP, protocol: int = 17) -> bytes:
    return build_ethernet(OURS, MEMBER, ETHERTYPE_IPV6, ipv6(source, OUR_IP6, payload, protocol))


def nd(message: bytes, source: IPv6Address = MEMBER_IP6, destination: IPv6Address = ALL_NODES) -> bytes:
    return discovery_frame(MEMBER, message, source, destination)


def advertisement(target: IPv6Address, mac: bytes | None = MEMBER) -> bytes:
    return nd(neighbour_message(NEIGHBOUR_ADVERTISEMENT, target, mac))


def solicit(target: IPv6Address, mac: bytes | None = MEMBER, source: IPv6Address = MEMBER_IP6) -> bytes:
    return nd(neighbour_message(NEIGHBOUR_SOLICITATION, target, mac), source)


ALLOWED = {
    "IPv4 from its VIP": v4(MEMBER_IP),
    "IPv4 from 0.0.0.0 (DHCP)": v4(IPv4Address(0), destination=BROADCAST_MAC),
    "IPv4 with options": v4(MEMBER_IP)[:14] + b"\x46" + v4(MEMBER_IP)[15:34] + bytes(4) + v4(MEMBER_IP)[34:],
    "ICMP echo": v4(MEMBER_IP, b"\x08" + bytes(7), PROTOCOL_ICMP),
    "IPv6 from its ULA": v6(MEMBER_IP6),
    "IPv6 from its link-local": v6(MEMBER_LL),
    "IPv6 from the unspecified address": v6(UNSPECIFIED),
    "multicast": v4(MEMBER_IP, destination=bytes.fromhex("01005e0000fb")),
    "ARP request": arp_frame(ARP_REQUEST, (MEMBER, MEMBER_IP), (bytes(6), OUR_IP)),
    "ARP reply": arp_frame(ARP_REPLY, (MEMBER, MEMBER_IP), (OURS, OUR_IP), OURS),
    "ARP probe": arp_frame(ARP_REQUEST, (MEMBER, IPv4Address(0)), (bytes(6), MEMBER_IP)),
    "gratuitous ARP for its own address": arp_frame(ARP_REQUEST, (MEMBER, MEMBER_IP), (bytes(6), MEMBER_IP)),
    "advertisement of its ULA": advertisement(MEMBER_IP6),
    "advertisement of its link-local": advertisement(MEMBER_LL),
    "advertisement without MAC": advertisement(MEMBER_IP6, None),
    "solicitation of anybody": solicit(VICTIM_IP6),
    "duplicate detection of its own": solicit(MEMBER_LL, None, UNSPECIFIED),
    "router solicitation": nd(b"\x85" + bytes(7) + b"\x01\x01" + MEMBER, MEMBER_LL),
    "echo request": nd(b"\x80" + bytes(7)),
    "a later fragment": v6(MEMBER_IP6, struct.pack(">BBHI", PROTOCOL_ICMPV6, 0, 5 << 3, 1) + b"\x86", 44),
    "raw ethertype": build_ethernet(OURS, MEMBER, 0x88B5, b"anything"),
    "802.3 length": build_ethernet(OURS, MEMBER, 3, b"llc"),
    "nothing behind the header": build_ethernet(OURS, MEMBER, 0x88B5, b""),
}

REFUSED = {
    "foreign source MAC": ("source_guard", build_ethernet(OURS, VICTIM, 0x88B5, b"x")),
    "our own MAC as source": ("source_guard", build_ethernet(BROADCAST_MAC, OURS, 0x88B5, b"x")),
    "unicast for a third machine": ("destination_guard", build_ethernet(VICTIM, MEMBER, 0x88B5, b"x")),
    "IPv4 of a third machine": ("source_guard", v4(VICTIM_IP)),
    "IPv4 of ours": ("source_guard", v4(OUR_IP)),
    "IPv4 loopback": ("source_guard", v4(IPv4Address("127.0.0.1"))),
    "IPv6 of a third machine": ("source_guard", v6(VICTIM_IP6)),
    "IPv6 link-local of a third machine": ("source_guard", v6(VICTIM_LL)),
    "IPv6 multicast source": ("source_guard", v6(ALL_NODES)),
    "ARP for another's address": ("source_guard", arp_frame(ARP_REPLY, (MEMBER, VICTIM_IP), (OURS, OUR_IP), OURS)),
    "ARP with another's MAC": (
        "source_guard",
        build_ethernet(OURS, MEMBER, ETHERTYPE_ARP, arp_frame(ARP_REPLY, (VICTIM, MEMBER_IP), (OURS, OUR_IP))[14:]),
    ),
    "gratuitous ARP for another": ("source_guard", arp_frame(ARP_REQUEST, (MEMBER, VICTIM_IP), (bytes(6), VICTIM_IP))),
    "advertisement for another": ("source_guard", advertisement(VICTIM_IP6)),
    "advertisement with another's MAC": ("source_guard", advertisement(MEMBER_IP6, VICTIM)),
    "solicitation with another's MAC": ("source_guard", solicit(OUR_IP6, VICTIM)),
    "duplicate detection against another": ("source_guard", solicit(VICTIM_LL, None, UNSPECIFIED)),
    "router solicitation with another's MAC": ("source_guard", nd(b"\x85" + bytes(7) + b"\x01\x01" + VICTIM)),
    "router advertisement": ("router_advertisement", nd(b"\x86" + bytes(15), MEMBER_LL)),
    "router advertisement behind hop-by-hop options": (
        "router_advertisement",
        v6(MEMBER_LL, bytes([PROTOCOL_ICMPV6, 0]) + bytes(6) + b"\x86" + bytes(15), 0),
    ),
    "router advertisement in a first fragment": (
        "router_advertisement",
        v6(MEMBER_LL, struct.pack(">BBHI", PROTOCOL_ICMPV6, 0, 1, 1) + b"\x86" + bytes(15), 44),
    ),
    "fragmented advertisement": (
        "source_guard",
        v6(
            MEMBER_LL,
            struct.pack(">BBHI", PROTOCOL_ICMPV6, 0, 1, 1) + neighbour_message(NEIGHBOUR_ADVERTISEMENT, MEMBER_IP6),
            44,
        ),
    ),
    "ICMPv6 redirect": ("redirect", nd(b"\x89" + bytes(39), MEMBER_LL)),
    "ICMP redirect": ("redirect", v4(MEMBER_IP, b"\x05" + bytes(27), PROTOCOL_ICMP)),
}

UNPARSABLE = {
    "shorter than a header": OURS + MEMBER + b"\x08",
    "three tags": build_ethernet(OURS, MEMBER, 0x88B5, b"x", TAG * 3),
    "IPv4 cut short": v4(MEMBER_IP)[:-1],
    "IPv6 under the ethertype of IPv4": build_ethernet(OURS, MEMBER, ETHERTYPE_IPV4, v6(MEMBER_IP6)[14:]),
    "IPv4 under the ethertype of IPv6": build_ethernet(OURS, MEMBER, ETHERTYPE_IPV6, v4(MEMBER_IP)[14:]),
    "ARP cut short": arp_frame(ARP_REPLY, (MEMBER, MEMBER_IP), (OURS, OUR_IP), OURS)[:-1],
    "ICMPv6 of no bytes": v6(MEMBER_IP6, b"", PROTOCOL_ICMPV6),
    "advertisement cut short": v6(MEMBER_IP6, b"\x88" + bytes(20), PROTOCOL_ICMPV6),
    "header chain cut short": v6(MEMBER_IP6, b"\x3a", 0),
}


@pytest.fixture
def guard() -> SourceGuard:
    return SourceGuard(OURS, MEMBER, (MEMBER_IP, MEMBER_IP6))


@pytest.mark.parametrize("tags", [b"", TAG, TAG * 2], ids=["untagged", "tagged", "twice"])
@pytest.mark.parametrize("frame", ALLOWED.values(), ids=ALLOWED.keys())
def test_a_member_may_send(guard: SourceGuard, frame: bytes, tags: bytes) -> None:
    guard.check(frame[:12] + tags + frame[12:])


@pytest.mark.parametrize("tags", [b"", TAG, TAG * 2], ids=["untagged", "tagged", "twice"])
@pytest.mark.parametrize(("reason", "frame"), REFUSED.values(), ids=REFUSED.keys())
def test_a_member_may_not_send(guard: SourceGuard, reason: str, frame: bytes, tags: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        guard.check(frame[:12] + tags + frame[12:])
    assert caught.value.reason == reason


@pytest.mark.parametrize("frame", UNPARSABLE.values(), ids=UNPARSABLE.keys())
def test_what_cannot_be_checked_is_refused(guard: SourceGuard, frame: bytes) -> None:
    with pytest.raises(DecodeError):
        guard.check(frame)


def test_a_refused_mac_names_the_bridged_lan(guard: SourceGuard) -> None:
    with pytest.raises(RemoteError, match="bridged LAN"):
        guard.check(REFUSED["foreign source MAC"][1])


def test_a_single_check_follows_the_same_rules() -> None:
    check_frame(ALLOWED["ARP reply"], MEMBER, (MEMBER_IP,), OURS)
    with pytest.raises(RemoteError):
        check_frame(ALLOWED["ARP reply"], MEMBER, (VICTIM_IP,), OURS)


def test_a_routed_peer_sends_ip_but_speaks_not_about_our_link() -> None:
    assert check_routed_packet(ipv4(MEMBER_IP, OUR_IP, UDP)).source == MEMBER_IP.packed
    check_routed_packet(icmpv6(MEMBER_IP6, OUR_IP6, b"\x80" + bytes(7)))
    for kind, reason in (
        (133, "source_guard"),
        (134, "router_advertisement"),
        (136, "source_guard"),
        (137, "redirect"),
    ):
        with pytest.raises(RemoteError) as caught:
            check_routed_packet(icmpv6(MEMBER_IP6, OUR_IP6, bytes([kind]) + bytes(40)))
        assert caught.value.reason == reason
    with pytest.raises(RemoteError):
        check_routed_packet(ipv4(MEMBER_IP, OUR_IP, b"\x05" + bytes(27), PROTOCOL_ICMP))
