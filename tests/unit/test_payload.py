"""Payload kinds and the fragment header."""

from __future__ import annotations

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.payload import MAX_PAYLOAD, Fragment, PayloadKind, decode_fragment, is_raw_ip


def test_a_fragment_is_laid_out_as_drawn() -> None:
    encoded = Fragment(id=0xA1B2C3D4, offset=0x0102, last=True, data=b"xyz").encode()
    assert encoded.hex() == "03" + "01" + "0102" + "a1b2c3d4" + b"xyz".hex()


@pytest.mark.parametrize("last", [False, True])
def test_a_fragment_survives_the_wire_and_unknown_flags(last: bool) -> None:
    fragment = Fragment(7, 1400, last, b"data")
    encoded = bytearray(fragment.encode())
    encoded[1] |= 0xFE
    assert decode_fragment(bytes(encoded)) == fragment


@pytest.mark.parametrize("size", range(9))
def test_a_fragment_without_data_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        decode_fragment(Fragment(7, 0, True, b"data").encode()[:size])


def test_another_kind_is_no_fragment() -> None:
    with pytest.raises(DecodeError):
        decode_fragment(b"\x01" + bytes(20))


def test_a_fragment_ends_within_the_largest_payload() -> None:
    assert decode_fragment(Fragment(1, MAX_PAYLOAD - 4, True, b"data").encode()).offset == MAX_PAYLOAD - 4
    with pytest.raises(DecodeError):
        decode_fragment(Fragment(1, MAX_PAYLOAD - 3, True, b"data").encode())


def test_only_ip_version_nibbles_are_raw_ip_and_no_kind_of_ours_is() -> None:
    assert [kind for kind in range(256) if is_raw_ip(kind)] == [*range(0x40, 0x50), *range(0x60, 0x70)]
    assert not any(is_raw_ip(kind) for kind in PayloadKind)
