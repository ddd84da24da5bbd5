"""An identity is an Ed25519 key; everything else about a machine follows from its public half.

    Ed25519 public key --standard map--> X25519 key    static key of every handshake, index of every peer table
                       --BLAKE2s-------> MAC of omni0  locally administered, unicast
                       --BLAKE2s-------> IPv6 ULA      fd6f:6d6e:6900::/64
                       --BLAKE2s-------> VIP           `core.vip`
                       --BLAKE2s-------> key hash      last resort of `core.vip.wins`

The map sends A and -A to the same X25519 key: whoever indexes peers by X25519 refuses a second Ed25519 key for it.
MAC and ULA are recomputed from the key wherever they are needed, never taken from a message.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl import bindings
from nacl.exceptions import CryptoError

from omninervous.errors import RemoteError, UserError
from omninervous.wire.keytext import IdentityKey, encode_key, encode_wireguard_key, parse_peer_key

__all__ = [
    "SEED_SIZE",
    "ULA_NETWORK",
    "Identity",
    "PeerKey",
    "key_hash",
    "mac_of",
    "parse_peer",
    "synthetic_mac",
    "ula_of",
    "verify",
    "wireguard_text",
    "x25519_of",
]

SEED_SIZE = 32
KEY_SIZE = 32
MAC_SIZE = 6
INTERFACE_ID_SIZE = 8

ULA_NETWORK = IPv6Network("fd6f:6d6e:6900::/64")

MAC_LABEL = b"omninervous mac v1"
ULA_LABEL = b"omninervous ula v1"
KEY_HASH_LABEL = b"omninervous key hash v1"
SYNTHETIC_MAC_LABEL = b"omninervous wireguard mac v1"

FIELD_PRIME = (1 << 255) - 19

_GROUP_BIT = 0x01
_LOCAL_BIT = 0x02

_LOW_ORDER_X25519 = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Points with which every Diffie-Hellman gives zero (https://cr.yp.to/ecdh.html, "small-order points")."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key pair, in both its forms. Made by `from_seed`; no private part shows in its repr."""

    public: bytes
    """Ed25519 public key, 32 bytes."""
    x25519_public: bytes
    seed: bytes = field(repr=False)
    """The Ed25519 seed, 32 bytes: all that has to be stored."""
    x25519_private: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of 32 secret bytes."""
        if len(seed) != SEED_SIZE:
            raise AssertionError(f"seed of {len(seed)} bytes")
        public, secret = bindings.crypto_sign_seed_keypair(seed)
        return cls(
            public=public,
            x25519_public=bindings.crypto_sign_ed25519_pk_to_curve25519(public),
            seed=seed,
            x25519_private=bindings.crypto_sign_ed25519_sk_to_curve25519(secret),
        )

    def sign(self, data: bytes) -> bytes:
        """Ed25519 signature, 64 bytes (RFC 8032; deterministic)."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(data)

    @property
    def text(self) -> str:
        """The public key as people write it."""
        return encode_key(self.public)

    @property
    def mac(self) -> bytes:
        """MAC of its omni0."""
        return mac_of(self.public)

    @property
    def ula(self) -> IPv6Address:
        """IPv6 address of its omni0."""
        return ula_of(self.public)


@dataclass(frozen=True, slots=True)
class PeerKey:
    """A key that the operator gave for a peer."""

    x25519: bytes
    ed25519: bytes | None
    """None: a stock WireGuard peer."""


def parse_peer(text: str) -> PeerKey:
    """The peer that a key in text form names (identity or WireGuard base64), checked to be a usable key; UserError."""
    key = parse_peer_key(text)
    if isinstance(key, IdentityKey):
        try:
            return PeerKey(x25519_of(key.ed25519), key.ed25519)
        except RemoteError as error:
            raise UserError(f"the public key {text.strip()} is no key that a machine could have") from error
    # The topmost bit is ignored by X25519 (RFC 7748, section 5).
    if key.x25519[:-1] + bytes((key.x25519[-1] & 0x7F,)) in _LOW_ORDER_X25519:
        raise UserError(f"the WireGuard key {text.strip()} is no key that a machine could have")
    return PeerKey(key.x25519, None)


def x25519_of(public: bytes) -> bytes:
    """X25519 public key of an Ed25519 public key: u = (1 + y) / (1 - y) (RFC 7748, section 4.1).

    RemoteError("bad_identity") for what no seed gives: bytes that are no point, a non-canonical encoding, a point of
    low order or outside the prime-order group. With such a "key" anybody could sign, or no secret would be shared.
    """
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if len(public) != KEY_SIZE or y >= FIELD_PRIME:
        raise RemoteError("bad_identity", "not the canonical encoding of a point")
    try:
        # libsodium refuses what is no point, has a small order, or lies outside the prime-order group.
        return bindings.crypto_sign_ed25519_pk_to_curve25519(public)
    except CryptoError as error:
        raise RemoteError("bad_identity", "not a point of the prime-order group") from error


def verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 signature holds. The public key must have passed `x25519_of`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def mac_of(public: bytes) -> bytes:
    """MAC address of the identity's omni0."""
    return _mac(_digest(MAC_LABEL, public))


def synthetic_mac(x25519: bytes) -> bytes:
    """MAC by which the local stack reaches a stock WireGuard peer; never on the wire."""
    return _mac(_digest(SYNTHETIC_MAC_LABEL, x25519))


def ula_of(public: bytes) -> IPv6Address:
    """IPv6 address of the identity's omni0, in ULA_NETWORK."""
    interface_id = int.from_bytes(_digest(ULA_LABEL, public)[:INTERFACE_ID_SIZE], "big")
    return ULA_NETWORK[interface_id]


def key_hash(public: bytes) -> bytes:
    """32 bytes by which two identities that claim one address are ordered: no name and no start order matters."""
    return _digest(KEY_HASH_LABEL, public)


def wireguard_text(x25519: bytes) -> str:
    """An X25519 public key in WireGuard's form."""
    return encode_wireguard_key(x25519)


def _digest(label: bytes, key: bytes) -> bytes:
    return hashlib.blake2s(label + key).digest()


def _mac(digest: bytes) -> bytes:
    return bytes(((digest[0] & ~_GROUP_BIT) | _LOCAL_BIT,)) + digest[1:MAC_SIZE]
