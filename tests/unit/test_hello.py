"""HELLO and HELLO_REPLY."""

from __future__ import annotations

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.control import Versions
from omninervous.wire.hello import Hello, HelloReply, decode_hello, decode_hello_reply

HELLO = Hello(bytes(range(16))).encode()
REPLY = HelloReply(bytes(range(16)), b"\xee" * 32, Versions(1, 2)).encode()


def test_the_reply_is_smaller_than_the_question() -> None:
    assert (len(HELLO), len(REPLY)) == (64, 56)


def test_bytes_are_where_the_document_draws_them() -> None:
    assert b"\x05\0\0\0" + bytes(range(16)) + bytes(44) == HELLO
    assert b"\x06\0\0\0" + bytes(range(16)) + b"\xee" * 32 + b"\x01\x02\0\0" == REPLY


def test_padding_and_reserved_bytes_are_zero() -> None:
    for position in (*range(4), *range(20, 64)):
        data = bytearray(HELLO)
        data[position] ^= 0x80
        with pytest.raises(DecodeError):
            decode_hello(bytes(data))
    for position in (*range(4), 54, 55):
        data = bytearray(REPLY)
        data[position] ^= 0x80
        with pytest.raises(DecodeError):
            decode_hello_reply(bytes(data))
