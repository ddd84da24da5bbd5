"""The daemon's newest events, for `omni events`: bounded, numbered, and the same sentences that the log has.

What somebody unauthenticated does comes in as totals, once a second at most, so nobody can push others' events out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

from omninervous.errors import UserError

__all__ = ["Journal"]

log = structlog.get_logger()

CAPACITY = 1024
"""Events that are kept."""
PATIENCE = 20.0
"""Longest time in seconds that `answer` waits for news."""


class Journal:
    """Events of one daemon, the oldest forgotten first. Numbers begin at 1."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=CAPACITY)
        self._number = 0
        self._news = asyncio.Event()

    def say(self, level: str, event: str, **fields: Any) -> None:  # noqa: ANN401
        """Log it and keep it."""
        getattr(log, level)(event, **fields)
        self.keep(level, event, **fields)

    def keep(self, level: str, event: str, **fields: Any) -> None:  # noqa: ANN401
        """Keep it without a log line: what a log would be flooded with."""
        self._number += 1
        self._events.append(
            {"number": self._number, "time": round(time.time(), 3), "level": level, "event": event, **fields}
        )
        self._news.set()

    async def answer(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The object of the control socket's `events`: those after number `after`, at most `limit`. If there are none,
        wait up to `wait` seconds for one. `lost`: how many of them were forgotten already."""
        after, limit, wait = (arguments.get(name, default) for name, default in _DEFAULTS.items())
        if not all(isinstance(each, int) for each in (after, limit, wait)) or limit < 1:
            raise UserError("after, limit and wait are numbers")
        if after > self._number:
            after = 0  # numbers of a daemon that ran before this one
        if after == self._number and wait:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), min(float(wait), PATIENCE))
        found = [each for each in self._events if each["number"] > after]
        lost = max(0, self._number - after - len(found))
        given = found[:limit]
        return {"events": given, "lost": lost, "last": given[-1]["number"] if given else max(after, 0)}


_DEFAULTS = {"after": 0, "limit": 200, "wait": 0}
