"""What a transport message holds once it is opened: the first plaintext byte is its kind.

::

    (nothing)                              keepalive
    +------+---------------------------+
    | 0x01 | Ethernet frame            |   ETHERNET
    +------+---------------------------+
    | 0x02 | Ethernet frame            |   ETHERNET_PARTIAL: the TCP or UDP checksum field holds only the
    +------+---------------------------+                     pseudo-header sum; the receiver completes it
    | 0x03 | flags | offset | id | ... |   FRAGMENT: a piece of another payload, see `Fragment`
    +------+------+----------------------+
    | 0x04 | type | TLVs                 |   CONTROL
    +------+------+----------------------+
    | 0x05 | ...                       |   RELAYED: reserved, dropped
    +------+---------------------------+
    | 0x4_, 0x6_ raw IP packet         |   stock WireGuard peers only; there is no kind byte, it is the IP version
    +----------------------------------+

A fragment, 8 bytes of header in network byte order::

     0      1       2               4                       8
    +------+-------+---------------+-----------------------+----------------------------------+
    | 0x03 | flags | offset (u16)  | id (u32)              | bytes of a payload, from `offset` |
    +------+-------+---------------+-----------------------+----------------------------------+

Flags: bit 0 = this is the last fragment; the other bits are sent as 0 and ignored. The bytes start, at offset 0, with
the kind byte of the whole payload. A fragment of a fragment is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from omninervous.errors import DecodeError

__all__ = [
    "FRAGMENT_HEADER_SIZE",
    "KIND_SIZE",
    "MAX_PAYLOAD",
    "Fragment",
    "PayloadKind",
    "decode_fragment",
    "is_raw_ip",
]

KIND_SIZE = 1
FRAGMENT_HEADER_SIZE = 8
MAX_PAYLOAD = 0xFFFF
"""Largest payload that fragments can carry: offsets are 16 bits and no fragment ends beyond it."""

_FRAGMENT_HEADER = struct.Struct(">BBHI")
_LAST = 0x01


class PayloadKind(IntEnum):
    """First plaintext byte of a type-4 message."""

    ETHERNET = 0x01
    ETHERNET_PARTIAL = 0x02
    FRAGMENT = 0x03
    CONTROL = 0x04
    RELAYED = 0x05


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a payload. `id` joins the pieces of one payload; `data` is never empty."""

    id: int
    offset: int
    last: bool
    data: bytes

    def encode(self) -> bytes:
        """The payload, kind byte included."""
        flags = _LAST if self.last else 0
        return _FRAGMENT_HEADER.pack(PayloadKind.FRAGMENT, flags, self.offset, self.id) + self.data


def decode_fragment(payload: bytes) -> Fragment:
    """The fragment in a payload of kind FRAGMENT. DecodeError if it is empty or ends beyond `MAX_PAYLOAD`."""
    if len(payload) <= FRAGMENT_HEADER_SIZE:
        raise DecodeError(f"fragment of {len(payload)} bytes holds nothing")
    kind, flags, offset, fragment_id = _FRAGMENT_HEADER.unpack_from(payload)
    if kind != PayloadKind.FRAGMENT:
        raise DecodeError(f"payload kind {kind:#04x} is not a fragment")
    data = payload[FRAGMENT_HEADER_SIZE:]
    if offset + len(data) > MAX_PAYLOAD:
        raise DecodeError(f"fragment ends at {offset + len(data)}, beyond {MAX_PAYLOAD}")
    return Fragment(fragment_id, offset, bool(flags & _LAST), data)


def is_raw_ip(kind: int) -> bool:
    """True if a first plaintext byte is the version nibble of an IPv4 or IPv6 packet."""
    return kind >> 4 in (4, 6)
