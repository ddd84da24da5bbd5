"""Keys as people write them.

An identity is 50 characters of base58 (Bitcoin's alphabet: no 0, O, I, l; nothing that a shell, a URL or a double-click
would break at)::

    base58( Ed25519 public key (32 B) || BLAKE2s("omninervous key v1" || key)[:4] )

read as one big-endian number and padded on the left with `1`, the digit zero, so the length never varies. The checksum
lets one mistyped key in four billion pass.

A stock WireGuard key is what `wg genkey` and `wg pubkey` print: base64 of the 32 bytes of an X25519 key. It has no
checksum.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from omninervous.errors import UserError

__all__ = [
    "KEY_TEXT_LENGTH",
    "IdentityKey",
    "WireGuardKey",
    "decode_key",
    "encode_key",
    "encode_wireguard_key",
    "parse_peer_key",
]

KEY_TEXT_LENGTH = 50
KEY_SIZE = 32
CHECKSUM_SIZE = 4
WIREGUARD_TEXT_LENGTH = 44
KEY_LABEL = b"omninervous key v1"

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {char: value for value, char in enumerate(_ALPHABET)}
_CONFUSED = {"0": "o", "O": "o", "I": "1 or i", "l": "1 or L"}
"""Look-alikes that the alphabet leaves out, and what may have been meant."""


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """An OmniNervous identity."""

    ed25519: bytes


@dataclass(frozen=True, slots=True)
class WireGuardKey:
    """A stock WireGuard peer's key."""

    x25519: bytes


def encode_key(public: bytes) -> str:
    """The 50 characters of an Ed25519 public key (32 bytes)."""
    number = int.from_bytes(public + _checksum(public), "big")
    digits = []
    for _ in range(KEY_TEXT_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def decode_key(text: str) -> bytes:
    """The Ed25519 public key (32 bytes) in 50 characters; white space around them is ignored.

    UserError tells a wrong length, a character that no key has, and a mistyped key apart. That the bytes are a good
    point of the curve is for `core.identity` to say.
    """
    text = text.strip()
    if len(text) != KEY_TEXT_LENGTH:
        raise UserError(
            f"a public key has {KEY_TEXT_LENGTH} characters, this has {len(text)}: "
            f"{_shown(text)}. Copy it whole from the peer's `omni-daemon --init`."
        )
    number = 0
    for position, char in enumerate(text, start=1):
        if char not in _DIGITS:
            meant = f" (did you mean {_CONFUSED[char]}?)" if char in _CONFUSED else ""
            raise UserError(
                f"character {position} of the public key is {char!r}, which never occurs in one{meant}: "
                f"{_shown(text)}. Copy the key from the peer's `omni-daemon --init`."
            )
        number = number * len(_ALPHABET) + _DIGITS[char]
    size = KEY_SIZE + CHECKSUM_SIZE
    data = number.to_bytes(size + 1, "big")
    public, checksum = data[1 : 1 + KEY_SIZE], data[1 + KEY_SIZE :]
    if data[0] or checksum != _checksum(public):
        raise UserError(
            f"the public key is mistyped (its checksum does not match): {_shown(text)}. "
            "Compare it with the peer's `omni-daemon --init`, or copy it again."
        )
    return public


def encode_wireguard_key(public: bytes) -> str:
    """An X25519 public key the way WireGuard's tools print it (base64, 44 characters)."""
    return base64.b64encode(public).decode("ascii")


def parse_peer_key(text: str) -> IdentityKey | WireGuardKey:
    """Whichever key the text is: an identity, or a WireGuard key (base64). UserError when it is neither."""
    text = text.strip()
    # A WireGuard key that lost its '=' on the way is still seen as one.
    if len(text) not in (WIREGUARD_TEXT_LENGTH - 1, WIREGUARD_TEXT_LENGTH) and not set("+/=") & set(text):
        return IdentityKey(decode_key(text))
    try:
        public = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        public = b""
    # The second comparison refuses a last digit whose unused bits are set, as WireGuard's own tools do.
    if len(public) != KEY_SIZE or encode_wireguard_key(public) != text:
        raise UserError(
            f"not a WireGuard key (base64 of 32 bytes, {WIREGUARD_TEXT_LENGTH} characters ending in '='): "
            f"{_shown(text)}. Copy what `wg pubkey` prints."
        )
    return WireGuardKey(public)


def _checksum(public: bytes) -> bytes:
    return hashlib.blake2s(KEY_LABEL + public).digest()[:CHECKSUM_SIZE]


def _shown(text: str) -> str:
    # Bad input comes back on a terminal: printable, and no longer than a line.
    longest = 60
    return repr(text if len(text) <= longest else f"{text[:longest]}...")
