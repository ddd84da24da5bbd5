"""Every decoder of payloads and frames: arbitrary bytes give an object or DecodeError; what is built is read back."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.guard import SourceGuard, check_routed_packet
from omninervous.core.resolution import classify_local
from omninervous.core.routed import frame_to_plaintext
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.frame import (
    ARP_REPLY,
    ARP_REQUEST,
    ArpPacket,
    build_arp_reply,
    build_ethernet,
    complete_checksum,
    decode_arp,
    decode_ip,
    internet_checksum,
    network_header,
    pseudo_header_sum,
)
from omninervous.wire.neighbour import (
    NEIGHBOUR_SOLICITATION,
    build_neighbour_advertisement,
    decode_neighbour,
    link_layer_options,
)
from omninervous.wire.payload import MAX_PAYLOAD, Fragment, decode_fragment
from tests.datapaths import arp_frame, discovery_frame, icmpv6, ipv4, ipv6, neighbour_message, tcp, udp

MACS = st.binary(min_size=6, max_size=6)
IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6)
TAGS = st.lists(st.sampled_from([bytes.fromhex("8100002a"), bytes.fromhex("88a80064")]), max_size=3).map(b"".join)

OURS, MEMBER = bytes([2, 0, 0, 0, 0, 1]), bytes([2, 0, 0, 0, 0, 2])
VIP, ULA = IPv4Address("10.200.0.2"), IPv6Address("fd6f:6d6e:6900::2")
OUR_VIP, OUR_ULA = IPv4Address("10.200.0.1"), IPv6Address("fd6f:6d6e:6900::1")
GUARD = SourceGuard(OURS, MEMBER, (VIP, ULA))

DECODERS: dict[str, Callable[[bytes], object]] = {
    "decode_fragment": decode_fragment,
    "network_header": network_header,
    "decode_arp": decode_arp,
    "build_arp_reply": lambda data: build_arp_reply(data, OURS),
    "decode_ip": decode_ip,
    "complete_checksum": complete_checksum,
    "decode_neighbour": decode_neighbour,
    "link_layer_options": link_layer_options,
    "build_neighbour_advertisement": lambda data: build_neighbour_advertisement(data, OURS),
    "frame_to_plaintext": frame_to_plaintext,
    "check_routed_packet": check_routed_packet,
    "guard": GUARD.check,
}

SOUND_FRAMES = [
    build_ethernet(OURS, MEMBER, 0x0800, ipv4(VIP, OUR_VIP, udp(b"x"))),
    build_ethernet(OURS, MEMBER, 0x0800, ipv4(VIP, OUR_VIP, tcp(b"x"), 6)),
    build_ethernet(OURS, MEMBER, 0x0800, ipv4(VIP, OUR_VIP, b"\x08" + bytes(8), 1)),
    build_ethernet(OURS, MEMBER, 0x86DD, ipv6(ULA, OUR_ULA, b"\x3a\0" + bytes(6) + b"\x80" + bytes(7), 0)),
    build_ethernet(OURS, MEMBER, 0x86DD, ipv6(ULA, OUR_ULA, tcp(b"x"), 6)),
    build_ethernet(OURS, MEMBER, 0x86DD, icmpv6(ULA, OUR_ULA, b"\x80" + bytes(7))),
    arp_frame(ARP_REQUEST, (MEMBER, VIP), (bytes(6), OUR_VIP)),
    discovery_frame(MEMBER, neighbour_message(NEIGHBOUR_SOLICITATION, OUR_ULA, MEMBER), ULA, IPv6Address("ff02::1")),
]


@st.composite
def damaged_frames(draw: st.DrawFn) -> bytes:
    """A sound frame, tagged or not, with a few bytes changed, perhaps cut or lengthened."""
    sound = draw(st.sampled_from(SOUND_FRAMES))
    frame = bytearray(sound[:12] + draw(TAGS) + sound[12:])
    for position in draw(st.lists(st.integers(0, len(frame) - 1), max_size=3)):
        frame[position] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(frame)))
    return bytes(frame if draw(st.booleans()) else frame[:cut]) + draw(st.binary(max_size=8))


ARBITRARY = st.one_of(st.binary(max_size=200), damaged_frames(), damaged_frames().map(lambda frame: frame[14:]))


@pytest.mark.parametrize("name", DECODERS)
@given(data=ARBITRARY)
def test_arbitrary_bytes_give_an_object_or_the_error_type(name: str, data: bytes) -> None:
    try:
        DECODERS[name](data)
    except DecodeError:
        pass
    except RemoteError:
        assert name in ("guard", "check_routed_packet")


@given(damaged_frames())
def test_local_frames_are_always_classified(frame: bytes) -> None:
    if len(frame) >= 14:
        classify_local(frame)


def verdict(frame: bytes) -> str:
    try:
        GUARD.check(frame)
    except RemoteError as error:
        return error.reason
    except DecodeError:
        return "unparsable"
    return "allowed"


@given(damaged_frames())
def test_a_vlan_tag_hides_nothing_and_costs_nothing(frame: bytes) -> None:
    # The guard has a short way for untagged frames: it must come to the same end.
    if len(frame) >= 14 and frame[12:14] not in (b"\x81\x00", b"\x88\xa8"):
        assert verdict(frame) == verdict(frame[:12] + bytes.fromhex("8100002a") + frame[12:])


@given(
    st.builds(
        Fragment,
        st.integers(0, 2**32 - 1),
        st.integers(0, MAX_PAYLOAD - 64),
        st.booleans(),
        st.binary(min_size=1, max_size=64),
    )
)
def test_fragments_round_trip(fragment: Fragment) -> None:
    assert decode_fragment(fragment.encode()) == fragment


@given(
    st.builds(ArpPacket, st.integers(0, 0xFFFF), MACS, IPV4, MACS, IPV4), MACS, TAGS.filter(lambda tags: len(tags) <= 8)
)
def test_arp_round_trips(packet: ArpPacket, destination: bytes, tags: bytes) -> None:
    assert decode_arp(build_ethernet(destination, packet.sender_mac, 0x0806, packet.encode(), tags)) == packet


@given(MACS, IPV4, IPV4, MACS)
def test_an_arp_answer_answers(asker: bytes, asking: IPv4Address, asked: IPv4Address, mac: bytes) -> None:
    reply = decode_arp(build_arp_reply(arp_frame(ARP_REQUEST, (asker, asking), (bytes(6), asked)), mac))
    assert reply == ArpPacket(ARP_REPLY, mac, asked, asker, asking)


@given(MACS, IPV6, IPV6, MACS)
def test_a_neighbour_answer_answers(asker: bytes, asking: IPv6Address, asked: IPv6Address, mac: bytes) -> None:
    question = discovery_frame(
        asker, neighbour_message(NEIGHBOUR_SOLICITATION, asked, asker), asking, IPv6Address("ff02::1")
    )
    frame = build_neighbour_advertisement(question, mac)
    answer, packet = decode_neighbour(frame), decode_ip(frame, 14)
    assert (answer.target, answer.link_addresses, answer.source) == (asked, (mac,), asked)
    assert internet_checksum(frame[packet.upper_offset :], pseudo_header_sum(packet)) == 0


@given(st.binary(max_size=100), st.integers(0, 0xFFFF))
def test_the_checksum_is_that_of_the_plain_loop(data: bytes, initial: int) -> None:
    total = initial
    for position in range(0, len(data), 2):
        total += int.from_bytes(data[position : position + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert internet_checksum(data, initial) == ~total & 0xFFFF
