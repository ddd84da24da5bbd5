"""Ethernet, ARP and IP headers, checksums."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.frame import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST_MAC,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    ArpPacket,
    build_arp_reply,
    build_ethernet,
    complete_checksum,
    decode_arp,
    decode_ip,
    eui64_link_local,
    internet_checksum,
    network_header,
    pseudo_header_sum,
)
from tests.datapaths import arp_frame, ipv4, ipv6, partial, tcp, udp

MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IP_A, IP_B = IPv4Address("10.200.0.1"), IPv4Address("10.200.0.2")
IP6_A, IP6_B = IPv6Address("fd6f:6d6e:6900::1"), IPv6Address("fd6f:6d6e:6900::2")
TAG = bytes.fromhex("8100002a")
OUTER_TAG = bytes.fromhex("88a80064")


@pytest.mark.parametrize(("tags", "offset"), [(b"", 14), (TAG, 18), (OUTER_TAG + TAG, 22)])
def test_up_to_two_vlan_tags_are_passed_over(tags: bytes, offset: int) -> None:
    assert network_header(build_ethernet(MAC_B, MAC_A, 0x88B5, b"raw", tags)) == (0x88B5, offset)


def test_a_third_tag_and_every_cut_header_are_refused() -> None:
    whole = build_ethernet(MAC_B, MAC_A, 0x88B5, b"", OUTER_TAG + TAG)
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            network_header(whole[:size])
    with pytest.raises(DecodeError):
        network_header(build_ethernet(MAC_B, MAC_A, 0x88B5, b"", TAG * 3))


def test_eui64_link_local_matches_the_example_of_rfc_4291() -> None:
    # Appendix A: 34-56-78-9A-BC-DE with the universal bit inverted.
    assert eui64_link_local(bytes.fromhex("3456789abcde")) == IPv6Address("fe80::3656:78ff:fe9a:bcde")


# ---------------------------------------------------------------- ARP


def test_an_arp_request_is_read_and_answered() -> None:
    request = arp_frame(ARP_REQUEST, (MAC_A, IP_A), (bytes(6), IP_B))
    assert decode_arp(request) == ArpPacket(ARP_REQUEST, MAC_A, IP_A, bytes(6), IP_B)
    reply = build_arp_reply(request, MAC_B)
    assert reply == arp_frame(ARP_REPLY, (MAC_B, IP_B), (MAC_A, IP_A), destination=MAC_A)


def test_an_answer_stays_in_the_vlan_of_its_question() -> None:
    body = ArpPacket(ARP_REQUEST, MAC_A, IP_A, bytes(6), IP_B).encode()
    reply = build_arp_reply(build_ethernet(BROADCAST_MAC, MAC_A, ETHERTYPE_ARP, body, TAG), MAC_B)
    assert reply[12:16] == TAG
    assert decode_arp(reply).sender == IP_B


def test_a_reply_is_not_answered() -> None:
    with pytest.raises(DecodeError):
        build_arp_reply(arp_frame(ARP_REPLY, (MAC_A, IP_A), (MAC_B, IP_B)), MAC_B)


def test_gratuitous_means_that_the_sender_speaks_of_itself() -> None:
    assert decode_arp(arp_frame(ARP_REQUEST, (MAC_A, IP_A), (bytes(6), IP_A))).gratuitous
    assert not decode_arp(arp_frame(ARP_REQUEST, (MAC_A, IP_A), (bytes(6), IP_B))).gratuitous


def test_arp_cut_short_or_for_other_hardware_is_refused() -> None:
    request = arp_frame(ARP_REQUEST, (MAC_A, IP_A), (bytes(6), IP_B))
    for size in range(len(request)):
        with pytest.raises(DecodeError):
            decode_arp(request[:size])
    for offset in range(14, 20):
        bad = bytearray(request)
        bad[offset] ^= 1
        with pytest.raises(DecodeError):
            decode_arp(bytes(bad))
    assert decode_arp(request + bytes(18)) == decode_arp(request), "padding to 60 bytes is ignored"


# ---------------------------------------------------------------- IP


def test_ipv4_headers_are_found_behind_any_offset() -> None:
    packet = decode_ip(b"xx" + ipv4(IP_A, IP_B, udp(b"abc")) + b"padding", 2)
    assert (packet.version, packet.source, packet.destination) == (4, IP_A.packed, IP_B.packed)
    assert (packet.protocol, packet.upper_offset, packet.end) == (PROTOCOL_UDP, 22, 33)
    assert packet.first and not packet.fragment


@pytest.mark.parametrize(
    ("field", "fragment", "first"),
    [(0x4000, False, True), (0x2000, True, True), (0x2001, True, False), (1, True, False)],
)
def test_ipv4_fragments_are_recognised(field: int, fragment: bool, first: bool) -> None:
    data = bytearray(ipv4(IP_A, IP_B, udp(b"abc")))
    data[6:8] = field.to_bytes(2, "big")
    packet = decode_ip(bytes(data))
    assert (packet.fragment, packet.first) == (fragment, first)


def test_ipv4_lengths_that_do_not_fit_are_refused() -> None:
    packet = ipv4(IP_A, IP_B, udp(b"abc"))
    for size in range(len(packet)):
        with pytest.raises(DecodeError):
            decode_ip(packet[:size])
    for first_byte in (0x44, 0x4F, 0x55, 0x05):
        with pytest.raises(DecodeError):
            decode_ip(bytes([first_byte]) + packet[1:])


def extension(next_header: int, units: int = 0) -> bytes:
    return bytes([next_header, units]) + bytes(6 + 8 * units)


def fragment_header(next_header: int, offset: int, more: bool) -> bytes:
    return struct.pack(">BBHI", next_header, 0, offset << 3 | more, 99)


@pytest.mark.parametrize(
    ("payload", "protocol", "upper", "fragment", "first"),
    [
        (udp(b"x"), PROTOCOL_UDP, 40, False, True),
        (extension(60) + extension(17, 1) + udp(b"x"), 0, 64, False, True),
        (fragment_header(17, 0, True) + udp(b"x"), 44, 48, True, True),
        (fragment_header(17, 5, True) + b"rest", 44, 48, True, False),
        (fragment_header(17, 0, False) + udp(b"x"), 44, 48, False, True),  # atomic fragment, RFC 6946
        (bytes([17, 4]) + bytes(22) + udp(b"x"), 51, 64, False, True),  # authentication header counts in fours
    ],
)
def test_the_ipv6_header_chain_is_walked(
    payload: bytes, protocol: int, upper: int, fragment: bool, first: bool
) -> None:
    packet = decode_ip(ipv6(IP6_A, IP6_B, payload, protocol) + b"padding")
    assert (packet.source, packet.destination, packet.protocol) == (IP6_A.packed, IP6_B.packed, PROTOCOL_UDP)
    assert (packet.upper_offset, packet.fragment, packet.first) == (upper, fragment, first)
    assert packet.end == 40 + len(payload)


def test_an_ipv6_chain_cut_short_or_endless_is_refused() -> None:
    for payload in (b"", extension(17)[:7], extension(17, 3)[:20], extension(60) + b"\0"):
        with pytest.raises(DecodeError):
            decode_ip(ipv6(IP6_A, IP6_B, payload, 0))
    with pytest.raises(DecodeError):
        decode_ip(ipv6(IP6_A, IP6_B, extension(0) * 9, 0))
    whole = ipv6(IP6_A, IP6_B, udp(b"abc"))
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_ip(whole[:size])


# ---------------------------------------------------------------- checksums


def test_the_checksum_of_rfc_1071_section_3() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


def reference_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\x00\x01", b"odd", bytes(9)]
)
def test_sums_fold_as_ones_complement_does(data: bytes) -> None:
    assert internet_checksum(data) == ~reference_sum(data) & 0xFFFF


@pytest.mark.parametrize("tags", [b"", TAG])
@pytest.mark.parametrize(("protocol", "segment"), [(PROTOCOL_TCP, tcp(b"some data!!")), (PROTOCOL_UDP, udp(b"odd"))])
@pytest.mark.parametrize("version", [4, 6])
def test_a_partial_checksum_is_completed(version: int, protocol: int, segment: bytes, tags: bytes) -> None:
    packet = ipv4(IP_A, IP_B, segment, protocol) if version == 4 else ipv6(IP6_A, IP6_B, segment, protocol)
    ethertype = ETHERTYPE_IPV4 if version == 4 else ETHERTYPE_IPV6
    offset = 14 + len(tags)
    sealed = partial(build_ethernet(MAC_B, MAC_A, ethertype, packet, tags), offset)
    frame = complete_checksum(sealed)
    headers = decode_ip(frame, offset)
    over_everything = reference_sum(
        headers.source
        + headers.destination
        + struct.pack(">II", len(segment), protocol)
        + frame[headers.upper_offset :]
    )
    assert over_everything == 0xFFFF, "the receiver's check of RFC 1071"
    assert len(frame) == len(sealed)


def test_a_udp_checksum_never_becomes_zero() -> None:
    # Data chosen so that the sum over everything is 0xFFFF, whose complement would mean "no checksum".
    packet = decode_ip(ipv4(IP_A, IP_B, udp(bytes(2))))
    filler = ~reference_sum(struct.pack(">H", pseudo_header_sum(packet)) + udp(bytes(2))) & 0xFFFF
    frame = partial(build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV4, ipv4(IP_A, IP_B, udp(filler.to_bytes(2, "big")))))
    assert complete_checksum(frame)[40:42] == b"\xff\xff"


def test_a_partial_checksum_needs_one_whole_tcp_or_udp_packet() -> None:
    good = build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV4, ipv4(IP_A, IP_B, udp(b"x")))
    fragment = bytearray(good)
    fragment[20] |= 0x20
    bad = [
        good + b"\0",
        bytes(fragment),
        build_ethernet(MAC_B, MAC_A, 0x88B5, good[14:]),
        build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV6, good[14:]),
        build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV4, ipv4(IP_A, IP_B, bytes(20), 1)),
        build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV4, ipv4(IP_A, IP_B, udp(b"")[:7])),
        build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV4, ipv4(IP_A, IP_B, tcp(b"")[:19], PROTOCOL_TCP)),
    ]
    segment = tcp(b"1234")
    for words in (0, 4, 7, 15):  # a TCP header is 5 words at least, and ends inside the packet: here, with word 6
        cut = segment[:12] + bytes([words << 4]) + segment[13:]
        bad.append(build_ethernet(MAC_B, MAC_A, ETHERTYPE_IPV4, ipv4(IP_A, IP_B, cut, PROTOCOL_TCP)))
    complete_checksum(good)
    for frame in bad:
        with pytest.raises(DecodeError):
            complete_checksum(frame)
