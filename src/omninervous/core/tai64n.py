"""TAI64N timestamps of initiations: strictly increasing, across restarts and clocks that go back.

    8 bytes: 2^62 + 10 + seconds since 1970     4 bytes: nanoseconds      both big-endian, compared as bytes

A responder refuses an initiation whose timestamp is not newer than the last one of the same key, so an edge whose
clock went back would be locked out. Hence the mark: an upper bound, kept on disk, of every timestamp ever used.
Nanoseconds are cut to steps of 2^24 (17 ms), as WireGuard does: the exact time is nobody's business.
"""

from __future__ import annotations

from omninervous.errors import DecodeError
from omninervous.wire.handshake import TIMESTAMP_SIZE

__all__ = ["RESERVE_SECONDS", "Tai64nClock"]

RESERVE_SECONDS = 60
"""How far ahead of the clock a mark is set, so that not every handshake has to wait for the disk."""

_BASE = (1 << 62) + 10
_SECOND = 1_000_000_000
_STEP = 1 << 24
_RESERVE_STEPS = 64


class Tai64nClock:
    """Timestamps for one identity.

    Rule for the owner: before `next`, call `reserve`, and let the mark it gives reach the disk before the timestamp
    reaches the network. Start the next run from the newest mark on disk.
    """

    __slots__ = ("_last", "_reserved")

    def __init__(self, mark: bytes | None) -> None:
        """`mark`: what `reserve` gave last in an earlier run; DecodeError if it is not a timestamp."""
        self._last = 0 if mark is None else _decode(mark)
        self._reserved = self._last

    def next(self, wall: float) -> bytes:
        """The timestamp for one new initiation: max(now, last + one step). `wall` in seconds since 1970."""
        now = _whiten(_from_wall(wall))
        self._last = now if now > self._last else _whiten(self._last + _STEP)
        return _encode(self._last)

    def reserve(self, wall: float) -> bytes | None:
        """A new mark to keep, or None while the newest one covers the next timestamps.

        The mark is a minute ahead of the clock, or 64 steps (1 s) ahead of the last timestamp if that is more: a
        daemon that restarts in a loop does not run away from the clock.
        """
        now = _from_wall(wall)
        if max(now, self._last + _STEP) < self._reserved:
            return None
        self._reserved = max(now + RESERVE_SECONDS * _SECOND, self._last + _RESERVE_STEPS * _STEP)
        return _encode(self._reserved)


def _from_wall(wall: float) -> int:
    return max(0, int(wall * 1000)) * (_SECOND // 1000)


def _whiten(nanoseconds: int) -> int:
    seconds, rest = divmod(nanoseconds, _SECOND)
    return seconds * _SECOND + (rest & -_STEP)


def _encode(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, _SECOND)
    return (_BASE + seconds).to_bytes(8, "big") + rest.to_bytes(4, "big")


def _decode(mark: bytes) -> int:
    if len(mark) != TIMESTAMP_SIZE:
        raise DecodeError(f"timestamp mark of {len(mark)} bytes")
    seconds = int.from_bytes(mark[:8], "big") - _BASE
    rest = int.from_bytes(mark[8:], "big")
    if not 0 <= seconds < 1 << 62 or rest >= _SECOND:
        raise DecodeError("timestamp mark out of range")
    return seconds * _SECOND + rest
