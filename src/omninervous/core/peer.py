"""One peer: its handshake attempts, its sessions, its timers.

| from        | event                                   | to                                               |
|-------------|-----------------------------------------|--------------------------------------------------|
| idle        | connect()                               | connecting: attempts of 5 s, 90 s in all         |
| connecting  | response, or the peer's own confirmed   | up                                               |
| connecting  | 90 s passed                             | idle; again after 25 s if the peer is wanted     |
| idle, up    | initiation                              | unchanged; a session waits to be confirmed       |
| up          | 120 s old and used; silent 15 s; limit  | up, and connecting                               |
| up          | CLOSE                                   | idle, until the peer or a frame wants it         |
| up          | all sessions 180 s old                  | idle; connecting if the peer is wanted           |
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from math import ceil, floor

from omninervous.core.attempts import ATTEMPT_SECONDS, Attempts
from omninervous.core.capabilities import REFLEX_SESSIONS, CapsExchange
from omninervous.core.clock import Now
from omninervous.core.context import (
    ClaimSeen,
    Context,
    Forgotten,
    MembershipSeen,
    PeerAvailable,
    PeerLost,
    QueryWanted,
    TimerKey,
)
from omninervous.core.dataplane import Aead, Link, RemovePeer, SendControl, SendFrames, SessionActivity, SetPeer
from omninervous.core.differences import note_differences
from omninervous.core.events import IdentityCloned, PeerDown, PeerUp
from omninervous.core.handshakes import MAX_ENDPOINTS, Established, Handshakes
from omninervous.core.liveness import Liveness
from omninervous.core.natview import next_ports
from omninervous.core.noise import IncomingInitiation
from omninervous.core.own import OwnAddress
from omninervous.core.paths import Paths
from omninervous.core.peer_sessions import PeerSession, PeerSessions
from omninervous.core.profile import Kind, PeerProfile
from omninervous.core.timers import earliest
from omninervous.core.upkeep import MEASURE_AFTER_DATA, Upkeep
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import (
    OUR_VERSIONS,
    Caps,
    CapsAck,
    Close,
    CloseReason,
    ControlMessage,
    PathChallenge,
    PathResponse,
)
from omninervous.wire.handshake import RESPONSE_SIZE
from omninervous.wire.transport import LANE_BASE, MIN_TRANSPORT_SIZE

__all__ = ["ACTIVITY", "Peer", "expect_activity"]

USUAL_MTU = 1500
"""Of an underlay: IP packets of so many bytes pass."""
OUTER_SPACE = 100
"""Bytes around an inner IP packet: IPv6 and UDP 48, message 32, payload kind 1, Ethernet with one VLAN tag 18."""
REKEY_AFTER = 120.0
REKEY_ON_RECEIVE_AFTER = 165.0
FORGET_AFTER = 3600.0
UNPROVEN_PATIENCE = 5.0
TICK = 1.0
"""Between two looks at a peer with which something goes on, and between two readings of what the sessions did."""
QUIET_TICK = 5.0
"""Between two looks at any other."""
ACTIVITY: TimerKey = ("activity", "")
"""When the engine's report is due, while there is a session."""


def expect_activity(ctx: Context, now: Now) -> None:
    """The engine is to be asked for its report at the next whole second."""
    ctx.timers.set(ACTIVITY, floor(now.boot) + TICK)


