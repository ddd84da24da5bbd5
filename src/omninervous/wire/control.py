"""Control messages between two edges, types 0x01-0x05 (fields: `wire.tlv`; tables: `docs/PROTOCOL.md`).

CAPS            what a side can do and who it is; sent by both right after a handshake
CAPS_ACK        "I have your CAPS": lanes beside lane 0 may open
PATH_CHALLENGE  to an address of a peer: does a datagram get there, and an answer back?
PATH_RESPONSE   its token back, to where the challenge came from
CLOSE           this session ends now
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from omninervous.errors import DecodeError
from omninervous.wire.address import ENDPOINT4_SIZE, ENDPOINT6_SIZE, Endpoint, decode_endpoint, encode_endpoint
from omninervous.wire.membership import (
    MEMBERSHIP_MAX_SIZE,
    MEMBERSHIP_MIN_SIZE,
    VIP_CLAIM_SIZE,
    VipClaim,
    decode_vip_claim,
)
from omninervous.wire.tlv import Field, Layout, split_control

__all__ = [
    "BOOT_ID_SIZE",
    "OUR_VERSIONS",
    "TOKEN_SIZE",
    "Caps",
    "CapsAck",
    "Close",
    "CloseReason",
    "ControlMessage",
    "ControlType",
    "PathChallenge",
    "PathResponse",
    "Versions",
    "decode_control",
    "decode_versions",
]

TOKEN_SIZE = 8
BOOT_ID_SIZE = 16
VERSIONS_SIZE = 2


class ControlType(IntEnum):
    """Second plaintext byte of a control message between edges."""

    CAPS = 0x01
    CAPS_ACK = 0x02
    PATH_CHALLENGE = 0x03
    PATH_RESPONSE = 0x04
    CLOSE = 0x05


class CloseReason(IntEnum):
    """Why a session is closed."""

    OTHER = 0
    """Also what an unknown number is read as."""
    SHUTDOWN = 1
    """The daemon stops."""
    REMOVED = 2
    """The peer is no longer authorised here."""
    REFUSED = 3
    """The CAPS were not acceptable (version, identity, membership)."""
    SUSPENDED = 4
    """The clocks jumped (suspend): keys may exist twice."""


class Versions(NamedTuple):
    """A range of protocol versions, both ends included; 1 <= minimum <= maximum."""

    minimum: int
    maximum: int

    def common(self, other: Versions) -> int | None:
        """The highest version that both ranges hold, None without one."""
        highest = min(self.maximum, other.maximum)
        return highest if highest >= max(self.minimum, other.minimum) else None


OUR_VERSIONS = Versions(1, 1)


def decode_versions(data: bytes) -> Versions:
    """The range in exactly two bytes; DecodeError when empty or from 0."""
    if len(data) != VERSIONS_SIZE or not 1 <= data[0] <= data[1]:
        raise DecodeError(f"versions {data.hex() or 'empty'}")
    return Versions(data[0], data[1])


_VERSIONS = Field(1, "versions", VERSIONS_SIZE, required=True)
_BOOT_ID = Field(2, "boot id", BOOT_ID_SIZE, required=True)
_MEMBERSHIP = Field(3, "membership", range(MEMBERSHIP_MIN_SIZE, MEMBERSHIP_MAX_SIZE + 1))
_PAYLOAD_KINDS = Field(4, "payload kinds", 4, required=True)
_AEADS = Field(5, "aeads", 1, required=True)
_LANES = Field(6, "lanes", 2, required=True)
_MTU = Field(7, "mtu", 2, required=True)
_VIP = Field(8, "vip claim", VIP_CLAIM_SIZE)
_IDENTITY = Field(9, "identity", 32)
_CAPS_TOKEN = Field(10, "token", TOKEN_SIZE, required=True)
_CLOCK = Field(11, "clock", 4)
_TOKEN = Field(1, "token", TOKEN_SIZE, required=True)
_IN_USE = Field(2, "in use", 1)
_PADDING = Field(3, "padding", range(1, 9300))
_OBSERVED = Field(2, "observed endpoint", (ENDPOINT4_SIZE, ENDPOINT6_SIZE))
_REASON = Field(1, "reason", 1, required=True)

CAPS = Layout(
    "CAPS",
    (_VERSIONS, _BOOT_ID, _MEMBERSHIP, _PAYLOAD_KINDS, _AEADS, _LANES, _MTU, _VIP, _IDENTITY, _CAPS_TOKEN, _CLOCK),
    ControlType.CAPS,
)
CAPS_ACK = Layout("CAPS_ACK", (_TOKEN,), ControlType.CAPS_ACK)
PATH_CHALLENGE = Layout("PATH_CHALLENGE", (_TOKEN, _IN_USE, _PADDING), ControlType.PATH_CHALLENGE)
PATH_RESPONSE = Layout("PATH_RESPONSE", (_TOKEN, _OBSERVED), ControlType.PATH_RESPONSE)
CLOSE = Layout("CLOSE", (_REASON,), ControlType.CLOSE)
CONTROL_LAYOUTS = (CAPS, CAPS_ACK, PATH_CHALLENGE, PATH_RESPONSE, CLOSE)


@dataclass(frozen=True, slots=True)
class Caps:
    """What the sender can do, and who it is."""

    versions: Versions
    boot_id: bytes
    """16 random bytes of this start of the daemon: tells a restart from a clone."""
    payload_kinds: int
    """Bitmap: bit n = takes payloads of kind n."""
    aeads: int
    """Bitmap: bit n = takes lanes with AEAD number n."""
    lanes: int
    """Bitmap: bit n = can receive lane n."""
    mtu: int
    """MTU of its omni0 in bytes."""
    token: bytes
    """Eight random bytes that CAPS_ACK returns."""
    membership: bytes | None = None
    """Signed membership as carried; None in a pair without a cluster."""
    vip: VipClaim | None = None
    """The address without a membership."""
    identity: bytes | None = None
    """Ed25519 public key without a membership."""
    clock: int | None = None
    """Its wall clock, in seconds."""

    def encode(self) -> bytes:
        """The plaintext."""
        return CAPS.encode(
            {
                _VERSIONS: bytes(self.versions),
                _BOOT_ID: self.boot_id,
                _MEMBERSHIP: self.membership,
                _PAYLOAD_KINDS: self.payload_kinds.to_bytes(4, "big"),
                _AEADS: bytes((self.aeads,)),
                _LANES: self.lanes.to_bytes(2, "big"),
                _MTU: self.mtu.to_bytes(2, "big"),
                _VIP: None if self.vip is None else self.vip.encode(),
                _IDENTITY: self.identity,
                _CAPS_TOKEN: self.token,
                _CLOCK: None if self.clock is None else (self.clock % (1 << 32)).to_bytes(4, "big"),
            }
        )


@dataclass(frozen=True, slots=True)
class CapsAck:
    """The sender has the CAPS with this token."""

    token: bytes

    def encode(self) -> bytes:
        """The plaintext."""
        return CAPS_ACK.encode({_TOKEN: self.token})


@dataclass(frozen=True, slots=True)
class PathChallenge:
    """Asks whoever receives at an address to return the token."""

    token: bytes
    in_use: bool = False
    """The sender's frames go this way: the receiver may follow. Without it, the sender only measures."""
    padding: int = 0
    """Bytes that only make it large."""

    def encode(self) -> bytes:
        """The plaintext."""
        in_use = b"\x01" if self.in_use else None
        return PATH_CHALLENGE.encode({_TOKEN: self.token, _IN_USE: in_use, _PADDING: bytes(self.padding) or None})


