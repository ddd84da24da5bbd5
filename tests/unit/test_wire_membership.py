"""The membership's bytes and the VIP claim's; whether one is true is tested in test_membership.py."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.membership import (
    MEMBERSHIP_MAX_SIZE,
    MEMBERSHIP_MIN_SIZE,
    SignedMembership,
    VipClaim,
    decode_membership,
    decode_vip_claim,
)
from tests.wire_examples import BODY, SMALL_SIGNED


def signed(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body + bytes(128)


def test_the_smallest_membership_has_the_smallest_size() -> None:
    assert len(SMALL_SIGNED.encode()) == MEMBERSHIP_MIN_SIZE


def test_the_body_is_kept_as_carried_with_its_unknown_fields() -> None:
    body = b"\x63\x00\x03new" + BODY.encode()
    decoded = decode_membership(signed(body))
    assert decoded == SignedMembership(BODY, body, bytes(64), bytes(64))
    assert decoded.encode() == signed(body)


def test_more_than_the_largest_size_is_refused() -> None:
    for extra in (0, 1):
        padding = MEMBERSHIP_MAX_SIZE - len(signed(BODY.encode())) - 3 + extra
        data = signed(BODY.encode() + b"\x63" + padding.to_bytes(2, "big") + bytes(padding))
        if extra:
            with pytest.raises(DecodeError):
                decode_membership(data)
        else:
            assert decode_membership(data).body == BODY


def test_another_version_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_membership(signed(b"\x01\x00\x01\x02" + BODY.encode()[4:]))


@pytest.mark.parametrize("name", ["-a", "a-", "a b", "a.b", "a\n", "\x1b[31m", "ä", "a_b", "<b>"])
def test_a_name_is_a_hostname_label(name: str) -> None:
    same_length = replace(BODY, name="x" * len(name.encode())).encode()
    with pytest.raises(DecodeError, match="hostname label"):
        decode_membership(signed(same_length.replace(b"x" * len(name.encode()), name.encode())))
    with pytest.raises(AssertionError):
        replace(BODY, name=name).encode()


@pytest.mark.parametrize("name", ["a", "7", "Robot-1", "x" * 63])
def test_hostname_labels_are_taken(name: str) -> None:
    assert decode_membership(signed(replace(BODY, name=name).encode())).body.name == name


def test_the_claim_is_seven_bytes_and_ffff_means_explicit() -> None:
    explicit = VipClaim(IPv4Address("10.200.0.1"), 13)
    assert explicit.encode().hex() == "0ac80001" + "0d" + "ffff"
    assert decode_vip_claim(explicit.encode()) == explicit
    derived = decode_vip_claim(bytes.fromhex("0ac80001" + "0d" + "0000"))
    assert (derived.derivation, derived.explicit) == (0, False)
    with pytest.raises(DecodeError):
        decode_vip_claim(bytes.fromhex("0ac80001" + "21" + "0000"))
