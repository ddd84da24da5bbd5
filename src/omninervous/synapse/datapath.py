"""The data path in pure Python: datagrams and frames in, frames and datagrams out. No descriptors, no clock.

::

    from_tap(frame) ──► source is ours? ──► ARP, ND: core ──► FDB / flood ──► seal ──► datagrams
    frames ◄── source guard ◄── payload kind, fragments ◄── open ◄── session index ◄── from_underlay(datagram)

The invariant: whatever comes in ends as output, as an event, or as a counted drop; never as an exception.

It is the oracle that native engines are compared with, the data plane of simulations, and what `reference.py` runs.
Drops are counted by reason; the reasons are listed in `docs/PROTOCOL.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from omninervous.core.clock import Entropy
from omninervous.core.dataplane import (
    Command,
    ControlReceived,
    DatagramReceived,
    DeliverFrames,
    Event,
    Link,
    PeerId,
    SendControl,
    SendDatagram,
    SendFrames,
    SessionActivity,
    SessionConfirmed,
    SessionExhausted,
)
from omninervous.core.event_queue import EventQueue
from omninervous.core.forwarding import MAX_FRAME, ForwardingTable, PeerEntry, SessionEntry
from omninervous.core.fragments import split, split_again
from omninervous.core.guard import check_routed_packet
from omninervous.core.resolution import Resolution, classify_local
from omninervous.core.routed import frame_to_plaintext, plaintext_to_frame
from omninervous.core.traffic_class import frame_traffic_class, mark_frame, mark_packet
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import ETHERNET_HEADER_SIZE, complete_checksum
from omninervous.wire.handshake import COOKIE_REPLY_SIZE, INITIATION_SIZE, RESPONSE_SIZE
from omninervous.wire.hello import HELLO_REPLY_SIZE, HELLO_SIZE
from omninervous.wire.payload import KIND_SIZE, PayloadKind, decode_fragment, is_raw_ip
from omninervous.wire.transport import LANE_BASE, LANE_REFLEX, MIN_TRANSPORT_SIZE

__all__ = ["MAX_FRAME", "Datapath", "Output", "Packets"]

ALWAYS_FITS = 1280 - 40 - 8
"""UDP payload bytes that every IPv6 path carries. Only larger datagrams are remembered for `too_big`."""

_SLOW_SIZES = {
    b"\x01\0\0\0": INITIATION_SIZE,
    b"\x02\0\0\0": RESPONSE_SIZE,
    b"\x03\0\0\0": COOKIE_REPLY_SIZE,
    b"\x05\0\0\0": HELLO_SIZE,
    b"\x06\0\0\0": HELLO_REPLY_SIZE,
}
_TRANSPORT_WORD = b"\x04\0\0\0"
_ETHERNET = bytes([PayloadKind.ETHERNET])
# Plain integers: looking a member up in an enumeration costs more than the comparison.
_KIND_ETHERNET, _KIND_PARTIAL = int(PayloadKind.ETHERNET), int(PayloadKind.ETHERNET_PARTIAL)
_KIND_FRAGMENT, _KIND_CONTROL = int(PayloadKind.FRAGMENT), int(PayloadKind.CONTROL)
_IPV4_FRAME = b"\x08\x00"
_TOTALS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")


class Packets(NamedTuple):
    """What must be sent now, in order."""

    datagrams: list[tuple[Endpoint, bytes]]
    frames: list[bytes]
    plaintexts: dict[int, Origin]
    """By position in `datagrams`, for those that may be too large for their path: what `too_big` wants back."""
    classes: dict[int, int]
    """By position in `datagrams`: the traffic class of the outer IP header, where it is not 0."""


class Origin(NamedTuple):
    """Where a datagram came from."""

    peer: PeerEntry
    payload: bytes
    traffic_class: int


class Output(NamedTuple):
    """Everything that came out since the last `take`."""

    datagrams: list[tuple[Endpoint, bytes]]
    frames: list[bytes]
    events: list[Event]
    classes: dict[int, int]
    """As `Packets.classes`."""


class Datapath:
    """One edge's data plane. `now` is always a boot-time second. Not thread-safe: its driver holds a lock."""

    def __init__(self, own_mac: bytes, entropy: Entropy) -> None:
        self._own_mac = own_mac
        self._table = ForwardingTable(own_mac, entropy)
        self._queue = EventQueue()
        self._drops: dict[str, int] = {}
        self._datagrams: list[tuple[Endpoint, bytes]] = []
        self._plaintexts: dict[int, Origin] = {}
        self._classes: dict[int, int] = {}
        self._frames: list[bytes] = []
        self._reassembling: dict[PeerId, PeerEntry] = {}
        self._lanes = [[0, 0, 0, 0] for _ in range(LANE_REFLEX + 1)]
        """Of each lane, as _TOTALS names them."""
        self._refitted = 0

    # ------------------------------------------------------------ control plane

    def submit(self, now: float, commands: Sequence[Command]) -> None:
        """Carry out commands in order."""
        for command in commands:
            if self._table.apply(command):
                continue
            if isinstance(command, SendDatagram):
                self._datagrams.append((command.endpoint, command.data))
            elif isinstance(command, DeliverFrames):
                self._frames.extend(command.frames)
            elif isinstance(command, SendControl):
                self._send_control(now, command)
            elif isinstance(command, SendFrames):
                self._send_frames(now, command)

    def take(self) -> Output:
        """All output since the last call."""
        packets = self.take_packets()
        return Output(packets.datagrams, packets.frames, self.take_events(), packets.classes)

    def take_packets(self) -> Packets:
        """Datagrams and frames only; events stay queued."""
        packets = Packets(self._datagrams, self._frames, self._plaintexts, self._classes)
        self._datagrams, self._frames, self._plaintexts, self._classes = [], [], {}, {}
        return packets

    def take_events(self) -> list[Event]:
        """Events only."""
        return self._queue.take()

    @property
    def has_packets(self) -> bool:
        """Whether `take_packets` would give something."""
        return bool(self._datagrams or self._frames)

    @property
    def has_events(self) -> bool:
        """Whether `take_events` would give something."""
        return len(self._queue) > 0

    def activity(self) -> list[SessionActivity]:
        """What every installed session has done."""
        return [entry.activity() for entry in self._table.sessions.values()]

    def counters(self) -> dict[str, int]:
        """Totals since start. rx: authenticated transport datagrams; tx: sealed ones; bytes: their UDP payloads;
        `lane<N>_...`: those of one lane, once there are any.
        `refitted`: datagrams that a path refused and that went again in fragments."""
        pool = self._table.pool
        drops = {"fragment_timeout": pool.timed_out, "fragment_evicted": pool.evicted, **self._drops}
        return {
            **dict(zip(_TOTALS, map(sum, zip(*self._lanes, strict=True)), strict=True)),
            "refitted": self._refitted,
            **{
                f"lane{lane}_{name}": count
                for lane, counts in enumerate(self._lanes)
                for name, count in zip(_TOTALS, counts, strict=True)
                if count
            },
            **{f"drop_{reason}": count for reason, count in sorted(drops.items()) if count},
        }

    def learned(self) -> dict[bytes, float]:
        """MACs of peers whose frames were delivered here, with the second of the newest."""
        learned: dict[bytes, float] = {}
        for peer in self._table.peers.values():
            if peer.mac is not None and peer.delivered_at is not None:
                learned[peer.mac] = max(learned.get(peer.mac, 0.0), peer.delivered_at)
        return learned

    def next_deadline(self) -> float | None:
        """When `handle_timeout` has something to do; None: never, as things are."""
        if not self._reassembling:
            return None
        deadlines = [peer.reassembler.deadline for peer in self._reassembling.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Forget payloads whose fragments never came."""
        for peer in list(self._reassembling.values()):
            peer.reassembler.expire(now)
            if not len(peer.reassembler):
                del self._reassembling[peer.id]

    def drop(self, reason: str) -> None:
        """Count a drop. Drivers count theirs here, too."""
        self._drops[reason] = self._drops.get(reason, 0) + 1

    def wipe(self) -> None:
        """Forget all peers, sessions and keys, and what waits to be sent. Counters stay."""
        self._table.clear()
        self.take()

    # ------------------------------------------------------------ local stack -> underlay

    def from_tap(self, now: float, frame: bytes) -> None:
        """A frame that the local stack sends."""
        if not ETHERNET_HEADER_SIZE <= len(frame) <= MAX_FRAME:
            self.drop("bad_frame")
        elif frame[6:12] != self._own_mac:
            self.drop("bridged_source")
        elif frame[12:14] != _IPV4_FRAME and self._resolves(now, frame):
            pass
        elif frame[0] & 1:
            self._flood(now, frame)
        elif (peer := self._table.fdb.get(frame[:6])) is not None:
            self._forward(now, peer, frame)
        else:
            self._tell(self._queue.offer_unresolved(now, frame))

    def _resolves(self, now: float, frame: bytes) -> bool:
        """True if the frame is about address resolution and so ends here."""
        what = classify_local(frame)
        if what is Resolution.QUESTION:
            self._tell(self._queue.offer_unresolved(now, frame))
        elif what is Resolution.ANNOUNCEMENT:
            self.drop("arp_local")
        return what is not Resolution.NONE

    def _flood(self, now: float, frame: bytes) -> None:
        peers = self._table.flood_peers()
        for peer in peers:
            self._forward(now, peer, frame)
        if not peers:
            self.drop("no_peers")

    def _forward(self, now: float, peer: PeerEntry, frame: bytes, *, ask: bool = True) -> None:
        """Send a frame to a peer. Without a session: an event if `ask`, else a drop."""
        payload = _ETHERNET + frame if peer.link is Link.ETHERNET else self._packet_for(peer, frame)
        if not payload:
            return
        entry = peer.selected
        if entry is None or peer.endpoint is None or entry.session.expired(now):
            self._tell(self._queue.offer_waiting(now, peer.id, frame) if ask else "no_session")
        else:
            self._send_payload(now, entry, peer.endpoint, payload, frame_traffic_class(frame))

    def _packet_for(self, peer: PeerEntry, frame: bytes) -> bytes:
        """The plaintext for a stock peer; empty if it may not have the frame."""
        try:
            destination, plaintext = frame_to_plaintext(frame)
        except DecodeError:
            self.drop("not_ip")
            return b""
        if self._table.allowed_ips.lookup(destination) != peer.id:
            self.drop("allowed_ips")
            return b""
        return plaintext

    def _send_payload(
        self, now: float, entry: SessionEntry, endpoint: Endpoint, payload: bytes, traffic_class: int
    ) -> None:
        """Seal a data payload on the session's lane, in fragments if it does not fit the path."""
        peer = entry.peer
        if len(payload) <= peer.room or peer.link is not Link.ETHERNET:
            self._seal(now, entry, endpoint, payload, entry.tx_lane, traffic_class)
            return
        peer.fragment_id = (peer.fragment_id + 1) & 0xFFFFFFFF
        for piece in split(payload, peer.fragment_id, peer.room):
            self._seal(now, entry, endpoint, piece, entry.tx_lane, traffic_class)

    def _seal(
        self,
        now: float,
        entry: SessionEntry,
        endpoint: Endpoint,
        payload: bytes,
        lane: int,
        traffic_class: int = 0,
        *,
        data: bool = True,
    ) -> None:
        peer = entry.peer
        if peer.budget is not None and endpoint == peer.endpoint:
            size = len(payload) + MIN_TRANSPORT_SIZE
            if size > peer.budget:
                self.drop("reflection_budget")
                return
            peer.budget -= size
        try:
            datagram = entry.session.seal(payload, lane)
        except RemoteError as error:
            self.drop(error.reason)
            return
        finally:
            if entry.session.exhausted and not entry.exhaustion_told:
                entry.exhaustion_told = True
                self._queue.put(SessionExhausted(peer.id, entry.session.local_index))
        size = len(datagram)
        if size > ALWAYS_FITS and data:
            self._plaintexts[len(self._datagrams)] = Origin(peer, payload, traffic_class)
        if traffic_class:
            self._classes[len(self._datagrams)] = traffic_class
        self._datagrams.append((endpoint, datagram))
        entry.tx_at = now
        if data:
            entry.tx_data_at = now
        entry.tx_packets += 1
        entry.tx_bytes += size
        counts = self._lanes[lane]
        counts[2] += 1
        counts[3] += size

    def _send_control(self, now: float, command: SendControl) -> None:
        entry = self._table.sessions.get(command.local_index)
        if entry is None:
            return
        endpoint = command.endpoint or entry.peer.endpoint
        if endpoint is None:
            self.drop("no_endpoint")
        elif entry.session.expired(now):
            self.drop("expired")
        else:
            self._seal(now, entry, endpoint, command.payload, LANE_BASE, data=False)

    def _send_frames(self, now: float, command: SendFrames) -> None:
        peer = self._table.peers.get(command.peer)
        if peer is not None:
            for frame in command.frames:
                self._forward(now, peer, frame, ask=False)

    # ------------------------------------------------------------ what the driver learns by sending

    def too_big(self, now: float, size: int, origin: Origin | None) -> None:
        """The path refused a datagram of `size` bytes. Its payload goes again, in fragments that fit a smaller MTU."""
        if origin is None:
            self.drop("too_big")
            return
        peer, payload, traffic_class = origin
        entry, endpoint = peer.selected, peer.endpoint
        if peer.link is not Link.ETHERNET or entry is None or endpoint is None or not peer.shrink(size):
            self.drop("too_big")
            return
        self._refitted += 1
        if payload[0] != _KIND_FRAGMENT:
            self._send_payload(now, entry, endpoint, payload, traffic_class)
            return
        for piece in split_again(decode_fragment(payload), peer.room):
            self._seal(now, entry, endpoint, piece, entry.tx_lane, traffic_class)

    def link_error(self, now: float, reason: str, endpoint: Endpoint, errno: int) -> None:
        """The system refused to carry something to or from `endpoint`: count it and tell the core."""
        self.drop(reason)
        self._queue.offer_error(now, endpoint, errno)

    # ------------------------------------------------------------ underlay -> local stack

    def from_underlay(self, now: float, source: Endpoint, data: bytes, ecn: int = 0) -> None:
        """A datagram from anywhere; `ecn`: that field of its IP header."""
        word = data[:4]
        if word == _TRANSPORT_WORD:
            self._open(now, source, data, ecn)
        elif word not in _SLOW_SIZES:
            self.drop("bad_type" if len(word) == 4 else "runt")
        elif len(data) != _SLOW_SIZES[word]:
            self.drop("bad_length")
        else:
            self._tell(self._queue.put(DatagramReceived(source, data)))

    def _open(self, now: float, source: Endpoint, data: bytes, ecn: int) -> None:
        if len(data) < MIN_TRANSPORT_SIZE:
            self.drop("runt")
            return
        entry = self._table.sessions.get(int.from_bytes(data[4:8], "little"))
        if entry is None:
            self.drop("unknown_session")
            return
        try:
            lane, _, payload, highest = entry.session.open(now, data)
        except RemoteError as error:
            self.drop(error.reason)
            return
        size = len(data)
        peer = entry.peer
        entry.rx_at = now
        entry.rx_packets += 1
        entry.rx_bytes += size
        counts = self._lanes[lane]
        counts[0] += 1
        counts[1] += size
        if not entry.confirmed:
            entry.confirmed = True
            self._queue.put(SessionConfirmed(peer.id, entry.session.local_index, source))
        # An edge's control message that only measures a path is no move: `ControlReceived` names its source.
        measures = bool(payload) and payload[0] == _KIND_CONTROL and peer.link is Link.ETHERNET
        if highest and source != peer.endpoint and not measures:
            self._queue.offer_source(now, peer.id, entry.session.local_index, source, size)
        if payload:
            try:
                self._receive(now, entry, lane, payload, source, size, ecn)
            except RemoteError as error:
                self.drop(error.reason)
            except DecodeError:
                self.drop("bad_payload")

    def _receive(
        self, now: float, entry: SessionEntry, lane: int, payload: bytes, source: Endpoint, size: int, ecn: int
    ) -> None:
        """Act on an authenticated plaintext that is not empty."""
        peer = entry.peer
        link = peer.link
        kind = payload[0]
        if kind != _KIND_CONTROL:
            entry.rx_data_at = now
        if kind == _KIND_FRAGMENT and link is Link.ETHERNET:
            payload = self._reassemble(now, peer, payload, ecn)
            if not payload:
                return
            ecn = peer.reassembler.ecn
            kind = payload[0]
        if kind == _KIND_ETHERNET and link is Link.ETHERNET:
            self._deliver(now, peer, payload[KIND_SIZE:], ecn)
        elif kind == _KIND_PARTIAL and link is Link.ETHERNET:
            self._deliver(now, peer, payload[KIND_SIZE:], ecn, partial=True)
        elif kind == _KIND_CONTROL and link is not Link.IP and lane == LANE_BASE:
            event = ControlReceived(peer.id, entry.session.local_index, payload, source, size)
            self._tell(self._queue.put(event))
        elif is_raw_ip(kind) and link is Link.IP:
            self._deliver_packet(now, peer, payload, ecn)
        else:
            raise RemoteError("relayed" if kind == PayloadKind.RELAYED else "payload_kind")

    def _reassemble(self, now: float, peer: PeerEntry, piece: bytes, ecn: int) -> bytes:
        """The whole payload if this piece was the last one missing, else nothing."""
        if peer.guard is None:
            raise RemoteError("no_membership")
        try:
            whole = peer.reassembler.add(now, decode_fragment(piece), ecn)
        finally:
            if len(peer.reassembler):
                self._reassembling[peer.id] = peer
            else:
                self._reassembling.pop(peer.id, None)
        if whole is not None and whole[0] == _KIND_FRAGMENT:
            raise RemoteError("fragment", "a fragment of a fragment")
        return whole or b""

    def _deliver(self, now: float, peer: PeerEntry, frame: bytes, ecn: int, *, partial: bool = False) -> None:
        if peer.guard is None:
            raise RemoteError("no_membership")
        if len(frame) > MAX_FRAME:
            raise RemoteError("frame_too_big")
        peer.guard.check(frame)
        frame = mark_frame(frame, ecn)
        self._frames.append(complete_checksum(frame) if partial else frame)
        peer.delivered_at = now

    def _deliver_packet(self, now: float, peer: PeerEntry, payload: bytes, ecn: int) -> None:
        """A stock peer's packet, under a header that names its synthetic MAC. Padding is cut off."""
        packet = check_routed_packet(payload)
        if peer.mac is None or self._table.allowed_ips.lookup(packet.source) != peer.id:
            raise RemoteError("source_guard", "source outside of the peer's allowed IPs")
        if packet.end > MAX_FRAME - ETHERNET_HEADER_SIZE:
            raise RemoteError("frame_too_big")
        self._frames.append(plaintext_to_frame(mark_packet(payload, ecn), packet, self._own_mac, peer.mac))
        peer.delivered_at = now

    def _tell(self, refusal: str) -> None:
        """Count an event that the queue refused."""
        if refusal:
            self.drop(refusal)