@dataclass(frozen=True, slots=True)
class PathResponse:
    """Returns the token of a challenge, to where the challenge came from."""

    token: bytes
    observed: Endpoint | None = None
    """Where the challenge came from: how the challenger looks from outside of its NAT."""

    def encode(self) -> bytes:
        """The plaintext."""
        seen = None if self.observed is None else encode_endpoint(self.observed)
        return PATH_RESPONSE.encode({_TOKEN: self.token, _OBSERVED: seen})


@dataclass(frozen=True, slots=True)
class Close:
    """The session ends."""

    reason: CloseReason

    def encode(self) -> bytes:
        """The plaintext."""
        return CLOSE.encode({_REASON: bytes((self.reason,))})


ControlMessage = Caps | CapsAck | PathChallenge | PathResponse | Close


def decode_control(payload: bytes) -> ControlMessage | None:
    """The message in a plaintext of kind CONTROL; None for a type that this version does not know."""
    kind, body = split_control(payload)
    match kind:
        case ControlType.CAPS:
            return _decode_caps(body)
        case ControlType.CAPS_ACK:
            return CapsAck(CAPS_ACK.decode(body).one(_TOKEN))
        case ControlType.PATH_CHALLENGE:
            challenge = PATH_CHALLENGE.decode(body)
            padding = len(challenge.maybe(_PADDING) or b"")
            return PathChallenge(challenge.one(_TOKEN), challenge.flag(_IN_USE), padding)
        case ControlType.PATH_RESPONSE:
            response = PATH_RESPONSE.decode(body)
            seen = response.maybe(_OBSERVED)
            return PathResponse(response.one(_TOKEN), None if seen is None else decode_endpoint(seen))
        case ControlType.CLOSE:
            return Close(_close_reason(CLOSE.decode(body).unsigned(_REASON)))
    return None


def _close_reason(number: int) -> CloseReason:
    # A later version's reason still closes the session.
    try:
        return CloseReason(number)
    except ValueError:
        return CloseReason.OTHER


def _decode_caps(body: bytes) -> Caps:
    values = CAPS.decode(body)
    vip, clock = values.maybe(_VIP), values.maybe(_CLOCK)
    return Caps(
        versions=decode_versions(values.one(_VERSIONS)),
        boot_id=values.one(_BOOT_ID),
        payload_kinds=values.unsigned(_PAYLOAD_KINDS),
        aeads=values.unsigned(_AEADS),
        lanes=values.unsigned(_LANES),
        mtu=values.unsigned(_MTU),
        token=values.one(_CAPS_TOKEN),
        membership=values.maybe(_MEMBERSHIP),
        vip=None if vip is None else decode_vip_claim(vip),
        identity=values.maybe(_IDENTITY),
        clock=None if clock is None else int.from_bytes(clock, "big"),
    )
