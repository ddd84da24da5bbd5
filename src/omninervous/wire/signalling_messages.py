"""The signalling messages as objects, and how each is packed; `wire.signalling` parses them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from omninervous.wire import signalling_fields as fields
from omninervous.wire.address import Endpoint, encode_endpoint
from omninervous.wire.control import Versions
from omninervous.wire.tlv import FIELD_HEADER_SIZE, Field, Layout
from omninervous.wire.transport import HEADER_SIZE, TAG_SIZE

__all__ = [
    "ENTRY_FIELD_OVERHEAD",
    "MAX_SIGNALLING",
    "MAX_SIGNALLING_DATAGRAM",
    "Heartbeat",
    "HeartbeatAck",
    "HeartbeatStatus",
    "Leave",
    "PeerEntry",
    "PeerInfo",
    "PeerStatus",
    "Probe",
    "QueryPeer",
    "Register",
    "RegisterAck",
    "RegisterStatus",
    "SignallingMessage",
    "exactly_one",
]

MAX_SIGNALLING_DATAGRAM = 1232
MAX_SIGNALLING = MAX_SIGNALLING_DATAGRAM - HEADER_SIZE - TAG_SIZE
ENTRY_FIELD_OVERHEAD = FIELD_HEADER_SIZE
"""Bytes that one more entry adds to a message beside its own encoding."""


class RegisterStatus(IntEnum):
    """What became of a REGISTER."""

    OK = 0
    VIP_TAKEN = 1
    """Another key holds the address; `holder` says which."""
    CLONED = 2
    """Another machine runs with this identity right now."""
    PENDING = 3
    """The present holder is being asked whether it lives: ask again in three seconds."""
    REFUSED = 4
    """The membership does not verify, or is not this session's."""
    FULL = 5


class HeartbeatStatus(IntEnum):
    """What a Nucleus thinks of the edge that sent a HEARTBEAT."""

    OK = 0
    UNKNOWN = 1
    """Not registered (any more): register."""
    VIP_LOST = 2
    """Another key won the address; `holder` says which."""
    CLONED = 3
    """Another machine took over this identity."""


class PeerStatus(IntEnum):
    """What became of a QUERY_PEER."""

    FOUND = 0
    NOT_FOUND = 1


# ---------------------------------------------------------------- the messages


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """What a Nucleus tells about a member: enough to verify it and to reach it."""

    membership: bytes
    """Signed membership as carried."""
    reflexive: Endpoint | None = None
    """Where the Nucleus sees it."""
    candidates: tuple[Endpoint, ...] = ()
    """Where it says it also listens; at most MAX_CANDIDATES."""

    def encode(self) -> bytes:
        """The nested fields, without a header of their own."""
        return fields.PEER_ENTRY.encode(
            {
                fields.ENTRY_MEMBERSHIP: self.membership,
                fields.ENTRY_REFLEXIVE: _endpoint_bytes(self.reflexive),
                fields.ENTRY_CANDIDATE: tuple(map(encode_endpoint, self.candidates)),
            }
        )


@dataclass(frozen=True, slots=True)
class Register:
    """The edge says: I am a member of this cluster. Opens or renews an edge's place in the registry."""

    request: int
    cluster: str
    """Name of the cluster, 1..63 bytes of UTF-8 without control characters."""
    cluster_public: bytes
    """Ed25519 public key of the cluster: same name, other key, other cluster."""
    membership: bytes
    boot_id: bytes
    versions: Versions
    candidates: tuple[Endpoint, ...] = ()

    def encode(self) -> bytes:
        """The plaintext."""
        return _bounded(
            fields.REGISTER,
            {
                fields.REQUEST: _u32(self.request),
                fields.CLUSTER: self.cluster.encode(),
                fields.CLUSTER_PUBLIC: self.cluster_public,
                fields.MEMBERSHIP: self.membership,
                fields.BOOT_ID: self.boot_id,
                fields.REGISTER_CANDIDATE: tuple(map(encode_endpoint, self.candidates)),
                fields.VERSIONS: bytes(self.versions),
            },
        )


