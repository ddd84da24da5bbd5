"""What an engine knows: peers, their sessions, the FDB (MAC -> peer), the flood set, cryptokey routing.

The control plane writes it with commands; the data path reads it for every packet. Every table is bounded by what the
control plane installs; nothing here grows with traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omninervous.core.allowed_ips import AllowedIps
from omninervous.core.clock import Entropy
from omninervous.core.dataplane import (
    InstallSession,
    Link,
    OpenLanes,
    PeerId,
    RemovePeer,
    RemoveSession,
    SelectSession,
    SessionActivity,
    SetEndpoint,
    SetFlood,
    SetPeer,
    TrustCookies,
)
from omninervous.core.fragments import Reassembler, ReassemblyPool
from omninervous.core.guard import SourceGuard
from omninervous.core.session import Session
from omninervous.wire.address import UDP_OVER_IPV4, Endpoint
from omninervous.wire.payload import KIND_SIZE
from omninervous.wire.transport import HEADER_SIZE, LANE_BASE, TAG_SIZE

__all__ = ["MAX_FRAME", "ForwardingTable", "PeerEntry", "SessionEntry"]

MAX_FRAME = 9216 + 18
"""Largest Ethernet frame that is carried or delivered: a jumbo payload with header and one VLAN tag."""

_SEALING = HEADER_SIZE + TAG_SIZE
_LEAST_MTU = 576
"""No path is believed to be narrower (RFC 791): a smaller figure would only cut frames to dust."""
_MTU_STEPS = (1500, 1400, 1280, _LEAST_MTU)
"""Outer packet sizes that are tried, one after the other, when a datagram turns out too large."""


class SessionEntry:
    """An installed session and what it has done. Times are boot-time seconds, 0.0 = never."""

    __slots__ = (
        "confirmed",
        "exhaustion_told",
        "peer",
        "rx_at",
        "rx_bytes",
        "rx_data_at",
        "rx_packets",
        "session",
        "tx_at",
        "tx_bytes",
        "tx_data_at",
        "tx_lane",
        "tx_packets",
    )

    def __init__(self, peer: PeerEntry, session: Session) -> None:
        self.peer = peer
        self.session = session
        self.tx_lane = LANE_BASE
        self.confirmed = False
        self.exhaustion_told = False
        self.tx_at = self.tx_data_at = self.rx_at = self.rx_data_at = 0.0
        self.tx_packets = self.tx_bytes = self.rx_packets = self.rx_bytes = 0

    def activity(self) -> SessionActivity:
        """Bytes are UDP payload bytes, packets are datagrams."""
        return SessionActivity(
            peer=self.peer.id,
            local_index=self.session.local_index,
            tx_at=self.tx_at,
            tx_data_at=self.tx_data_at,
            rx_at=self.rx_at,
            rx_data_at=self.rx_data_at,
            tx_packets=self.tx_packets,
            tx_bytes=self.tx_bytes,
            rx_packets=self.rx_packets,
            rx_bytes=self.rx_bytes,
        )


class PeerEntry:
    """A peer: policy, where its datagrams go, and its place in the tables."""

    __slots__ = (
        "_found_mtu",
        "_set_mtu",
        "budget",
        "delivered_at",
        "endpoint",
        "fragment_id",
        "guard",
        "id",
        "link",
        "mac",
        "reassembler",
        "room",
        "selected",
        "sessions",
    )

    def __init__(self, peer: PeerId, reassembler: Reassembler, fragment_id: int) -> None:
        self.id = peer
        self.link = Link.ETHERNET
        self.mac: bytes | None = None
        self.guard: SourceGuard | None = None
        """None: an ETHERNET peer that has not proven its identity, or another kind of link."""
        self.endpoint: Endpoint | None = None
        self.budget: int | None = None
        """UDP payload bytes that may still go to an unproven endpoint; None = no limit."""
        self.selected: SessionEntry | None = None
        self.sessions: dict[int, SessionEntry] = {}
        self.delivered_at: float | None = None
        """Boot-time second of the newest frame handed to the local stack."""
        self.reassembler = reassembler
        self.fragment_id = fragment_id
        """Number of the next payload that must be cut."""
        self._set_mtu = self._found_mtu = _MTU_STEPS[0]
        self.room = 0
        """Largest payload that one datagram carries on this path."""
        self._measure()

    def set_policy(self, command: SetPeer, own_mac: bytes) -> None:
        """Replace link, addresses and MTU. What the path itself taught about its MTU stays."""
        self.link = command.link
        self.mac = command.mac if command.link is not Link.SIGNALLING else None
        member = command.link is Link.ETHERNET and command.mac is not None
        self.guard = SourceGuard(own_mac, command.mac, command.addresses) if member and command.mac else None
        mtu = max(command.mtu, _LEAST_MTU)
        if mtu != self._set_mtu:
            self._set_mtu = self._found_mtu = mtu
        self._measure()

    def set_endpoint(self, endpoint: Endpoint, budget: int | None) -> None:
        """A new path starts with the MTU that policy names."""
        if endpoint != self.endpoint:
            self.endpoint = endpoint
            self._found_mtu = self._set_mtu
            self._measure()
        self.budget = budget

    def shrink(self, size: int) -> bool:
        """A datagram of `size` UDP payload bytes was too large for the path: assume the next smaller MTU.

        False if there is none. A datagram sent before the path shrank says nothing new and changes nothing.
        """
        outer = size + self._overhead()
        if outer > self._found_mtu:
            return True
        smaller = [step for step in _MTU_STEPS if step < outer]
        if smaller:
            self._found_mtu = smaller[0]
            self._measure()
        return bool(smaller)

    def _measure(self) -> None:
        self.room = self._found_mtu - self._overhead() - _SEALING

    def _overhead(self) -> int:
        return UDP_OVER_IPV4 if self.endpoint is None else self.endpoint.overhead


class ForwardingTable:
    """All peers and sessions. `apply` carries out the commands that change it."""

    __slots__ = ("_entropy", "_handlers", "_own_mac", "allowed_ips", "fdb", "flood", "peers", "pool", "sessions")

    def __init__(self, own_mac: bytes, entropy: Entropy) -> None:
        self._own_mac = own_mac
        self._entropy = entropy
        self.peers: dict[PeerId, PeerEntry] = {}
        self.sessions: dict[int, SessionEntry] = {}
        """By local index."""
        self.fdb: dict[bytes, PeerEntry] = {}
        self.flood: tuple[PeerId, ...] = ()
        self.allowed_ips = AllowedIps()
        self.pool = ReassemblyPool()
        self._handlers: dict[type, Callable[[Any], None]] = {
            SetPeer: self._set_peer,
            RemovePeer: self._remove_peer,
            SetFlood: self._set_flood,
            InstallSession: self._install_session,
            OpenLanes: self._open_lanes,
            SelectSession: self._select_session,
            RemoveSession: self._remove_session,
            SetEndpoint: self._set_endpoint,
            TrustCookies: lambda _: None,  # every initiation goes to the core
        }

    def apply(self, command: object) -> bool:
        """Carry out a command about the tables; False if it is of another kind. Unknown peers and sessions are
        ignored."""
        handler = self._handlers.get(type(command))
        if handler is None:
            return False
        handler(command)
        return True

    def flood_peers(self) -> list[PeerEntry]:
        """Proven members of the flood set, in its order."""
        found = (self.peers.get(peer) for peer in self.flood)
        return [peer for peer in found if peer is not None and peer.guard is not None]

    def clear(self) -> None:
        """Forget all peers and wipe all keys."""
        for peer in list(self.peers):
            self._remove_peer(RemovePeer(peer))

    def _set_peer(self, command: SetPeer) -> None:
        peer = self.peers.get(command.peer)
        if peer is None:
            # Ids start anywhere: after a restart, new pieces must not complete a payload cut before it.
            first_id = int.from_bytes(self._entropy(4), "big")
            reassembler = Reassembler(max_payload=KIND_SIZE + MAX_FRAME, pool=self.pool)
            peer = self.peers[command.peer] = PeerEntry(command.peer, reassembler, first_id)
        former = peer.mac
        peer.set_policy(command, self._own_mac)
        if former != peer.mac:
            self._release_mac(peer, former)
        if peer.mac is not None:
            # Who has a MAC keeps it: a second key that hashes to the same one (a forgery) gets no traffic.
            self.fdb.setdefault(peer.mac, peer)
        self.allowed_ips.assign(peer.id, command.allowed_ips if command.link is Link.IP else ())

    def _remove_peer(self, command: RemovePeer) -> None:
        peer = self.peers.pop(command.peer, None)
        if peer is None:
            return
        for index in list(peer.sessions):
            self._remove_session(RemoveSession(index))
        peer.reassembler.clear()
        self.allowed_ips.assign(peer.id, ())
        self.flood = tuple(each for each in self.flood if each != peer.id)
        mac, peer.mac = peer.mac, None
        self._release_mac(peer, mac)

    def _release_mac(self, peer: PeerEntry, mac: bytes | None) -> None:
        """Take a MAC from a peer; the next one that claims it, if any, gets it."""
        if mac is None or self.fdb.get(mac) is not peer:
            return
        del self.fdb[mac]
        heir = next((other for other in self.peers.values() if other.mac == mac), None)
        if heir is not None:
            self.fdb[mac] = heir

    def _set_flood(self, command: SetFlood) -> None:
        self.flood = command.peers

    def _install_session(self, command: InstallSession) -> None:
        peer = self.peers.get(command.peer)
        there = self.sessions.get(command.local_index)
        # One that is there already stays: its counters must not start again.
        if peer is None or (there is not None and there.session.same_key(command)):
            return
        self._remove_session(RemoveSession(command.local_index))
        entry = SessionEntry(peer, Session(command))
        self.sessions[command.local_index] = peer.sessions[command.local_index] = entry

    def _open_lanes(self, command: OpenLanes) -> None:
        entry = self.sessions.get(command.local_index)
        if entry is not None:
            entry.session.open_lanes(command)
            entry.tx_lane = min(command.tx, default=LANE_BASE)

    def _select_session(self, command: SelectSession) -> None:
        peer = self.peers.get(command.peer)
        if peer is not None and command.local_index in peer.sessions:
            peer.selected = peer.sessions[command.local_index]

    def _remove_session(self, command: RemoveSession) -> None:
        entry = self.sessions.pop(command.local_index, None)
        if entry is None:
            return
        entry.session.wipe()
        del entry.peer.sessions[command.local_index]
        if entry.peer.selected is entry:
            entry.peer.selected = None

    def _set_endpoint(self, command: SetEndpoint) -> None:
        peer = self.peers.get(command.peer)
        if peer is not None:
            peer.set_endpoint(command.endpoint, command.budget)
