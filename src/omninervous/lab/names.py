"""Names of what the lab makes: each says which run made it, so that a dead run's leftovers are told from a live run's.

    omnilab-4711-3f09ab-2-edge-a
            |    |      | `----- role
            |    |      `------- serial: labs that this process has made so far
            |    `-------------- start time of the process in clock ticks (hexadecimal), for pids are used again
            `------------------- pid

Namespaces and directories for temporary state carry such names. Interfaces do not: they are born inside namespaces.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NAMESPACE_DIRECTORY", "Leftovers", "RunId", "find_leftovers", "process_start"]

NAMESPACE_DIRECTORY = Path("/run/netns")
"""Where `ip netns` keeps its names."""

_PREFIX = "omnilab"
_NAME = re.compile(rf"{_PREFIX}-(\d+)-([0-9a-f]+)-(\d+)(?:-.+)?")
_START_FIELD = 22 - 3
"""Index of `starttime` among the fields behind the command's closing parenthesis (proc_pid_stat(5))."""

_serials = itertools.count(1)


@dataclass(frozen=True, slots=True)
class RunId:
    """One lab of one process."""

    pid: int
    started: int
    """Start time of the process, in clock ticks since boot."""
    serial: int

    @classmethod
    def new(cls) -> RunId:
        """The next lab of this process."""
        pid = os.getpid()
        return cls(pid, process_start(pid) or 0, next(_serials))

    @classmethod
    def parse(cls, name: str) -> RunId | None:
        """The run in the name of a namespace or a directory; None if the lab did not make it."""
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2], 16), int(match[3])) if match else None

    def __str__(self) -> str:
        return f"{_PREFIX}-{self.pid}-{self.started:x}-{self.serial}"

    @property
    def tail(self) -> str:
        """The run without the prefix: for names of what outlives it, which nobody is to take for leftovers."""
        return str(self).removeprefix(f"{_PREFIX}-")

    def name(self, role: str) -> str:
        """Name of this run's object in that role."""
        return f"{self}-{role}"

    @property
    def alive(self) -> bool:
        """Whether the process that made it still runs (and is not another one with the same pid)."""
        return process_start(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What dead runs left behind."""

    namespaces: tuple[str, ...]
    directories: tuple[Path, ...]

    def __bool__(self) -> bool:
        return bool(self.namespaces or self.directories)


def find_leftovers(namespace_directory: Path = NAMESPACE_DIRECTORY, temporary: Path | None = None) -> Leftovers:
    """Namespaces and temporary directories of runs whose process is gone."""
    temporary = temporary or Path(tempfile.gettempdir())
    return Leftovers(
        tuple(path.name for path in _of_dead_runs(_entries(namespace_directory))),
        tuple(_of_dead_runs(_entries(temporary))),
    )


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_FIELD])


def _of_dead_runs(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        run = RunId.parse(path.name)
        if run is not None and not run.alive:
            yield path


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
