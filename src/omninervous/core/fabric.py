"""The parts of a Node that know each other: neighbours, Nuclei, our address, inquiries.

`settle` is where they meet. It runs after every input and every timer: it hands each signal to the machines it
concerns, and brings what follows from several of them (flood set, policies, wishes) up to date. A signal may cause
others; the loop ends when there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from omninervous.core.admission import Held
from omninervous.core.clock import Now
from omninervous.core.context import (
    AddressGranted,
    AddressProven,
    AddressTaken,
    AskAgain,
    ClaimSeen,
    CloneFound,
    Context,
    Forgotten,
    MemberChanged,
    MembershipSeen,
    OutsideSeen,
    PathMoved,
    PeerAvailable,
    PeerLost,
    PunchWanted,
    QueryAnswered,
    QueryWanted,
    Signal,
    TimerKey,
)
from omninervous.core.dataplane import PeerId
from omninervous.core.events import IdentityCloned, NodeSnapshot, PeerConfig
from omninervous.core.handshakes import Handshakes
from omninervous.core.inquiry import Inquiry
from omninervous.core.neighbours import Neighbours
from omninervous.core.noise import IncomingInitiation
from omninervous.core.own import OwnAddress
from omninervous.core.pathkind import Network
from omninervous.core.peer import ACTIVITY, Peer, expect_activity
from omninervous.core.profile import Kind
from omninervous.core.queries import Target
from omninervous.core.report import snapshot
from omninervous.core.roster import Known
from omninervous.core.view import View
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import CloseReason
from omninervous.wire.keytext import encode_key

__all__ = ["Fabric"]

NUCLEUS_PATIENCE = 5.0
"""Seconds after which a start without any Nucleus goes on from what the last run knew."""
HOUSEKEEPING_SECONDS = 60.0
_SIGNALS_AT_ONCE = 100_000
"""More between two inputs means that two machines signal each other in a circle."""


class Fabric:
    """See the module's text."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._own = OwnAddress(ctx)
        self._listening: tuple[Endpoint, ...] = ()
        self.handshakes = Handshakes(ctx)
        self._neighbours = Neighbours(ctx, self.handshakes, self._own)
        learn = self._neighbours.learn_entry
        self._views = {
            nucleus.name: View(ctx, self.handshakes, self._own, nucleus, learn) for nucleus in ctx.config.nuclei
        }
        roster = self._neighbours.roster
        self._inquiry = Inquiry(ctx, roster, self._own, list(self._views.values()), self._neighbours.peer)

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """Everybody we have, or want, sessions with; Nuclei too."""
        return self._neighbours.peers

    # ------------------------------------------------------------ life

    def start(self, now: Now) -> None:
        """Configured peers, cached members; a cluster waits for its Nuclei."""
        if not self._views:
            self._grant(now)
        else:
            self._ctx.timers.set(("fallback", ""), now.boot + NUCLEUS_PATIENCE)
        self._neighbours.start(now)
        self._ctx.timers.set(("housekeeping", ""), now.boot + HOUSEKEEPING_SECONDS)

    def set_candidates(self, now: Now, endpoints: tuple[Endpoint, ...], networks: tuple[Network, ...]) -> None:
        """Our own underlay addresses, and the networks they are on."""
        self._ctx.networks = networks
        self._listening = endpoints
        self._name_candidates(now)

    def set_nucleus_endpoints(self, now: Now, name: str, endpoints: tuple[Endpoint, ...]) -> None:
        """What a Nucleus's name resolves to."""
        self._views[name].set_endpoints(now, endpoints)
        self._adopt_views()

    def set_peer_endpoints(self, now: Now, key: PeerId, endpoints: tuple[Endpoint, ...]) -> None:
        """What the name of a configured peer's endpoint resolves to."""
        self._neighbours.set_endpoints(now, key, endpoints)

    def set_peers(self, now: Now, peers: tuple[PeerConfig, ...]) -> None:
        """The user names these peers from now on."""
        self._neighbours.set_named(now, peers)
        own = self._own
        if not self._views and not self._neighbours.muted and self._neighbours.roster.holder(own.claim.address) is None:
            self._grant(now)  # whoever had it has gone

    def network_changed(self, now: Now) -> None:
        """The way to everybody may be another one: ask at once."""
        self._ctx.forget_views()
        self._name_candidates(now)
        for view in self._views.values():
            view.network_changed(now)
        self._neighbours.network_changed(now)

    def reset(self, now: Now, reason: str) -> None:
        """Drop all sessions and start again."""
        self._neighbours.reset(now, reason)
        for view in self._views.values():
            view.reset(now)

    def close(self, reason: CloseReason) -> None:
        """LEAVE and CLOSE to everybody; the members go to the disk."""
        self._neighbours.persist()
        for view in self._views.values():
            view.leave()
        for peer in self.peers.values():
            peer.close(reason)

    def call(self, now: Now, who: PeerId | IPv4Address | IPv6Address) -> PeerId | None:
        """Challenge the path to a peer, or connect to it. None while nobody is known who has the key or address: the
        Nuclei are asked."""
        roster = self._neighbours.roster
        known = roster.find(who) if isinstance(who, bytes) else roster.holder(who)
        key = who if isinstance(who, bytes) else None if known is None else known.key
        peer = None if key is None else self._neighbours.peer(now, key)
        if peer is None:
            target = Target(key=who) if isinstance(who, bytes) else Target(address=who)
            if self._inquiry.possible:
                self._inquiry.ask(now, target)
            return None
        peer.call(now)
        return peer.profile.id

    def snapshot(self, now: Now) -> NodeSnapshot:
        """For status and metrics."""
        return snapshot(self._ctx, now, self._own, self._neighbours, list(self._views.values()))

    # ------------------------------------------------------------ messages

    def handle_initiation(self, now: Now, source: Endpoint, data: bytes) -> None:
        """Type 1. RemoteError when nothing is answered (yet)."""
        if self._neighbours.muted:
            raise RemoteError("muted")
        incoming = self.handshakes.open(now, source, data)
        if incoming is None:
            return
        peer = self._neighbours.peer(now, incoming.remote_static)
        if peer is not None:
            self._answer(now, peer, source, data, incoming)
            return
        self._inquiry.hold(now, incoming, source, data)

    def _answer(self, now: Now, peer: Peer, source: Endpoint, data: bytes, incoming: IncomingInitiation) -> None:
        if peer.profile.kind is Kind.NUCLEUS:
            raise RemoteError("unknown_initiator")
        peer.handle_initiation(now, source, data, incoming)

    def _admit(self, now: Now, held: Held) -> None:
        """The sender of a held initiation turned out to be a member."""
        peer = self._neighbours.peer(now, held.incoming.remote_static)
        if peer is None or self._neighbours.muted:
            return
        try:
            self._answer(now, peer, held.source, held.data, held.incoming)
        except RemoteError as error:
            self._ctx.drop(error.reason)

    def handle_response(self, now: Now, source: Endpoint, data: bytes) -> None:
        """Type 2."""
        try:
            established = self.handshakes.handle_response(now, data)
        except RemoteError as error:
            self._suspect(data, error)
            raise
        peer = self.peers[established.transport.remote_static]
        self._ctx.trials.answer(now.boot, peer.profile.id, source)
        peer.handle_established(now, source, established)

    def _suspect(self, data: bytes, error: RemoteError) -> None:
        """A response that nobody without our initiation could address, and that our PSK does not open."""
        key = self.handshakes.suspect(data) if error.reason == "bad_tag" else None
        peer = self.peers.get(key) if key is not None else None
        if peer is not None and peer.profile.kind in (Kind.PAIR, Kind.WIREGUARD):
            identity = peer.profile.identity
            who = encode_key(identity) if identity is not None else peer.profile.id.hex()
            text = f"peer {who} answers, but with another pre-shared key (or secret): give both sides the same"
            self._ctx.problem("psk_mismatch", text, peer.profile.id.hex())

    def handle_hello_reply(self, now: Now, data: bytes) -> None:
        """Type 6: the nonce says which view asked."""
        for view in self._views.values():
            try:
                view.handle_hello_reply(now, data)
            except RemoteError as error:
                if error.reason != "unknown_hello":
                    raise
                continue
            self._adopt_views()
            return
        raise RemoteError("unknown_hello")

    def view_of(self, key: PeerId) -> View | None:
        """The Nucleus with this key."""
        peer = self.peers.get(key)
        return next((view for view in self._views.values() if peer is not None and view.peer is peer), None)

    def _adopt_views(self) -> None:
        """Views make their peer when they learn a key; put it into the table."""
        for view in self._views.values():
            peer = view.peer
            taken = None if peer is None else self.peers.get(peer.profile.id)
            if peer is not None and (taken is None or taken.profile.kind is Kind.NUCLEUS):
                self._neighbours.peers[peer.profile.id] = peer

    # ------------------------------------------------------------ frames

    def handle_waiting_frame(self, now: Now, key: PeerId, frame: bytes) -> None:
        """The engine knows the peer, but has no session for it."""
        peer = self.peers.get(key)
        if peer is not None and not self._neighbours.muted:
            peer.stage(now, frame)

    def handle_unresolved_frame(self, now: Now, frame: bytes) -> None:
        """The engine does not know whom the frame is for. RemoteError when nobody does."""
        if self._neighbours.muted:
            raise RemoteError("muted")
        self._inquiry.handle_frame(now, frame)

    # ------------------------------------------------------------ time

    def begin(self, now: Now, source: Endpoint | None = None) -> None:
        """An input comes, perhaps from the network. RemoteError if that is our own overlay."""
        self._neighbours.now = now
        if source is not None and self._own.inside(source):
            raise RemoteError("from_overlay")

    def handle_timer(self, now: Now, key: TimerKey) -> None:
        """One of the deadlines in the context's table."""
        self.begin(now)
        machine, which = key
        if machine == "peer" and isinstance(which, bytes):
            peer = self.peers.get(which)
            if peer is not None:
                peer.handle_timeout(now)
        elif machine == "handshake" and isinstance(which, bytes):
            self.handshakes.handle_timeout(now, which)
        elif machine == "view" and isinstance(which, str):
            self._views[which].handle_timeout(now)
            self._adopt_views()
        elif machine == "queries":
            self._inquiry.send(now)
        elif machine == "admission":
            self._inquiry.handle_admission_timeout(now)
        elif machine == "fallback":
            self._fall_back(now)
        elif machine == "members":
            self._neighbours.persist()
        elif machine == "staying":
            self._neighbours.roster.flood_dirty = True
        elif machine == "housekeeping":
            self._keep_house(now)
        elif key == ACTIVITY and any(peer.active for peer in self.peers.values()):
            expect_activity(self._ctx, now)

    def _fall_back(self, now: Now) -> None:
        """No Nucleus answered: a cluster goes on without one, if this edge was in it before."""
        if self._own.held or self._own.refused_by is not None or self._neighbours.muted or self._inquiry.possible:
            return
        if self._ctx.config.vip_known or len(self._neighbours.roster):
            self._grant(now)
        self._ctx.problem(
            "no_nucleus",
            "no Nucleus answers: "
            + ", ".join(f"{view.config.name} ({view.status().hint or 'no answer'})" for view in self._views.values()),
        )

    def _keep_house(self, now: Now) -> None:
        self._ctx.timers.set(("housekeeping", ""), now.boot + HOUSEKEEPING_SECONDS)
        self._neighbours.keep_house(now)
        if self._own.renewal_due(now):
            self._publish(now)

    # ------------------------------------------------------------ settling

    def settle(self, now: Now) -> None:
        """Deliver all signals and what follows from them."""
        self._neighbours.now = now
        for _ in range(_SIGNALS_AT_ONCE):
            signals, self._ctx.signals = self._ctx.signals, []
            for signal in signals:
                self._deliver(now, signal)
            self._neighbours.refresh(now)
            if not self._ctx.signals:
                return
        raise AssertionError("signals do not settle")

    def _deliver(self, now: Now, signal: Signal) -> None:
        match signal:
            case QueryWanted(key, ask_to_initiate):
                self._inquiry.ask(now, Target(key=key), punch=True, ask_initiate=ask_to_initiate)
            case MembershipSeen(key, raw):
                self._membership_seen(now, key, raw)
            case ClaimSeen():
                known = self._neighbours.roster.learn_pair(signal.peer, signal.identity, signal.claim)
                self._contest(now, known)
            case PeerAvailable(key):
                self._peer_available(now, key)
            case PathMoved(key):
                if self.view_of(key) is None:
                    self._neighbours.handle_available(key)
            case AddressProven():
                self._neighbours.address_proven()
            case PeerLost(key, reason):
                self._peer_lost(now, key, reason)
            case Forgotten(key):
                self._neighbours.handle_forgotten(key)
            case AddressGranted():
                self._neighbours.muted = False
                self._neighbours.informed = self._neighbours.roster.flood_dirty = True
                self._ctx.solved("no_nucleus")
                self._ctx.solved("cloned")
                self._grant(now)
                self._neighbours.hope_again(now)
            case AddressTaken(_, holder):
                self._taken(now, holder)
            case CloneFound(name):
                self._clone_found(name)
            case MemberChanged():
                self._neighbours.handle_member(now, signal)
            case QueryAnswered(request, key):
                held = self._inquiry.handle_answer(now, request, key)
                if held is not None:
                    self._admit(now, held)
            case PunchWanted(key, endpoints, ask_initiate):
                peer = self._neighbours.peer(now, key)
                if peer is not None and not self._neighbours.muted:
                    peer.punch(now, endpoints, ask_to_initiate=ask_initiate)
            case OutsideSeen():
                self._name_candidates(now)
            case AskAgain(keys):
                for key in keys:
                    if key in self.peers and self.peers[key].up:
                        self._inquiry.ask(now, Target(key=key))

    def offer_caps(self, now: Now) -> None:
        """Something that CAPS say has changed."""
        self._neighbours.offer_caps(now)

    def _name_candidates(self, now: Now) -> None:
        """Tell the Nuclei where others can try to reach us."""
        for view in self._views.values():
            view.set_candidates(now, (*self._ctx.outside, *self._listening))

    # ------------------------------------------------------------ our address

    def _grant(self, now: Now) -> None:
        if self._own.granted():
            self._neighbours.roster.flood_dirty = True
            self._neighbours.offer_caps(now)

    def _taken(self, now: Now, holder: bytes) -> None:
        self._own.taken(holder)
        if not self._views and not self._own.claim.explicit:
            self._own.granted()
        self._publish(now)

    def _publish(self, now: Now) -> None:
        """Our address or membership changed: tell everybody who has an older one."""
        for view in self._views.values():
            view.register_again(now)
        self._neighbours.offer_caps(now)

    def _clone_found(self, name: str) -> None:
        ctx = self._ctx
        self._own.withdraw(ctx.identity.public)
        self._neighbours.mute()
        text = "this identity runs on another machine, too: give each machine its own (omni-daemon --init)"
        if ctx.problem("cloned", text, name):
            ctx.events.append(IdentityCloned(ctx.identity.public, name, own=True))

    def _membership_seen(self, now: Now, key: PeerId, raw: bytes) -> None:
        known = self._neighbours.learn(now, raw, key)
        if known is not None:
            self._contest(now, known)

    def _contest(self, now: Now, known: Known) -> None:
        """A live peer's claim against ours. With a Nucleus its registry decides; without, both sides apply the rule."""
        claim, own = known.claim, self._own
        holder = encode_key(known.identity)
        if claim is None or claim.address != own.claim.address or self._inquiry.possible:
            self._ctx.solved("vip_conflict", holder)
            if not self._views and self._neighbours.roster.holder(own.claim.address) is None:
                self._grant(now)  # whoever had it has let it go
            return
        if own.beaten_by(known.identity, claim, live=True):
            self._taken(now, known.identity)
        elif own.held:
            text = f"{claim.address} is claimed by {holder} too: ours is the stronger claim"
            self._ctx.problem("vip_conflict", text, holder)

    # ------------------------------------------------------------ peers come and go

    def _peer_available(self, now: Now, key: PeerId) -> None:
        self._ctx.solved("psk_mismatch", key.hex())
        view = self.view_of(key)
        if view is not None:
            view.handle_available(now)
        else:
            self._neighbours.handle_available(key)

    def _peer_lost(self, now: Now, key: PeerId, reason: str) -> None:
        view = self.view_of(key)
        if view is not None:
            view.handle_lost(now, reason)
        else:
            self._neighbours.handle_lost(key)
