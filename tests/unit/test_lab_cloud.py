"""The parts of `omni cloud` that need no machine: names, releases, scripts."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from omninervous.errors import UserError
from omninervous.lab import cloud_scripts
from omninervous.lab.cloud_hosts import HostSpec, Remote, SshOptions, parse_host, parse_probe
from omninervous.lab.cloud_install import Release

SCRIPTS = sorted(name for name in cloud_scripts.__all__ if name.isupper())


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("robot", HostSpec("robot", None)),
        ("root@198.51.100.7", HostSpec("root@198.51.100.7", None)),
        ("root@198.51.100.7:/opt/omni", HostSpec("root@198.51.100.7", "/opt/omni")),
        ("2001:db8::7:/opt/omni/", HostSpec("2001:db8::7", "/opt/omni")),
        ("2001:db8::7", HostSpec("2001:db8::7", None)),
    ],
)
def test_machines_are_named_as_for_scp(text: str, spec: HostSpec) -> None:
    assert parse_host(text, "--node-a") == spec


@pytest.mark.parametrize("text", ["", "-v", ":/opt", "a b", "a;b", "a:/opt/../x", "a:/o p", "a:/$(x)", "a:/'", "`a`"])
def test_nothing_that_a_shell_would_take_apart_is_a_machine(text: str) -> None:
    with pytest.raises(UserError, match="--node-a"):
        parse_host(text, "--node-a")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_clean_posix_shell(name: str) -> None:
    checked = subprocess.run(
        ["shellcheck", "--shell=sh", "-"],
        input=getattr(cloud_scripts, name),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_this_machine_would_do() -> None:
    shell = shutil.which("dash") or "sh"
    done = subprocess.run([shell, "-s"], input=cloud_scripts.PROBE, capture_output=True, text=True, check=True)
    probe = parse_probe(done.stdout)
    assert probe.python_version >= (3, 11) and probe.libc >= (2, 17) and Path(probe.python).exists()
    assert {"rsync", "setsid", "timeout"} <= probe.tools


def test_ssh_tells_the_host_behind_an_alias(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host robot\n    HostName 198.51.100.7\n    User root\n")
    assert Remote("node-a", parse_host("robot", "-"), SshOptions(config)).address() == "198.51.100.7"


def release(directory: Path, *, wheel: bytes = b"wheel", listed: bytes | None = None) -> Path:
    """A directory as `make wheel` leaves it."""
    files = {"omninervous-1.whl": wheel, "requirements.txt": b"# none\n"}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    sums = {**files, "omninervous-1.whl": wheel if listed is None else listed}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sums.items()]
    (directory / "SHA256SUMS").write_text("".join(lines))
    return directory


def test_a_release_is_what_its_sums_say(tmp_path: Path) -> None:
    opened = Release.open(release(tmp_path))
    assert opened.wheel.name == "omninervous-1.whl"
    assert opened.wheel_hash == hashlib.sha256(b"wheel").hexdigest()


def test_another_wheel_than_the_sums_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not what SHA256SUMS says: run make wheel"):
        Release.open(release(tmp_path, listed=b"another"))


def test_without_a_release_make_wheel_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run make wheel"):
        Release.open(tmp_path)
    (release(tmp_path) / "omninervous-1.whl").unlink()
    with pytest.raises(UserError, match="run make wheel"):
        Release.open(tmp_path)
