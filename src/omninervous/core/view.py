"""Our side of one Nucleus: register, keep alive, ask, and keep a view of the cluster.

| state        | what is under way                          | leaves it                                               |
|--------------|--------------------------------------------|---------------------------------------------------------|
| idle         | no address is known                        | addresses -> contacting                                 |
| contacting   | `contact.py`: HELLO, handshake             | session -> registering; none in 5 s -> waiting          |
| registering  | REGISTER                                   | OK -> up; PENDING, VIP_TAKEN -> again; other -> refused |
| up           | HEARTBEAT every 30 s, a keepalive after 20 | UNKNOWN -> registering; 4 times no ACK -> waiting       |
| waiting      | nothing, 1 s to 30 s (doubling)            | contacting                                              |
| refused      | nothing, 30 s                              | registering                                             |

Whatever may happen to a thousand edges at once (a restarted Nucleus) is spread by jitter. A request is repeated with
the same number after 1, 2 and 4 s. The Nucleus can withhold members, not invent them: everything it says about who
holds an address is believed only with the holder's verified membership. `viewlog.ClientView` merges the view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from omninervous.core.clock import Now
from omninervous.core.contact import Contact
from omninervous.core.context import (
    AddressGranted,
    AddressProven,
    AddressTaken,
    AskAgain,
    CloneFound,
    Context,
    MemberChanged,
    PunchWanted,
    QueryAnswered,
)
from omninervous.core.dataplane import SendControl
from omninervous.core.events import (
    NucleusConfig,
    NucleusDown,
    NucleusStatus,
    NucleusUp,
    SecretMismatchHint,
)
from omninervous.core.handshakes import Handshakes
from omninervous.core.own import OwnAddress
from omninervous.core.peer import Peer
from omninervous.core.queries import Target
from omninervous.core.roster import Known
from omninervous.core.timers import earliest
from omninervous.core.viewlog import ClientView, ViewChange
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import OUR_VERSIONS
from omninervous.wire.signalling import (
    MAX_CANDIDATES,
    Heartbeat,
    HeartbeatAck,
    HeartbeatStatus,
    Leave,
    PeerEntry,
    PeerInfo,
    Probe,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    decode_signalling,
)

__all__ = ["HEARTBEAT_SECONDS", "View", "ViewState"]

HEARTBEAT_SECONDS = 30.0
HEARTBEAT_JITTER = 3.0
FIRST_HEARTBEAT_JITTER = 20.0
KEEPALIVE_SECONDS = 20.0
REPEAT_AFTER = (1.0, 2.0, 4.0, 4.0)
"""Patience after each sending of a request; then the session counts as dead."""
WAIT_MIN = 1.0
WAIT_MAX = 30.0
PENDING_SECONDS = 3.0
REFUSED_SECONDS = 30.0
RESTART_JITTER = 3.0
QUICK_CLAIMS = 32
"""Derived addresses tried in a row; a Nucleus that refuses more gets one per REFUSED_SECONDS."""


class ViewState(Enum):
    """See the module's table."""

    IDLE = "idle"
    CONTACTING = "contacting"
    REGISTERING = "registering"
    UP = "up"
    WAITING = "waiting"
    REFUSED = "refused"


@dataclass(slots=True)
class _Request:
    """The one REGISTER or HEARTBEAT that waits for its ACK."""

    number: int
    payload: bytes
    sent: int
    again_at: float
    began: float


