"""The transport header, and the lane in its counter."""

from __future__ import annotations

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.transport import (
    HEADER_SIZE,
    LANE_REFLEX,
    MIN_TRANSPORT_SIZE,
    SEQUENCE_LIMIT,
    TransportHeader,
    decode_header,
    lane_of,
    make_counter,
)

KEEPALIVE = TransportHeader(0x01020304, make_counter(LANE_REFLEX, 5)).encode() + bytes(16)


def test_the_header_survives_the_wire() -> None:
    assert KEEPALIVE[:HEADER_SIZE].hex() == "04000000040302010500000000000080"
    assert decode_header(KEEPALIVE) == TransportHeader(0x01020304, 8 << 60 | 5)


def test_anything_shorter_than_a_keepalive_is_refused() -> None:
    for length in range(MIN_TRANSPORT_SIZE):
        with pytest.raises(DecodeError):
            decode_header(KEEPALIVE[:length])


def test_another_type_or_a_reserved_byte_is_refused() -> None:
    for position in range(4):
        data = bytearray(KEEPALIVE)
        data[position] ^= 1
        with pytest.raises(DecodeError):
            decode_header(bytes(data))


@pytest.mark.parametrize("lane", range(16))
@pytest.mark.parametrize("sequence", [0, 1, SEQUENCE_LIMIT - 1, (1 << 60) - 1])
def test_lanes_do_not_overlap(lane: int, sequence: int) -> None:
    counter = make_counter(lane, sequence)
    assert lane_of(counter) == lane
    assert counter - make_counter(lane, 0) == sequence


def test_a_sequence_ends_before_wireguards_reject_after_messages() -> None:
    assert SEQUENCE_LIMIT == 2**60 - 2**13 - 1
    assert lane_of(make_counter(0, SEQUENCE_LIMIT)) == 0