class Peer:
    """The machine of one peer. Inputs end with `_arm`, which keeps the Node's timer for it right."""

    def __init__(self, ctx: Context, handshakes: Handshakes, own: OwnAddress, profile: PeerProfile) -> None:
        self._ctx = ctx
        self._handshakes = handshakes
        self._own = own
        self.profile = profile
        self.link = profile.link
        self.path = Paths(ctx, profile.id, self.link)
        self.liveness = Liveness()
        """Traffic and its times."""
        self.upkeep = Upkeep(ctx, profile.id, self.path, self.liveness)
        self.sessions = PeerSessions(ctx, handshakes, self.liveness, profile.id, self.link)
        self.wanted = False
        """Keep a session with it although nothing asks for one."""
        self.mac: bytes | None = None
        self._addresses: tuple[IPv4Address | IPv6Address, ...] = ()
        self._policy_set = False
        self._told_mtu: int | None = None
        self._candidates: tuple[Endpoint, ...] = () if profile.endpoint is None else (profile.endpoint,)
        self._attempts = Attempts(ctx)
        self._closed = False
        self._tick_at: float | None = None

    @property
    def up(self) -> bool:
        """Whether there is a session to send on."""
        return self.sessions.current is not None

    @property
    def active(self) -> bool:
        """Whether the engine's reports on it matter."""
        return self.up and self.link is not Link.SIGNALLING

    @property
    def connecting(self) -> bool:
        """Whether a handshake of ours is under way."""
        return self._attempts.active

    @property
    def current_index(self) -> int | None:
        """Local index of the session that sends."""
        current = self.sessions.current
        return None if current is None else current.index

    @property
    def lanes(self) -> tuple[int, ...]:
        """Lanes that we send on."""
        current = self.sessions.current
        if current is None:
            return ()
        return current.caps.lanes if current.caps is not None else (LANE_BASE,)

    @property
    def aead(self) -> Aead | None:
        """What frames to the peer are sealed with; None without a session."""
        current = self.sessions.current
        if current is None:
            return None
        return current.caps.aead if current.caps is not None else Aead.CHACHA20_POLY1305

    # ------------------------------------------------------------ policy and wishes

    def set_policy(self, mac: bytes | None, addresses: tuple[IPv4Address | IPv6Address, ...] = ()) -> None:
        """What the engine lets the peer send; the FDB entry follows from the MAC."""
        if self._policy_set and (mac, addresses) == (self.mac, self._addresses):
            return
        self.mac, self._addresses, self._policy_set = mac, addresses, True
        self._tell_policy()

    def _tell_policy(self) -> None:
        self._told_mtu = self.upkeep.mtu
        # Who gives omni0 a larger MTU has an underlay for it. What the own card cannot send is noticed (EMSGSIZE).
        mtu = self._told_mtu or max(USUAL_MTU, self._ctx.config.mtu + OUTER_SPACE)
        allowed = self.profile.allowed_ips
        self._ctx.commands.append(SetPeer(self.profile.id, self.link, self.mac, self._addresses, allowed, mtu))

    def set_candidates(
        self, now: Now, endpoints: tuple[Endpoint, ...], own_addresses: tuple[Endpoint, ...] | None = None
    ) -> None:
        """Where the peer may be reached, best first; new ones are tried at once. `own_addresses`: those of its
        interfaces, if it named any."""
        configured = () if self.profile.endpoint is None else (self.profile.endpoint,)
        places = (each for each in (*endpoints, *configured) if not self._own.inside(each))
        self._candidates = tuple(dict.fromkeys(places))[:MAX_ENDPOINTS]
        self.path.own_addresses = own_addresses
        if self.link is not Link.ETHERNET:
            fresh: tuple[Endpoint, ...] = ()
        else:
            fresh = self.path.name(self._candidates)
        if self.connecting and not self._renewing:
            self._handshakes.extend(now, self.profile.id, self._candidates, self._guesses())
        elif self.current_index is not None and fresh:
            self.path.search(now, self.current_index, fresh)
            self._arm()
        elif fresh:
            self.hope_again(now)

    def reopen(self) -> None:
        """The peer is there again after a CLOSE."""
        self._closed = False

    def want(self, now: Now, wanted: bool) -> None:
        """Hold a session with the peer from now on, or no longer."""
        self.wanted = wanted
        if wanted and not (self._closed or self.up or self.connecting or self._attempts.planned):
            self.connect(now)
        self._arm()

    def stage(self, now: Now, frame: bytes) -> None:
        """Keep a frame until there is a session; ask for one."""
        for _ in range(self._ctx.staging.add(self.profile.id, frame)):
            self._ctx.drop("staging_full")
        if not self.up:
            self.connect(now)
        elif self.path.proven:
            self._flush()

    def _flush(self) -> None:
        frames = self._ctx.staging.take(self.profile.id)
        if frames:
            self._ctx.commands.append(SendFrames(self.profile.id, frames))

    # ------------------------------------------------------------ connecting

    def connect(self, now: Now) -> None:
        """Begin handshake attempts, unless they are under way."""
        if self.connecting:
            self._attempts.insist()
            return
        self._connect(now)

    def call(self, now: Now) -> None:
        """Somebody wants to know how it is reached: challenge the path, or connect."""
        index = self.current_index
        if index is None or not self.path.proven:
            self.connect(now)
        elif self.link is Link.ETHERNET:
            self.path.verify(now, index)
        self._arm()

    def hope_again(self, now: Now) -> None:
        """Something has changed that may let us reach a peer which we have failed to reach."""
        if self._attempts.planned and not self.up:
            self._connect(now, briefly=True)

    def _connect(self, now: Now, *, briefly: bool = False) -> None:
        self._closed = False
        self._attempts.begin(now, briefly=briefly)
        self._initiate(now)
        self._arm()

    def punch(self, now: Now, endpoints: tuple[Endpoint, ...], *, ask_to_initiate: bool) -> None:
        """The Nucleus says that the peer wants to reach us: open our NAT towards it."""
        current = self.sessions.current
        if current is not None and not ask_to_initiate:
            # That opens our NAT, which may have forgotten it. Where the peer has moved to, its own challenge will say.
            self.path.search(now, current.index, [each for each in endpoints if not self._own.inside(each)])
        elif current is not None:
            self.path.distrust()
            self.connect(now)
        elif not self.connecting:
            self._attempts.plan_punch(now)
        self._arm()

    def network_changed(self, now: Now) -> None:
        """Our own addresses or routes are others: find out at once what still works, and show the peer where we are."""
        current = self.sessions.current
        if current is not None and self.link is Link.ETHERNET:
            self.upkeep.network_changed(now, current.index)
        elif current is not None and self.link is Link.IP:
            self._ctx.commands.append(SendControl(current.index, b""))
        if current is None and (self.connecting or self._attempts.planned):
            self._connect(now)
        self._arm()

    @property
    def looking(self) -> bool:
        """Whether a way to the peer is being looked for."""
        return self.connecting or (self.up and (self.path.doubted or not self.path.proven))

    @property
    def _renewing(self) -> bool:
        """A first attempt while all is well: no reason to look elsewhere."""
        return self._attempts.count == 1 and self.up and self.path.proven

    def _initiate(self, now: Now) -> None:
        known = () if self.path.endpoint is None else (self.path.endpoint,)
        targets = known if self._renewing else (*known, *self._candidates)
        guesses = () if self._renewing else self._guesses()
        self._handshakes.begin(now, self.profile.id, self.profile.psk, targets, guesses)
        if self.profile.kind is Kind.MEMBER and not self._renewing:
            self._ctx.signals.append(QueryWanted(self.profile.id, ask_to_initiate=self._attempts.count > 2))

    def _guesses(self) -> tuple[Endpoint, ...]:
        """Ports that its NAT may give it towards us. Not when ours counts as well: each guess would use up a port. And
        only at a host that others have seen it at: a peer may name any address, which is not to be searched then."""
        if self.path.own_addresses is None or self._ctx.counting:
            return ()
        seen = {each.host for each in self._candidates if each not in self.path.own_addresses}
        return next_ports((each for each in self._candidates if each.host in seen), self._attempts.count)

    def _attempt_over(self, now: Now) -> None:
        if not self._attempts.hopeless(now):
            self._attempts.next(now)
            self._initiate(now)
            return
        self._stop_connecting()
        for _ in self._ctx.staging.take(self.profile.id):
            self._ctx.drop("unreachable")
        self._ctx.signals.append(PeerLost(self.profile.id, "timeout"))
        if self.wanted:
            self._attempts.plan_retry(now)

    def _stop_connecting(self) -> None:
        self._attempts.stop()
        self._handshakes.abort(self.profile.id)

    # ------------------------------------------------------------ handshakes done

    def handle_initiation(self, now: Now, source: Endpoint, data: bytes, incoming: IncomingInitiation) -> None:
        """The peer wants a session. RemoteError when it is not answered."""
        transport = self._handshakes.respond(now, source, data, incoming, self.profile.psk)
        self.sessions.wait(self.sessions.install(now, transport))
        self._handshakes.answer(now, data)
        self._closed = False
        self._arm()

    def handle_established(self, now: Now, source: Endpoint, established: Established) -> None:
        """The peer answered our initiation."""
        session = self.sessions.install(now, established.transport)
        self._use(now, session, source, RESPONSE_SIZE, established.sent_to)

    def handle_confirmed(self, now: Now, local_index: int, source: Endpoint) -> None:
        """The peer used a session for the first time."""
        session = self.sessions.take_waiting(local_index)
        if session is not None:
            self._ctx.count("handshakes_completed")
            self._use(now, session, source, MIN_TRANSPORT_SIZE, self._handshakes.answered_to(local_index))

    def _use(self, now: Now, session: PeerSession, source: Endpoint, size: int, sent_to: tuple[Endpoint, ...]) -> None:
        ctx, first, peer = self._ctx, not self.up, self.profile.id
        seconds = self._attempts.seconds(now)
        if not first:
            ctx.count("rekeys")
        self._attempts.succeed()
        self._stop_connecting()
        self.sessions.confirm(now, session)
        self.liveness.handle_handshake(now.boot)
        self.upkeep.handle_session(now)
        self.path.handle_handshake(now, session.index, source, size, sent_to)
        self.sessions.select()
        if self.link is Link.ETHERNET:
            assert self.current_index is not None
            self.path.search(now, self.current_index, self._candidates)
        if self.link is Link.ETHERNET:
            session.caps = CapsExchange(ctx, session.transport)
            self._offer(now, session)
        elif session.transport.initiator and not ctx.staging.holds(peer):
            ctx.commands.append(SendControl(session.index, b""))  # the responder may not use it before we do
        if first and self.profile.kind is not Kind.NUCLEUS:
            transport, identity = session.transport, self.profile.identity
            ctx.events.append(PeerUp(peer, identity, transport.session_id, source, transport.initiator, seconds))
        if self.path.proven:
            self._flush()
        ctx.signals.append(PeerAvailable(peer))
        self._look_later(now)

    # ------------------------------------------------------------ control messages

    def offer_caps(self, now: Now) -> None:
        """Something in our CAPS changed (address, membership): tell the peer."""
        if self.sessions.current is not None and self.link is Link.ETHERNET:
            self._offer(now, self.sessions.current)
            self._look_later(now)

    def _offer(self, now: Now, session: PeerSession) -> None:
        assert session.caps is not None
        member, room = self.profile.kind is Kind.MEMBER, self._handshakes.indices <= REFLEX_SESSIONS
        ours = self._own.caps(now, session.caps.new_token(), member=member, reflex=room)
        session.caps.offer(now, ours, at_once=self.path.proven)

    def handle_control(self, now: Now, local_index: int, message: ControlMessage, source: Endpoint, size: int) -> None:
        """An authentic control message. RemoteError when it is not acceptable."""
        session = self.sessions.find(local_index)
        if session is None or session.caps is None:
            raise RemoteError("control_without_session")
        if not self.path.proven and source == self.path.endpoint:
            self.path.handle_source(now, local_index, source, size)  # more credit
        index = self.current_index
        assert index is not None
        match message:
            case Caps():
                note_differences(self._ctx, now, self.profile.id, message)
                self._handle_caps(session, message)
            case CapsAck():
                session.caps.handle_ack(message.token)
            case PathChallenge():
                answer = PathResponse(message.token, source)
                self._ctx.commands.append(SendControl(local_index, answer.encode(), source))
                self.upkeep.handle_challenge(now, index, source, size, in_use=message.in_use)
            case PathResponse():
                self._handle_path_response(now, index, message)
            case Close():
                self.sessions.close_until(session)
                if not self.up:
                    self._closed = True
                    self._stop_connecting()
                    self.path.distrust()
                    self._down("closed")
        self._arm()

    def _handle_caps(self, session: PeerSession, caps: Caps) -> None:
        assert session.caps is not None
        profile, ctx = self.profile, self._ctx
        subject = profile.id.hex()
        if caps.versions.common(OUR_VERSIONS) is None:
            theirs = f"{caps.versions.minimum} to {caps.versions.maximum}"
            ours = f"{OUR_VERSIONS.minimum} to {OUR_VERSIONS.maximum}"
            text = f"a peer speaks protocol versions {theirs}, we {ours}: update the older side"
            ctx.problem("version", text, subject)
            raise RemoteError("version")
        if profile.kind is Kind.PAIR:
            if caps.identity is None or caps.identity != profile.identity:
                raise RemoteError("caps_identity")
            ctx.signals.append(ClaimSeen(profile.id, caps.identity, caps.vip))
        elif caps.membership is not None:
            ctx.signals.append(MembershipSeen(profile.id, caps.membership))
        if self.sessions.note_boot(session, caps.boot_id) and profile.identity is not None:
            where = str(self.path.endpoint)
            text = f"two machines use the identity of one peer, the newest is at {where}: give each its own"
            if ctx.problem("cloned_peer", text, subject):
                ctx.events.append(IdentityCloned(profile.identity, where, own=False))
        session.caps.handle_caps(caps)

    def _handle_path_response(self, now: Now, index: int, message: PathResponse) -> None:
        waiting = not self.path.proven
        self.upkeep.handle_response(now, index, message)
        if self.upkeep.mtu != self._told_mtu:
            self._tell_policy()
        if waiting:
            for session in self.sessions.confirmed:
                if session.caps is not None:
                    session.caps.repeat(now, at_once=True)
            self._flush()

    # ------------------------------------------------------------ engine events

    def handle_source(self, now: Now, local_index: int, source: Endpoint, size: int) -> None:
        """An authentic packet came from another address."""
        index = self.current_index
        if index is not None and self.sessions.find(local_index) is not None:
            self.path.handle_source(now, index, source, size)
            self._arm()

    def handle_activity(self, now: Now, activity: SessionActivity) -> None:
        """The engine's report on one session."""
        if self.sessions.find(activity.local_index) is None:
            return
        data_at = self.liveness.data_at
        self.liveness.handle_activity(activity)
        if self.liveness.data_at > data_at and self._tick_at is not None and self._tick_at > now.boot:
            self._tick_at = now.boot
            self._arm()

    # ------------------------------------------------------------ time

    def handle_timeout(self, now: Now) -> None:
        """Whatever is due."""
        if self._attempts.due(now):
            self._attempts.stop()
            if not self.up:
                self._connect(now, briefly=True)
        if self._attempts.over(now):
            self._attempt_over(now)
        if self.upkeep.handle_timeout(now, self.current_index):
            self.connect(now)
        self._expire(now)
        current = self.sessions.current
        if current is not None:
            self._tick(now, current)
        self._look_later(now)

    def _look_later(self, now: Now) -> None:
        self._tick_at = self._next_tick(now)
        if self.active:
            expect_activity(self._ctx, now)
        self._arm()

    def _next_tick(self, now: Now) -> float | None:
        current = self.sessions.current
        if current is None:
            return None
        if self.link is not Link.SIGNALLING:
            # The same instants for all peers: one wake-up per second.
            soon = floor(now.boot) + TICK
            if self.link is Link.IP or not self._quiet(now):
                return soon
            return max(soon, min((now.boot // QUIET_TICK + 1.0) * QUIET_TICK, float(ceil(self.upkeep.keepalive_at))))
        rekey_at = current.created_at + REKEY_AFTER
        return rekey_at if now.boot < rekey_at else floor(now.boot) + ATTEMPT_SECONDS

    def _quiet(self, now: Now) -> bool:
        """Whether nothing goes on that must be looked at each second. Data ends that (`handle_activity`)."""
        told = all(session.caps is None or session.caps.settled for session in self.sessions.confirmed)
        idle = self.liveness.idle and not self.liveness.carries_data(now.boot, MEASURE_AFTER_DATA)
        return idle and told and self.path.proven and not self.connecting

    def _expire(self, now: Now) -> None:
        was_up = self.up
        self.sessions.expire(now)
        if was_up and not self.up:
            self.path.distrust()
            self._down("expired")
            if self.wanted:
                self.connect(now)

    def _tick(self, now: Now, current: PeerSession) -> None:
        rekey = self._rekey_due(now, current)
        if self.link is Link.SIGNALLING:
            if rekey:
                self.connect(now)
            return
        used = self.liveness.used(now.boot, FORGET_AFTER)
        silent = self.liveness.silent(now.boot)
        unproven = not self.path.proven and now.boot - current.created_at >= UNPROVEN_PATIENCE
        if not self.connecting and (silent or unproven or rekey):
            if silent:
                self.path.distrust()
            self.connect(now)
        if self.liveness.keepalive_due(now.boot, persistent=self.wanted and self.link is Link.IP):
            self._ctx.commands.append(SendControl(current.index, b""))
        if self.link is Link.ETHERNET:
            self.upkeep.tick(now, current.index)
            if self.upkeep.mtu != self._told_mtu:
                self._tell_policy()
        for session in self.sessions.confirmed:
            if session.caps is not None:
                session.caps.repeat(now)
        if not used and not self.wanted:
            self._ctx.signals.append(Forgotten(self.profile.id))

    def _rekey_due(self, now: Now, current: PeerSession) -> bool:
        """The initiator renews a session that is in use or kept, so that both sides do not do it at once. If it does
        not come to it, whoever still uses or keeps the session does."""
        age = now.boot - current.created_at
        if self.link is Link.SIGNALLING:
            return age >= REKEY_AFTER
        if self.link is Link.ETHERNET and (self.wanted or self.liveness.used(now.boot, FORGET_AFTER)):
            return age >= (REKEY_AFTER if current.transport.initiator else REKEY_ON_RECEIVE_AFTER)
        used_at = self.liveness.packet_at
        if age >= REKEY_ON_RECEIVE_AFTER:
            return used_at >= current.created_at + REKEY_ON_RECEIVE_AFTER
        began, sent_at = current.transport.initiator, self.liveness.tx_at
        return began and age >= REKEY_AFTER and sent_at >= current.created_at + REKEY_AFTER

    def _arm(self) -> None:
        deadline = earliest(
            self._attempts.deadline(),
            self._tick_at if self.up else None,
            self.path.deadline() if self.up else None,
            self.sessions.waiting_expires_at,
        )
        self._ctx.timers.set(("peer", self.profile.id), deadline)

    # ------------------------------------------------------------ ends

    def close(self, reason: CloseReason) -> None:
        """Tell the peer, drop everything, and stay idle."""
        if self.link is Link.ETHERNET:
            payload = Close(reason).encode()
            self._ctx.commands += [SendControl(index, payload) for index in self.sessions.indices()]
        self._closed = True
        self.drop_sessions("closed")

    def drop_sessions(self, reason: str) -> None:
        """Without a word to the peer."""
        was_up = self.up
        self._stop_connecting()
        self.sessions.clear()
        self.path.distrust()
        if was_up:
            self._down(reason)
        self._arm()

    def remove(self) -> None:
        """The peer goes for good; the engine forgets it."""
        self.drop_sessions("removed")
        self.upkeep.forget()
        self._ctx.staging.take(self.profile.id)
        self._ctx.trials.forget(self.profile.id)
        self.path.forget()
        self._ctx.commands.append(RemovePeer(self.profile.id))
        self._ctx.timers.set(("peer", self.profile.id), None)

    def _down(self, reason: str) -> None:
        if self.profile.kind is not Kind.NUCLEUS:
            self._ctx.events.append(PeerDown(self.profile.id, self.profile.identity, reason))
        self._ctx.signals.append(PeerLost(self.profile.id, reason))
