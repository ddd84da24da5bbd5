"""The systemd units of both daemons: sandboxed, with capabilities instead of root, watched over (`hostos/notify.py`).

The texts are in `units/`; what both share is in `units/sandbox`.
"""

from __future__ import annotations

import os
import subprocess
from importlib.resources import files
from pathlib import Path

from omninervous.errors import SystemFailure, UserError

__all__ = ["UNITS", "install_units", "remove_units", "unit_text"]

UNITS = ("omninervous@.service", "omninervous-nucleus.service")
_DIRECTORY = Path("etc/systemd/system")
_CONFIGURATION = Path("etc/omninervous")
_RUNNING = Path("/run/systemd/system")
"""There if systemd is process 1 (sd_booted(3))."""
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


def unit_text(unit: str, command: Path) -> str:
    """A unit that starts this `omni-daemon`."""
    if not command.is_absolute() or any(letter.isspace() or letter in "%$\"'\\" for letter in str(command)):
        raise UserError(f"{command} cannot stand in a unit: install OmniNervous at a plain absolute path")
    texts = files("omninervous.hostos") / "units"
    text = (texts / unit).read_text().replace("@SANDBOX@\n", (texts / "sandbox").read_text())
    # A daemon that is installed in somebody's home must still find itself.
    homes = "read-only" if any(command.is_relative_to(home) for home in _HOMES) else "yes"
    return text.replace("@HOMES@", homes).replace("@COMMAND@", str(command))


def install_units(command: Path, root: Path = Path("/")) -> list[Path]:
    """Write the units below `root`, and make the directory of what they read; the units' files. A running systemd reads
    them."""
    written = []
    try:
        (root / _CONFIGURATION).mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / _DIRECTORY).mkdir(parents=True, exist_ok=True)
        for unit in UNITS:
            path = root / _DIRECTORY / unit
            beside = path.with_name(f".{unit}.{os.getpid()}")
            beside.write_text(unit_text(unit, command))
            beside.chmod(0o644)
            beside.rename(path)
            written.append(path)
    except OSError as error:
        raise _refused(root, error) from error
    _reread(root)
    return written


def remove_units(root: Path = Path("/")) -> list[Path]:
    """Take them away again; the files. Configuration and state stay."""
    found = [path for unit in UNITS if (path := root / _DIRECTORY / unit).exists()]
    try:
        for path in found:
            path.unlink()
    except OSError as error:
        raise _refused(root, error) from error
    if found:
        _reread(root)
    return found


def _refused(root: Path, error: OSError) -> SystemFailure:
    return SystemFailure(f"{root / _DIRECTORY}: {error.strerror}: run it as root, or name another place with --root")


def _reread(root: Path) -> None:
    if root != Path("/") or not _RUNNING.exists():
        return
    done = subprocess.run(["systemctl", "daemon-reload"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemFailure(f"systemctl daemon-reload: {done.stderr.strip()}")
