"""mac1, mac2 and cookies: WireGuard's shield for the handshake (the WireGuard paper, 5.4.4 and 5.4.7).

mac1 is keyed by the receiver's public key: who does not know the key gets no answer at all, and costs one BLAKE2s.
mac2 is keyed by a cookie, a MAC of the sender's address under a secret that only the receiver has: under load the
receiver answers a message without a valid mac2 by nothing but a cookie, and keeps no state for the sender.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from omninervous.core.clock import Entropy
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint, encode_endpoint
from omninervous.wire.handshake import COOKIE_NONCE_SIZE, MAC_SIZE, CookieReply

__all__ = ["COOKIE_LIFETIME", "CookieChecker", "MacGenerator", "mac1_key", "mac1_valid", "with_macs"]

LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"

COOKIE_LIFETIME = 120.0
"""Seconds for which a cookie is used, and its secret kept."""

NO_MAC2 = bytes(MAC_SIZE)
_SECRET_SIZE = 32
# A message is: body, mac1, mac2.
_BODY = slice(None, -2 * MAC_SIZE)
_MAC1 = slice(-2 * MAC_SIZE, -MAC_SIZE)
_MAC2 = slice(-MAC_SIZE, None)
_BEFORE_MAC2 = slice(None, -MAC_SIZE)
_SENDER_INDEX = slice(4, 8)


def mac1_valid(public_key: bytes, message: bytes) -> bool:
    """Whether an initiation or response was made for the owner of `public_key`."""
    return hmac.compare_digest(_mac(mac1_key(public_key), message[_BODY]), message[_MAC1])


def with_macs(receiver: bytes, message: bytes, cookie: bytes | None) -> bytes:
    """An initiation or response whose last 32 bytes are replaced by mac1 and, if there is a cookie, mac2."""
    body = message[_BODY]
    signed = body + _mac(mac1_key(receiver), body)
    return signed + (NO_MAC2 if cookie is None else _mac(cookie, signed))


class MacGenerator:
    """Signs what we send to one peer, and holds the cookie that it last gave us."""

    __slots__ = ("_cookie", "_cookie_at", "_last_mac1", "_receiver")

    def __init__(self, receiver: bytes) -> None:
        self._receiver = receiver
        self._last_mac1: bytes | None = None
        self._cookie: bytes | None = None
        self._cookie_at = 0.0

    def cookie(self, now_boot: float) -> bytes | None:
        """The peer's cookie, while it is fresh."""
        return self._cookie if now_boot - self._cookie_at <= COOKIE_LIFETIME else None

    def sign(self, now_boot: float, message: bytes) -> bytes:
        """A whole initiation or response with both macs renewed. Call it for every copy that is sent: a cookie that
        came meanwhile then proves our address, and only the newest message signed can bring one."""
        signed = with_macs(self._receiver, message, self.cookie(now_boot))
        self._last_mac1 = signed[_MAC1]
        return signed

    def handle_reply(self, now_boot: float, reply: CookieReply) -> None:
        """Take the cookie of a type-3 message. RemoteError `bad_cookie` if it does not answer our newest message;
        the cookie held before then stays."""
        if self._last_mac1 is None:
            raise RemoteError("bad_cookie", "nothing was sent")
        try:
            cookie = crypto_aead_xchacha20poly1305_ietf_decrypt(
                reply.encrypted_cookie, self._last_mac1, reply.nonce, _cookie_key(self._receiver)
            )
        except CryptoError:
            raise RemoteError("bad_cookie") from None
        self._cookie, self._cookie_at = cookie, now_boot


class CookieChecker:
    """Hands out cookies and checks them. Holds one secret, nothing per sender."""

    __slots__ = ("_entropy", "_public_key", "_secret", "_secret_at")

    def __init__(self, public_key: bytes, entropy: Entropy) -> None:
        self._public_key = public_key
        self._entropy = entropy
        self._secret: bytes | None = None
        self._secret_at = 0.0

    @property
    def secret(self) -> tuple[bytes, float] | None:
        """What the newest cookie was made with, and until which boot-time second it is good."""
        return None if self._secret is None else (self._secret, self._secret_at + COOKIE_LIFETIME)

    def valid_mac2(self, now_boot: float, source: Endpoint, message: bytes) -> bool:
        """Whether the message carries a cookie of ours: its sender received at `source` in the last 120 s."""
        if self._secret is None or now_boot - self._secret_at > COOKIE_LIFETIME:
            return False
        cookie = _mac(self._secret, encode_endpoint(source))
        return hmac.compare_digest(_mac(cookie, message[_BEFORE_MAC2]), message[_MAC2])

    def reply(self, now_boot: float, message: bytes, source: Endpoint) -> bytes:
        """The 64-byte cookie reply to an initiation or response with a valid mac1 (smaller than either)."""
        if self._secret is None or now_boot - self._secret_at > COOKIE_LIFETIME:
            self._secret, self._secret_at = self._entropy(_SECRET_SIZE), now_boot
        cookie = _mac(self._secret, encode_endpoint(source))
        nonce = self._entropy(COOKIE_NONCE_SIZE)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
            cookie, bytes(message[_MAC1]), nonce, _cookie_key(self._public_key)
        )
        return CookieReply(int.from_bytes(message[_SENDER_INDEX], "little"), nonce, sealed).encode()


def _mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=MAC_SIZE).digest()


@lru_cache(maxsize=1024)
def mac1_key(public_key: bytes) -> bytes:
    return hashlib.blake2s(LABEL_MAC1 + public_key).digest()


@lru_cache(maxsize=1024)
def _cookie_key(public_key: bytes) -> bytes:
    return hashlib.blake2s(LABEL_COOKIE + public_key).digest()
