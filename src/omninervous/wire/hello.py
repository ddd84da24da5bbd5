"""HELLO and HELLO_REPLY: how an edge learns the identity of a Nucleus that it knows only by address.

HELLO, 64 bytes (padded, so that the answer is smaller than the question)::

     0          1          4             20                     64
    +----------+----------+-------------+----------------------+
    | type = 5 | 3 x zero | nonce 16    | 44 x zero            |
    +----------+----------+-------------+----------------------+

HELLO_REPLY, 56 bytes::

     0          1          4             20                 52       53       54         56
    +----------+----------+-------------+------------------+--------+--------+----------+
    | type = 6 | 3 x zero | nonce 16    | Ed25519 key 32   | min v. | max v. | 2 x zero |
    +----------+----------+-------------+------------------+--------+--------+----------+

Neither is authenticated: the key is pinned on first use and proven by the handshake that follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from omninervous.errors import DecodeError
from omninervous.wire.control import OUR_VERSIONS, Versions, decode_versions
from omninervous.wire.handshake import MessageType

__all__ = [
    "HELLO_REPLY_SIZE",
    "HELLO_SIZE",
    "NONCE_SIZE",
    "Hello",
    "HelloReply",
    "decode_hello",
    "decode_hello_reply",
]

HELLO_SIZE = 64
HELLO_REPLY_SIZE = 56
NONCE_SIZE = 16

_HELLO_HEAD = bytes((MessageType.HELLO, 0, 0, 0))
_REPLY_HEAD = bytes((MessageType.HELLO_REPLY, 0, 0, 0))
_NONCE = slice(4, 4 + NONCE_SIZE)
_IDENTITY = slice(20, 52)
_VERSIONS = slice(52, 54)


@dataclass(frozen=True, slots=True)
class Hello:
    """Asks a Nucleus who it is."""

    nonce: bytes
    """16 random bytes that the reply returns."""

    def encode(self) -> bytes:
        """The datagram."""
        return (_HELLO_HEAD + self.nonce).ljust(HELLO_SIZE, b"\0")


@dataclass(frozen=True, slots=True)
class HelloReply:
    """Says who the Nucleus is."""

    nonce: bytes
    identity: bytes
    """Its Ed25519 public key."""
    versions: Versions = OUR_VERSIONS

    def encode(self) -> bytes:
        """The datagram."""
        return _REPLY_HEAD + self.nonce + self.identity + bytes(self.versions) + bytes(2)


def decode_hello(data: bytes) -> Hello:
    """The HELLO in exactly these bytes, or DecodeError."""
    if len(data) != HELLO_SIZE or data[:4] != _HELLO_HEAD or any(data[_NONCE.stop :]):
        raise DecodeError("no HELLO")
    return Hello(data[_NONCE])


def decode_hello_reply(data: bytes) -> HelloReply:
    """The HELLO_REPLY in exactly these bytes, or DecodeError."""
    if len(data) != HELLO_REPLY_SIZE or data[:4] != _REPLY_HEAD or any(data[_VERSIONS.stop :]):
        raise DecodeError("no HELLO_REPLY")
    return HelloReply(data[_NONCE], data[_IDENTITY], decode_versions(data[_VERSIONS]))
