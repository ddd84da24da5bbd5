"""What goes into a Node (its configuration) and what comes out of it (frozen events, a snapshot).

The driver (`ganglion`) makes a `NodeConfig`, feeds a `core.node.Node`, and drains commands for the engine and
`NodeEvent`s for itself: to configure the interface, to persist marks, to log, to answer `omni status`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from omninervous.core.dataplane import Aead, Link, PeerId
from omninervous.core.pathkind import PathKind
from omninervous.core.secret import ClusterKeys
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim

__all__ = [
    "CachedMember",
    "IdentityCloned",
    "NodeConfig",
    "NodeEvent",
    "NodeSnapshot",
    "NucleusConfig",
    "NucleusDown",
    "NucleusKeyMismatch",
    "NucleusPinned",
    "NucleusStatus",
    "NucleusUp",
    "PathStatus",
    "PeerConfig",
    "PeerDown",
    "PeerStatus",
    "PeerUp",
    "PersistMembers",
    "PersistSerial",
    "PersistTimestamp",
    "PersistVip",
    "Problem",
    "ProblemSolved",
    "SecretMismatchHint",
    "SessionStatus",
    "VipAssigned",
    "VipLost",
    "VipRefused",
]


# ---------------------------------------------------------------- configuration


@dataclass(frozen=True, slots=True)
class NucleusConfig:
    """A Nucleus the user named."""

    name: str
    """As the user wrote it (`host:port`): the handle in events and in `Node.set_nucleus_endpoints`."""
    key: bytes | None = None
    """Its Ed25519 key when given (`#KEY`) or pinned by an earlier run; None: trust the first answer, then pin it."""
    given: bool = False
    """True when the operator gave the key, False when an earlier run pinned it: the remedy in messages differs."""


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A peer the user named (`--peer`)."""

    x25519: PeerId
    ed25519: bytes | None = None
    """None: a stock WireGuard peer, reached at Layer 3 through `allowed_ips`."""
    endpoint: Endpoint | None = None
    psk: bytes = field(default=bytes(32), repr=False)
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class CachedMember:
    """A verified membership and where its holder was last reached: what the disk cache keeps."""

    membership: bytes = field(repr=False)
    """Exact bytes as signed; verified again when loaded."""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything a Node must know before it starts. Times are seconds."""

    boot_id: bytes
    """16 bytes, fresh at every start of the daemon: tells a restart from a cloned identity."""
    cluster: ClusterKeys | None = None
    claim: VipClaim | None = None
    """The VIP the user asked for; None: derive one from the identity."""
    derivation: int = 0
    """The derivation in use when the last run ended (`PersistVip`)."""
    vip_known: bool = False
    """True when an earlier run of this cluster held `derivation` (or the explicit claim): good enough to go on
    while no Nucleus answers."""
    nuclei: tuple[NucleusConfig, ...] = ()
    peers: tuple[PeerConfig, ...] = ()
    name: str = ""
    """Host name that the membership carries; empty: none."""
    mtu: int = 1380
    timestamp_mark: bytes | None = None
    """The newest `PersistTimestamp.mark` of earlier runs."""
    serial_mark: int = 0
    """The newest `PersistSerial.serial` of earlier runs."""
    members: tuple[CachedMember, ...] = ()
    sessions_per_ip: int = 10
    """New sessions per source address and second."""
    under_load: int = 200
    """Initiations per second above which a cookie is asked for."""
    eager: bool = True
    """Handshake with the members of the flood set at once, instead of when a frame wants them."""
    flood_side: int = 32
    """Members on each side of the ring that get our broadcasts."""
    max_peers: int = 4096
    """Members that are remembered."""
    lanes: tuple[int, ...] = ()
    """Lanes beside lane 0 that the engine can send and receive on."""
    aeads: tuple[Aead, ...] = (Aead.CHACHA20_POLY1305,)
    """What the engine can seal bulk lanes with."""


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class VipAssigned:
    """The address that omni0 must have from now on (replaces an earlier one)."""

    address: IPv4Address
    prefix: int
    derivation: int | None
    """None: explicit."""


@dataclass(frozen=True, slots=True)
class VipLost:
    """The address was taken by a stronger claim: remove it from omni0."""

    address: IPv4Address
    holder: bytes
    """Ed25519 key of the holder."""


@dataclass(frozen=True, slots=True)
class VipRefused:
    """The explicit address is held by somebody else: omni0 stays without one; asked again from time to time."""

    address: IPv4Address
    holder: bytes
    """Ed25519 key of the holder."""


@dataclass(frozen=True, slots=True)
class IdentityCloned:
    """Another running daemon uses this identity (or a peer's identity runs twice)."""

    identity: bytes
    """Ed25519 key that runs twice."""
    where: str
    """Who noticed: a Nucleus's name, or the peer's endpoint."""
    own: bool
    """True: our own identity, and this daemon is the newcomer that must stop."""


@dataclass(frozen=True, slots=True)
class NucleusUp:
    """Registered at a Nucleus."""

    name: str
    endpoint: Endpoint
    identity: bytes
    """Ed25519 key."""


@dataclass(frozen=True, slots=True)
class NucleusDown:
    name: str
    reason: str
    """`timeout`, `refused`, `full`, ..."""


@dataclass(frozen=True, slots=True)
class NucleusPinned:
    """First contact: persist this key for this name."""

    name: str
    identity: bytes
    """Ed25519 key."""


@dataclass(frozen=True, slots=True)
class NucleusKeyMismatch:
    """The Nucleus has another key than the pinned one: it is not talked to."""

    name: str
    expected: bytes
    """Ed25519 key pinned."""
    shown: bytes
    """Ed25519 key that the answer named (unproven)."""
    given: bool
    """The operator gave the pinned key (else an earlier run pinned it)."""


@dataclass(frozen=True, slots=True)
class SecretMismatchHint:
    """The cluster's name is registered under another cluster key: probably the secret is wrong."""

    nucleus: str
    cluster: str


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A session with a peer is confirmed, where there was none."""

    peer: PeerId
    identity: bytes | None
    """Ed25519 key, None for a stock WireGuard peer."""
    session_id: bytes
    """8 bytes, the same on both sides."""
    endpoint: Endpoint
    initiator: bool
    """We began the handshake."""
    seconds: float
    """From the wish to connect to the confirmed session."""


@dataclass(frozen=True, slots=True)
class PeerDown:
    peer: PeerId
    identity: bytes | None
    reason: str
    """`closed`, `expired`, `removed`, `reset`, `timeout`"""


@dataclass(frozen=True, slots=True)
class PathMeasured:
    """A challenge came back by the path that a peer's frames take."""

    kind: PathKind
    seconds: float


@dataclass(frozen=True, slots=True)
class PersistTimestamp:
    """Write this TAI64N mark before anything sent later could pass it (it lies ahead of what was used)."""

    mark: bytes


@dataclass(frozen=True, slots=True)
class PersistSerial:
    """Write the serial of our newest membership."""

    serial: int


@dataclass(frozen=True, slots=True)
class PersistVip:
    """Write the derivation that the cluster accepted (None: the explicit claim), so that a start without a Nucleus
    can go on with it."""

    derivation: int | None


@dataclass(frozen=True, slots=True)
class PersistMembers:
    """Write the cache of verified memberships (replaces it). At most one per minute."""

    members: tuple[CachedMember, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the operator should know; lasts until `ProblemSolved` with the same code and subject."""

    code: str
    """snake_case: `psk_mismatch`, `vip_conflict`, `no_nucleus`, `wrong_nucleus_key`, ..."""
    text: str
    """A sentence with the remedy."""
    subject: str = ""
    """Which peer, Nucleus or address it is about."""


@dataclass(frozen=True, slots=True)
class ProblemSolved:
    code: str
    subject: str = ""


NodeEvent = (
    VipAssigned
    | VipLost
    | VipRefused
    | IdentityCloned
    | NucleusUp
    | NucleusDown
    | NucleusPinned
    | NucleusKeyMismatch
    | SecretMismatchHint
    | PeerUp
    | PeerDown
    | PathMeasured
    | PersistTimestamp
    | PersistSerial
    | PersistVip
    | PersistMembers
    | Problem
    | ProblemSolved
)


# ---------------------------------------------------------------- snapshot


@dataclass(frozen=True, slots=True)
class SessionStatus:
    session_id: bytes
    initiator: bool
    age: float
    """Seconds since the handshake."""
    current: bool
    """Frames leave on it."""
    local_index: int


@dataclass(frozen=True, slots=True)
class PathStatus:
    """One address of a peer that a round trip has proven."""

    kind: str
    """`lan`, `ipv6`, `direct` or `nat`"""
    endpoint: Endpoint
    rtt: float | None
    """Seconds, the best of the last few; None: not measured yet."""
    newest: float | None = None
    """The last one."""
    answered_at: float | None = None
    """When that was, in boot-time seconds."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    peer: PeerId
    kind: str
    """`member`, `pair` or `wireguard`"""
    link: Link
    state: str
    """`up`, `connecting` or `idle`"""
    identity: bytes | None
    name: str
    vip: IPv4Address | None
    mac: bytes | None
    ula: str | None
    """IPv6 literal."""
    endpoint: Endpoint | None
    path: PathStatus | None
    """How its frames go; None while there is no session."""
    alternatives: tuple[PathStatus, ...]
    """Other addresses that answered in the last seconds, the fastest first."""
    keepalive: float | None
    """Seconds of silence after which the path is kept open; None for a stock peer."""
    proven: bool
    """A round trip proved the endpoint."""
    sessions: tuple[SessionStatus, ...]
    handshake_age: float | None
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    lanes: tuple[int, ...]
    aead: Aead | None
    """What frames to the peer are sealed with; None without a session."""


@dataclass(frozen=True, slots=True)
class NucleusStatus:
    name: str
    endpoint: Endpoint | None
    identity: bytes | None
    state: str
    """`up`, `connecting` or `down`"""
    registered: bool
    version: int
    observed: Endpoint | None
    """Our own endpoint as the Nucleus sees it."""
    rtt: float | None
    """Seconds between a request and its answer; None: not measured yet."""
    hint: str
    """Why it is not up, or a warning; empty when all is well."""


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The state that `omni status`, `omni peers` and the metrics show."""

    vip: VipClaim | None
    """The claim in force; None while none is assigned."""
    peers: tuple[PeerStatus, ...]
    nuclei: tuple[NucleusStatus, ...]
    problems: tuple[Problem, ...]
    flood: tuple[PeerId, ...]
    sessions_active: int
    handshakes_completed: int
    rate_limited: int
    counters: dict[str, int]
    """Control-plane totals by name."""
    drops: dict[str, int]
    """Control-plane drops by reason."""
