"""A daemon on a machine of `omni cloud`: started detached, asked through its own command line, ended, removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from omninervous.errors import OmniError, SystemFailure
from omninervous.lab.cloud_hosts import Remote
from omninervous.lab.cloud_scripts import ASK, START, STOP
from omninervous.lab.process import poll_until

__all__ = ["TEST_DEVICE", "CloudDaemon", "stop_all"]

TEST_DEVICE = "omnitest0"
"""Overlay interface of the edges under test: an edge that is in use there keeps its own."""
_LIMIT = ("timeout", "-k", "10", "3600")
"""What is under test ends by itself, should nobody be able to reach it any more."""
_UP = '"event": "up"'
_POLL = 0.5


class CloudDaemon:
    """One `omni-daemon` on one machine."""

    def __init__(self, host: Remote, *, state_dir: str | None = None, root: bool = False) -> None:
        """`state_dir` outlives the daemon; without it the state goes with the run. `root`: an edge needs it."""
        self.host = host
        self._keeps_state = state_dir is not None
        self._state_dir = state_dir or f"{self.run}/state"
        self._root = root

    @property
    def run(self) -> str:
        """Where it runs: the mark by which everything that belongs to it is found."""
        return f"{self.host.directory}/run/{self.host.role}"

    @property
    def log(self) -> str:
        return f"/tmp/omni-cloud-{self.host.role}.log"

    def start(self, *arguments: str, secret: str | None = None) -> None:
        """Start it, and wait until it says that it is up. The secret goes to a file that only it can read."""
        limit = () if self._keeps_state else _LIMIT
        if secret is not None:
            self.host.write_secret(f"{self.run}/secret", secret, root=self._root)
            arguments = (*arguments, "--secret-file", f"{self.run}/secret")
        program = f"{self.host.directory}/bin/omni-daemon"
        # Nothing from the configuration of a daemon that is in use there.
        own = ("--config", "/dev/null", "--log-format", "json", "--state-dir", self._state_dir)
        command = (*limit, program, *own, *arguments)
        self.start_beside(self.log, _UP, *command)

    def start_beside(self, log: str, pattern: str, *command: str) -> None:
        """Start another program that ends with it."""
        self.host.shell(START, self.run, log, pattern, *command, root=self._root)

    def ask(self, command: str) -> dict[str, Any]:
        """`omni COMMAND --json`."""
        text = self.host.shell(ASK, self.host.directory, self._state_dir, command, root=self._root)
        answer: dict[str, Any] = json.loads(text)
        return answer

    def ask_until(self, command: str, holds: Callable[[dict[str, Any]], Any], seconds: float) -> dict[str, Any]:
        """Ask until it holds or the time is over; the last answer."""
        last: dict[str, Any] = {}

        def asked() -> bool:
            last.clear()
            last.update(self.ask(command))
            return bool(holds(last))

        poll_until(asked, seconds, _POLL)
        return last

    def stop(self) -> list[str]:
        """End it and what was started beside it, now or by an earlier run; a line for each thing that there was."""
        root = self._root or bool(self.host.probe.uid and self.host.probe.sudo)
        return self.host.shell(STOP, self.run, root=root).splitlines()


def stop_all(hosts: Sequence[Remote]) -> tuple[list[str], list[str]]:
    """End everything on every machine that was ever reached: what there was, and what went wrong, in words.

    A machine that has died meanwhile does not keep the others from being cleaned.
    """
    ended, failures = [], []
    for host in reversed(hosts):
        if not host.reached:
            continue
        try:
            ended += [f"{host.role}: {each}" for each in CloudDaemon(host).stop()]
        except OmniError as error:
            failures.append(f"{error} (what runs there ends by itself within {_LIMIT[-1]} s)")
    return ended, failures


def require_tools(host: Remote, *tools: str) -> None:
    """SystemFailure with the remedy if the machine lacks one."""
    packages = {"ping": "iputils-ping", "setsid": "util-linux", "timeout": "coreutils"}
    if missing := [tool for tool in tools if tool not in host.probe.tools]:
        names = " ".join(packages.get(tool, tool) for tool in missing)
        raise SystemFailure(f"{host.title} lacks {', '.join(missing)}: there, apt-get install {names}")
