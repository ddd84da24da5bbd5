"""Network namespaces as machines, and the lab that owns them.

A `Lab` makes namespaces, starts processes in them, and takes all of it away again, whatever happened in between.
Nothing is ever made in the namespace that the lab runs in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import TypeVar

from pyroute2 import netns

from omninervous.errors import SystemFailure
from omninervous.lab.names import NAMESPACE_DIRECTORY, RunId, find_leftovers
from omninervous.lab.process import Process, poll_until, run_command

__all__ = ["Lab", "Namespace", "clean_leftovers", "require_privileges"]

T = TypeVar("T")

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}
"""<linux/capability.h>: interfaces, packet captures, namespaces."""


class Namespace:
    """A network namespace: what a machine is in the lab. Its file system is everybody's."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.path = NAMESPACE_DIRECTORY / name

    @classmethod
    def create(cls, name: str, role: str) -> Namespace:
        """A new namespace with its loopback up. IPv6 addresses are usable at once (no DAD), routes are ours alone."""
        run_command(["ip", "netns", "add", name])
        namespace = cls(name, role)
        namespace.ip("link", "set", "lo", "up")
        namespace.sysctl(
            {
                "net.ipv6.conf.default.accept_dad": 0,
                "net.ipv6.conf.default.router_solicitations": 0,
                "net.ipv6.conf.default.autoconf": 0,
                "net.ipv4.conf.all.send_redirects": 0,
                "net.ipv4.conf.default.send_redirects": 0,
                "net.ipv4.ping_group_range": "0 2147483647",
            }
        )
        return namespace

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in here. nsenter becomes the command, so its pid is the command's."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(
        self, *argv: str, check: bool = True, text_in: str | None = None, seconds: float = 30.0
    ) -> CompletedProcess[str]:
        """Run a command in here to its end. SystemFailure names the machine, the command and what it said."""
        done = run_command(self.command(*argv), check=False, text_in=text_in, seconds=seconds)
        if check and done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[:2000]
            raise SystemFailure(f"{self.role}: `{' '.join(argv)}` failed with status {done.returncode}: {said}")
        return done

    def ip(self, *argv: str) -> str:
        """`ip` in here; its output."""
        return run_command(["ip", "-n", self.name, *argv]).stdout

    def ip_batch(self, *lines: str) -> None:
        """Several `ip` commands in one process."""
        run_command(["ip", "-n", self.name, "-batch", "-"], text_in="\n".join(lines) + "\n")

    def nft(self, ruleset: str) -> None:
        """Load an nftables ruleset."""
        self.run("nft", "-f", "-", text_in=ruleset)

    def sysctl(self, values: Mapping[str, int | str]) -> None:
        """Set this namespace's kernel parameters."""
        self.run("sysctl", "-qw", *(f"{key}={value}" for key, value in values.items()))

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` in here, in a thread of its own. Sockets made by it belong to this namespace for good."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter_and_call() -> None:
            try:
                netns.setns(str(self.path), flags=0)
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter_and_call, name=f"in {self.role}")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def udp_socket(self, address: str = "", port: int = 0) -> socket.socket:
        """A UDP socket of this namespace, bound; IPv6 if the address is."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((address, port))
            return made

        return self.call(make)

    def packet_socket(self, interface: str) -> socket.socket:
        """A raw Ethernet socket on an interface of this namespace, for all protocols."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            made.bind((interface, 0))
            return made

        return self.call(make)

    def pids(self) -> list[int]:
        """Processes that live in here."""
        return [int(pid) for pid in run_command(["ip", "netns", "pids", self.name], check=False).stdout.split()]

    def destroy(self) -> None:
        """End the processes in here by pid and remove the namespace. What was removed already is no error."""
        if not self.path.exists():
            return
        for pid in self.pids():
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        poll_until(lambda: not self.pids(), 3.0)
        run_command(["ip", "netns", "del", self.name], check=False)
        if self.path.exists():
            raise SystemFailure(f"the namespace {self.name} cannot be removed: `ip netns del {self.name}`")


class Lab:
    """A set of machines that are taken away together. Use it as a context manager."""

    def __init__(self) -> None:
        self.run = RunId.new()
        self.directory = Path(tempfile.gettempdir()) / str(self.run)
        self.directory.mkdir(mode=0o700)
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.namespaces: list[Namespace] = []
        self.processes: list[Process] = []
        self._abandoned = False

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def namespace(self, role: str) -> Namespace:
        """A new machine."""
        made = Namespace.create(self.run.name(role), role)
        self.namespaces.append(made)
        return made

    def start(
        self, where: Namespace | None, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a command on a machine (None: in our own namespace). It ends with the lab; its log is NAME.log."""
        command = where.command(*argv) if where else list(argv)
        process = Process(name, command, self.logs / f"{name}.log", environment)
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End all processes, last one first, remove all namespaces and the directory. May be called again."""
        if self._abandoned:
            return
        for process in reversed(self.processes):
            process.signal(15)
        for process in reversed(self.processes):
            process.stop(3.0)
        failures = []
        for namespace in self.namespaces:
            try:
                namespace.destroy()
            except SystemFailure as failure:
                failures.append(str(failure))
        shutil.rmtree(self.directory, ignore_errors=True)
        if failures:
            raise SystemFailure("; ".join(failures))

    def abandon(self) -> None:
        """Leave everything as it is, for a look at it. It counts as a leftover as soon as this process has ended."""
        self.namespaces.clear()
        self.processes.clear()
        self._abandoned = True

    def remains(self) -> list[str]:
        """What is still there of this lab, in words; empty after a clean `close`."""
        found = [f"process {each.name} (pid {each.pid})" for each in self.processes if each.status is None]
        for path in sorted(NAMESPACE_DIRECTORY.glob(f"{self.run}-*")):
            found.append(f"namespace {path.name}")
            inside = Namespace(path.name, path.name).pids()
            found.extend(f"process with pid {pid} in {path.name}" for pid in inside)
        if self.directory.exists():
            found.append(f"directory {self.directory}")
        return found


def clean_leftovers() -> list[str]:
    """Remove what dead runs left: processes, namespaces, directories. What was removed, in words."""
    leftovers = find_leftovers()
    removed = []
    for name in leftovers.namespaces:
        Namespace(name, name).destroy()
        removed.append(f"namespace {name}")
    for directory in leftovers.directories:
        shutil.rmtree(directory, ignore_errors=True)
        removed.append(f"directory {directory}")
    return removed


def require_privileges() -> None:
    """SystemFailure with the remedy, unless this process may make namespaces, interfaces and captures."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = int(next(line.split()[1] for line in status if line.startswith("CapEff:")), 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise SystemFailure(f"the lab needs {', '.join(missing)} to build its network namespaces: run it as root")
