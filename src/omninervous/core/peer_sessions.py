"""The sessions of one peer.

`waiting` is one that we answered and that the peer has not used yet. Confirmed sessions all receive, the first of them
sends. A new one takes the first place; those before stay until they expire or MAX_CONFIRMED newer ones push them out,
so that a rekey loses nothing.

Crossing handshakes: both sides answer, and two sessions are confirmed within seconds. Both sides prefer the smaller
session id, so they agree without a word. A session that another boot of the peer made gives way at its CAPS.
"""

from __future__ import annotations

from dataclasses import dataclass

from omninervous.core.capabilities import CapsExchange
from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import Link, PeerId, RemoveSession, SelectSession
from omninervous.core.events import SessionStatus
from omninervous.core.handshakes import Handshakes
from omninervous.core.liveness import Liveness
from omninervous.core.noise import Transport

__all__ = ["REJECT_AFTER", "PeerSession", "PeerSessions"]

REJECT_AFTER = 180.0
"""Seconds after which a session neither sends nor receives, and its keys are wiped."""
CROSSING_WINDOW = 5.0
MAX_CONFIRMED = 3
BOOT_IDS_KEPT = 4


@dataclass(slots=True, eq=False)
class PeerSession:
    """One session; times are boot-time seconds."""

    transport: Transport
    created_at: float
    caps: CapsExchange | None = None
    boot_id: bytes | None = None
    """Of the peer's daemon that made it, once its CAPS said so."""

    @property
    def index(self) -> int:
        """Our index."""
        return self.transport.local_index

    @property
    def expires_at(self) -> float:
        """When it ends."""
        return self.created_at + REJECT_AFTER


class PeerSessions:
    """The table."""

    def __init__(self, ctx: Context, handshakes: Handshakes, liveness: Liveness, peer: PeerId, link: Link) -> None:
        self._ctx = ctx
        self._handshakes = handshakes
        self._liveness = liveness
        self._peer = peer
        self._link = link
        self._waiting: PeerSession | None = None
        self.confirmed: list[PeerSession] = []
        self._boot_ids: list[bytes] = []

    @property
    def current(self) -> PeerSession | None:
        """The one that sends."""
        return self.confirmed[0] if self.confirmed else None

    @property
    def waiting_expires_at(self) -> float | None:
        """When the unconfirmed one ends."""
        return None if self._waiting is None else self._waiting.expires_at

    def find(self, local_index: int) -> PeerSession | None:
        """A confirmed session."""
        return next((session for session in self.confirmed if session.index == local_index), None)

    def indices(self) -> tuple[int, ...]:
        """Of all sessions that the peer may believe in: it may use one that waits, and we do not know it yet."""
        waiting = () if self._waiting is None else (self._waiting.index,)
        return (*(session.index for session in self.confirmed), *waiting)

    def statuses(self, now: Now) -> tuple[SessionStatus, ...]:
        """Confirmed sessions, the sending one first."""
        return tuple(
            SessionStatus(
                session_id=session.transport.session_id,
                initiator=session.transport.initiator,
                age=now.boot - session.created_at,
                current=place == 0,
                local_index=session.index,
            )
            for place, session in enumerate(self.confirmed)
        )

    # ------------------------------------------------------------ in

    def install(self, now: Now, transport: Transport) -> PeerSession:
        """A handshake ended: the engine gets the keys."""
        session = PeerSession(transport, now.boot)
        self._ctx.commands.append(transport.install(session.expires_at))
        return session

    def wait(self, session: PeerSession) -> None:
        """We answered; the peer has to use it first. An earlier one that it never used goes."""
        if self._waiting is not None:
            self._remove(self._waiting)
        self._waiting = session

    def take_waiting(self, local_index: int) -> PeerSession | None:
        """The peer used this session: the waiting one, if it is that."""
        session = self._waiting
        if session is None or session.index != local_index:
            return None
        self._waiting = None
        return session

    def confirm(self, now: Now, session: PeerSession) -> None:
        """Both sides have the keys."""
        self.confirmed.insert(0 if self._preferred(now, session) else 1, session)
        for old in self.confirmed[MAX_CONFIRMED:]:
            self._remove(old)
        del self.confirmed[MAX_CONFIRMED:]

    def select(self) -> None:
        """Tell the engine which session sends."""
        assert self.confirmed
        self._ctx.commands.append(SelectSession(self._peer, self.confirmed[0].index))

    def _preferred(self, now: Now, session: PeerSession) -> bool:
        current = self.current
        if current is None or self._link is not Link.ETHERNET:
            return True
        crossing = current.transport.initiator != session.transport.initiator
        if not crossing or now.boot - current.created_at >= CROSSING_WINDOW:
            return True
        return session.transport.session_id < current.transport.session_id

    def note_boot(self, session: PeerSession, boot_id: bytes) -> bool:
        """The session's CAPS name the peer's boot. True if that boot is one that another had already followed: the
        identity runs twice."""
        session.boot_id = boot_id
        seen = self._boot_ids
        if not seen or seen[-1] == boot_id:
            self._boot_ids = seen or [boot_id]
            return False
        cloned = boot_id in seen
        self._boot_ids = [*(known for known in seen if known != boot_id), boot_id][-BOOT_IDS_KEPT:]
        # The boot that made the other sessions has ended, or is a clone: this one has just proved to be there.
        self._drop([old for old in self.confirmed if old.boot_id not in (None, boot_id)])
        self.confirmed.sort(key=lambda each: each is not session)
        self.select()
        return cloned

    # ------------------------------------------------------------ out

    def expire(self, now: Now) -> None:
        """Remove what is too old."""
        if self._waiting is not None and now.boot >= self._waiting.expires_at:
            self._remove(self._waiting)
            self._waiting = None
        self._drop([session for session in self.confirmed if now.boot >= session.expires_at])

    def close_until(self, session: PeerSession) -> None:
        """The peer closed this session: it knows none that is older, either."""
        self._drop([each for each in self.confirmed if each.created_at <= session.created_at])

    def clear(self) -> None:
        """Remove all."""
        self._drop(list(self.confirmed))
        if self._waiting is not None:
            self._remove(self._waiting)
            self._waiting = None

    def _drop(self, sessions: list[PeerSession]) -> None:
        selected = self.current
        for session in sessions:
            self.confirmed.remove(session)
            self._remove(session)
        if self.confirmed and self.current is not selected:
            self.select()

    def _remove(self, session: PeerSession) -> None:
        self._liveness.handle_removed(session.index)
        self._handshakes.release(session.index)
        self._ctx.commands.append(RemoveSession(session.index))
