"""What a process holds of the kernel's eBPF objects, and how often its threads were woken: from /proc and bpftool."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omninervous.lab.process import run_command

__all__ = ["KernelObjects", "threads_woken"]

_KINDS = {"prog_id": "prog", "map_id": "map", "link_id": "link"}


@dataclass(frozen=True, slots=True)
class KernelObjects:
    """Ids of programs, maps and links."""

    ids: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, pid: int) -> KernelObjects:
        """Whatever the descriptors of a process refer to (proc(5), fdinfo)."""
        texts = [each.read_text() for each in Path(f"/proc/{pid}/fdinfo").iterdir()]
        found = {
            (_KINDS[name], int(number))
            for text in texts
            for name, number in re.findall(r"^(prog_id|map_id|link_id):\s*(\d+)$", text, re.MULTILINE)
        }
        return cls(frozenset(found))

    def program_names(self) -> set[str]:
        """Of those that are alive."""
        return {str(each["name"]) for kind, number in self.ids if kind == "prog" for each in _look(kind, number)}

    def alive(self) -> set[tuple[str, int]]:
        """Those that the kernel still has."""
        return {(kind, number) for kind, number in self.ids if _look(kind, number)}


def _look(kind: str, number: int) -> list[dict[str, Any]]:
    done = run_command(["bpftool", "-j", kind, "show", "id", str(number)], check=False)
    if done.returncode:
        return []
    found: dict[str, Any] = json.loads(done.stdout)
    return [found] if "id" in found else []


def threads_woken(pid: int) -> int:
    """Voluntary context switches of all threads: each of them waited, and was woken."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)$", status.read_text(), re.MULTILINE)
        assert found is not None
        total += int(found[1])
    return total
