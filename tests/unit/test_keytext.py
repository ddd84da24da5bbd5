"""Keys as text: whatever goes wrong is named."""

from __future__ import annotations

import base64
import re

import pytest

from omninervous.errors import UserError
from omninervous.wire.keytext import (
    KEY_TEXT_LENGTH,
    IdentityKey,
    WireGuardKey,
    decode_key,
    encode_key,
    parse_peer_key,
)

KEY = bytes(range(1, 33))
TEXT = encode_key(KEY)
WIREGUARD = base64.b64encode(KEY).decode()


def test_the_text_is_safe_in_shells_and_urls_and_always_as_long() -> None:
    for key in (KEY, bytes(32), b"\xff" * 32):
        assert re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{50}", encode_key(key))
        assert decode_key(encode_key(key)) == key


def test_white_space_around_a_key_is_ignored() -> None:
    assert decode_key(f"\n {TEXT}\t\n") == KEY
    assert parse_peer_key(f" {WIREGUARD}\n") == WireGuardKey(KEY)


@pytest.mark.parametrize("text", ["", TEXT[:-1], TEXT + "1", "192.0.2.1", TEXT * 9])
def test_a_wrong_length_is_named(text: str) -> None:
    with pytest.raises(UserError, match=rf"50 characters, this has {len(text)}\b") as caught:
        decode_key(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("char", ["0", "O", "I", "l", " ", "é", "\x1b", "-"])
def test_a_character_that_no_key_has_is_named_with_its_position(char: str) -> None:
    with pytest.raises(UserError, match=rf"character 7 of .* {re.escape(repr(char))}, which never occurs") as caught:
        decode_key(TEXT[:6] + char + TEXT[7:])
    assert "\x1b" not in str(caught.value)


def test_every_single_wrong_character_and_every_swap_is_seen_as_mistyped() -> None:
    wrong = [TEXT[:at] + ("2" if TEXT[at] != "2" else "3") + TEXT[at + 1 :] for at in range(KEY_TEXT_LENGTH)]
    swapped = [
        TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]
        for at in range(KEY_TEXT_LENGTH - 1)
        if TEXT[at] != TEXT[at + 1]
    ]
    for text in [*wrong, *swapped, "z" * 50, "1" * 50]:
        with pytest.raises(UserError, match="mistyped"):
            decode_key(text)


def test_both_kinds_of_key_are_told_apart() -> None:
    assert parse_peer_key(TEXT) == IdentityKey(KEY)
    assert parse_peer_key(WIREGUARD) == WireGuardKey(KEY)


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(KEY[:31]).decode(),
        base64.b64encode(KEY + b"x").decode(),
        WIREGUARD[:-1] + "==",
        WIREGUARD[:10] + "\u2212" + WIREGUARD[11:],
        WIREGUARD[:10] + "-" + WIREGUARD[11:],
        WIREGUARD[:-2] + "B=",  # a last digit with unused bits set: not what any tool prints
        WIREGUARD[:-1],
        "=",
        "a+b",
    ],
)
def test_base64_that_is_not_32_bytes_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a WireGuard key"):
        parse_peer_key(text)
