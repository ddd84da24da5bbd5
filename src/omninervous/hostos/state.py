"""The state directory: who this machine is, and what it must remember over a restart.

| file           | mode | what                                                                                  |
|----------------|------|---------------------------------------------------------------------------------------|
| `identity.key` | 0600 | the Ed25519 seed; never overwritten                                                   |
| `lock`         | 0600 | flock of the running daemon; holds its pid                                            |
| `control.sock` | 0600 | the running daemon's control socket (`hostos/control.py`)                             |
| `*.json`       | 0600 | what daemons remember (marks, members, pins); each replaced as a whole, never edited  |

The directory is 0700. Every file appears under its name only once its bytes are on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omninervous.errors import SystemFailure, UserError

__all__ = [
    "CONFIG_VARIABLE",
    "IDENTITY_FILE",
    "SEED_SIZE",
    "StateDir",
    "StateLock",
    "default_config_path",
    "default_state_dir",
    "state_path",
]

CONFIG_VARIABLE = "OMNI_CONFIG"
"""Names the configuration file, where no --config does."""

SEED_SIZE = 32
IDENTITY_FILE = "identity.key"
_IDENTITY_PREFIX = "omninervous-identity-1 "
"""Comes before the seed in hex, so that nobody takes the file for a WireGuard private key."""
_LOCK_FILE = "lock"


def default_state_dir() -> Path:
    """/var/lib/omninervous for root, else below XDG_STATE_HOME (~/.local/state)."""
    if os.geteuid() == 0:
        return Path("/var/lib/omninervous")
    base = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if base.startswith("/") else _home() / ".local" / "state") / "omninervous"


def default_config_path() -> Path:
    """/etc/omninervous/config.toml for root, else below XDG_CONFIG_HOME (~/.config)."""
    if os.geteuid() == 0:
        return Path("/etc/omninervous/config.toml")
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    return (Path(base) if base.startswith("/") else _home() / ".config") / "omninervous" / "config.toml"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # no HOME, and a user id that /etc/passwd does not know
        raise UserError("this user has no home directory: set HOME, or XDG_STATE_HOME and XDG_CONFIG_HOME") from error


def state_path(text: str | None) -> Path:
    """The state directory that is meant; UserError if the text can be no path."""
    if text is None:
        return default_state_dir()
    if not text:
        raise UserError("--state-dir is empty: name a directory")
    if "\0" in text:
        raise UserError(f"--state-dir {text!r} is no path: name a directory")
    return Path(text).absolute()


class StateDir:
    """One daemon's directory. Constructing it touches nothing; `create` makes it."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    # ------------------------------------------------------------ the directory

    def check(self) -> None:
        """UserError if the path cannot serve as a state directory. Changes nothing."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"--state-dir {self.path}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise UserError(f"--state-dir {self.path} is not a directory: name a directory")
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            raise UserError(f"--state-dir {self.path} is writable by others: chmod 700 {self.path}")

    def create(self) -> None:
        """Make the directory (0700) if it is not there. UserError if that is refused."""
        self.check()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
        except OSError as error:
            raise UserError(
                f"--state-dir {self.path} cannot be made: {error.strerror} (--state-dir names another)"
            ) from error

    # ------------------------------------------------------------ the identity

    def load_seed(self) -> bytes | None:
        """The identity's seed, None if there is none yet. UserError if others can read it or it is damaged."""
        path = self.path / IDENTITY_FILE
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(1024)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(
                f"{path} cannot be read: {error.strerror} (is it another user's? --state-dir names another)"
            ) from error
        if mode & 0o077:
            raise UserError(f"{path} can be read by others, so its key may be known: chmod 600 {path}")
        try:
            line = text.decode("ascii").strip()
            seed = bytes.fromhex(line.removeprefix(_IDENTITY_PREFIX))
        except ValueError:
            line, seed = "", b""
        if len(seed) != SEED_SIZE or not line.startswith(_IDENTITY_PREFIX):
            raise UserError(f"{path} is damaged: restore it from a backup, or move it away and run omni-daemon --init")
        return seed

    def create_seed(self) -> bytes:
        """The identity's seed, made now if there is none. Of two processes that do this at once, both get one seed."""
        self.create()
        seed = self.load_seed()
        if seed is None:
            fresh = f"{_IDENTITY_PREFIX}{secrets.token_bytes(SEED_SIZE).hex()}\n".encode()
            self._publish(IDENTITY_FILE, fresh, replace=False)
            seed = self.load_seed()
            if seed is None:
                raise SystemFailure(
                    f"{self.path / IDENTITY_FILE} vanished while it was being made: run the command again"
                )
        return seed

    # ------------------------------------------------------------ what is remembered

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace `name` as a whole; after a crash the file is the old or the new one."""
        self._publish(name, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n", replace=True)

    def read_json(self, name: str) -> dict[str, Any]:
        """What was written last; empty if nothing was, or if it cannot be parsed (all of it can be learned again)."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def _publish(self, name: str, data: bytes, *, replace: bool) -> None:
        """Write a 0600 file beside, sync it, then give it its name: over the old one, or only if there is none."""
        target = self.path / name
        beside = self.path / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    beside.rename(target)
                else:
                    with contextlib.suppress(FileExistsError):
                        os.link(beside, target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    beside.unlink()
            self._sync()
        except OSError as error:
            raise SystemFailure(f"{target} cannot be written: {error.strerror}") from error

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------ one daemon at a time

    def lock(self) -> StateLock:
        """Take the directory for this process; UserError naming the pid that holds it."""
        path = self.path / _LOCK_FILE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"{path} cannot be opened: {error.strerror} (--state-dir names another)") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise UserError(
                f"a daemon already runs with state directory {self.path} (pid {holder}): stop it, or name another "
                f"with --state-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return StateLock(descriptor)


class StateLock:
    """Held until `release` or the end of the process, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; idempotent. The file stays: unlinking it would let two daemons lock two files."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
