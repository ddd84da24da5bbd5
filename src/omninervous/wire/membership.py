"""A signed membership: who an edge is, which address it claims, until when; and the VIP claim inside it.

    +-------------------+----------------+---------------------------+--------------------------+
    | body length (u16) | body (fields)  | identity signature (64 B) | cluster signature (64 B) |   at most 512 bytes
    +-------------------+----------------+---------------------------+--------------------------+

Both Ed25519 signatures cover  label || cluster public key (32 B) || body,  with one label each. The body is carried and
verified as the exact bytes that were signed: unknown fields in it are covered, and nothing is ever re-encoded.

A VIP claim::

     0                  4                 5                         7
    +------------------+-----------------+-------------------------+
    | IPv4 address     | prefix (u8)     | derivation (u16)        |   derivation 0xFFFF: chosen by the operator
    +------------------+-----------------+-------------------------+
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

from omninervous.errors import DecodeError
from omninervous.wire.tlv import Field, Layout, decode_text

__all__ = [
    "CLUSTER_LABEL",
    "IDENTITY_LABEL",
    "MAX_DERIVATION",
    "MEMBERSHIP_MAX_SIZE",
    "MEMBERSHIP_MIN_SIZE",
    "MEMBERSHIP_VERSION",
    "NAME_MAX_SIZE",
    "SIGNATURE_SIZE",
    "VIP_CLAIM_SIZE",
    "MembershipBody",
    "SignedMembership",
    "VipClaim",
    "decode_membership",
    "decode_vip_claim",
    "signed_bytes",
]

MEMBERSHIP_VERSION = 1
MEMBERSHIP_MAX_SIZE = 512
SIGNATURE_SIZE = 64
LENGTH_SIZE = 2
NAME_MAX_SIZE = 63

IDENTITY_LABEL = b"omninervous membership v1 identity"
CLUSTER_LABEL = b"omninervous membership v1 cluster"

VIP_CLAIM_SIZE = 7
EXPLICIT_DERIVATION = 0xFFFF
MAX_DERIVATION = 0xFFFE
MAX_PREFIX = 32

VERSION = Field(1, "version", 1, required=True)
IDENTITY = Field(2, "identity", 32, required=True)
SERIAL = Field(3, "serial", 8, required=True)
NOT_BEFORE = Field(4, "not before", 8, required=True)
NOT_AFTER = Field(5, "not after", 8, required=True)
CLAIM = Field(6, "vip claim", VIP_CLAIM_SIZE, required=True)
NAME = Field(7, "name", range(1, NAME_MAX_SIZE + 1))
MEMBERSHIP_BODY = Layout("MEMBERSHIP", (VERSION, IDENTITY, SERIAL, NOT_BEFORE, NOT_AFTER, CLAIM, NAME))

MIN_BODY_SIZE = 6 * 3 + 1 + 32 + 8 + 8 + 8 + VIP_CLAIM_SIZE
MEMBERSHIP_MIN_SIZE = LENGTH_SIZE + MIN_BODY_SIZE + 2 * SIGNATURE_SIZE

_HOSTNAME_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class VipClaim:
    """An address on the overlay, and how its holder came to it."""

    address: IPv4Address
    prefix: int
    """Length of the on-link prefix, 0..32 on the wire (`core.vip` says which lengths are accepted)."""
    derivation: int | None = None
    """None: the operator chose it. Else the number of the derivation from the identity, 0..0xFFFE."""

    @property
    def explicit(self) -> bool:
        """Whether the operator chose the address."""
        return self.derivation is None

    def encode(self) -> bytes:
        """The seven bytes of the claim."""
        derivation = EXPLICIT_DERIVATION if self.derivation is None else self.derivation
        return self.address.packed + bytes((self.prefix,)) + derivation.to_bytes(2, "big")

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix}"


def decode_vip_claim(data: bytes) -> VipClaim:
    """The claim in exactly these bytes. Whether the address is a usable one is for `core.vip` to say."""
    if len(data) != VIP_CLAIM_SIZE:
        raise DecodeError(f"VIP claim of {len(data)} bytes")
    if data[4] > MAX_PREFIX:
        raise DecodeError(f"VIP claim with a prefix of {data[4]} bits")
    derivation = int.from_bytes(data[5:], "big")
    return VipClaim(IPv4Address(data[:4]), data[4], None if derivation == EXPLICIT_DERIVATION else derivation)


@dataclass(frozen=True, slots=True)
class MembershipBody:
    """What a membership says. Times are whole seconds since 1970."""

    identity: bytes
    """Ed25519 public key, 32 bytes."""
    serial: int
    """Grows with every membership that an identity issues for itself."""
    not_before: int
    not_after: int
    claim: VipClaim
    name: str | None = None
    """What humans call the machine: one hostname label (RFC 1123)."""

    def encode(self) -> bytes:
        """The body; the bytes that both signatures cover. AssertionError for a name that no reader would take."""
        if self.name is not None and not _HOSTNAME_LABEL.fullmatch(self.name):
            raise AssertionError(f"{self.name!r} is not a hostname label")
        return MEMBERSHIP_BODY.encode(
            {
                VERSION: bytes((MEMBERSHIP_VERSION,)),
                IDENTITY: self.identity,
                SERIAL: self.serial.to_bytes(8, "big"),
                NOT_BEFORE: self.not_before.to_bytes(8, "big"),
                NOT_AFTER: self.not_after.to_bytes(8, "big"),
                CLAIM: self.claim.encode(),
                NAME: None if self.name is None else self.name.encode(),
            }
        )


@dataclass(frozen=True, slots=True)
class SignedMembership:
    """A membership as carried: decoded, but not verified (`core.membership.verify` does that)."""

    body: MembershipBody
    body_bytes: bytes
    """The body exactly as carried; both signatures cover these bytes."""
    identity_signature: bytes
    cluster_signature: bytes

    def encode(self) -> bytes:
        """The membership as carried."""
        length = len(self.body_bytes).to_bytes(LENGTH_SIZE, "big")
        return length + self.body_bytes + self.identity_signature + self.cluster_signature


def signed_bytes(label: bytes, cluster_public: bytes, body: bytes) -> bytes:
    """What a signature covers; `label` is IDENTITY_LABEL or CLUSTER_LABEL."""
    return label + cluster_public + body


def decode_membership(data: bytes) -> SignedMembership:
    """The membership in exactly these bytes; DecodeError when they are none. Signatures are not looked at."""
    if not MEMBERSHIP_MIN_SIZE <= len(data) <= MEMBERSHIP_MAX_SIZE:
        raise DecodeError(f"membership of {len(data)} bytes")
    end = LENGTH_SIZE + int.from_bytes(data[:LENGTH_SIZE], "big")
    if len(data) != end + 2 * SIGNATURE_SIZE:
        raise DecodeError(f"membership of {len(data)} bytes with a body of {end - LENGTH_SIZE}")
    body_bytes = data[LENGTH_SIZE:end]
    return SignedMembership(
        _decode_body(body_bytes), body_bytes, data[end : end + SIGNATURE_SIZE], data[end + SIGNATURE_SIZE :]
    )


def _decode_body(body: bytes) -> MembershipBody:
    values = MEMBERSHIP_BODY.decode(body)
    if values.unsigned(VERSION) != MEMBERSHIP_VERSION:
        raise DecodeError(f"membership of version {values.unsigned(VERSION)}")
    name = values.maybe(NAME)
    return MembershipBody(
        identity=values.one(IDENTITY),
        serial=values.unsigned(SERIAL),
        not_before=values.unsigned(NOT_BEFORE),
        not_after=values.unsigned(NOT_AFTER),
        claim=decode_vip_claim(values.one(CLAIM)),
        name=None if name is None else _decode_name(name),
    )


def _decode_name(value: bytes) -> str:
    # A hostile member's name is printed on other people's terminals: nothing but a hostname label gets in.
    name = decode_text(value, "name of a membership")
    if not _HOSTNAME_LABEL.fullmatch(name):
        raise DecodeError("name of a membership is not a hostname label")
    return name
