"""What the control plane and a Synapse engine say to each other: frozen commands one way, frozen events back.

The core emits commands and consumes events; `synapse/port.py` says how an engine takes and gives them in batches.
No per-packet object crosses here except the slow path: handshakes, control messages, and frames that have no way yet.

The engine owns every established session: counters, replay windows, sealing, opening, FDB look-up, source guard,
flooding. The core owns everything else: handshakes, timers, paths, memberships, and which of a peer's sessions sends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from omninervous.wire.address import Endpoint

__all__ = [
    "Aead",
    "Command",
    "ControlReceived",
    "DatagramReceived",
    "DeliverFrames",
    "Event",
    "FrameUnresolved",
    "FrameWithoutSession",
    "InstallSession",
    "LaneKeys",
    "Link",
    "OpenLanes",
    "PeerId",
    "RemovePeer",
    "RemoveSession",
    "SelectSession",
    "SendControl",
    "SendDatagram",
    "SendFrames",
    "SessionActivity",
    "SessionConfirmed",
    "SessionExhausted",
    "SetEndpoint",
    "SetFlood",
    "SetPeer",
    "SourceChanged",
    "TrustCookies",
    "UnderlayError",
]

PeerId = bytes
"""A peer's X25519 public key, 32 bytes: the index of every peer table."""


class Link(Enum):
    """What a peer's transport payloads hold."""

    ETHERNET = "ethernet"
    """An OmniNervous edge: Ethernet frames, fragments, control."""
    IP = "ip"
    """A stock WireGuard peer: raw IP packets only."""
    SIGNALLING = "signalling"
    """A Nucleus: control messages only."""


class Aead(Enum):
    """AEAD of a lane; the value is its number on the wire (`docs/PROTOCOL.md`, lanes)."""

    CHACHA20_POLY1305 = 0
    AES_256_GCM = 1


@dataclass(frozen=True, slots=True)
class LaneKeys:
    """Keys of one lane (1-8) in both directions, 32 bytes each."""

    lane: int
    aead: Aead
    send_key: bytes = field(repr=False)
    recv_key: bytes = field(repr=False)


# ---------------------------------------------------------------- commands: core -> engine


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Create a peer or replace its policy. The FDB entry of `mac` follows from it."""

    peer: PeerId
    link: Link
    mac: bytes | None = None
    """MAC of the peer's omni0 (6 bytes). ETHERNET: derived from its identity, also the only source MAC it may use.
    IP: a synthetic one by which the local stack reaches the peer. None while an ETHERNET peer has not proven
    its identity (its frames are dropped as `no_membership`)."""
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    """ETHERNET: IP addresses the peer may use as a source (VIP, ULA); its EUI-64 link-local is always allowed."""
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    """IP: WireGuard's cryptokey routing, for sources on receive and destinations on send."""
    mtu: int = 1500
    """Largest outer IP packet of the path; longer payloads are fragmented (ETHERNET only)."""


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Forget a peer, its sessions (keys wiped), its FDB entries and its place in the flood set."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class SetFlood:
    """The peers that broadcast and multicast frames are copied to; replaces the earlier set."""

    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class InstallSession:
    """A handshake finished: the session can receive at once; it sends when a SelectSession names it."""

    peer: PeerId
    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    recv_key: bytes = field(repr=False)
    expires_at: float
    """Boot-time second after which the engine neither sends nor receives with it (design: reject after 180 s)."""


@dataclass(frozen=True, slots=True)
class OpenLanes:
    """Both sides agreed on lanes beside lane 0 (CAPS and CAPS_ACK). `tx` names the lanes to send on."""

    local_index: int
    lanes: tuple[LaneKeys, ...]
    tx: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SelectSession:
    """From now on the peer's frames leave on this session."""

    peer: PeerId
    local_index: int


@dataclass(frozen=True, slots=True)
class RemoveSession:
    """Drop a session and wipe its keys. An unknown index is ignored."""

    local_index: int


