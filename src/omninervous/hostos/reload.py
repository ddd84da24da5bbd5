"""Reading the configuration again while a daemon runs: SIGHUP and `omni reload`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from omninervous.errors import OmniError, UserError

__all__ = ["Reloaded", "Reloader", "Reread"]

log = structlog.get_logger()
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Reloaded(Generic[C]):
    """What a daemon gets when everything was read again and found sound."""

    config: C
    applied: tuple[str, ...]
    """Settings that changed since the last reading and apply at once."""
    restart: tuple[str, ...]
    """Settings that differ from the running ones and wait for a new start."""


Reread = Callable[[], Reloaded[C]]
"""Reads files and environment again. UserError if something in them cannot be used: then nothing changes."""


class Reloader(Generic[C]):
    """Applies a new reading, or says why not. `reread` is None for a daemon that a program started."""

    def __init__(self, reread: Reread[C] | None, apply: Callable[[C], None]) -> None:
        self._reread = reread
        self._apply = apply

    def reload(self) -> dict[str, Any]:
        """The object of `omni reload --json`. UserError: nothing was changed."""
        if self._reread is None:
            raise UserError("this daemon was started without a configuration to read again")
        reloaded = self._reread()
        self._apply(reloaded.config)
        log.info("reloaded", applied=list(reloaded.applied), needs_restart=list(reloaded.restart))
        return {"applied": list(reloaded.applied), "needs_restart": list(reloaded.restart)}

    def signalled(self) -> None:
        """For SIGHUP: whoever sent it reads the log."""
        try:
            self.reload()
        except OmniError as error:
            log.error("reload", error=str(error))
