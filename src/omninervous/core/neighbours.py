"""Who we know and who we talk to: the roster, the machines of all peers, and what follows from both.

A member gets a machine when it is in the flood set, when a frame wants it, or when it calls; it loses it when no
Nucleus names it any more and its last session is over, or after an hour without data. What the engine may accept from
a peer (MAC, addresses) and the flood set are brought up to date by `refresh`, after anything that may change them.
"""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context, MemberChanged, QueryWanted
from omninervous.core.dataplane import PeerId, SetFlood
from omninervous.core.events import PeerConfig, PersistMembers
from omninervous.core.handshakes import Handshakes
from omninervous.core.identity import synthetic_mac
from omninervous.core.own import OwnAddress
from omninervous.core.peer import Peer
from omninervous.core.profile import Kind, PeerProfile
from omninervous.core.registry import MEMBER_TIMEOUT
from omninervous.core.roster import Known, Roster
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import CloseReason
from omninervous.wire.keytext import encode_key
from omninervous.wire.signalling import PeerEntry

__all__ = ["SAVE_AFTER", "Neighbours"]

CLOCK_STEP = 60.0
"""Seconds that the calendar may move against the boot-time clock within a minute, by a time server's small steps."""
CLOCK_STEADY = 3600.0
"""Seconds without a larger step after which expired memberships are believed to be expired."""
SAVE_AFTER = 5.0
"""Seconds after a change of the members until the disk gets them: a crowd costs one write, a crash loses little."""


