"""Installs a release on a machine that has Python and nothing else: no compiler, no pip, no way to a package index.

What `make wheel` left in dist/ and the locked dependencies are unpacked here, for the machine's Python and processor,
and copied there as they are.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omninervous.errors import OmniError, SystemFailure, UserError
from omninervous.lab.cloud_hosts import Probe, Remote
from omninervous.lab.cloud_scripts import INSTALLED, UNINSTALL

__all__ = ["Release", "copy_tree", "install"]

_SUMS = "SHA256SUMS"
_REQUIREMENTS = "requirements.txt"
_OLDEST_MANYLINUX = 17
"""manylinux2014 is manylinux_2_17."""
_DOWNLOAD_SECONDS = 600.0
_SAID_LIMIT = 1000
NOT_COPIED = (
    *(".venv/", ".tools/", "native/target/", "dist/", "build/", "*.so", "__pycache__/", "*.egg-info/"),
    *(".hypothesis/", ".import_linter_cache/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".benchmarks/"),
    *("soak-log/", "autotest-log/", "bench-log/", "*.log", ".git"),
)
"""What make makes there anew, and the history."""


@dataclass(frozen=True, slots=True)
class Release:
    """A directory as `make wheel` leaves it; the files are the ones that its SHA256SUMS names."""

    directory: Path
    wheel: Path
    wheel_hash: str

    @classmethod
    def open(cls, directory: Path) -> Release:
        """UserError if it holds no wheel, or another one than it says."""
        try:
            lines = (directory / _SUMS).read_text().splitlines()
        except OSError as error:
            raise UserError(f"--dist {directory}: no {_SUMS} there ({error.strerror}): run make wheel") from error
        hashes = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        wheels = [name for name in hashes if name.endswith(".whl")]
        if len(wheels) != 1 or _REQUIREMENTS not in hashes:
            raise UserError(f"--dist {directory}: {_SUMS} names {len(wheels)} wheels: run make wheel")
        for name in (*wheels, _REQUIREMENTS):
            if _sha256(directory / name) != hashes[name]:
                raise UserError(f"--dist {directory}: {name} is not what {_SUMS} says: run make wheel")
        return cls(directory.resolve(), directory.resolve() / wheels[0], hashes[wheels[0]])

    def unpacked(self, probe: Probe) -> Path:
        """Everything unpacked for such a machine. Made once, kept in the release's directory."""
        requirements = (self.directory / _REQUIREMENTS).read_text() + f"{self.wheel} --hash=sha256:{self.wheel_hash}\n"
        kind = f"cp{probe.python_version[0]}{probe.python_version[1]}-{probe.machine}-glibc{probe.libc[1]}"
        trees = self.directory / "trees"
        target = trees / f"{hashlib.sha256(requirements.encode()).hexdigest()[:12]}-{kind}"
        if target.exists():
            return target
        trees.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=trees, prefix=".new-") as scratch:
            listed = Path(scratch) / _REQUIREMENTS
            listed.write_text(requirements)
            _pip_install(listed, Path(scratch) / "tree", probe)
            for old in trees.glob(f"*-{kind}"):
                shutil.rmtree(old)
            (Path(scratch) / "tree").rename(target)
        return target


def install(release: Release, host: Remote, step: Callable[[str], None]) -> str:
    """Put the release on the machine; what its `omni-daemon --version` prints. A failure leaves nothing there."""
    step(f"unpacking {release.wheel.name} for Python {'.'.join(map(str, host.probe.python_version))}")
    tree = release.unpacked(host.probe)
    step(f"copying to {host.title}")
    try:
        host.copy(tree, f"{host.directory}/lib")
        return host.shell(INSTALLED, host.directory, host.probe.python, seconds=60.0).strip()
    except OmniError:
        try:
            host.shell(UNINSTALL, host.directory)
        except OmniError as error:
            step(f"and could not be cleaned up: {error}")
        raise


def copy_tree(tree: Path, host: Remote) -> str:
    """Copy a source tree to the machine, without what make makes; the directory there."""
    if not (tree / "pyproject.toml").exists():
        raise UserError(f"--tree {tree} is not the source of OmniNervous: name the directory with pyproject.toml")
    directory = host.spec.directory or f"{host.probe.home}/omninervous"
    host.copy(tree, directory, *(f"--exclude={pattern}" for pattern in NOT_COPIED))
    return directory


def _pip_install(requirements: Path, target: Path, probe: Probe) -> None:
    libc_major, libc_minor = probe.libc
    if libc_major != 2 or libc_minor < _OLDEST_MANYLINUX:
        raise UserError(f"glibc {libc_major}.{libc_minor} is too old: wheels need 2.{_OLDEST_MANYLINUX}")
    platforms = [f"manylinux_2_{minor}" for minor in range(libc_minor, _OLDEST_MANYLINUX - 1, -1)]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *(() if probe.python_version == sys.version_info[:2] else ("--no-compile",)),
        *("--no-deps", "--require-hashes", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", ".".join(map(str, probe.python_version))),
        *(word for each in (*platforms, "manylinux2014") for word in ("--platform", f"{each}_{probe.machine}")),
        *("--target", str(target), "--requirement", str(requirements)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SystemFailure(f"pip took longer than {_DOWNLOAD_SECONDS:.0f} s to fetch the dependencies") from error
    if done.returncode:
        raise SystemFailure(f"pip cannot get what such a machine needs: {done.stderr.strip()[-_SAID_LIMIT:]}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "missing"
