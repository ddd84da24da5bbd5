"""The Nucleus: who is there, and how they reach one another. It signals, and never forwards data.

A pure machine: `handle_datagram` and `handle_timeout` take the time, `poll_transmit` gives what to send,
`poll_timeout` says when to call again. No datagram makes it raise; what is wrong with one is counted by reason and
answered by silence.

    type 5, well formed        HELLO_REPLY, smaller than the HELLO
    type 1                     `core.nucleus_handshakes`
    type 4, authentic          signalling, below; payloads of any other kind are dropped (`data_refused`)
    all else                   silence

    REGISTER     verified and, if nobody else has the key or the address, registered; answered by the view's first page
    HEARTBEAT    keeps the edge alive for 90 s; answered by what is new in its view. A session that is not registered
                 is told where it is seen, and may have a PROBE sent to another port of its address (`omni netcheck`)
    QUERY_PEER   answered, and (`punch`, `ask_initiate`) pushed to the queried edge, so that both punch at once
    LEAVE, CLOSE forgets the edge, or the session

Two machines with one identity: `core.nucleus_clones`. A machine that lost its place hears so at its next HEARTBEAT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omninervous.core.clock import Entropy, Now
from omninervous.core.identity import Identity
from omninervous.core.membership import Membership, verify
from omninervous.core.memory_registry import MemoryRegistry
from omninervous.core.nucleus_clones import CloneWatch, Verdict
from omninervous.core.nucleus_handshakes import HandshakeLimits, Handshakes
from omninervous.core.nucleus_sessions import EdgeSession, SessionTable
from omninervous.core.ratelimit import RateLimiter
from omninervous.core.registry import (
    MAX_MEMBERS,
    ClusterId,
    Lookup,
    Member,
    Registration,
    Registry,
    RegistryStats,
    Since,
)
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import OUR_VERSIONS, TOKEN_SIZE, Close, decode_control
from omninervous.wire.handshake import MessageType
from omninervous.wire.hello import HelloReply, decode_hello
from omninervous.wire.signalling import (
    MAX_SIGNALLING,
    Heartbeat,
    HeartbeatAck,
    HeartbeatStatus,
    Leave,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    Probe,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    SignallingMessage,
    decode_signalling,
)
from omninervous.wire.tlv import CONTROL_KIND, FIELD_HEADER_SIZE
from omninervous.wire.transport import MIN_TRANSPORT_SIZE

__all__ = ["Rendezvous", "RendezvousConfig", "RendezvousSnapshot"]

EPOCH_SIZE = 8
PROBE_INTERVAL = 1.0
"""Seconds between two PROBEs of one session's new address."""

_ROOMIEST = Endpoint("::1", 1)  # an IPv6 endpoint takes the most bytes
_HEARTBEAT_ACK_SIZE = len(
    HeartbeatAck(0, 0, 0, 0, observed=_ROOMIEST, more=True, cursor=bytes(32), snapshot=True).encode()
)
_REGISTER_ACK_SIZE = len(
    RegisterAck(0, RegisterStatus.OK, 1, 1, observed=_ROOMIEST, cursor=bytes(32), other_keys=1).encode()
)


@dataclass(frozen=True, slots=True)
class RendezvousConfig:
    """Limits of a Nucleus."""

    handshakes: HandshakeLimits = field(default_factory=HandshakeLimits)
    max_sessions: int = 200_000
    max_members: int = MAX_MEMBERS
    pushes_per_edge: int = 20
    """PEER_INFOs per second that one edge may have pushed to others, and the same that one edge may be sent."""
    push_burst: int = 256
    """At once: an edge that starts queries its whole flood set."""
    pushes_per_pair: int = 1
    """The same, from one edge to one other: so that no member alone uses up what another may be sent."""
    push_burst_per_pair: int = 4
    messages_per_edge: int = 100
    """Signalling messages per second that are looked at."""
    message_burst: int = 1000


@dataclass(frozen=True, slots=True)
class RendezvousSnapshot:
    """What `omni status` shows."""

    registry: RegistryStats
    sessions: int
    counters: Mapping[str, int]
    """Totals since the start: `rx_<message>`, `drop_<reason>`, `registered`, ..."""


