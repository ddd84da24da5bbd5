"""Daemons on the lab's machines, started and asked through the public commands only."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from omninervous.errors import SystemFailure
from omninervous.hostos.control import request
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process, poll_until, run_command
from omninervous.lab.topology import Host, TwoNats

__all__ = ["PAIR_VIPS", "Daemon", "find_command", "start_cluster", "start_pair"]

PAIR_VIPS = (IPv4Address("10.200.0.1"), IPv4Address("10.200.0.2"))
"""VIPs of the edges that `start_pair` and `start_cluster` start."""
_PORT = 51820


def find_command(name: str) -> str:
    """Path of `omni-daemon` or `omni`: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemFailure(f"`{name}` was found neither beside {sys.executable} nor on PATH: run `make setup`")
    return found


class Daemon:
    """One `omni-daemon` on a machine, with a state directory of its own."""

    def __init__(self, lab: Lab, where: Namespace, name: str) -> None:
        self.lab = lab
        self.where = where
        self.name = name
        self.state_dir = lab.directory / name
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def init(self) -> str:
        """`omni-daemon --init`: make the identity; the public key."""
        done = run_command([find_command("omni-daemon"), "--init", "--state-dir", str(self.state_dir)])
        return done.stdout.strip().removeprefix("Your Public Identity: ")

    def launch(
        self, *arguments: str, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Daemon:
        """Start it, behind a command that it becomes (`prefix`); does not wait for anything."""
        argv = [*prefix, find_command("omni-daemon"), "--state-dir", str(self.state_dir), *arguments]
        self._process = self.lab.start(self.where, self.name, argv, environment)
        return self

    def wait_ready(self, seconds: float = 30.0) -> Daemon:
        """Wait until it answers on its control socket. SystemFailure with its last words if it ended."""
        if not poll_until(lambda: self.peek("status"), seconds):
            raise SystemFailure(f"{self.name} does not answer within {seconds:.0f} s: {self.process.tail()}")
        return self

    def ask(self, *command: str) -> dict[str, Any]:
        """`omni --state-dir ... COMMAND --json`. SystemFailure with the daemon's last words if there is no answer."""
        done = run_command([find_command("omni"), "--state-dir", str(self.state_dir), *command, "--json"], check=False)
        if done.returncode:
            self._check_alive()
            raise SystemFailure(f"{self.name}: `omni {' '.join(command)}`: {done.stderr.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def peek(self, command: str) -> dict[str, Any]:
        """The same answer straight from the control socket: cheap enough for polling. Empty if there is none yet."""
        try:
            return request(self.state_dir, command)
        except SystemFailure:
            self._check_alive()
            return {}

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def peers(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.ask("peers")["peers"]
        return listed

    def wait_for_peer(self, seconds: float = 30.0, count: int = 1) -> list[dict[str, Any]]:
        """Wait until that many peers are up; those peers."""

        def enough() -> list[dict[str, Any]]:
            up = [peer for peer in self.peek("peers").get("peers", []) if peer["state"] == "up"]
            return up if len(up) >= count else []

        found = poll_until(enough, seconds)
        if not found:
            raise SystemFailure(f"{self.name} has not {count} peers up within {seconds:.0f} s: {self.process.tail()}")
        return found

    def _check_alive(self) -> None:
        if self._process is not None and self._process.status is not None:
            raise SystemFailure(f"{self.name} ended with status {self._process.status}: {self._process.tail()}")


def start_pair(
    lab: Lab, hosts: tuple[Host, Host], *arguments: str, second: Sequence[str] = (), prefix: Sequence[str] = ()
) -> tuple[Daemon, Daemon]:
    """Two edges that know each other by `--peer` and `--endpoint`, on hosts that reach each other; both answer.
    `second`: more arguments of the second one."""
    near, far = (Daemon(lab, host.namespace, f"edge-{host.namespace.role}") for host in hosts)
    keys = [near.init(), far.init()]
    for number, daemon in enumerate((near, far)):
        other = 1 - number
        daemon.launch(
            *("--peer", keys[other], "--endpoint", f"{hosts[other].address}:{_PORT}", "--port", str(_PORT)),
            *("--vip", str(PAIR_VIPS[number]), *arguments, *(second if number else ())),
            prefix=prefix,
        )
    return near.wait_ready(), far.wait_ready()


def start_cluster(
    lab: Lab, net: TwoNats, *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[Daemon, Daemon, Daemon]:
    """A Nucleus and two edges behind their NATs; all answer, the edges may still be busy finding each other."""
    nucleus = Daemon(lab, net.nucleus.namespace, "nucleus").launch(
        *("--mode", "nucleus", "--port", str(_PORT)), environment=environment
    )
    nucleus.wait_ready()
    secret = lab.directory / "secret"
    secret.write_text("only for this laboratory\n")
    secret.chmod(0o600)
    first, second = (
        Daemon(lab, host.namespace, host.namespace.role).launch(
            *("--nucleus", f"{net.nucleus.address}:{_PORT}", "--cluster", "lab", "--secret-file", str(secret)),
            *("--vip", str(vip), *arguments),
            environment=environment,
        )
        for host, vip in zip((net.edge_a, net.edge_b), PAIR_VIPS, strict=True)
    )
    return nucleus, first.wait_ready(), second.wait_ready()
