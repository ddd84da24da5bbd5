"""WireGuard's handshake messages (types 1 to 3), byte for byte. Integers are little-endian.

Initiation, 148 bytes::

     0      1          4              8               40                  88                     116      132      148
    +------+----------+--------------+---------------+-------------------+----------------------+--------+--------+
    | 0x01 | 0  0  0  | sender index | ephemeral: 32 | encrypted static: | encrypted timestamp: | mac1:  | mac2:  |
    |      |          | u32          |               | 32 + tag 16       | 12 + tag 16          | 16     | 16     |
    +------+----------+--------------+---------------+-------------------+----------------------+--------+--------+

Response, 92 bytes::

     0      1          4              8                12              44                   60        76        92
    +------+----------+--------------+----------------+---------------+--------------------+---------+---------+
    | 0x02 | 0  0  0  | sender index | receiver index | ephemeral: 32 | encrypted nothing: | mac1:   | mac2:   |
    |      |          | u32          | u32            |               | tag 16             | 16      | 16      |
    +------+----------+--------------+----------------+---------------+--------------------+---------+---------+

Cookie reply, 64 bytes::

     0      1          4                8           32                             64
    +------+----------+----------------+-----------+------------------------------+
    | 0x03 | 0  0  0  | receiver index | nonce: 24 | encrypted cookie: 16 + tag 16|
    |      |          | u32            |           |                              |
    +------+----------+----------------+-----------+------------------------------+

mac1 covers everything before it, mac2 everything before it (mac1 included). Source: the WireGuard paper, section 5.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from omninervous.errors import DecodeError

__all__ = [
    "COOKIE_REPLY_SIZE",
    "INITIATION_SIZE",
    "KEY_SIZE",
    "MAC_SIZE",
    "RESPONSE_SIZE",
    "TIMESTAMP_SIZE",
    "CookieReply",
    "Initiation",
    "MessageType",
    "Response",
    "decode_cookie_reply",
    "decode_initiation",
    "decode_response",
]

KEY_SIZE = 32
AEAD_TAG_SIZE = 16
MAC_SIZE = 16
TIMESTAMP_SIZE = 12
COOKIE_NONCE_SIZE = 24

INITIATION_SIZE = 148
RESPONSE_SIZE = 92
COOKIE_REPLY_SIZE = 64

# The type byte and its three zero bytes are read as one integer: a reserved byte that is not zero is another type.
_INITIATION = struct.Struct("<II32s48s28s16s16s")
_RESPONSE = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")


class MessageType(IntEnum):
    """First byte of every datagram."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    TRANSPORT = 4
    HELLO = 5
    HELLO_REPLY = 6


@dataclass(frozen=True, slots=True)
class Initiation:
    """First message of a handshake."""

    sender_index: int
    """The initiator's session index, u32."""
    ephemeral: bytes
    encrypted_static: bytes
    encrypted_timestamp: bytes
    mac1: bytes
    mac2: bytes

    def encode(self) -> bytes:
        """148 bytes."""
        return _INITIATION.pack(
            MessageType.INITIATION,
            self.sender_index,
            self.ephemeral,
            self.encrypted_static,
            self.encrypted_timestamp,
            self.mac1,
            self.mac2,
        )


@dataclass(frozen=True, slots=True)
class Response:
    """Second message of a handshake."""

    sender_index: int
    """The responder's session index, u32."""
    receiver_index: int
    """The `sender_index` of the initiation that this answers."""
    ephemeral: bytes
    encrypted_nothing: bytes
    mac1: bytes
    mac2: bytes

    def encode(self) -> bytes:
        """92 bytes."""
        return _RESPONSE.pack(
            MessageType.RESPONSE,
            self.sender_index,
            self.receiver_index,
            self.ephemeral,
            self.encrypted_nothing,
            self.mac1,
            self.mac2,
        )


@dataclass(frozen=True, slots=True)
class CookieReply:
    """A loaded host's answer to a handshake message: a cookie that proves the sender's address."""

    receiver_index: int
    """The `sender_index` of the message that this answers."""
    nonce: bytes
    encrypted_cookie: bytes

    def encode(self) -> bytes:
        """64 bytes."""
        return _COOKIE_REPLY.pack(MessageType.COOKIE_REPLY, self.receiver_index, self.nonce, self.encrypted_cookie)


def decode_initiation(data: bytes) -> Initiation:
    """The initiation in exactly these bytes; DecodeError for another length, type or reserved byte."""
    _check(data, MessageType.INITIATION, INITIATION_SIZE)
    return Initiation(*_INITIATION.unpack(data)[1:])


def decode_response(data: bytes) -> Response:
    """The response in exactly these bytes; DecodeError for another length, type or reserved byte."""
    _check(data, MessageType.RESPONSE, RESPONSE_SIZE)
    return Response(*_RESPONSE.unpack(data)[1:])


def decode_cookie_reply(data: bytes) -> CookieReply:
    """The cookie reply in exactly these bytes; DecodeError for another length, type or reserved byte."""
    _check(data, MessageType.COOKIE_REPLY, COOKIE_REPLY_SIZE)
    return CookieReply(*_COOKIE_REPLY.unpack(data)[1:])


def _check(data: bytes, kind: MessageType, size: int) -> None:
    if len(data) != size:
        raise DecodeError(f"{kind.name.lower()} of {len(data)} bytes, not {size}")
    if int.from_bytes(data[:4], "little") != kind:
        raise DecodeError(f"{kind.name.lower()} that starts with {bytes(data[:4]).hex()}")