class Rendezvous:
    """The Nucleus's machine. The registry is its own, or one that is shared."""

    def __init__(
        self, config: RendezvousConfig, identity: Identity, entropy: Entropy, registry: Registry | None = None
    ) -> None:
        self._identity = identity
        self._entropy = entropy
        if registry is None:
            registry = MemoryRegistry(int.from_bytes(entropy(EPOCH_SIZE), "big") or 1, config.max_members)
        self._registry: Registry = registry
        self._sessions = SessionTable(config.max_sessions)
        self._handshakes = Handshakes(
            identity.x25519_private, self._sessions, entropy, config.handshakes, self._count, config.max_sessions
        )
        self._push_from = RateLimiter(config.pushes_per_edge, config.push_burst, config.max_members)
        self._push_to = RateLimiter(config.pushes_per_edge, config.push_burst, config.max_members)
        self._push_pair = RateLimiter(config.pushes_per_pair, config.push_burst_per_pair, 4 * config.max_members)
        self._messages = RateLimiter(config.messages_per_edge, config.message_burst, config.max_members)
        self._clones = CloneWatch()
        self._outbox: list[tuple[Endpoint, bytes]] = []
        self._counters: dict[str, int] = {}

    def limit_sessions(self, per_source: int) -> None:
        """From now on so many new sessions of one address and second."""
        self._handshakes.limit_sessions(per_source)

    # ------------------------------------------------------------ in

    def handle_datagram(self, now: Now, source: Endpoint, data: bytes) -> None:
        """A UDP payload came. `data` must be bytes."""
        try:
            kind = data[0] if data else None
            if kind == MessageType.TRANSPORT:
                self._transport(now, source, data)
            elif kind == MessageType.INITIATION:
                answer = self._handshakes.answer(now.boot, source, data)
                if answer is not None:
                    self._outbox.append((source, answer))
            elif kind == MessageType.HELLO:
                reply = HelloReply(decode_hello(data).nonce, self._identity.public)
                self._outbox.append((source, reply.encode()))
                self._count("hellos")
            else:
                self._count("drop_bad_type")
        except DecodeError:
            self._count("drop_malformed")
        except RemoteError as error:
            self._count(f"drop_{error.reason}")

    def handle_timeout(self, now: Now) -> None:
        """Time passed: expire what is too old, repeat what is due."""
        expired = self._registry.expire(now.boot)
        if expired:
            self._count("expired", expired)
        self._sessions.expire(now.boot)
        for key, cluster in self._clones.due(now.boot):
            for holder in self._sessions_of(cluster, key):
                self._probe(now, holder)

    # ------------------------------------------------------------ out

    def poll_transmit(self) -> list[tuple[Endpoint, bytes]]:
        """Datagrams to send, in order."""
        out, self._outbox = self._outbox, []
        return out

    def poll_timeout(self) -> float | None:
        """Boot-time second at which `handle_timeout` has something to do."""
        deadlines = (self._registry.next_expiry(), self._sessions.next_expiry(), self._clones.next_due())
        return min((at for at in deadlines if at is not None), default=None)

    def snapshot(self) -> RendezvousSnapshot:
        """State for people and metrics."""
        return RendezvousSnapshot(self._registry.stats(), len(self._sessions), dict(sorted(self._counters.items())))

    # ------------------------------------------------------------ sessions

    def _transport(self, now: Now, source: Endpoint, data: bytes) -> None:
        edge = self._sessions.at(int.from_bytes(data[4:8], "little"))
        if edge is None:
            raise RemoteError("unknown_session")
        opened = edge.session.open(now.boot, data)
        if not edge.used:
            self._count("handshakes_completed")
        self._sessions.heard(edge, source, len(data), newest=opened.highest)
        payload = opened.payload
        if not payload:
            return
        if payload[0] != CONTROL_KIND:
            raise RemoteError("data_refused")
        if not self._messages.allow(now.boot, edge.key.hex()):
            raise RemoteError("message_rate")
        message = decode_signalling(payload)
        if message is not None:
            self._signalling(now, edge, message)
        elif isinstance(decode_control(payload), Close):
            self._sessions.remove(edge)

    def _signalling(self, now: Now, edge: EdgeSession, message: SignallingMessage) -> None:
        returned = isinstance(message, Heartbeat) and message.token is not None and message.token == edge.probe
        if returned:
            self._sessions.prove(edge)
        elif not edge.proven:
            self._probe_address(now, edge)  # before the answer uses up the budget
        match message:
            case Heartbeat():
                self._count("rx_heartbeat")
                self._heartbeat(now, edge, message, returned=returned)
            case Register():
                self._count("rx_register")
                self._register(now, edge, message)
            case QueryPeer():
                self._count("rx_query_peer")
                self._query(now, edge, message)
            case Leave():
                self._count("rx_leave")
                member = self._member(edge)
                if member is not None and edge.cluster is not None and member.boot_id == edge.boot_id:
                    self._registry.leave(now.boot, edge.cluster, edge.key)
            case _:
                raise RemoteError("not_for_a_nucleus")

    def _send(self, edge: EdgeSession, message: bytes) -> bool:
        """Seal a message and send it to where the edge is; False if it is withheld from an unproven address."""
        if not edge.spend(MIN_TRANSPORT_SIZE + len(message)):
            self._count("withheld")
            return False
        self._outbox.append((edge.endpoint, edge.session.seal(message)))
        return True

    def _room(self, edge: EdgeSession) -> int:
        """Bytes that a message to this edge may have now."""
        return MAX_SIGNALLING if edge.proven else min(MAX_SIGNALLING, edge.budget - MIN_TRANSPORT_SIZE)

    def _probe_address(self, now: Now, edge: EdgeSession) -> None:
        """Ask for a sign of life from the address that the edge seems to have moved to."""
        if edge.probe is None or edge.probed_at + PROBE_INTERVAL <= now.boot:
            self._probe(now, edge)

    def _probe(self, now: Now, edge: EdgeSession) -> None:
        if edge.probe is None:
            edge.probe = self._entropy(TOKEN_SIZE)
        edge.probed_at = now.boot
        self._send(edge, Probe(edge.probe).encode())

    def _probe_elsewhere(self, edge: EdgeSession, wanted: Endpoint | None) -> bool:
        """A PROBE to where no datagram of the edge comes from: does one from here get in? At its own proven address
        only, and smaller than the question."""
        if wanted is None or not edge.proven or wanted.host != edge.endpoint.host:
            return False
        self._outbox.append((wanted, edge.session.seal(Probe(self._entropy(TOKEN_SIZE)).encode())))
        self._count("probed_elsewhere")
        return True

    # ------------------------------------------------------------ REGISTER

    def _register(self, now: Now, edge: EdgeSession, message: Register) -> None:
        refusal, membership = self._refusal(now, edge, message)
        if membership is None:
            self._count(f"drop_{refusal}")
            self._answer_register(edge, message, RegisterStatus.REFUSED)
            return
        cluster = ClusterId(message.cluster, message.cluster_public)
        verdict = self._clone_verdict(now, edge, cluster, message.boot_id)
        if verdict is not None:
            # Bound to its own start, or it would pass for the registered one.
            edge.cluster, edge.boot_id = cluster, message.boot_id
            self._answer_register(edge, message, verdict)
            return
        where = edge.endpoint if edge.proven else None
        registration = Registration(membership, message.boot_id, where, message.candidates)
        outcome = self._registry.register(now.boot, cluster, registration)
        if outcome.status is not RegisterStatus.OK:
            self._answer_register(edge, message, outcome.status, outcome.holder)
            return
        if edge.cluster not in (None, cluster):
            self._registry.leave(now.boot, edge.cluster, edge.key)
        edge.cluster, edge.boot_id = cluster, message.boot_id
        self._count("registered")
        self._welcome(edge, message, cluster)
        if outcome.displaced is not None:
            self._count("displaced")
            for loser in self._sessions_of(cluster, outcome.displaced)[:1]:
                self._probe(now, loser)

    def _refusal(self, now: Now, edge: EdgeSession, message: Register) -> tuple[str, Membership | None]:
        """(why not, None), or ("", the verified membership)."""
        if message.versions.common(OUR_VERSIONS) is None:
            return "version", None
        try:
            membership = verify(message.membership, message.cluster_public, now.wall)
        except RemoteError as error:
            return error.reason, None
        return ("", membership) if membership.x25519 == edge.key else ("not_its_membership", None)

    def _answer_register(
        self, edge: EdgeSession, message: Register, status: RegisterStatus, holder: PeerEntry | None = None
    ) -> None:
        self._count(f"refused_{status.name.lower()}")
        self._send(edge, RegisterAck(message.request, status, observed=edge.endpoint, holder=holder).encode())

    def _welcome(self, edge: EdgeSession, message: Register, cluster: ClusterId) -> None:
        page = self._registry.page(cluster, edge.key, Since(0, 0), self._room(edge) - _REGISTER_ACK_SIZE)
        ack = RegisterAck(
            message.request,
            RegisterStatus.OK,
            page.epoch,
            page.version,
            edge.endpoint,
            page.joined,
            page.cursor,
            other_keys=min(self._registry.other_keys(cluster), 0xFFFF),
        )
        self._send(edge, ack.encode())

    # ------------------------------------------------------------ clones

    def _clone_verdict(self, now: Now, edge: EdgeSession, cluster: ClusterId, boot_id: bytes) -> RegisterStatus | None:
        """None: go on. PENDING or CLONED: another machine is, or may be, running with this identity."""
        member = self._registry.member(cluster, edge.key)
        if member is None or member.boot_id == boot_id:
            return None
        holders = self._sessions_of(cluster, edge.key)
        if not holders:
            return None  # nobody who could answer
        verdict = self._clones.judge(now.boot, edge.key, (cluster, member.boot_id), boot_id)
        if verdict is Verdict.NEW:
            for holder in holders:
                holder.probe = None  # a token of its own: one that is on its way already proves nothing
                self._probe(now, holder)
        if verdict is Verdict.SILENT:
            return None
        return RegisterStatus.CLONED if verdict is Verdict.ALIVE else RegisterStatus.PENDING

    def _sessions_of(self, cluster: ClusterId, key: bytes) -> list[EdgeSession]:
        """The sessions of a registered member: of the start of its daemon that registered. The newest first."""
        member = self._registry.member(cluster, key)
        return [
            edge
            for edge in self._sessions.of_key(key)
            if member is not None and edge.cluster == cluster and edge.boot_id == member.boot_id
        ]

    # ------------------------------------------------------------ HEARTBEAT

    def _heartbeat(self, now: Now, edge: EdgeSession, message: Heartbeat, *, returned: bool) -> None:
        known = self._member(edge)
        if known is None or edge.cluster is None:
            probed = self._probe_elsewhere(edge, message.probe_at)
            ack = HeartbeatAck(message.request, 0, 0, 0, HeartbeatStatus.UNKNOWN, edge.endpoint, probed=probed)
            self._send(edge, ack.encode())
            return
        if known.boot_id != edge.boot_id:
            self._send(edge, HeartbeatAck(message.request, 0, 0, 0, HeartbeatStatus.CLONED, edge.endpoint).encode())
            return
        if returned:
            self._clones.token_returned(edge.key, (edge.cluster, known.boot_id))
        where = edge.endpoint if edge.proven else None
        member = self._registry.refresh(now.boot, edge.cluster, edge.key, where, message.candidates)
        if member is not None:
            self._answer_heartbeat(edge, edge.cluster, message, member)

    def _answer_heartbeat(self, edge: EdgeSession, cluster: ClusterId, message: Heartbeat, member: Member) -> None:
        status, holder, room = HeartbeatStatus.OK, None, self._room(edge) - _HEARTBEAT_ACK_SIZE
        if member.displaced_by is not None:
            status = HeartbeatStatus.VIP_LOST
            winner = self._registry.member(cluster, member.displaced_by)
            if winner is not None:
                holder = winner.entry
                room -= FIELD_HEADER_SIZE + len(holder.encode())
        page = self._registry.page(cluster, edge.key, Since(message.epoch, message.version, message.cursor), room)
        if page.cursor is not None and not page.joined and not page.left:
            self._count("withheld")  # an unproven address: no room for even one entry
            return
        ack = HeartbeatAck(
            *(message.request, page.epoch, page.since, page.version, status, edge.endpoint),
            *(page.joined, page.left, page.more, page.cursor, holder, page.since == 0),
        )
        self._send(edge, ack.encode())

    def _inherit(self, edge: EdgeSession) -> None:
        """A session that a rekey made goes on where an older one was: from the same address if there is one."""
        if edge.cluster is not None:
            return
        older = [each for each in self._sessions.of_key(edge.key) if each.cluster is not None]
        older.sort(key=lambda each: each.endpoint != edge.endpoint)  # stable: the newest first among equals
        if older:
            edge.cluster, edge.boot_id = older[0].cluster, older[0].boot_id

    def _member(self, edge: EdgeSession) -> Member | None:
        self._inherit(edge)
        return None if edge.cluster is None else self._registry.member(edge.cluster, edge.key)

    # ------------------------------------------------------------ QUERY_PEER

    def _query(self, now: Now, edge: EdgeSession, message: QueryPeer) -> None:
        asker = self._member(edge)
        if asker is None or edge.cluster is None or asker.boot_id != edge.boot_id:
            self._count("drop_not_registered")
            self._probe_address(now, edge)  # its HEARTBEAT will tell it to register
            return
        address = message.address.packed if message.address is not None else None
        found = self._registry.find(edge.cluster, edge.key, Lookup(address, message.mac, message.key))
        if found is None:
            self._send(edge, PeerInfo(message.request, PeerStatus.NOT_FOUND).encode())
            return
        punch, ask_initiate = message.punch, message.ask_initiate
        answer = PeerInfo(message.request, PeerStatus.FOUND, found.entry, punch, ask_initiate)
        self._send(edge, answer.encode())
        if (punch or ask_initiate) and found.key != asker.key:
            push = PeerInfo(0, PeerStatus.FOUND, asker.entry, punch, ask_initiate)
            self._push(now, edge.cluster, asker.key, found.key, push)

    def _push(self, now: Now, cluster: ClusterId, asker: bytes, target: bytes, info: PeerInfo) -> None:
        allowed = (
            self._push_pair.allow(now.boot, f"{asker.hex()} {target.hex()}")
            and self._push_from.allow(now.boot, asker.hex())
            and self._push_to.allow(now.boot, target.hex())
        )
        sessions = self._sessions_of(cluster, target)
        if not allowed or not sessions:
            self._count("push_limited" if sessions else "push_impossible")
            return
        self._count("pushed")
        self._send(max(sessions, key=lambda each: each.proven), info.encode())

    def _count(self, name: str, by: int = 1) -> None:
        self._counters[name] = self._counters.get(name, 0) + by
