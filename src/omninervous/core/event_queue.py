"""The events that wait for the control plane: bounded, so that nobody outside can make us remember without end.

Room is kept for what matters more: frames give way first, then what strangers can cause, then what members say.
A SessionConfirmed or SessionExhausted is never dropped: there is at most one of each per session.
"""

from __future__ import annotations

from omninervous.core.dataplane import (
    ControlReceived,
    DatagramReceived,
    Event,
    FrameUnresolved,
    FrameWithoutSession,
    PeerId,
    SessionConfirmed,
    SessionExhausted,
    SourceChanged,
    UnderlayError,
)
from omninervous.core.ratelimit import RateLimiter
from omninervous.wire.address import Endpoint

__all__ = ["EventQueue"]

FRAMES_PER_PEER = 32
"""FrameWithoutSession, per peer and second."""
UNRESOLVED_FRAMES = 256
"""FrameUnresolved, per second in all."""
SOURCES_PER_SESSION = 8
"""SourceChanged, per session and second in all; one per source."""
REMEMBERED = 1024
"""Keys that each rate limit remembers."""

_UNLIMITED = 1 << 62


class EventQueue:
    """A FIFO. The `offer_*` methods drop what comes too often or finds no room, and say why."""

    __slots__ = ("_bounds", "_errors", "_events", "_session_sources", "_sources", "_unresolved", "_waiting")

    def __init__(self, capacity: int = 4096) -> None:
        self._events: list[Event] = []
        self._bounds: dict[type[Event], int] = {
            FrameUnresolved: capacity // 2,
            FrameWithoutSession: capacity // 2,
            DatagramReceived: capacity * 3 // 4,
            SourceChanged: capacity * 3 // 4,
            UnderlayError: capacity * 3 // 4,
            ControlReceived: capacity,
            SessionConfirmed: _UNLIMITED,
            SessionExhausted: _UNLIMITED,
        }
        self._waiting = RateLimiter(FRAMES_PER_PEER, FRAMES_PER_PEER, REMEMBERED)
        self._unresolved = RateLimiter(UNRESOLVED_FRAMES, UNRESOLVED_FRAMES, 1)
        self._sources = RateLimiter(1, 1, REMEMBERED)
        self._session_sources = RateLimiter(SOURCES_PER_SESSION, SOURCES_PER_SESSION, REMEMBERED)
        self._errors = RateLimiter(1, 1, REMEMBERED)

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> str:
        """Append. Empty, or the reason why it was dropped: `event_overflow`."""
        if len(self._events) >= self._bounds[type(event)]:
            return "event_overflow"
        self._events.append(event)
        return ""

    def offer_waiting(self, now_boot: float, peer: PeerId, frame: bytes) -> str:
        """FrameWithoutSession. Empty, `no_session` (too often), or `event_overflow`."""
        if not self._waiting.allow(now_boot, peer.hex()):
            return "no_session"
        return self.put(FrameWithoutSession(peer, frame))

    def offer_unresolved(self, now_boot: float, frame: bytes) -> str:
        """FrameUnresolved. Empty, `unresolved` (too often), or `event_overflow`."""
        if not self._unresolved.allow(now_boot, ""):
            return "unresolved"
        return self.put(FrameUnresolved(frame))

    def offer_source(self, now_boot: float, peer: PeerId, local_index: int, source: Endpoint, size: int) -> None:
        """SourceChanged, which is a hint: the next packet gives it again, so a dropped one is not counted."""
        if not self._sources.allow(now_boot, f"{local_index} {source}"):
            return
        if self._session_sources.allow(now_boot, str(local_index)):
            self.put(SourceChanged(peer, local_index, source, size))

    def offer_error(self, now_boot: float, endpoint: Endpoint, errno: int) -> None:
        """UnderlayError; the caller counts the failure itself."""
        if self._errors.allow(now_boot, str(endpoint)):
            self.put(UnderlayError(endpoint, errno))

    def take(self) -> list[Event]:
        """All events, oldest first."""
        events, self._events = self._events, []
        return events
