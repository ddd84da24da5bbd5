"""Fields, and what holds for every message made of them: whole, cut at every byte, with bytes behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.tlv import CONTROL_KIND, FIELD_HEADER_SIZE, Field, Layout, split_control
from tests.wire_examples import EXAMPLES, Decoder, Message

NUMBER = Field(1, "number", 2, required=True)
TEXT = Field(3, "text", range(1, 4))
EITHER = Field.repeated(5, "either", (2, 4), most=2)
Given = Mapping[Field, bytes | Sequence[bytes] | None]
LAYOUT = Layout("TEST", (NUMBER, TEXT, EITHER), 0x7F)

by_name = pytest.mark.parametrize(
    ("decode", "message"), EXAMPLES, ids=lambda value: type(value).__name__ if hasattr(value, "encode") else ""
)


def field(number: int, value: bytes) -> bytes:
    return bytes((number,)) + len(value).to_bytes(2, "big") + value


@by_name
def test_a_message_survives_the_wire(decode: Decoder, message: Message) -> None:
    assert decode(message.encode()) == message


@by_name
def test_a_message_cut_anywhere_is_refused_or_is_a_shorter_message(decode: Decoder, message: Message) -> None:
    data = message.encode()
    for length in range(len(data)):
        try:
            shorter = decode(data[:length])
        except DecodeError:
            continue
        # Cut between two fields, where only optional ones follow.
        assert shorter is not None and shorter.encode() == data[:length]


@by_name
def test_bytes_behind_a_message_are_refused(decode: Decoder, message: Message) -> None:
    for trailing in (b"\0", b"\xff", b"\x01\x00", b"\xfe\x00\x09"):
        with pytest.raises(DecodeError):
            decode(message.encode() + trailing)


def test_fields_are_written_in_ascending_order_and_read_in_any() -> None:
    values: Given = {EITHER: (b"ab", b"abcd"), NUMBER: b"\x01\x02", TEXT: b"x"}
    data = LAYOUT.encode(values)
    assert data == b"\x04\x7f" + b"".join([field(1, b"\x01\x02"), field(3, b"x"), field(5, b"ab"), field(5, b"abcd")])
    assert split_control(data) == (0x7F, data[2:])
    shuffled = LAYOUT.decode(field(5, b"ab") + field(3, b"x") + field(5, b"abcd") + field(1, b"\x01\x02"))
    assert (shuffled.unsigned(NUMBER), shuffled.maybe(TEXT), shuffled.all(EITHER)) == (0x0102, b"x", (b"ab", b"abcd"))


def test_unknown_fields_are_skipped_whatever_they_hold() -> None:
    values = LAYOUT.decode(field(0, b"") + field(1, b"ok") + field(2, bytes(9)) + field(255, bytes(300)))
    assert (values.one(NUMBER), values.maybe(TEXT), values.all(EITHER)) == (b"ok", None, ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        field(3, b"x"),
        field(1, b"ok") + field(1, b"ok"),
        field(1, b"o"),
        field(1, b"long"),
        field(1, b"ok") + field(3, b""),
        field(1, b"ok") + field(3, b"long"),
        field(1, b"ok") + field(5, b"abc"),
        field(1, b"ok") + field(5, b"ab") * 3,
        field(1, b"ok") + b"\x09",
        field(1, b"ok") + b"\x09\x00\x02x",
    ],
)
def test_a_field_that_is_missing_doubled_or_of_another_size_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        LAYOUT.decode(body)


def test_an_encoder_does_not_write_what_a_decoder_refuses() -> None:
    bad: list[Given] = [{}, {NUMBER: b"long"}, {NUMBER: b"ok", EITHER: (b"ab",) * 3}]
    for values in bad:
        with pytest.raises(AssertionError):
            LAYOUT.encode(values)
    with pytest.raises(AssertionError):
        Layout("TEST", (TEXT, NUMBER))


def test_only_kind_control_is_a_control_message() -> None:
    for payload in (b"", bytes((CONTROL_KIND,)), b"\x01\x01", b"\x45\x00\x00"):
        with pytest.raises(DecodeError):
            split_control(payload)


def test_sizes_read_as_the_protocol_document_writes_them() -> None:
    assert [known.size_text for known in LAYOUT.fields] == ["2", "1..3", "2 or 4"]
    assert len(field(9, b"")) == FIELD_HEADER_SIZE