@dataclass(frozen=True, slots=True)
class RegisterAck:
    """Answer to REGISTER."""

    request: int
    status: RegisterStatus
    epoch: int = 0
    """Names one life of the Nucleus's registry: versions of different epochs do not compare."""
    version: int = 0
    """Version of the edge's view that `peers` (and the pages that follow) describes."""
    observed: Endpoint | None = None
    """Where the Nucleus sees the edge."""
    peers: tuple[PeerEntry, ...] = ()
    cursor: bytes | None = None
    """Present: the view goes on; a HEARTBEAT with this cursor fetches the next page."""
    holder: PeerEntry | None = None
    other_keys: int = 0
    """How many registries there are under the same name and other cluster keys."""

    def encode(self) -> bytes:
        """The plaintext."""
        return _bounded(
            fields.REGISTER_ACK,
            {
                fields.REQUEST: _u32(self.request),
                fields.RA_STATUS: bytes((self.status,)),
                fields.RA_EPOCH: _u64(self.epoch) if self.epoch else None,
                fields.RA_VERSION: _u64(self.version) if self.version else None,
                fields.RA_OBSERVED: _endpoint_bytes(self.observed),
                fields.RA_PEER: tuple(entry.encode() for entry in self.peers),
                fields.RA_CURSOR: self.cursor,
                fields.RA_HOLDER: None if self.holder is None else self.holder.encode(),
                fields.RA_OTHER_KEYS: self.other_keys.to_bytes(2, "big") if self.other_keys else None,
            },
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The edge lives, and this is the version of its view."""

    request: int
    epoch: int
    version: int
    cursor: bytes | None = None
    """Asks for the page that begins after it (opaque: what the last ACK said)."""
    candidates: tuple[Endpoint, ...] = ()
    token: bytes | None = None
    """Of the PROBE that this answers: proves that the edge receives where the PROBE was sent to."""
    probe_at: Endpoint | None = None
    """A session that is not registered asks for a PROBE at another port of its own address (`omni netcheck`)."""

    def encode(self) -> bytes:
        """The plaintext."""
        return _bounded(
            fields.HEARTBEAT,
            {
                fields.REQUEST: _u32(self.request),
                fields.EPOCH: _u64(self.epoch),
                fields.H_VERSION: _u64(self.version),
                fields.H_CURSOR: self.cursor,
                fields.H_CANDIDATE: tuple(map(encode_endpoint, self.candidates)),
                fields.H_TOKEN: self.token,
                fields.H_PROBE_AT: _endpoint_bytes(self.probe_at),
            },
        )


@dataclass(frozen=True, slots=True)
class HeartbeatAck:
    """Answer to HEARTBEAT: what changed in the edge's view, or a page of all of it."""

    request: int
    epoch: int
    from_version: int
    """The delta leads from this version ..."""
    version: int
    """... to this one."""
    status: HeartbeatStatus = HeartbeatStatus.OK
    observed: Endpoint | None = None
    joined: tuple[PeerEntry, ...] = ()
    """Members that are new in the view, or changed."""
    left: tuple[bytes, ...] = ()
    """X25519 keys of those that are in it no longer."""
    more: bool = False
    """There is more to fetch at once. With a cursor: the next page on the way to `version`, from the same
    `from_version`. Without one: `version` is reached, and there is something newer."""
    cursor: bytes | None = None
    holder: PeerEntry | None = None
    snapshot: bool = False
    """`joined` is a page of the whole view; when its last page is here, the view is replaced."""
    probed: bool = False
    """A PROBE has left for where the HEARTBEAT wanted it."""

    def encode(self) -> bytes:
        """The plaintext."""
        return _bounded(
            fields.HEARTBEAT_ACK,
            {
                fields.REQUEST: _u32(self.request),
                fields.EPOCH: _u64(self.epoch),
                fields.HA_FROM: _u64(self.from_version),
                fields.HA_VERSION: _u64(self.version),
                fields.HA_STATUS: bytes((self.status,)),
                fields.HA_OBSERVED: _endpoint_bytes(self.observed),
                fields.HA_JOINED: tuple(entry.encode() for entry in self.joined),
                fields.HA_LEFT: self.left,
                fields.HA_MORE: b"\1" if self.more else None,
                fields.HA_CURSOR: self.cursor,
                fields.HA_HOLDER: None if self.holder is None else self.holder.encode(),
                fields.HA_SNAPSHOT: b"\1" if self.snapshot else None,
                fields.HA_PROBED: b"\1" if self.probed else None,
            },
        )


@dataclass(frozen=True, slots=True)
class QueryPeer:
    """Who holds this address, MAC or X25519 key? Exactly one of the three is set."""

    request: int
    address: IPv4Address | IPv6Address | None = None
    mac: bytes | None = None
    key: bytes | None = None
    punch: bool = False
    """Push me to it too, so that both open their NATs at once."""
    ask_initiate: bool = False
    """Ask it to initiate: my initiations stay unanswered."""

    def encode(self) -> bytes:
        """The plaintext."""
        if not exactly_one(self.address, self.mac, self.key):
            raise AssertionError("QUERY_PEER asks for exactly one of address, mac, key")
        return fields.QUERY_PEER.encode(
            {
                fields.REQUEST: _u32(self.request),
                fields.Q_ADDRESS: None if self.address is None else self.address.packed,
                fields.Q_MAC: self.mac,
                fields.Q_KEY: self.key,
                fields.Q_FLAGS: _flag_bytes(self.punch, self.ask_initiate),
            }
        )


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Answer to QUERY_PEER, or (request 0) pushed to the queried edge."""

    request: int
    status: PeerStatus = PeerStatus.FOUND
    entry: PeerEntry | None = None
    """Set exactly when found."""
    punch: bool = False
    ask_initiate: bool = False

    def encode(self) -> bytes:
        """The plaintext."""
        if (self.status == PeerStatus.FOUND) != (self.entry is not None):
            raise AssertionError("PEER_INFO has an entry exactly when the peer is found")
        return _bounded(
            fields.PEER_INFO,
            {
                fields.REQUEST: _u32(self.request),
                fields.P_STATUS: bytes((self.status,)),
                fields.P_ENTRY: None if self.entry is None else self.entry.encode(),
                fields.P_FLAGS: _flag_bytes(self.punch, self.ask_initiate),
            },
        )


@dataclass(frozen=True, slots=True)
class Leave:
    """The edge stops: forget it now."""

    request: int

    def encode(self) -> bytes:
        """The plaintext."""
        return fields.LEAVE.encode({fields.REQUEST: _u32(self.request)})


@dataclass(frozen=True, slots=True)
class Probe:
    """Do you live, and here? The edge answers at once with a HEARTBEAT that returns the token."""

    token: bytes

    def encode(self) -> bytes:
        """The plaintext."""
        return fields.PROBE.encode({fields.TOKEN: self.token})


SignallingMessage = Register | RegisterAck | Heartbeat | HeartbeatAck | QueryPeer | PeerInfo | Leave | Probe


def _bounded(layout: Layout, values: dict[Field, bytes | tuple[bytes, ...] | None]) -> bytes:
    message = layout.encode(values)
    if len(message) > MAX_SIGNALLING:
        raise AssertionError(f"{layout.name} of {len(message)} bytes")
    return message


def _endpoint_bytes(endpoint: Endpoint | None) -> bytes | None:
    return None if endpoint is None else encode_endpoint(endpoint)


def _flag_bytes(punch: bool, ask_initiate: bool) -> bytes | None:
    flags = fields.FLAG_PUNCH * punch | fields.FLAG_ASK_INITIATE * ask_initiate
    return bytes((flags,)) if flags else None


def exactly_one(*values: object) -> bool:
    """Whether a single one of the values is not None."""
    return sum(value is not None for value in values) == 1


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")
