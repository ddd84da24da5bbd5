"""Frames and the padded packets of stock WireGuard peers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from omninervous.core.routed import frame_to_plaintext, plaintext_to_frame
from omninervous.errors import DecodeError
from omninervous.wire.frame import ETHERTYPE_IPV4, ETHERTYPE_IPV6, build_ethernet, decode_ip
from tests.datapaths import ipv4, ipv6, udp

OURS, PEER = bytes([2, 0, 0, 0, 0, 1]), bytes([2, 0, 0, 0, 0, 2])
IP, PEER_IP = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")
IP6, PEER_IP6 = IPv6Address("fd00::1"), IPv6Address("fd00::2")


@pytest.mark.parametrize("size", [0, 3, 4, 5, 100])
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_goes_out_padded_and_comes_in_trimmed(version: int, size: int) -> None:
    data = udp(bytes(size))
    packet = ipv4(IP, PEER_IP, data) if version == 4 else ipv6(IP6, PEER_IP6, data)
    ethertype = ETHERTYPE_IPV4 if version == 4 else ETHERTYPE_IPV6
    destination, plaintext = frame_to_plaintext(build_ethernet(PEER, OURS, ethertype, packet))
    assert destination == (PEER_IP.packed if version == 4 else PEER_IP6.packed)
    assert len(plaintext) % 16 == 0
    assert plaintext == packet + bytes(len(plaintext) - len(packet))
    assert plaintext_to_frame(plaintext, decode_ip(plaintext), PEER, OURS) == build_ethernet(
        PEER, OURS, ethertype, packet
    )


def test_tagged_and_other_frames_have_no_packet() -> None:
    packet = ipv4(IP, PEER_IP, udp(b""))
    for frame in (
        build_ethernet(PEER, OURS, ETHERTYPE_IPV4, packet, bytes.fromhex("8100002a")),
        build_ethernet(PEER, OURS, ETHERTYPE_IPV6, packet),
        build_ethernet(PEER, OURS, 0x88B5, packet),
        build_ethernet(PEER, OURS, ETHERTYPE_IPV4, packet[:-1]),
    ):
        with pytest.raises(DecodeError):
            frame_to_plaintext(frame)
