"""Time that a process' eBPF programs take, as the kernel counts it."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProgramTime", "counted"]

_SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True, slots=True)
class ProgramTime:
    """Of all programs that a process holds, while anybody had the kernel count."""

    runs: int
    nanoseconds: int

    @classmethod
    def of(cls, pid: int) -> ProgramTime | None:
        """By its open descriptors (/proc/PID/fdinfo); None if it has no programs."""
        found: dict[str, ProgramTime] = {}
        for each in Path(f"/proc/{pid}/fdinfo").iterdir():
            fields = dict(re.findall(r"^(\w+):\s+(\d+)$", each.read_text(), re.MULTILINE))
            if "run_cnt" in fields:  # several descriptors may be of one program
                found[fields["prog_id"]] = cls(int(fields["run_cnt"]), int(fields["run_time_ns"]))
        if not found:
            return None
        return cls(sum(each.runs for each in found.values()), sum(each.nanoseconds for each in found.values()))

    def mean_until(self, later: ProgramTime) -> float | None:
        """Nanoseconds of a run between the two; None if there was none."""
        runs = later.runs - self.runs
        return (later.nanoseconds - self.nanoseconds) / runs if runs else None


@contextmanager
def counted() -> Generator[None, None, None]:
    """While the kernel counts: that costs every run of every program on the machine a look at the clock."""
    before = _SWITCH.read_text()
    _SWITCH.write_text("1\n")
    try:
        yield
    finally:
        _SWITCH.write_text(before)
