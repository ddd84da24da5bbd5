"""Handshake messages (types 1, 2 and 3) in both directions, for all peers of a Node.

Initiator: one pending initiation per peer. Its bytes are sent to every candidate endpoint at once and again after
0.25, 0.75, 1.75 and 3.5 s; copies are harmless, as the responder takes a timestamp only once. From the second time on
copies go to guessed endpoints, too. When an attempt ends, and what follows, is the business of `peer.py`.

Responder, in this order, cheapest check first; nothing is allocated and nothing sent before the sender is proven:

    mac1 wrong                      silence
    a copy of one just answered     the same answer, also to the copy's source (that is how a NAT's other side is found)
    under load, no valid mac2       a cookie, but to known endpoints only
    too many new ones               silence; counted. Known endpoints do not count, a valid mac2 has its own budget
    cannot be opened                silence

Whether the peer is known, and its timestamp new, is for the Node to say.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.cookies import CookieChecker, MacGenerator, mac1_valid
from omninervous.core.dataplane import PeerId, SendDatagram, TrustCookies
from omninervous.core.events import PersistTimestamp
from omninervous.core.noise import IncomingInitiation, Initiator, Transport
from omninervous.core.ratelimit import RateLimiter, source_key
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import MAC_SIZE, decode_cookie_reply, decode_response

__all__ = ["MAX_ENDPOINTS", "RESEND_AFTER", "Established", "Handshakes"]

RESEND_AFTER = (0.25, 0.75, 1.75, 3.5)
"""Seconds after the first sending at which the same initiation is sent again."""
MAX_ENDPOINTS = 10
GUESSES_AT_ONCE = 8
ANSWERS_KEPT = 256
ANSWER_LIFETIME = 5.0
INITIATION_INTERVAL = 0.02
"""Seconds between two answers to the same peer (WireGuard's limit of 50 per second)."""
MAX_REPEATS = 8
"""Copies of one response: what an unproven sender gets stays below what it sent (92 < 148 each)."""

_SIGNED_PART = slice(None, -MAC_SIZE)


@dataclass(frozen=True, slots=True)
class Established:
    """The response to our initiation arrived."""

    transport: Transport
    sent_to: tuple[Endpoint, ...]
    """Where the initiation went."""


@dataclass(slots=True)
class _Pending:
    initiator: Initiator
    began: float
    endpoints: list[Endpoint]
    resends: int = 0
    guesses: list[Endpoint] = field(default_factory=list)
    """Where nothing has gone yet."""
    guessed: list[Endpoint] = field(default_factory=list)


@dataclass(slots=True)
class _Answer:
    peer: PeerId
    response: bytes
    local_index: int
    at: float
    sent_to: list[Endpoint]


class Handshakes:
    """All handshakes of a Node, and the table of session indices in use."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._owners: dict[int, PeerId] = {}  # local index of a pending handshake or a session -> peer
        self._pending: dict[PeerId, _Pending] = {}
        self._macs: OrderedDict[PeerId, MacGenerator] = OrderedDict()
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._newest: OrderedDict[PeerId, tuple[bytes, float]] = OrderedDict()  # timestamp answered last, and when
        config = ctx.config
        self._cookies = CookieChecker(ctx.keys.public, ctx.entropy)
        self._trusted: tuple[bytes, float] | None = None  # the secret that the engine has
        self._load = RateLimiter(config.under_load, config.under_load, capacity=1)
        self._new_sessions = RateLimiter(config.sessions_per_ip, config.sessions_per_ip)
        self._cookie_sessions = RateLimiter(config.sessions_per_ip, config.sessions_per_ip)

    def limit_sessions(self, per_ip: int) -> None:
        """From now on so many new sessions of one address and second."""
        self._new_sessions.set_rate(per_ip)
        self._cookie_sessions.set_rate(per_ip)

    # ------------------------------------------------------------ initiator

    def begin(
        self, now: Now, peer: PeerId, psk: bytes, endpoints: Sequence[Endpoint], guesses: Sequence[Endpoint] = ()
    ) -> None:
        """Start a handshake, in place of a pending one, and send it to the endpoints (there may be none yet). One copy
        goes to each of the `guesses`, in their order, as long as nobody answers."""
        self.abort(peer)
        ctx = self._ctx
        mark = ctx.timestamps.reserve(now.wall)
        if mark is not None:
            ctx.events.append(PersistTimestamp(mark))
        index = self._new_index(peer)
        timestamp = ctx.timestamps.next(now.wall)
        try:
            initiator = Initiator.create(ctx.keys, peer, psk, timestamp, index, ctx.entropy)
        except RemoteError as error:
            self.release(index)
            ctx.drop(error.reason)
            return
        self._pending[peer] = pending = _Pending(initiator, now.boot, [])
        self.extend(now, peer, endpoints, guesses)
        ctx.timers.set(("handshake", peer), pending.began + RESEND_AFTER[0])

    def extend(self, now: Now, peer: PeerId, endpoints: Sequence[Endpoint], guesses: Sequence[Endpoint] = ()) -> None:
        """Send the pending initiation to endpoints that it has not gone to yet; these are the guesses from now on."""
        pending = self._pending.get(peer)
        if pending is None:
            return
        fresh = [endpoint for endpoint in dict.fromkeys(endpoints) if endpoint not in pending.endpoints]
        fresh = fresh[: MAX_ENDPOINTS - len(pending.endpoints)]
        pending.endpoints += fresh
        tried = (*pending.endpoints, *pending.guessed)
        pending.guesses = [guess for guess in guesses if guess not in tried]
        self._ctx.trials.initiation(now.boot, peer, fresh)
        self._send(now, peer, pending.initiator.message, fresh)

    def abort(self, peer: PeerId) -> None:
        """Forget a pending handshake."""
        pending = self._pending.pop(peer, None)
        if pending is not None:
            self.release(pending.initiator.sender_index)
            self._ctx.timers.set(("handshake", peer), None)

    def pending(self, peer: PeerId) -> bool:
        """Whether a handshake of ours waits for its response."""
        return peer in self._pending

    def handle_timeout(self, now: Now, peer: PeerId) -> None:
        """Send the pending initiation again."""
        pending = self._pending.get(peer)
        if pending is None:
            return
        while pending.resends < len(RESEND_AFTER) and pending.began + RESEND_AFTER[pending.resends] <= now.boot:
            pending.resends += 1
        guesses, pending.guesses = pending.guesses[:GUESSES_AT_ONCE], pending.guesses[GUESSES_AT_ONCE:]
        pending.guessed += guesses
        self._ctx.trials.initiation(now.boot, peer, pending.endpoints)
        self._send(now, peer, pending.initiator.message, (*pending.endpoints, *guesses))
        if pending.resends < len(RESEND_AFTER):
            self._ctx.timers.set(("handshake", peer), pending.began + RESEND_AFTER[pending.resends])

    def handle_response(self, now: Now, data: bytes) -> Established:
        """Type 2. RemoteError leaves a pending handshake as it was: the true response may still come. `bad_tag` means
        that the peer has another pre-shared key, or that somebody forged it; `suspect` says whose it claims to be."""
        try:
            index = decode_response(data).receiver_index
        except DecodeError:
            raise RemoteError("malformed") from None
        peer = self._owners.get(index)
        pending = self._pending.get(peer) if peer is not None else None
        if peer is None or pending is None or pending.initiator.sender_index != index:
            raise RemoteError("unknown_handshake")
        transport = pending.initiator.finish(data)
        del self._pending[peer]
        self._ctx.timers.set(("handshake", peer), None)
        self._ctx.count("handshakes_completed")
        return Established(transport, (*pending.endpoints, *pending.guessed))

    def suspect(self, data: bytes) -> PeerId | None:
        """Whose response a type 2 claims to be."""
        return self._owners.get(decode_response(data).receiver_index)

    def handle_cookie(self, now: Now, data: bytes) -> None:
        """Type 3: the next copy of our message will carry a mac2. RemoteError `unknown_handshake`, `bad_cookie`."""
        try:
            reply = decode_cookie_reply(data)
        except DecodeError:
            raise RemoteError("malformed") from None
        peer = self._owners.get(reply.receiver_index)
        pending = self._pending.get(peer) if peer is not None else None
        waiting = pending is not None and pending.initiator.sender_index == reply.receiver_index
        if peer is None or not (waiting or any(a.local_index == reply.receiver_index for a in self._answers.values())):
            raise RemoteError("unknown_handshake")
        self._mac(peer).handle_reply(now.boot, reply)

    # ------------------------------------------------------------ responder

    def open(self, now: Now, source: Endpoint, data: bytes) -> IncomingInitiation | None:
        """Type 1 up to the point where its sender has proven its key. None: it was a copy, and was answered.
        RemoteError for all that is dropped."""
        ctx = self._ctx
        if not mac1_valid(ctx.keys.public, data):
            raise RemoteError("bad_mac1")
        answer = self._answers.get(data[_SIGNED_PART])
        if answer is not None and now.boot - answer.at <= ANSWER_LIFETIME:
            if len(answer.sent_to) >= MAX_REPEATS:
                raise RemoteError("repeated_initiation")
            answer.sent_to.append(source)
            self._send(now, answer.peer, answer.response, (source,))
            return None
        proven = self._cookies.valid_mac2(now.boot, source, data)
        known = source in ctx.endpoints
        if not self._load.allow(now.boot, "") and not proven:
            if known:
                self._send_cookie(now, source, data)
            raise RemoteError("under_load")
        limiter = self._cookie_sessions if proven else self._new_sessions
        if not known and not limiter.allow(now.boot, source_key(source.host)):
            ctx.count("rate_limited")
            raise RemoteError("rate_limited")
        return IncomingInitiation.open(ctx.keys, data)

    def respond(self, now: Now, source: Endpoint, data: bytes, incoming: IncomingInitiation, psk: bytes) -> Transport:
        """The session with the sender of an initiation (`data`) who may connect; `answer` sends the response once the
        engine has it. RemoteError `replayed_initiation` if its timestamp is not newer than the last,
        `initiation_flood`, `weak_key`."""
        peer = incoming.remote_static
        newest, at = self._newest.get(peer, (b"", -INITIATION_INTERVAL))
        if incoming.timestamp <= newest:
            raise RemoteError("replayed_initiation")
        if now.boot - at < INITIATION_INTERVAL:
            raise RemoteError("initiation_flood")
        index = self._new_index(peer)
        try:
            response, transport = incoming.respond(psk, index, self._ctx.entropy)
        except RemoteError:
            self.release(index)
            raise
        self._newest.pop(peer, None)
        self._newest[peer] = (incoming.timestamp, now.boot)
        if len(self._newest) > self._ctx.config.max_peers:
            self._newest.popitem(last=False)
        self._answers[data[_SIGNED_PART]] = _Answer(peer, response, index, now.boot, [source])
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        return transport

    def answer(self, now: Now, data: bytes) -> None:
        """Send the response to an initiation that `respond` has taken. The peer may use the session a moment later, so
        the engine must know it by then."""
        answer = self._answers[data[_SIGNED_PART]]
        self._send(now, answer.peer, answer.response, (answer.sent_to[-1],))

    def answered_to(self, local_index: int) -> tuple[Endpoint, ...]:
        """Where the response that made this session went; empty when that is forgotten."""
        for answer in self._answers.values():
            if answer.local_index == local_index:
                return tuple(dict.fromkeys(answer.sent_to))
        return ()

    def _send_cookie(self, now: Now, source: Endpoint, data: bytes) -> None:
        ctx = self._ctx
        reply = self._cookies.reply(now.boot, data, source)
        secret = self._cookies.secret
        if secret is not None and secret != self._trusted:
            self._trusted = secret
            ctx.commands.append(TrustCookies(*secret))
        ctx.commands.append(SendDatagram(source, reply))
        ctx.count("cookies_sent")

    # ------------------------------------------------------------ indices

    @property
    def indices(self) -> int:
        """How many handshakes are under way, and sessions there are."""
        return len(self._owners)

    def release(self, index: int) -> None:
        """A session or handshake is gone: its index is free."""
        self._owners.pop(index, None)

    def _new_index(self, peer: PeerId) -> int:
        while True:
            index = int.from_bytes(self._ctx.entropy(4), "little")
            if index and index not in self._owners:  # 0 is nobody's
                self._owners[index] = peer
                return index

    def _mac(self, peer: PeerId) -> MacGenerator:
        found = self._macs.pop(peer, None) or MacGenerator(peer)
        self._macs[peer] = found
        if len(self._macs) > max(ANSWERS_KEPT, 2 * len(self._pending)):
            self._macs.popitem(last=False)
        return found

    def _send(self, now: Now, peer: PeerId, message: bytes, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            return
        signed = self._mac(peer).sign(now.boot, message)
        self._ctx.commands += [SendDatagram(endpoint, signed) for endpoint in endpoints]
