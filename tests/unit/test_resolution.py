"""Which local frames are questions, which are announcements."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from omninervous.core.resolution import Resolution, classify_local
from omninervous.wire.frame import ARP_REPLY, ARP_REQUEST, ETHERTYPE_IPV4, build_ethernet
from omninervous.wire.neighbour import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION
from tests.datapaths import arp_frame, discovery_frame, ipv4, neighbour_message, udp

OURS, PEER = bytes([2, 0, 0, 0, 0, 1]), bytes([2, 0, 0, 0, 0, 2])
IP, PEER_IP = IPv4Address("10.200.0.1"), IPv4Address("10.200.0.2")
IP6, PEER_IP6, ALL_NODES = IPv6Address("fd00::1"), IPv6Address("fd00::2"), IPv6Address("ff02::1")
SOLICITATION = neighbour_message(NEIGHBOUR_SOLICITATION, PEER_IP6, OURS)
ADVERTISEMENT = neighbour_message(NEIGHBOUR_ADVERTISEMENT, IP6, OURS)

FRAMES = {
    "ARP request": (Resolution.QUESTION, arp_frame(ARP_REQUEST, (OURS, IP), (bytes(6), PEER_IP))),
    "unicast ARP request": (Resolution.QUESTION, arp_frame(ARP_REQUEST, (OURS, IP), (PEER, PEER_IP), PEER)),
    "ARP probe": (Resolution.QUESTION, arp_frame(ARP_REQUEST, (OURS, IPv4Address(0)), (bytes(6), IP))),
    "gratuitous ARP request": (Resolution.ANNOUNCEMENT, arp_frame(ARP_REQUEST, (OURS, IP), (bytes(6), IP))),
    "gratuitous ARP reply": (Resolution.ANNOUNCEMENT, arp_frame(ARP_REPLY, (OURS, IP), (OURS, IP))),
    "ARP reply to everybody": (Resolution.ANNOUNCEMENT, arp_frame(ARP_REPLY, (OURS, IP), (PEER, PEER_IP))),
    "ARP reply to one": (Resolution.NONE, arp_frame(ARP_REPLY, (OURS, IP), (PEER, PEER_IP), PEER)),
    "solicitation": (Resolution.QUESTION, discovery_frame(OURS, SOLICITATION, IP6, ALL_NODES)),
    "unicast solicitation": (Resolution.QUESTION, discovery_frame(OURS, SOLICITATION, IP6, PEER_IP6, PEER)),
    "advertisement to everybody": (Resolution.ANNOUNCEMENT, discovery_frame(OURS, ADVERTISEMENT, IP6, ALL_NODES)),
    "advertisement to one": (Resolution.NONE, discovery_frame(OURS, ADVERTISEMENT, IP6, PEER_IP6, PEER)),
    "echo request": (Resolution.NONE, discovery_frame(OURS, b"\x80" + bytes(7), IP6, PEER_IP6, PEER)),
    "IPv4": (Resolution.NONE, build_ethernet(PEER, OURS, ETHERTYPE_IPV4, ipv4(IP, PEER_IP, udp(b"")))),
    "nothing behind the header": (Resolution.NONE, build_ethernet(PEER, OURS, 0x86DD, b"")),
    "ARP cut short": (Resolution.NONE, arp_frame(ARP_REQUEST, (OURS, IP), (bytes(6), PEER_IP))[:30]),
}


@pytest.mark.parametrize("tag", [b"", bytes.fromhex("8100002a")], ids=["untagged", "tagged"])
@pytest.mark.parametrize(("what", "frame"), FRAMES.values(), ids=FRAMES.keys())
def test_a_frame_is_told_apart(what: Resolution, frame: bytes, tag: bytes) -> None:
    assert classify_local(frame[:12] + tag + frame[12:]) is what
