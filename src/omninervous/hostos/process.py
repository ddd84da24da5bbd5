"""The process itself: its capabilities, and a title that shows no secret."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import setproctitle

__all__ = [
    "CAP_BPF",
    "CAP_NET_ADMIN",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "has_capability",
    "hide_arguments",
    "name_process",
]

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39
"""<linux/capability.h>"""


def has_capability(number: int) -> bool:
    """Whether the capability is effective. Where there are none (not Linux): whether we are root."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return os.geteuid() == 0
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> number & 1)


def name_process(name: str) -> None:
    """What `ps` and our own messages about pids call this process; else it would be `python`."""
    setproctitle.setthreadtitle(name)


def hide_arguments(options: Sequence[str]) -> bool:
    """Overwrite the values of these options in the process title (`ps`, /proc/PID/cmdline). Whether there were any.

    Until this runs the value was to be seen, and the shell's history keeps it: `--secret-file` is better.
    """
    title, hidden, mask_next = [Path(sys.argv[0]).name], False, False
    for argument in sys.argv[1:]:
        name, equals, _ = argument.partition("=")
        if mask_next:
            title.append("***")
        elif equals and name in options:
            title.append(f"{name}=***")
            hidden = True
        else:
            title.append(argument)
        mask_next = not mask_next and argument in options
        hidden |= mask_next
    if hidden:
        setproctitle.setproctitle(" ".join(title))
    return hidden
