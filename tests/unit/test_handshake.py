"""Handshake messages: exact lengths, zero reserved bytes, fields where the drawing has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.handshake import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    RESPONSE_SIZE,
    CookieReply,
    Initiation,
    MessageType,
    Response,
    decode_cookie_reply,
    decode_initiation,
    decode_response,
)

Message = Initiation | Response | CookieReply
Decoder = Callable[[bytes], Message]

CASES: list[tuple[Decoder, Message, int]] = [
    (decode_initiation, Initiation(1, b"e" * 32, b"s" * 48, b"t" * 28, b"1" * 16, b"2" * 16), INITIATION_SIZE),
    (decode_response, Response(1, 2, b"e" * 32, b"n" * 16, b"1" * 16, b"2" * 16), RESPONSE_SIZE),
    (decode_cookie_reply, CookieReply(2, b"n" * 24, b"c" * 32), COOKIE_REPLY_SIZE),
]


@pytest.mark.parametrize(("decode", "message", "size"), CASES)
def test_a_message_survives_the_wire(decode: Decoder, message: Message, size: int) -> None:
    data = message.encode()
    assert len(data) == size
    assert decode(data) == message


@pytest.mark.parametrize(("decode", "message", "size"), CASES)
def test_any_other_length_is_refused(decode: Decoder, message: Message, size: int) -> None:
    data = message.encode() + b"\0"
    for length in (*range(size), size + 1):
        with pytest.raises(DecodeError):
            decode(data[:length])


@pytest.mark.parametrize(("decode", "message", "size"), CASES)
def test_another_type_or_a_reserved_byte_is_refused(decode: Decoder, message: Message, size: int) -> None:
    for position in range(4):
        data = bytearray(message.encode())
        data[position] ^= 0x40
        with pytest.raises(DecodeError):
            decode(bytes(data))


def test_fields_stand_where_the_drawing_has_them() -> None:
    initiation, response, cookie = (message.encode() for _, message, _ in CASES)
    assert initiation[:8].hex() == "0100000001000000"
    assert (initiation[8:40], initiation[40:88], initiation[88:116]) == (b"e" * 32, b"s" * 48, b"t" * 28)
    assert (initiation[116:132], initiation[132:]) == (b"1" * 16, b"2" * 16)
    assert response[:12].hex() == "020000000100000002000000"
    assert (response[12:44], response[44:60], response[60:76]) == (b"e" * 32, b"n" * 16, b"1" * 16)
    assert cookie[:8].hex() == "0300000002000000"
    assert (cookie[8:32], cookie[32:]) == (b"n" * 24, b"c" * 32)


def test_type_numbers_are_wireguards_and_then_ours() -> None:
    assert [(kind.value, kind.name) for kind in MessageType] == [
        (1, "INITIATION"),
        (2, "RESPONSE"),
        (3, "COOKIE_REPLY"),
        (4, "TRANSPORT"),
        (5, "HELLO"),
        (6, "HELLO_REPLY"),
    ]
