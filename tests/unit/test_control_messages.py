"""Control messages between edges: what every layout-wide test (test_tlv.py) does not say."""

from __future__ import annotations

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.control import Close, CloseReason, Versions, decode_control, decode_versions


def test_an_unknown_type_is_none_whatever_follows() -> None:
    assert decode_control(b"\x04\x3f") is None
    assert decode_control(b"\x04\x40" + b"\xff" * 9) is None


def test_an_unknown_reason_still_closes() -> None:
    assert decode_control(b"\x04\x05\x01\x00\x01\xee") == Close(CloseReason.OTHER)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x00\x01", b"\x02\x01", b"\x01\x01\x01"])
def test_an_empty_range_of_versions_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_versions(data)


def test_two_ranges_agree_on_the_highest_common_version() -> None:
    assert Versions(1, 4).common(Versions(2, 3)) == 3
    assert Versions(3, 3).common(Versions(1, 3)) == 3
    assert Versions(1, 2).common(Versions(3, 9)) is None
