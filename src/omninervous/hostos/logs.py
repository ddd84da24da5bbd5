"""Logs: for people on a terminal, JSON lines otherwise. Events are `key=value`; never a key, never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["auto", "human", "json"]


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
