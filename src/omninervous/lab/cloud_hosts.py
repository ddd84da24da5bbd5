"""Machines reached with the system's own ssh and rsync, so that its configuration, agents and jump hosts hold.

A script for a host goes to `sh -s` by standard input: its process list shows no more than the script's arguments.
Secrets are never among those (`Remote.write_secret`).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omninervous.errors import SystemFailure, UserError
from omninervous.lab.cloud_scripts import PROBE
from omninervous.lab.process import missing_command

__all__ = ["HostSpec", "Probe", "Remote", "SshFailed", "SshOptions", "parse_host", "parse_probe"]

_DESTINATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@%:\[\]-]*", re.ASCII)
_DIRECTORY = re.compile(r"/[A-Za-z0-9_./+-]*", re.ASCII)
"""Nothing that a shell or rsync would take for more than a name."""
_SSH_FAILED = 255
"""ssh(1): ssh's own failure; other numbers are the remote command's."""
_CONNECT_SECONDS = 10
_ALIVE_SECONDS = 5
_SAID_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A machine as the operator named it."""

    destination: str
    """What ssh is given: a host, USER@HOST, or an alias of ssh's configuration."""
    directory: str | None
    """Absolute; None: the default."""


def parse_host(text: str, option: str) -> HostSpec:
    """`[USER@]HOST[:/DIR]`; the directory is absolute."""
    destination, mark, rest = text.partition(":/")
    directory = f"/{rest}".rstrip("/") if mark else None
    if not _DESTINATION.fullmatch(destination):
        raise UserError(f"{option} {text!r} is not a machine: write [USER@]HOST or [USER@]HOST:/DIR")
    if directory is not None and (not _DIRECTORY.fullmatch(directory) or ".." in directory.split("/")):
        raise UserError(
            f"{option} {text!r}: name a directory of its own by plain letters, for example /opt/omninervous"
        )
    return HostSpec(destination, directory)


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How machines are reached."""

    config: Path | None = None
    """Instead of ~/.ssh/config."""

    def command(self) -> list[str]:
        """ssh that never asks, and that notices a machine that has gone."""
        config = [] if self.config is None else ["-F", str(self.config)]
        options = ("BatchMode=yes", f"ConnectTimeout={_CONNECT_SECONDS}", "ServerAliveCountMax=2")
        alive = f"ServerAliveInterval={_ALIVE_SECONDS}"
        return ["ssh", *config, *(word for each in (*options, alive) for word in ("-o", each))]


class SshFailed(SystemFailure):
    """The machine cannot be reached, or does not let us in."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a machine is, as it said itself."""

    home: str
    uid: int
    machine: str
    """Architecture, as `uname -m`."""
    libc: tuple[int, int]
    """Version of glibc."""
    python: str
    """Path of a Python that is new enough."""
    python_version: tuple[int, int]
    tools: frozenset[str]
    """Of those that we may need, the ones that it has."""
    sudo: bool
    """Whether we are root, or sudo asks for no password."""


class Remote:
    """One machine in one role."""

    def __init__(self, role: str, spec: HostSpec, ssh: SshOptions) -> None:
        self.role = role
        self.spec = spec
        self._ssh = ssh
        self._probe: Probe | None = None

    @property
    def title(self) -> str:
        return f"{self.role} ({self.spec.destination})"

    @property
    def probe(self) -> Probe:
        assert self._probe is not None, f"{self.title} was not looked at"
        return self._probe

    @property
    def reached(self) -> bool:
        """Whether it has answered: only then can there be anything of ours on it."""
        return self._probe is not None

    @property
    def directory(self) -> str:
        """Where our files are."""
        return self.spec.directory or f"{self.probe.home}/.omninervous"

    def look(self) -> None:
        """Ask the machine what it is. SshFailed if it cannot be reached, SystemFailure if it will not do."""
        self._probe = parse_probe(self.shell(PROBE))

    def address(self) -> str:
        """The host that ssh connects to, by its configuration: what the other machines reach it by as well."""
        done = self._call([*self._ssh.command(), "-G", "--", self.spec.destination], None, 10.0)
        names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("hostname ")]
        if done.returncode or not names:
            raise SshFailed(f"{self.title}: `ssh -G` says {_said(done)}")
        return names[0]

    def shell(self, script: str, *arguments: str, seconds: float = 30.0, root: bool = False) -> str:
        """Run a script of `cloud_scripts`; its output. SshFailed, or SystemFailure with what it said."""
        words = [*self._sudo(root), "sh", "-s", "--", *arguments]
        done = self._call([*self._ssh.command(), "--", self.spec.destination, shlex.join(words)], script, seconds)
        return self._checked(done)

    def write_secret(self, path: str, secret: str, *, root: bool = False) -> None:
        """A file that only its owner can read. The secret goes by standard input; no command line holds it."""
        script = f"umask 077 && mkdir -p {shlex.quote(str(Path(path).parent))} && cat >{shlex.quote(path)}"
        words = [*self._sudo(root), "sh", "-c", script]
        command = [*self._ssh.command(), "--", self.spec.destination, shlex.join(words)]
        self._checked(self._call(command, f"{secret}\n", 30.0))

    def copy(self, source: Path, directory: str, *options: str, seconds: float = 600.0) -> None:
        """Make `directory` there what the directory `source` is here."""
        command = ["rsync", "--archive", "--delete", "--no-owner", "--no-group", "--mkpath", *options]
        command += ["--rsh", shlex.join(self._ssh.command()), "--", f"{source}/"]
        done = self._call([*command, f"{self._rsync_host()}:{directory}/"], None, seconds)
        if done.returncode == _SSH_FAILED:
            raise self._unreachable(done)
        if done.returncode:
            raise SystemFailure(f"{self.title}: rsync to {directory}: {_said(done)}")

    def _rsync_host(self) -> str:
        user, at, host = self.spec.destination.rpartition("@")
        bare_ipv6 = ":" in host and not host.startswith("[")
        return f"{user}{at}[{host}]" if bare_ipv6 else self.spec.destination

    def _sudo(self, root: bool) -> list[str]:
        return ["sudo", "-n"] if root and self.probe.uid else []

    def _checked(self, done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode == _SSH_FAILED:
            raise self._unreachable(done)
        if done.returncode:
            raise SystemFailure(f"{self.title}: {_said(done)}")
        return done.stdout

    def _unreachable(self, done: subprocess.CompletedProcess[str]) -> SshFailed:
        return SshFailed(
            f"{self.title}: ssh: {_said(done)}; `ssh {self.spec.destination} true` must work without a question"
        )

    def _call(self, command: Sequence[str], text: str | None, seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            # A session of its own: Ctrl-C must not end what cleans up.
            return subprocess.run(
                command,
                **({"stdin": subprocess.DEVNULL} if text is None else {"input": text}),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise missing_command(command) from error
        except subprocess.TimeoutExpired as error:
            raise SshFailed(f"{self.title}: no end within {seconds:.0f} s") from error


def parse_probe(text: str) -> Probe:
    """The output of the script PROBE."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    major, minor = (int(part) for part in fields["libc"].split(".")[:2])
    python_major, python_minor = (int(part) for part in fields["version"].split("."))
    return Probe(
        home=fields["home"].rstrip("/"),
        uid=int(fields["uid"]),
        machine=fields["machine"],
        libc=(major, minor),
        python=fields["python"],
        python_version=(python_major, python_minor),
        tools=frozenset(fields["tools"].split()),
        sudo=fields["sudo"] == "yes",
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    text = done.stderr.strip() or done.stdout.strip()
    return text[-_SAID_LIMIT:] or f"status {done.returncode} without a word"
