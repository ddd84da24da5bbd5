"""What the units' system call filters allow, against what real daemons call."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from omninervous.hostos.systemd import UNITS, unit_text
from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import Pair, ping, vip

_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>)", re.MULTILINE)


def trace(log: Path) -> tuple[str, ...]:
    return ("strace", "-f", "-qq", "-o", str(log))


def calls(log: Path) -> set[str]:
    """System calls of the daemon. setproctitle and its like included; execve is strace's own beginning."""
    return set(_CALL.findall(log.read_text(errors="replace")))


def groups() -> dict[str, set[str]]:
    """systemd's own groups of system calls, by name."""
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    found: dict[str, set[str]] = {}
    current = ""
    for line in text.stdout.splitlines():
        word = line.strip().split(" ")[0]
        if word.startswith("@") and not line.startswith(" "):
            current = word
            found[current] = set()
        elif line.startswith("    ") and word and not word.startswith("#"):
            found[current].add(word)
    return found


def allowed(unit: str) -> set[str]:
    """What the unit's filter lets through: the lists one after the other, `~` takes away."""
    known = groups()

    def expand(word: str) -> set[str]:
        if not word.startswith("@"):
            return {word}
        return set[str]().union(*(expand(each) for each in known[word]))

    through: set[str] = expand("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit_text(unit, Path("/opt/omni-daemon")), re.MULTILINE):
        named = set[str]().union(*(expand(word) for word in line.removeprefix("~").split()))
        through = through - named if line.startswith("~") else through | named
    return through


def test_an_edge_calls_what_its_unit_allows(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    pair = Pair(lab, pair_lan)
    log = lab.directory / "edge.trace"
    pair.a.launch(
        *("--peer", pair.key_b, "--endpoint", f"{pair.hosts[1].address}:51820"), prefix=trace(log)
    ).wait_ready(60.0)
    pair.start_b().wait_ready(60.0)
    pair.a.wait_for_peer(60.0)
    assert ping(pair.hosts[0].namespace, vip(pair.b)).received
    pair.a.process.signal(15)
    pair.b.process.stop(20.0)
    lab.processes[0].stop(20.0)
    seen = calls(log)
    assert {"sendto", "ioctl", "epoll_wait"} <= seen or {"ioctl", "epoll_pwait"} <= seen, "it was watched"
    assert seen - allowed(UNITS[0]) == set()


def test_a_nucleus_calls_what_its_unit_allows(lab: Lab) -> None:
    machine = lab.namespace("nucleus")
    log = lab.directory / "nucleus.trace"
    nucleus = Daemon(lab, machine, "nucleus").launch("--mode", "nucleus", prefix=trace(log)).wait_ready(60.0)
    nucleus.process.stop(20.0)
    seen = calls(log)
    assert "bind" in seen, "it was watched"
    assert seen - allowed(UNITS[1]) == set()


@pytest.mark.parametrize("name", ["reboot", "mount", "init_module"])
def test_what_neither_needs_is_refused(name: str) -> None:
    assert all(name not in allowed(unit) for unit in UNITS)