class View:
    """The machine of one Nucleus. Signals tell the Node what it learns; `peer` carries its sessions."""

    def __init__(
        self,
        ctx: Context,
        handshakes: Handshakes,
        own: OwnAddress,
        config: NucleusConfig,
        learn: Callable[[PeerEntry], Known | None],
    ) -> None:
        """`learn` verifies an entry and puts it into the roster; None if it does not verify, or is our own."""
        self._ctx = ctx
        self._own = own
        self._learn = learn
        self.config = config
        self.state = ViewState.IDLE
        self._link = Contact(ctx, handshakes, own, config)
        self._candidates: tuple[Endpoint, ...] = ()
        self._again_at: float | None = None
        self._failures = 0
        self._claims = 0
        self._request: _Request | None = None
        self._registering = False
        """The newest request was a REGISTER."""
        self._heartbeat_at: float | None = None
        self._keepalive_at: float | None = None
        self._other_keys = 0
        self._observed: Endpoint | None = None
        self._rtt: float | None = None
        self._hint = ""
        self._log = ClientView(self._key_of)

    @property
    def peer(self) -> Peer | None:
        """What carries the sessions with it; None before its key is known."""
        return self._link.peer

    # ------------------------------------------------------------ inputs

    @property
    def registered(self) -> bool:
        """Whether queries can be asked."""
        return self.state is ViewState.UP

    def set_endpoints(self, now: Now, endpoints: tuple[Endpoint, ...]) -> None:
        """Where its name resolves to now."""
        self._link.set_endpoints(now, endpoints)
        if endpoints and self.state is ViewState.IDLE:
            self._contact(now)
        self._arm()

    def set_candidates(self, now: Now, endpoints: tuple[Endpoint, ...]) -> None:
        """Our own underlay addresses, for others to try."""
        if endpoints[:MAX_CANDIDATES] == self._candidates:
            return
        self._candidates = endpoints[:MAX_CANDIDATES]
        if self.state is ViewState.UP and self._request is None:
            self._heartbeat(now)
        self._arm()

    def network_changed(self, now: Now) -> None:
        """The way to the Nucleus may be another one: show it where we are, or try again to reach it."""
        if self.state is ViewState.UP:
            self._heartbeat(now)
        elif self.state is ViewState.REGISTERING and self._request is not None:
            self._send(self._request.payload)
        elif self.state in (ViewState.CONTACTING, ViewState.WAITING) and self._link.endpoints:
            self._hang_up("moved")
            self._contact(now)
        self._arm()

    def register_again(self, now: Now) -> None:
        """Our membership changed."""
        if self.peer is not None and self.peer.up and self.state in (ViewState.REGISTERING, ViewState.UP):
            self._register(now)
            self._arm()

    def query(self, target: Target, *, punch: bool, ask_initiate: bool) -> int | None:
        """Ask who a target is; the request's number, None while not registered."""
        if not self.registered:
            return None
        number = self._ctx.next_request()
        self._log.query_sent(number, target.key)
        self._send(QueryPeer(number, target.address, target.mac, target.key, punch, ask_initiate).encode())
        return number

    def doubt(self, now: Now) -> None:
        """A question was not answered: ask for a sign of life now, for a Nucleus that restarted knows us no more."""
        if self.state is ViewState.UP and self._request is None:
            self._heartbeat(now)
            self._arm()

    def leave(self) -> None:
        """We stop."""
        if self.state in (ViewState.REGISTERING, ViewState.UP):
            self._send(Leave(self._ctx.next_request()).encode())
        self._hang_up("closed")
        self._arm()

    def reset(self, now: Now) -> None:
        """Start again from the handshake (suspend)."""
        self._hang_up("reset")
        if self._link.endpoints:
            self._contact(now)
        self._arm()

    def handle_timeout(self, now: Now) -> None:
        """Whatever is due."""
        if self._link.handle_timeout(now):
            self._fail(now, "timeout")
        if _due(self._again_at, now):
            self._again_at = None
            if self.state is ViewState.REFUSED or (self.state is ViewState.REGISTERING and self._request is None):
                self._register(now)
            elif self.state is ViewState.WAITING:
                self._contact(now)
        if self._request is not None and _due(self._request.again_at, now):
            self._repeat(now, self._request)
        if self.state is ViewState.UP and self._request is None and _due(self._heartbeat_at, now):
            self._heartbeat(now)
        if _due(self._keepalive_at, now):
            self._keepalive_at = now.boot + KEEPALIVE_SECONDS
            self._send(b"")
        self._arm()

    # ------------------------------------------------------------ contact

    def _contact(self, now: Now) -> None:
        self.state = ViewState.CONTACTING
        self._link.begin(now)

    def handle_hello_reply(self, now: Now, data: bytes) -> None:
        """Type 6. RemoteError `unknown_hello` if it answers no HELLO of this view."""
        try:
            self._link.handle_hello_reply(now, data)
        finally:
            self._arm()

    # ------------------------------------------------------------ session

    def handle_available(self, now: Now) -> None:
        """A session is there: the first one, or a renewed one."""
        self._link.succeeded()
        if self.state in (ViewState.CONTACTING, ViewState.WAITING, ViewState.IDLE):
            self._failures = self._claims = 0
            self._register(now)
        self._arm()

    def handle_lost(self, now: Now, reason: str) -> None:
        """The last session is gone, or no handshake came through."""
        # While a contact is under way it was the one before, which we hung up to begin anew.
        if self.state not in (ViewState.IDLE, ViewState.WAITING) and not self._link.under_way:
            self._fail(now, reason)
        self._arm()

    def _fail(self, now: Now, reason: str) -> None:
        if self.state in (ViewState.UP, ViewState.REGISTERING):
            self._ctx.events.append(NucleusDown(self.config.name, reason))
        self._hang_up(reason)
        self.state = ViewState.WAITING
        pause = min(WAIT_MAX, WAIT_MIN * 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._again_at = now.boot + pause + self._ctx.jitter(max(RESTART_JITTER, pause / 2))

    def _hang_up(self, reason: str) -> None:
        self.state = ViewState.IDLE
        self._again_at = self._heartbeat_at = self._keepalive_at = None
        self._request = None
        self._link.stop(reason)

    # ------------------------------------------------------------ requests

    def _register(self, now: Now) -> None:
        membership = self._own.membership(now)
        cluster = self._ctx.config.cluster
        assert membership is not None and cluster is not None
        if self.state is not ViewState.UP:
            self.state = ViewState.REGISTERING
        number = self._ctx.next_request()
        self._log.register_sent(number)
        self._registering = True
        boot_id = self._ctx.config.boot_id
        message = Register(number, cluster.name, cluster.public, membership, boot_id, OUR_VERSIONS, self._candidates)
        self._begin(now, number, message.encode())

    def _heartbeat(self, now: Now, token: bytes | None = None) -> None:
        number = self._ctx.next_request()
        position = self._log.heartbeat_sent(number)
        self._registering = False
        message = Heartbeat(number, position.epoch, position.version, position.cursor, self._candidates, token)
        self._heartbeat_at = now.boot + HEARTBEAT_SECONDS - HEARTBEAT_JITTER / 2 + self._ctx.jitter(HEARTBEAT_JITTER)
        self._begin(now, number, message.encode())

    def _begin(self, now: Now, number: int, payload: bytes) -> None:
        self._request = _Request(number, payload, 1, now.boot + REPEAT_AFTER[0], now.boot)
        self._keepalive_at = now.boot + KEEPALIVE_SECONDS
        self._send(payload)

    def _repeat(self, now: Now, request: _Request) -> None:
        if request.sent >= len(REPEAT_AFTER):
            self._fail(now, "timeout")
            return
        request.again_at = now.boot + REPEAT_AFTER[request.sent]
        request.sent += 1
        self._send(request.payload)

    def _send(self, payload: bytes) -> None:
        index = None if self.peer is None else self.peer.current_index
        if index is not None:
            self._ctx.commands.append(SendControl(index, payload))

    # ------------------------------------------------------------ answers

    def handle_control(self, now: Now, payload: bytes) -> None:
        """An authentic message of the Nucleus. RemoteError or DecodeError when it cannot be used."""
        match decode_signalling(payload):
            case RegisterAck() as ack:
                self._handle_register_ack(now, ack)
            case HeartbeatAck() as heartbeat_ack:
                self._handle_heartbeat_ack(now, heartbeat_ack)
            case PeerInfo() as info:
                self._handle_peer_info(info)
            case Probe() as probe:
                self._handle_probe(now, probe)
            case _:
                raise RemoteError("signalling_type")
        self._arm()

    def _handle_probe(self, now: Now, probe: Probe) -> None:
        if self.state is ViewState.UP and not self._registering:
            self._heartbeat(now, probe.token)
            self._ctx.signals.append(AddressProven(self.config.name))
            return
        # The Nucleus wants our address proven. The answer to this heartbeat says nothing new; REGISTER goes on then.
        self._send(Heartbeat(self._ctx.next_request(), 0, 0, None, (), probe.token).encode())
        if self._request is not None:
            self._send(self._request.payload)

    def _handle_register_ack(self, now: Now, ack: RegisterAck) -> None:
        change = self._log.register_acked(ack)
        if change is None:
            raise RemoteError("unawaited_ack")
        self._acked(now, ack.observed)
        self._registering = False
        match ack.status:
            case RegisterStatus.OK:
                self._other_keys = ack.other_keys
                self._up(now)
                self._apply(now, change)
            case RegisterStatus.VIP_TAKEN:
                self._vip_taken(now, ack.holder)
            case RegisterStatus.PENDING:
                self._pause(
                    now, ViewState.REGISTERING, "waits for the present holder of this identity", PENDING_SECONDS
                )
            case RegisterStatus.CLONED:
                self._cloned(now)
            case RegisterStatus.REFUSED | RegisterStatus.FULL:
                self._refused(now, ack.status.name.lower())

    def _acked(self, now: Now, observed: Endpoint | None) -> None:
        request, self._request = self._request, None
        if request is not None and request.sent == 1:
            self._rtt = now.boot - request.began
        if observed is not None:
            self._observed = observed
            if self.peer is not None and self.peer.path.endpoint is not None:
                self._ctx.note_view(self.peer.profile.id, self.peer.path.endpoint, observed)

    def _up(self, now: Now) -> None:
        if self.state is not ViewState.UP:
            self.state = ViewState.UP
            assert self.peer is not None and self.peer.path.endpoint is not None and self._link.key is not None
            self._ctx.events.append(NucleusUp(self.config.name, self.peer.path.endpoint, self._link.key))
        self._hint = ""
        self._claims = 0
        # Edges that came up together part here, and stay apart.
        self._heartbeat_at = now.boot + HEARTBEAT_SECONDS - self._ctx.jitter(FIRST_HEARTBEAT_JITTER)
        self._ctx.signals.append(AddressGranted(self.config.name))

    def _handle_heartbeat_ack(self, now: Now, ack: HeartbeatAck) -> None:
        change = self._log.heartbeat_acked(ack)
        if change is None:
            raise RemoteError("unawaited_ack")
        self._acked(now, ack.observed)
        match ack.status:
            case HeartbeatStatus.OK:
                self._apply(now, change)
            case HeartbeatStatus.UNKNOWN:
                # After a restart every edge learns this at its heartbeat: their jitter spreads the rest as well.
                self._pause(now, ViewState.REGISTERING, "", self._ctx.jitter(RESTART_JITTER))
            case HeartbeatStatus.VIP_LOST:
                self._apply(now, change)
                self._vip_taken(now, ack.holder)
            case HeartbeatStatus.CLONED:
                self._cloned(now)

    def _apply(self, now: Now, change: ViewChange) -> None:
        name = self.config.name
        self._ctx.signals += [MemberChanged(name, key, live=True) for key, _ in change.joined]
        self._ctx.signals += [MemberChanged(name, key, live=False, forgotten=change.anew) for key in change.left]
        if change.ask_again:
            self._ctx.signals.append(AskAgain(change.ask_again))
        if change.again:
            self._heartbeat(now)
        elif self._other_keys:
            self._hint_at_secret()

    def _hint_at_secret(self) -> None:
        cluster = self._ctx.config.cluster
        assert cluster is not None
        if self._log.entries:
            self._ctx.solved("secret_mismatch", cluster.name)
            self._other_keys = 0
            return
        text = (
            f"cluster {cluster.name!r} is known to Nucleus {self.config.name} under another secret, and nobody else is "
            "there under ours: check the secret"
        )
        if self._ctx.problem("secret_mismatch", text, cluster.name):
            self._ctx.events.append(SecretMismatchHint(self.config.name, cluster.name))

    def _vip_taken(self, now: Now, entry: PeerEntry | None) -> None:
        holder = None if entry is None else self._learn(entry)
        if holder is None or holder.claim is None or holder.claim.address != self._own.claim.address:
            self._refused(now, "says that our address is taken, but not by whom")
            return
        self._claims += 1
        slow = self._own.claim.explicit or self._claims > QUICK_CLAIMS
        self._pause(
            now,
            ViewState.REFUSED if slow else ViewState.REGISTERING,
            "our address is taken",
            REFUSED_SECONDS if slow else None,
        )
        self._ctx.signals.append(AddressTaken(self.config.name, holder.identity))

    def _cloned(self, now: Now) -> None:
        self._pause(now, ViewState.REFUSED, "this identity runs somewhere else", REFUSED_SECONDS)
        self._ctx.signals.append(CloneFound(self.config.name))

    def _refused(self, now: Now, reason: str) -> None:
        self._ctx.events.append(NucleusDown(self.config.name, reason))
        self._pause(now, ViewState.REFUSED, reason, REFUSED_SECONDS)

    def _pause(self, now: Now, state: ViewState, hint: str, seconds: float | None) -> None:
        """Register again after some seconds (None: the Node says when, or at once)."""
        self.state = state
        self._hint = hint
        self._heartbeat_at = None
        self._again_at = None if seconds is None else now.boot + seconds

    def _handle_peer_info(self, info: PeerInfo) -> None:
        known = None if info.entry is None else self._learn(info.entry)
        if info.request == 0:
            if known is None or info.entry is None:
                raise RemoteError("unverified_push")
            reflexive = () if info.entry.reflexive is None else (info.entry.reflexive,)
            endpoints = (*reflexive, *info.entry.candidates)
            self._ctx.signals.append(PunchWanted(known.key, endpoints, info.ask_initiate))
            return
        change = self._log.answered(info)
        if change is not None:
            name = self.config.name
            self._ctx.signals += [MemberChanged(name, key, live=True) for key, _ in change.joined]
        self._ctx.signals.append(QueryAnswered(info.request, None if known is None else known.key))

    def _key_of(self, entry: PeerEntry) -> bytes | None:
        known = self._learn(entry)
        return None if known is None else known.key

    # ------------------------------------------------------------ outputs

    def status(self) -> NucleusStatus:
        """For `omni status`."""
        shown = {ViewState.UP: "up", ViewState.CONTACTING: "connecting", ViewState.REGISTERING: "connecting"}
        return NucleusStatus(
            name=self.config.name,
            endpoint=(None if self.peer is None else self.peer.path.endpoint) or next(iter(self._link.endpoints), None),
            identity=self._link.key,
            state=shown.get(self.state, "down"),
            registered=self.registered,
            version=self._log.version,
            observed=self._observed,
            rtt=self._rtt,
            hint=self._status_hint(),
        )

    def _status_hint(self) -> str:
        if not self._link.endpoints:
            return "its address is not known yet"
        silent = "" if self.registered or self._hint else "no answer yet"
        return self._link.hint or self._hint or silent

    def _arm(self) -> None:
        deadline = earliest(
            self._link.deadline(),
            self._again_at,
            None if self._request is None else self._request.again_at,
            self._heartbeat_at if self.state is ViewState.UP and self._request is None else None,
            self._keepalive_at,
        )
        self._ctx.timers.set(("view", self.config.name), deadline)


def _due(at: float | None, now: Now) -> bool:
    return at is not None and now.boot >= at