@dataclass(frozen=True, slots=True)
class SetEndpoint:
    """Where the peer's datagrams go."""

    peer: PeerId
    endpoint: Endpoint
    budget: int | None = None
    """None: a round trip proved the path. Else at most this many UDP payload bytes may be sent to it
    until the next SetEndpoint (anti-reflection, three times what came from there)."""


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a datagram outside of any session (types 1, 2, 3, 5, 6)."""

    endpoint: Endpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class TrustCookies:
    """The secret behind the cookies that the core gives away from now on. Only who sieves initiations ahead of the core
    needs it: one with a valid mac2 must reach it, however many others come."""

    secret: bytes = field(repr=False)
    until: float
    """Boot-time second."""


@dataclass(frozen=True, slots=True)
class SendControl:
    """Seal a plaintext on lane 0 of a session. Empty = keepalive; else its first byte is a payload kind."""

    local_index: int
    payload: bytes
    endpoint: Endpoint | None = None
    """None: the peer's endpoint; else this address (path challenges)."""


@dataclass(frozen=True, slots=True)
class SendFrames:
    """Frames that waited for a session, as the tap gave them, in order."""

    peer: PeerId
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DeliverFrames:
    """Frames made here (ARP and ND answers) for the local stack on omni0."""

    frames: tuple[bytes, ...]


Command = (
    SetPeer
    | RemovePeer
    | SetFlood
    | InstallSession
    | OpenLanes
    | SelectSession
    | RemoveSession
    | SetEndpoint
    | SendDatagram
    | TrustCookies
    | SendControl
    | SendFrames
    | DeliverFrames
)


# ---------------------------------------------------------------- events: engine -> core


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """A datagram that is not transport data: types 1, 2, 3, 5, 6 with the length that its type asks for."""

    source: Endpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class SessionConfirmed:
    """The first authenticated packet of a session arrived: the peer has the keys."""

    peer: PeerId
    local_index: int
    source: Endpoint


@dataclass(frozen=True, slots=True)
class ControlReceived:
    """An authenticated payload of kind CONTROL, kind byte included."""

    peer: PeerId
    local_index: int
    payload: bytes
    source: Endpoint
    size: int
    """UDP payload bytes of the datagram that brought it (anti-reflection budget)."""


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """A packet with the lane's highest counter came from elsewhere than the peer's endpoint; for ETHERNET, data or a
    keepalive: `ControlReceived` names the source of a control message. At most one per session, source and second."""

    peer: PeerId
    local_index: int
    source: Endpoint
    size: int


@dataclass(frozen=True, slots=True)
class FrameWithoutSession:
    """A frame for a known peer that has no session to send on (or no endpoint). Bounded per peer and second."""

    peer: PeerId
    frame: bytes


@dataclass(frozen=True, slots=True)
class FrameUnresolved:
    """A frame from the local stack that the core must look at: ARP requests, neighbour solicitations, and unicast
    to a MAC that the FDB does not hold."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class SessionExhausted:
    """A counter is near its limit: rekey now."""

    peer: PeerId
    local_index: int


@dataclass(frozen=True, slots=True)
class UnderlayError:
    """Sending to an endpoint failed (`errno`). At most one per endpoint and second."""

    endpoint: Endpoint
    errno: int


Event = (
    DatagramReceived
    | SessionConfirmed
    | ControlReceived
    | SourceChanged
    | FrameWithoutSession
    | FrameUnresolved
    | SessionExhausted
    | UnderlayError
)


@dataclass(frozen=True, slots=True)
class SessionActivity:
    """What a session has done, read by the core's timers about once a second. Times are boot-time seconds, 0.0 = never.

    "data" excludes keepalives and control messages: WireGuard's timers react to data."""

    peer: PeerId
    local_index: int
    tx_at: float
    tx_data_at: float
    rx_at: float
    rx_data_at: float
    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int
