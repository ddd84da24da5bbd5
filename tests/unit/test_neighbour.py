"""Neighbour solicitations and advertisements."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.frame import build_ethernet, decode_ip, internet_checksum, pseudo_header_sum
from omninervous.wire.neighbour import (
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    build_neighbour_advertisement,
    decode_neighbour,
    link_layer_options,
)
from tests.datapaths import discovery_frame, neighbour_message

MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IP_A, IP_B = IPv6Address("fd6f:6d6e:6900::1"), IPv6Address("fd6f:6d6e:6900::2")
SOLICITED_NODE = IPv6Address("ff02::1:ff00:2")
UNSPECIFIED = IPv6Address("::")


def solicitation(source: IPv6Address = IP_A) -> bytes:
    link_address = None if source == UNSPECIFIED else MAC_A
    return discovery_frame(MAC_A, neighbour_message(NEIGHBOUR_SOLICITATION, IP_B, link_address), source, SOLICITED_NODE)


def checksum_is_right(frame: bytes) -> bool:
    packet = decode_ip(frame, 14)
    return internet_checksum(frame[packet.upper_offset : packet.end], pseudo_header_sum(packet)) == 0


def test_a_solicitation_is_read() -> None:
    message = decode_neighbour(solicitation())
    assert (message.type, message.source, message.destination) == (NEIGHBOUR_SOLICITATION, IP_A, SOLICITED_NODE)
    assert (message.target, message.link_addresses, message.solicited) == (IP_B, (MAC_A,), False)


def test_a_solicitation_is_answered_to_its_sender() -> None:
    frame = build_neighbour_advertisement(solicitation(), MAC_B)
    message = decode_neighbour(frame)
    assert frame[:12] == MAC_A + MAC_B
    assert (message.type, message.source, message.destination) == (NEIGHBOUR_ADVERTISEMENT, IP_B, IP_A)
    assert (message.target, message.link_addresses, message.solicited) == (IP_B, (MAC_B,), True)
    assert frame[14 + 7] == 255, "hop limit"
    assert checksum_is_right(frame)


def test_duplicate_address_detection_is_answered_to_all_nodes() -> None:
    frame = build_neighbour_advertisement(solicitation(UNSPECIFIED), MAC_B)
    message = decode_neighbour(frame)
    assert frame[:6].hex() == "333300000001"
    assert (message.destination, message.solicited) == (IPv6Address("ff02::1"), False)
    assert checksum_is_right(frame)


def test_an_answer_stays_in_the_vlan_of_its_question() -> None:
    asked = solicitation()
    tagged = asked[:12] + bytes.fromhex("8100002a") + asked[12:]
    assert build_neighbour_advertisement(tagged, MAC_B)[12:16].hex() == "8100002a"


def test_what_is_no_solicitation_is_not_answered() -> None:
    for frame in (
        build_neighbour_advertisement(solicitation(), MAC_B),
        build_ethernet(MAC_B, MAC_A, 0x88B5, b"x" * 80),
    ):
        with pytest.raises(DecodeError):
            build_neighbour_advertisement(frame, MAC_B)


def test_every_truncation_is_refused() -> None:
    whole = solicitation()
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_neighbour(whole[:size])


def test_options_of_length_zero_or_cut_short_are_refused() -> None:
    assert link_layer_options(b"\x05\x01" + bytes(6) + b"\x01\x01" + MAC_A) == (MAC_A,)
    for options in (b"\x01", b"\x01\x00" + bytes(6), b"\x01\x02" + bytes(8)):
        with pytest.raises(DecodeError):
            link_layer_options(options)
