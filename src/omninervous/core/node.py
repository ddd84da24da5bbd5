"""An edge's control plane: composes the machines, routes inputs to them, and signals between them.

    node = Node(config, identity, entropy)
    node.start(now)                           then any of
    node.handle_events(now, events)           from the engine
    node.handle_activity(now, activity)       right before
    node.handle_timeout(now)                  when poll_timeout() says so
    node.set_candidates(...)  ...             what the driver learns about the machine
    ---- after each of these, drain:
    node.poll_events()                        persist marks first: commands may use what they cover
    node.poll_commands()                      for the engine, in order
    node.poll_timeout()                       boot-time second of the next handle_timeout; None: only inputs wake it

Deterministic: the same configuration, identity, entropy and inputs give the same outputs. No input raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from omninervous.core.clock import Entropy, Now
from omninervous.core.context import Context
from omninervous.core.dataplane import (
    Command,
    ControlReceived,
    DatagramReceived,
    Event,
    FrameUnresolved,
    FrameWithoutSession,
    PeerId,
    SessionActivity,
    SessionConfirmed,
    SessionExhausted,
    SourceChanged,
    UnderlayError,
)
from omninervous.core.events import NodeConfig, NodeEvent, NodeSnapshot, PeerConfig
from omninervous.core.fabric import Fabric
from omninervous.core.identity import Identity
from omninervous.core.pathkind import Network
from omninervous.core.trials import Trial
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import CloseReason, decode_control
from omninervous.wire.handshake import MessageType

__all__ = ["Node"]

_SETTLE_ROUNDS = 1000
"""More in one input means that two machines signal each other in a circle."""


class Node:
    """The control plane of one edge."""

    def __init__(self, config: NodeConfig, identity: Identity, entropy: Entropy) -> None:
        self._ctx = Context(config, identity, entropy)
        self._fabric = Fabric(self._ctx)
        self._closed = False

    # ------------------------------------------------------------ inputs

    def start(self, now: Now) -> None:
        """Once, before anything else."""
        self._fabric.start(now)
        self._fabric.settle(now)

    def handle_events(self, now: Now, events: Sequence[Event]) -> None:
        """What the engine reports, in order."""
        if self._closed:
            return
        for event in events:
            try:
                self._fabric.begin(now, getattr(event, "source", None))
                self._handle_event(now, event)
            except RemoteError as error:
                self._ctx.drop(error.reason)
            except DecodeError:
                self._ctx.drop("malformed")
            self._fabric.settle(now)

    def handle_activity(self, now: Now, activity: Sequence[SessionActivity]) -> None:
        """What sessions have done so far; one that has done nothing since the last report may be left out."""
        for report in activity:
            peer = self._fabric.peers.get(report.peer)
            if peer is not None:
                peer.handle_activity(now, report)

    def handle_timeout(self, now: Now) -> None:
        """The time that `poll_timeout` named has come (or any other: what is not due stays)."""
        if self._closed:
            return
        for _ in range(_SETTLE_ROUNDS):
            due = self._ctx.timers.pop_due(now.boot)
            if not due:
                return
            for key in due:
                self._fabric.handle_timer(now, key)
                self._fabric.settle(now)
        raise AssertionError(f"a timer is armed for the past: {due}")

    def limit_sessions(self, per_ip: int) -> None:
        """From now on so many new sessions of one address and second are answered."""
        self._fabric.handshakes.limit_sessions(per_ip)

    def set_lanes(self, now: Now, lanes: Sequence[int]) -> None:
        """What we can receive on beside lane 0, from now on; every peer is told."""
        if tuple(lanes) != self._ctx.lanes:
            self._ctx.lanes = tuple(lanes)
            self._fabric.offer_caps(now)
            self._fabric.settle(now)

    def set_candidates(self, now: Now, endpoints: Sequence[Endpoint], networks: Sequence[Network] = ()) -> None:
        """Our own addresses on the underlay, for others to try, best first; and the networks that we are on."""
        self._fabric.set_candidates(now, tuple(endpoints), tuple(networks))
        self._fabric.settle(now)

    def call(self, now: Now, who: PeerId | IPv4Address | IPv6Address) -> PeerId | None:
        """Challenge the path to a peer, or connect to it; its key. None while nobody is known who has the key or
        address: the Nuclei are asked, so call again."""
        found = self._fabric.call(now, who)
        self._fabric.settle(now)
        return found

    def trials(self, peer: PeerId) -> tuple[Trial, ...]:
        """What was tried to reach a peer."""
        return self._ctx.trials.of(peer)

    def views(self) -> tuple[tuple[Endpoint, Endpoint], ...]:
        """(who looked, where our datagrams came from), the newest last."""
        return tuple(self._ctx.seen_as.items())

    def network_changed(self, now: Now) -> None:
        """Links, addresses or routes of this machine have changed: look for the best way to everybody again."""
        self._fabric.network_changed(now)
        self._fabric.settle(now)

    def set_nucleus_endpoints(self, now: Now, name: str, endpoints: Sequence[Endpoint]) -> None:
        """What a Nucleus's name resolves to."""
        self._fabric.set_nucleus_endpoints(now, name, tuple(endpoints))
        self._fabric.settle(now)

    def set_peer_endpoints(self, now: Now, peer: PeerId, endpoints: Sequence[Endpoint]) -> None:
        """What the name of a configured peer's endpoint resolves to."""
        self._fabric.set_peer_endpoints(now, peer, tuple(endpoints))
        self._fabric.settle(now)

    def set_peers(self, now: Now, peers: Sequence[PeerConfig]) -> None:
        """The user names these peers from now on: others go, new ones are met, the same ones keep their sessions."""
        self._fabric.set_peers(now, tuple(peers))
        self._fabric.settle(now)

    def reset_sessions(self, now: Now, reason: str) -> None:
        """Drop every session without a word (suspend: the keys may live twice) and start again."""
        self._fabric.reset(now, reason)
        self._fabric.settle(now)

    def close(self, now: Now) -> None:
        """Say goodbye to everybody. After that only the outputs may be drained."""
        self._closed = True
        self._fabric.close(CloseReason.SHUTDOWN)
        self._ctx.signals.clear()

    # ------------------------------------------------------------ outputs

    def poll_commands(self) -> list[Command]:
        """Commands for the engine since the last call."""
        commands, self._ctx.commands = self._ctx.commands, []
        return commands

    def poll_events(self) -> list[NodeEvent]:
        """Events since the last call."""
        events, self._ctx.events = self._ctx.events, []
        return events

    def poll_timeout(self) -> float | None:
        """When to call `handle_timeout`; a running session asks for it every second."""
        return None if self._closed else self._ctx.timers.next()

    def snapshot(self, now: Now) -> NodeSnapshot:
        """The present state."""
        return self._fabric.snapshot(now)

    # ------------------------------------------------------------ inside

    def _handle_event(self, now: Now, event: Event) -> None:
        fabric = self._fabric
        match event:
            case DatagramReceived():
                self._handle_datagram(now, event.source, event.data)
            case SessionConfirmed():
                peer = fabric.peers.get(event.peer)
                if peer is not None:
                    peer.handle_confirmed(now, event.local_index, event.source)
            case ControlReceived():
                self._handle_control(now, event)
            case SourceChanged():
                peer = fabric.peers.get(event.peer)
                if peer is not None:
                    peer.handle_source(now, event.local_index, event.source, event.size)
            case FrameWithoutSession():
                fabric.handle_waiting_frame(now, event.peer, event.frame)
            case FrameUnresolved():
                fabric.handle_unresolved_frame(now, event.frame)
            case SessionExhausted():
                peer = fabric.peers.get(event.peer)
                if peer is not None and peer.current_index == event.local_index:
                    peer.connect(now)
            case UnderlayError():
                self._ctx.trials.refusal(event.endpoint, event.errno)
                self._ctx.count("underlay_errors")

    def _handle_datagram(self, now: Now, source: Endpoint, data: bytes) -> None:
        match data[0]:
            case MessageType.INITIATION:
                self._fabric.handle_initiation(now, source, data)
            case MessageType.RESPONSE:
                self._fabric.handle_response(now, source, data)
            case MessageType.COOKIE_REPLY:
                self._fabric.handshakes.handle_cookie(now, data)
            case MessageType.HELLO_REPLY:
                self._fabric.handle_hello_reply(now, data)
            case _:
                raise RemoteError("not_a_nucleus")  # HELLO: an edge stays silent

    def _handle_control(self, now: Now, event: ControlReceived) -> None:
        view = self._fabric.view_of(event.peer)
        if view is not None:
            view.handle_control(now, event.payload)
            return
        peer = self._fabric.peers.get(event.peer)
        if peer is None:
            return
        message = decode_control(event.payload)
        if message is None:
            raise RemoteError("control_type")
        peer.handle_control(now, event.local_index, message, event.source, event.size)