class Neighbours:
    """Roster and peers of one Node. `peers` holds the Nuclei's machines as well."""

    def __init__(self, ctx: Context, handshakes: Handshakes, own: OwnAddress) -> None:
        self._ctx = ctx
        self._handshakes = handshakes
        self._own = own
        self.peers: dict[PeerId, Peer] = {}
        """Everybody we have, or want, sessions with."""
        config = ctx.config
        cluster_public = None if config.cluster is None else config.cluster.public
        self.roster = Roster(ctx.identity.x25519_public, cluster_public, config.max_peers)
        self.flood: tuple[PeerId, ...] = ()
        self.now = Now(0.0, 0.0)
        """The present, for memberships that a view verifies while it merges."""
        self.muted = False
        """This identity runs somewhere else: we neither call nor answer."""
        self.informed = False
        """A Nucleus has told who lives; before, everybody in the cache may."""
        self._staying: dict[PeerId, float] = {}
        """Members with a session that a restarted Nucleus has not heard of yet, and until when it may not have."""
        self._clock_offset: float | None = None
        self._clock_steady_since = 0.0
        self._saving = False

    # ------------------------------------------------------------ life

    def start(self, now: Now) -> None:
        """Members from the cache, peers from the configuration."""
        for cached in self._ctx.config.members:
            known = self.learn(now, cached.membership)
            if known is not None:
                known.signalled = cached.endpoints
        self.roster.dirty = False
        for configured in self._ctx.peers:
            self._add_named(now, configured)

    def set_named(self, now: Now, peers: tuple[PeerConfig, ...]) -> None:
        """The user names these peers from now on. Who is named as before keeps its sessions; whose entry is another one
        is met anew."""
        before, after = ({each.x25519: each for each in named} for named in (self._ctx.peers, peers))
        self._ctx.peers = peers
        for key, configured in before.items():
            if after.get(key) != configured:
                self._remove_named(key)
        for key, configured in after.items():
            if before.get(key) != configured:
                self._add_named(now, configured)

    def _add_named(self, now: Now, configured: PeerConfig) -> None:
        key = configured.x25519
        if key == self._ctx.identity.x25519_public or key in self._ctx.nuclei:
            return  # our own key: the command line refuses it with a message
        if key in self.peers:  # as a member of the cluster, until now
            self.peers[key].close(CloseReason.OTHER)
            self._drop(key)
        kind = Kind.WIREGUARD if configured.ed25519 is None else Kind.PAIR
        profile = PeerProfile(
            key, kind, configured.psk, configured.ed25519, configured.endpoint, configured.allowed_ips
        )
        peer = self.peers[key] = Peer(self._ctx, self._handshakes, self._own, profile)
        peer.set_policy(synthetic_mac(key) if kind is Kind.WIREGUARD else None)
        self.roster.flood_dirty = True
        if self.roster.find(key) is not None:
            self.roster.changed[key] = None  # its addresses are known already
        if configured.endpoint is not None and not self.muted:
            self._call(now, peer)

    def _remove_named(self, key: PeerId) -> None:
        peer, known = self.peers.get(key), self.roster.find(key)
        if peer is None or peer.profile.kind not in (Kind.PAIR, Kind.WIREGUARD):
            return
        peer.close(CloseReason.REMOVED)
        self._drop(key)
        if known is not None and known.membership is None:
            self.roster.forget(key)
        about = (key.hex(), "" if peer.profile.identity is None else encode_key(peer.profile.identity))
        for code, subject in list(self._ctx.problems):
            if subject and subject in about:
                self._ctx.solved(code, subject)

    def set_endpoints(self, now: Now, key: PeerId, endpoints: tuple[Endpoint, ...]) -> None:
        """What the name of a configured peer's endpoint resolves to."""
        peer = self.peers[key]
        peer.set_candidates(now, endpoints)
        self._call(now, peer)

    def _call(self, now: Now, peer: Peer) -> None:
        """A pair is held; a stock peer is told where we are, and then left to its own timers, as WireGuard does."""
        if peer.profile.kind is Kind.PAIR:
            peer.want(now, wanted=True)
        elif not peer.up:
            peer.connect(now)

    def reset(self, now: Now, reason: str) -> None:
        """Drop all sessions with edges and start again."""
        for peer in self._edges():
            was_up = peer.up
            peer.drop_sessions(reason)
            if was_up or peer.wanted:
                peer.connect(now)

    def mute(self) -> None:
        """Neither call nor answer from now on."""
        self.muted = True
        for peer in self._edges():
            peer.drop_sessions("cloned")

    def network_changed(self, now: Now) -> None:
        """Our own addresses or routes are others."""
        for peer in self._edges():
            peer.network_changed(now)

    def hope_again(self, now: Now) -> None:
        """A Nucleus has come back: perhaps those that could not be reached are there as well."""
        for peer in self._edges():
            peer.hope_again(now)

    def address_proven(self) -> None:
        """A Nucleus knows where we are now: it can tell those that we look for."""
        for peer in self._edges():
            if peer.profile.kind is Kind.MEMBER and peer.looking:
                self._ctx.signals.append(QueryWanted(peer.profile.id, ask_to_initiate=False))

    def offer_caps(self, now: Now) -> None:
        """Tell everybody what changed about us."""
        for peer in self._edges():
            peer.offer_caps(now)

    def keep_house(self, now: Now) -> None:
        """Forget what expired and what is too much."""
        offset = now.wall - now.boot
        if self._clock_offset is None or abs(offset - self._clock_offset) > CLOCK_STEP:
            self._clock_steady_since = now.boot
        self._clock_offset = offset
        # A calendar that is wrong for a while must not cost a cluster without a Nucleus all of its members.
        expired = self.roster.expired(now) if now.boot - self._clock_steady_since >= CLOCK_STEADY else []
        for key in (*expired, *self.roster.surplus()):
            peer = self.peers.get(key)
            if peer is not None and peer.profile.kind is Kind.MEMBER:
                peer.close(CloseReason.REMOVED)
                self._drop(key)
            self.roster.forget(key)

    def persist(self) -> None:
        """Give the members to the disk if they changed."""
        self._saving = False
        if self.roster.dirty:
            self._ctx.events.append(PersistMembers(self.roster.cache()))

    # ------------------------------------------------------------ learning

    def learn(self, now: Now, raw: bytes, sender: PeerId | None = None) -> Known | None:
        """A membership from anywhere, or of the peer that sent it; None if it is not to be used, or is our own."""
        try:
            return self.roster.learn(now, raw, sender)
        except RemoteError as error:
            self._ctx.drop(error.reason)
            return None

    def learn_entry(self, entry: PeerEntry) -> Known | None:
        """What a Nucleus tells of a member; None if it does not verify, or is our own."""
        try:
            known = self.roster.learn_entry(self.now, entry)
        except RemoteError as error:
            self._ctx.drop(error.reason)
            return None
        peer = None if known is None else self.peers.get(known.key)
        if known is not None and peer is not None:
            peer.set_candidates(self.now, known.endpoints, known.own_addresses)
        return known

    def handle_member(self, now: Now, change: MemberChanged) -> None:
        """A Nucleus's view gained, renewed or lost a member."""
        self.roster.mark(change.key, change.view, change.live)
        peer = self.peers.get(change.key)
        if change.forgotten and peer is not None and peer.up:
            self._staying[change.key] = now.boot + MEMBER_TIMEOUT
            self._ctx.timers.set(("staying", ""), now.boot + MEMBER_TIMEOUT)
        if peer is not None and change.live:
            peer.reopen()
            self.roster.flood_dirty = True
        elif peer is not None:
            self._drop_if_gone(peer)

    # ------------------------------------------------------------ peers

    def peer(self, now: Now, key: PeerId) -> Peer | None:
        """The machine of a peer; made now if the key is a known member's."""
        peer = self.peers.get(key)
        known = self.roster.find(key)
        cluster = self._ctx.config.cluster
        if peer is not None or known is None or known.membership is None or cluster is None:
            return peer
        profile = PeerProfile(key, Kind.MEMBER, cluster.psk, known.identity)
        peer = self.peers[key] = Peer(self._ctx, self._handshakes, self._own, profile)
        peer.set_policy(known.mac, self.roster.addresses(known))
        peer.set_candidates(now, known.endpoints, known.own_addresses)
        return peer

    def handle_available(self, key: PeerId) -> None:
        """A session with an edge can be used: remember where."""
        peer, known = self.peers.get(key), self.roster.find(key)
        if peer is not None and known is not None and peer.path.endpoint not in (None, known.reached):
            known.reached = peer.path.endpoint
            self.roster.dirty = True

    def handle_lost(self, key: PeerId) -> None:
        """The last session with an edge is over, or it could not be reached."""
        peer = self.peers.get(key)
        if peer is not None and self.informed:
            self._drop_if_gone(peer)

    def handle_forgotten(self, key: PeerId) -> None:
        """An hour without data."""
        peer = self.peers.get(key)
        if peer is None or peer.wanted:
            return
        peer.close(CloseReason.OTHER)
        if peer.profile.kind is Kind.MEMBER:
            self._drop(key)

    def _drop_if_gone(self, peer: Peer) -> None:
        known = self.roster.find(peer.profile.id)
        if peer.profile.kind is Kind.MEMBER and not peer.up and known is not None and not known.views:
            self._drop(peer.profile.id)

    def _drop(self, key: PeerId) -> None:
        self.peers.pop(key).remove()
        self.roster.flood_dirty = True

    def _edges(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.profile.kind is not Kind.NUCLEUS]

    # ------------------------------------------------------------ what follows

    def refresh(self, now: Now) -> None:
        """Policies, flood set, and whom to keep sessions with."""
        changed, self.roster.changed = self.roster.changed, {}
        for key in changed:
            peer, known = self.peers.get(key), self.roster.find(key)
            if peer is not None and known is not None and peer.profile.kind in (Kind.MEMBER, Kind.PAIR):
                peer.set_policy(known.mac, self.roster.addresses(known))
        if self.roster.flood_dirty:
            self.roster.flood_dirty = False
            self._refresh_flood(now)
        if self.roster.dirty and not self._saving:
            self._saving = True
            self._ctx.timers.set(("members", ""), now.boot + SAVE_AFTER)

    def _refresh_flood(self, now: Now) -> None:
        config = self._ctx.config
        self._staying = {
            key: until
            for key, until in self._staying.items()
            if now.boot < until and key in self.peers and self.peers[key].up
        }
        members = dict.fromkeys(
            self.roster.flood(only_live=self.informed, beside=self._staying, side=config.flood_side)
        )
        for key in members:
            self.peer(now, key)
        pairs = [key for key, peer in self.peers.items() if peer.profile.kind is Kind.PAIR]
        flood = tuple(dict.fromkeys((*members, *pairs)))
        if flood != self.flood:
            self.flood = flood
            self._ctx.commands.append(SetFlood(flood))
        if not config.eager or not self._own.held or self.muted:
            return
        for peer in self._edges():
            inside = peer.profile.id in members
            if peer.profile.kind is Kind.MEMBER and (inside or peer.wanted):
                peer.want(now, inside)
