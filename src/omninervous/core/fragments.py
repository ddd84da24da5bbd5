"""Payloads that do not fit the path: cut into fragments, and put together again in bounded memory.

A sender numbers its cut payloads (`Fragment.id`); pieces may arrive in any order, twice, or not at all. What is not
whole after `timeout` seconds is forgotten. Pieces never overlap: an overlap is a lie, and ends that payload.
"""

from __future__ import annotations

from omninervous.core.traffic_class import CE
from omninervous.errors import RemoteError
from omninervous.wire.payload import FRAGMENT_HEADER_SIZE, MAX_PAYLOAD, Fragment

__all__ = ["MAX_PIECES", "Reassembler", "ReassemblyPool", "split", "split_again"]

MAX_PIECES = 64
"""Fragments of one payload: enough for the largest frame over the smallest path."""
_PIECE_OVERHEAD = 128
"""Bytes that a stored piece is charged beside its data, so that many tiny ones do not come cheap."""


def split(payload: bytes, fragment_id: int, limit: int) -> list[bytes]:
    """Fragment payloads of at most `limit` bytes each (header included) that together carry `payload`."""
    assert 0 < len(payload) <= MAX_PAYLOAD
    return split_again(Fragment(fragment_id, 0, True, payload), limit)


def split_again(fragment: Fragment, limit: int) -> list[bytes]:
    """The same bytes of the same payload, in fragments of at most `limit` bytes: for a path that just shrank."""
    room = limit - FRAGMENT_HEADER_SIZE
    assert room > 0, f"no room in {limit} bytes"
    return [
        Fragment(
            fragment.id,
            fragment.offset + start,
            fragment.last and start + room >= len(fragment.data),
            fragment.data[start : start + room],
        ).encode()
        for start in range(0, len(fragment.data), room)
    ]


class ReassemblyPool:
    """The memory that the reassemblers of all peers share, and what they gave up."""

    __slots__ = ("evicted", "limit", "timed_out", "used")

    def __init__(self, limit: int = 4 << 20) -> None:
        self.limit = limit
        self.used = 0
        """Bytes held now, overhead included."""
        self.timed_out = 0
        """Payloads forgotten because pieces were missing for too long."""
        self.evicted = 0
        """Payloads forgotten to make room for newer ones of the same peer."""


class Reassembler:
    """Puts one peer's fragments together: at most `max_entries` payloads at a time, the oldest goes first."""

    __slots__ = ("_entries", "_max_entries", "_max_payload", "_pool", "_timeout", "ecn")

    def __init__(
        self,
        max_entries: int = 8,
        timeout: float = 1.0,
        *,
        max_payload: int = MAX_PAYLOAD,
        pool: ReassemblyPool | None = None,
    ) -> None:
        self._max_entries = max_entries
        self._timeout = timeout
        self._max_payload = max_payload
        self._pool = pool if pool is not None else ReassemblyPool()
        self._entries: dict[int, _Entry] = {}  # by fragment id, oldest first
        self.ecn = 0
        """ECN field of the payload that `add` gave last: congestion if a piece met some (RFC 3168, section 5.3), else
        the last piece's."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def deadline(self) -> float | None:
        """Boot-time second at which the oldest unfinished payload is forgotten; None if there is none."""
        return next(iter(self._entries.values())).deadline if self._entries else None

    def add(self, now_boot: float, fragment: Fragment, ecn: int = 0) -> bytes | None:
        """Take a fragment, and the ECN field of the datagram that brought it; the whole payload if it was the missing
        one. A repeated fragment changes nothing.

        RemoteError `fragment`: it contradicts an earlier one, or the payload is too large or too finely cut; that
        payload is forgotten. RemoteError `fragment_memory`: the shared memory is full; only this piece is lost.
        """
        self.expire(now_boot)
        entry = self._entries.get(fragment.id)
        if entry is None:
            entry = self._begin(now_boot, fragment.id)
        if entry.pieces.get(fragment.offset) == fragment.data and (not fragment.last or entry.size is not None):
            return None
        complaint = entry.complaint(fragment, self._max_payload)
        if complaint:
            self._forget(fragment.id)
            raise RemoteError("fragment", complaint)
        cost = len(fragment.data) + _PIECE_OVERHEAD
        if self._pool.used + cost > self._pool.limit:
            raise RemoteError("fragment_memory")
        self._pool.used += cost
        payload = entry.store(fragment, ecn)
        if payload is not None:
            self.ecn = entry.ecn
            self._forget(fragment.id)
        return payload

    def expire(self, now_boot: float) -> None:
        """Forget what has waited too long."""
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].deadline > now_boot:
                return
            self._forget(oldest)
            self._pool.timed_out += 1

    def clear(self) -> None:
        """Forget everything and give its memory back."""
        for fragment_id in list(self._entries):
            self._forget(fragment_id)

    def _begin(self, now_boot: float, fragment_id: int) -> _Entry:
        if len(self._entries) >= self._max_entries:
            self._forget(next(iter(self._entries)))
            self._pool.evicted += 1
        entry = self._entries[fragment_id] = _Entry(now_boot + self._timeout)
        return entry

    def _forget(self, fragment_id: int) -> None:
        entry = self._entries.pop(fragment_id)
        self._pool.used -= entry.held + len(entry.pieces) * _PIECE_OVERHEAD


class _Entry:
    """One unfinished payload."""

    __slots__ = ("deadline", "ecn", "held", "pieces", "size")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.pieces: dict[int, bytes] = {}  # offset -> data; disjoint
        self.held = 0
        self.ecn = 0
        self.size: int | None = None
        """Bytes of the whole payload, once the last fragment is here."""

    def complaint(self, fragment: Fragment, max_payload: int) -> str:
        """Why the fragment cannot belong here; empty if it can."""
        start, end = fragment.offset, fragment.offset + len(fragment.data)
        if end > max_payload:
            return f"payload of more than {max_payload} bytes"
        if len(self.pieces) >= MAX_PIECES:
            return f"more than {MAX_PIECES} pieces"
        if self.size is not None and (fragment.last or end > self.size):
            return "piece beyond the last one"
        for offset, data in self.pieces.items():
            if start < offset + len(data) and (offset < end or fragment.last):
                return "pieces overlap"
        return ""

    def store(self, fragment: Fragment, ecn: int) -> bytes | None:
        """Keep a fragment without complaint; the payload if nothing is missing."""
        if self.ecn != CE:
            self.ecn = ecn
        self.pieces[fragment.offset] = fragment.data
        self.held += len(fragment.data)
        if fragment.last:
            self.size = fragment.offset + len(fragment.data)
        if self.held != self.size:
            return None
        return b"".join(self.pieces[offset] for offset in sorted(self.pieces))
