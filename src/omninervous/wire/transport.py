"""Transport data (type 4): WireGuard's header, whose counter's top four bits name a lane. Little-endian integers::

     0      1          4                8                          16                         n
    +------+----------+----------------+--------------------------+--------------------------+
    | 0x04 | 0  0  0  | receiver index | counter: u64             | sealed payload, then its |
    |      |          | u32            | lane 4 bits, sequence 60 | tag: 16                  |
    +------+----------+----------------+--------------------------+--------------------------+

The AEAD's nonce is four zero bytes and the counter field as it stands, the lane bits included. A stock WireGuard
peer counts from 0 and never gets past 2^60, so all that it sends is lane 0.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from omninervous.errors import DecodeError
from omninervous.wire.handshake import MessageType

__all__ = [
    "HEADER",
    "HEADER_SIZE",
    "LANE_BASE",
    "LANE_REFLEX",
    "LANE_SHIFT",
    "MIN_TRANSPORT_SIZE",
    "SEQUENCE_LIMIT",
    "SEQUENCE_MASK",
    "TAG_SIZE",
    "TransportHeader",
    "decode_header",
    "lane_of",
    "make_counter",
]

HEADER_SIZE = 16
TAG_SIZE = 16
MIN_TRANSPORT_SIZE = HEADER_SIZE + TAG_SIZE
"""A keepalive: an empty payload."""

LANE_BASE = 0
"""The transport keys themselves: the only lane that a stock peer knows."""
LANE_REFLEX = 8
"""The kernel's lane, and the highest; 1 to 7 are bulk queues, 9 to 15 do not exist."""

LANE_SHIFT = 60
SEQUENCE_MASK = (1 << LANE_SHIFT) - 1
SEQUENCE_LIMIT = (1 << LANE_SHIFT) - (1 << 13) - 1
"""First sequence number of a lane that is neither sent nor accepted (WireGuard's Reject-After-Messages, per lane)."""

HEADER = struct.Struct("<IIQ")
"""Type word, receiver index, counter: for code that cannot afford an object per packet."""


class TransportHeader(NamedTuple):
    """The 16 bytes before the sealed payload."""

    receiver_index: int
    counter: int

    def encode(self) -> bytes:
        """16 bytes."""
        return HEADER.pack(MessageType.TRANSPORT, self.receiver_index, self.counter)


def decode_header(data: bytes) -> TransportHeader:
    """Header of a whole transport datagram; DecodeError if it is shorter than a keepalive or of another type."""
    if len(data) < MIN_TRANSPORT_SIZE:
        raise DecodeError(f"transport datagram of {len(data)} bytes")
    kind, receiver_index, counter = HEADER.unpack_from(data)
    if kind != MessageType.TRANSPORT:
        raise DecodeError(f"transport datagram that starts with {bytes(data[:4]).hex()}")
    return TransportHeader(receiver_index, counter)


def lane_of(counter: int) -> int:
    """The lane that a counter field names, 0 to 15."""
    return counter >> LANE_SHIFT


def make_counter(lane: int, sequence: int) -> int:
    """The counter field of a lane's packet number `sequence` (< 2^60)."""
    return lane << LANE_SHIFT | sequence
