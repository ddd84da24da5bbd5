"""Frames that wait for a session: bounded per peer and in all, the oldest goes first."""

from __future__ import annotations

from collections import OrderedDict, deque

from omninervous.core.dataplane import PeerId

__all__ = ["STAGED_IN_ALL", "STAGED_PER_PEER", "Staging"]

STAGED_PER_PEER = 64
STAGED_IN_ALL = 1024


class Staging:
    """Queues of frames by peer."""

    __slots__ = ("_frames", "_serial", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[PeerId, deque[int]] = {}
        self._frames: OrderedDict[int, tuple[PeerId, bytes]] = OrderedDict()  # oldest first
        self._serial = 0

    def __len__(self) -> int:
        return len(self._frames)

    def holds(self, peer: PeerId) -> bool:
        """Whether any frame waits for the peer."""
        return peer in self._waiting

    def add(self, peer: PeerId, frame: bytes) -> int:
        """Keep a frame; the number of frames that had to go for it."""
        queue = self._waiting.setdefault(peer, deque())
        queue.append(self._serial)
        self._frames[self._serial] = (peer, frame)
        self._serial += 1
        if len(queue) > STAGED_PER_PEER:
            del self._frames[queue.popleft()]
            return 1
        if len(self._frames) > STAGED_IN_ALL:
            _, (owner, _) = self._frames.popitem(last=False)
            oldest = self._waiting[owner]
            oldest.popleft()
            if not oldest:
                del self._waiting[owner]
            return 1
        return 0

    def take(self, peer: PeerId) -> tuple[bytes, ...]:
        """The peer's frames in order, taken out."""
        return tuple(self._frames.pop(serial)[1] for serial in self._waiting.pop(peer, ()))
