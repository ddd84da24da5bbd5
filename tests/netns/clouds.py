"""Machines with a real sshd each, and an operator's machine that holds the key to them.

They share one file system, so each has a directory of its own for what is installed on it.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from omninervous.lab.daemons import find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process, run_command
from omninervous.lab.topology import Host, Internet

__all__ = ["Cloud", "Machine"]

_SSHD = """
HostKey {key}
AuthorizedKeysFile {authorized}
StrictModes no
UsePAM no
PidFile none
PrintMotd no
Subsystem sftp internal-sftp
SetEnv PATH={path} HOME={home}
"""
_SSH = """
Host *
    User root
    IdentityFile {identity}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {known}
    GlobalKnownHostsFile none
"""
_ROLES = ("nucleus", "node-a", "node-b")
# The interpreter itself: what stands before it on our own PATH may be a program that looks for one.
_PATH = f"{Path(sys.executable).resolve().parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Machine:
    """One machine of the cloud."""

    host: Host
    directory: Path
    """What is installed on it."""
    sshd: Process

    @property
    def text(self) -> str:
        """As it is given to `omni cloud`."""
        return f"{self.host.address}:{self.directory}"

    def processes(self) -> list[str]:
        """Command lines of what runs on it, but for sshd and its children."""
        found = []
        for pid in self.host.namespace.pids():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if not words[0].startswith(("sshd", "/usr/sbin/sshd")):
                found.append(" ".join(words).strip())
        return found


@dataclass(slots=True)
class Cloud:
    """Three machines and the operator."""

    lab: Lab
    dist: Path
    operator: Host = field(init=False)
    machines: tuple[Machine, ...] = field(init=False)
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        internet = Internet(self.lab)
        self.operator = internet.public_host("operator")
        keys = self.lab.directory / "keys"
        keys.mkdir()
        for name in ("operator", "stranger", *_ROLES):
            run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)])
        shutil.copy(keys / "operator.pub", keys / "authorized")
        os.makedirs("/run/sshd", exist_ok=True)
        self.machines = tuple(self._machine(internet, role, keys) for role in _ROLES)
        known = keys / "known"
        known.write_text(
            "".join(
                f"{machine.host.address} {' '.join((keys / f'{role}.pub').read_text().split()[:2])}\n"
                for role, machine in zip(_ROLES, self.machines, strict=True)
            )
        )
        self.config = self.configure("operator")

    def configure(self, identity: str) -> Path:
        """A configuration of ssh that uses this key."""
        keys = self.lab.directory / "keys"
        path = self.lab.directory / f"ssh-{identity}"
        path.write_text(_SSH.format(identity=keys / identity, known=keys / "known"))
        return path

    def restart_sshd(self, machine: Machine, path: str) -> None:
        """Start it anew with another PATH for whoever logs in."""
        machine.sshd.stop()
        role = machine.host.namespace.role
        machine.sshd = self._sshd(machine.host, role, self.lab.directory / "keys", path)

    def command(self, *arguments: str, config: Path | None = None) -> list[str]:
        """`omni cloud ...`"""
        command, *rest = arguments
        return [find_command("omni"), "cloud", command, "--ssh-config", str(config or self.config), *rest]

    def test_command(self, *more: str, config: Path | None = None) -> list[str]:
        """`omni cloud test` on the three machines."""
        nucleus, a, b = self.machines
        named = ("--nucleus", nucleus.text, "--node-a", a.text, "--node-b", b.text)
        return self.command("test", *named, "--dist", str(self.dist), "--seconds", "1", *more, config=config)

    def processes(self) -> list[str]:
        """What runs on the three machines."""
        return [line for machine in self.machines for line in machine.processes()]

    def _machine(self, internet: Internet, role: str, keys: Path) -> Machine:
        host = internet.public_host(role)
        directory = self.lab.directory / f"machine-{role}"
        return Machine(host, directory, self._sshd(host, role, keys, _PATH))

    def _sshd(self, host: Host, role: str, keys: Path, path: str) -> Process:
        config = self.lab.directory / f"sshd-{role}"
        home = self.lab.directory / f"home-{role}"
        home.mkdir(exist_ok=True)
        config.write_text(_SSHD.format(key=keys / role, authorized=keys / "authorized", path=path, home=home))
        name = f"sshd-{role}"
        process = self.lab.start(host.namespace, name, ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)])
        process.wait_for_output("Server listening", 10.0)
        return process
