"""Logs: for people on a terminal, JSON lines otherwise. Events are `key=value`; never a key, never a secret.

Lines of one event come `BURST` at once and `RATE` a second after that; the next one that comes says how many did not.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

import structlog

__all__ = ["LogFormat", "RateLimit", "configure"]

LogFormat = Literal["auto", "human", "json"]

BURST = 50
RATE = 2.0


def configure(log_format: LogFormat = "auto", *, verbose: bool = False) -> None:
    """Log to stderr. `auto`: human where stderr is a terminal, else JSON."""
    terminal = sys.stderr.isatty()
    human = log_format == "human" or (log_format == "auto" and terminal)
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        if human
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            RateLimit(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
            structlog.processors.format_exc_info if not human else _keep,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _keep(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return event


class RateLimit:
    """A processor: events have names from the code, so the table is small however much happens."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float, int]] = {}  # event -> (tokens, when, left out since)

    def __call__(
        self, _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """The event, or DropEvent."""
        now, name = self._clock(), str(event.get("event"))
        tokens, at, left_out = self._buckets.get(name, (float(BURST), now, 0))
        tokens = min(float(BURST), tokens + (now - at) * RATE)
        if tokens < 1.0:
            self._buckets[name] = (tokens, now, left_out + 1)
            raise structlog.DropEvent
        self._buckets[name] = (tokens - 1.0, now, 0)
        return {**event, "left_out": left_out} if left_out else event
