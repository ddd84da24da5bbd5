"""Two machines with one identity: which of them stays.

A REGISTER with another boot id, while a member with that key is registered, is PENDING. The registered machine gets
three PROBEs within three seconds. If it returns the token of one, the newcomer is CLONED; if not (it crashed, and this
is its restart), the newcomer takes over.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from omninervous.core.registry import ClusterId

__all__ = ["CLONE_SECONDS", "CloneWatch", "Holder", "Verdict"]

CLONE_SECONDS = 3.0
"""How long the holder of an identity has to show that it lives."""
PROBES = 3
MEMORY = 30.0
"""Seconds for which a verdict stands; then the same newcomer begins anew."""

Holder = tuple[ClusterId, bytes]
"""Where a machine is registered, and its boot id."""


class Verdict(Enum):
    """About a newcomer."""

    NEW = "new"
    """The question has just been opened: probe the holder."""
    PENDING = "pending"
    ALIVE = "alive"
    """The holder lives."""
    SILENT = "silent"
    """It does not; the question is closed."""


@dataclass(slots=True)
class _Check:
    holder: Holder
    boot_id: bytes
    """Of the newcomer."""
    began: float
    probe_at: float | None
    probes: int = 1
    alive: bool = False


class CloneWatch:
    """The open questions, by X25519 key, the oldest first."""

    __slots__ = ("_checks",)

    def __init__(self) -> None:
        self._checks: OrderedDict[bytes, _Check] = OrderedDict()

    def judge(self, now_boot: float, key: bytes, holder: Holder, boot_id: bytes) -> Verdict:
        """A newcomer with this boot id wants the place of `holder`."""
        check = self._checks.get(key)
        if check is None or (check.holder, check.boot_id) != (holder, boot_id):
            self._checks[key] = _Check(holder, boot_id, now_boot, now_boot + CLONE_SECONDS / PROBES)
            self._checks.move_to_end(key)
            return Verdict.NEW
        if check.alive:
            return Verdict.ALIVE
        if now_boot < check.began + CLONE_SECONDS:
            return Verdict.PENDING
        del self._checks[key]
        return Verdict.SILENT

    def token_returned(self, key: bytes, by: Holder) -> None:
        """A machine with this key answered a PROBE."""
        check = self._checks.get(key)
        if check is not None and check.holder == by:
            check.alive, check.probe_at = True, None

    def due(self, now_boot: float) -> list[tuple[bytes, ClusterId]]:
        """Holders to be probed again (key, cluster). Forgets old verdicts."""
        while self._checks and next(iter(self._checks.values())).began + MEMORY <= now_boot:
            self._checks.popitem(last=False)
        due = []
        for key, check in self._checks.items():
            if check.probe_at is not None and check.probe_at <= now_boot:
                due.append((key, check.holder[0]))
                check.probes += 1
                check.probe_at = now_boot + CLONE_SECONDS / PROBES if check.probes < PROBES else None
        return due

    def next_due(self) -> float | None:
        """Boot-time second at which `due` has something to do."""
        deadlines = [check.began + MEMORY for check in self._checks.values()]
        deadlines += [check.probe_at for check in self._checks.values() if check.probe_at is not None]
        return min(deadlines, default=None)
