"""The units, judged by systemd's own tools."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from omninervous.errors import UserError
from omninervous.hostos.systemd import UNITS, install_units, remove_units, unit_text

DAEMON = Path(sys.executable).parent / "omni-daemon"
EXPOSURE = 30
"""Of 100, at most (systemd-analyze(1), security)."""


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    return install_units(DAEMON, tmp_path)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_systemd_understands_every_line(installed: list[Path]) -> None:
    assert [path.name for path in installed] == list(UNITS)
    settings = installed[0].parents[2] / "omninervous"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o700, "what the units read may hold a secret"
    done = analyze("verify", "--man=no", *map(str, installed))
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_systemd_sees_a_line_that_is_wrong(installed: list[Path]) -> None:
    broken = installed[1]
    broken.write_text(broken.read_text().replace("DynamicUser=yes", "DynamicUser=yes\nNoSuchSetting=1"))
    assert "NoSuchSetting" in analyze("verify", "--man=no", str(broken)).stderr


@pytest.mark.parametrize("unit", UNITS)
def test_little_is_exposed(installed: list[Path], unit: str) -> None:
    (path,) = (each for each in installed if each.name == unit)
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(path))
    assert done.returncode == 0, done.stdout[-400:]
    bare = path.with_name(f"bare-{unit}")
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    worse = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(bare))
    assert worse.returncode != 0, "the threshold can fail"


def test_neither_daemon_runs_as_root_and_each_has_what_it_needs() -> None:
    edge, nucleus = (unit_text(unit, DAEMON) for unit in UNITS)
    assert "DynamicUser=yes" in edge and "DynamicUser=yes" in nucleus
    assert "CapabilityBoundingSet=\n" in nucleus and "AmbientCapabilities" not in nucleus
    assert "DeviceAllow=/dev/net/tun rw" in edge
    assert "@" not in edge.replace("omninervous@", "").replace("@system-service", "").replace("@resources", "")


def test_a_daemon_in_a_home_can_be_read_there() -> None:
    assert "ProtectHome=read-only" in unit_text(UNITS[0], Path("/root") / "omni/omni-daemon")
    assert "ProtectHome=yes" in unit_text(UNITS[0], Path("/opt/omninervous/bin/omni-daemon"))


@pytest.mark.parametrize("command", ["omni-daemon", "/opt/a b/omni-daemon", "/opt/%i/omni-daemon", "/opt/$x"])
def test_a_path_that_systemd_would_read_otherwise_is_refused(command: str) -> None:
    with pytest.raises(UserError, match="plain absolute path"):
        unit_text(UNITS[0], Path(command))


def test_what_was_installed_is_removed(installed: list[Path], tmp_path: Path) -> None:
    assert remove_units(tmp_path) == installed
    assert not any(path.exists() for path in installed) and remove_units(tmp_path) == []


def test_the_command_installs_and_removes(tmp_path: Path) -> None:
    omni = str(DAEMON.with_name("omni"))
    for command, verb in (("install", "wrote"), ("remove", "removed")):
        done = subprocess.run(
            [omni, "service", command, "--root", str(tmp_path)], capture_output=True, text=True, check=True
        )
        assert [line.split()[0] for line in done.stdout.splitlines()] == [verb, verb]
    refused = subprocess.run([omni, "service", "install", "--root", "/nowhere"], capture_output=True, check=False)
    assert refused.returncode == 2
