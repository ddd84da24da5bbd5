"""A release as `make wheel` makes it: for old C libraries, whole, and buildable from its source alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from omninervous.lab.process import run_command
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

MINUTES = 1500.0


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    environment = {**os.environ, "DIST": str(directory)}
    subprocess.run([str(REPOSITORY / "scripts/wheel.sh")], env=environment, check=True, timeout=MINUTES)
    return directory


def test_the_wheel_is_for_manylinux2014_and_holds_its_bill_of_materials(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.name.endswith("-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        (bill,) = (name for name in names if ".dist-info/sboms/" in name)
        (outside,) = dist.glob("*.cdx.json")
        assert opened.read(bill) == outside.read_bytes()
    assert "omninervous/_native.abi3.so" in names and "omninervous/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]


def test_the_sums_are_right(dist: Path) -> None:
    checked = run_command(["sh", "-c", 'cd "$1" && sha256sum --check --strict SHA256SUMS', "-", str(dist)])
    assert checked.stdout.count(": OK") == 4


def test_the_source_alone_builds_in_a_clean_environment(dist: Path, tmp_path: Path) -> None:
    """pip makes its own build environment; nothing of this tree or of .venv is in reach."""
    (source,) = dist.glob("*.tar.gz")
    run_command([sys.executable, "-m", "venv", str(tmp_path / "venv")], seconds=120.0)
    environment = ["env", "-i", f"PATH={os.environ['PATH']}", f"HOME={os.environ['HOME']}"]
    kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "CARGO_"))]
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "--quiet", str(source)]
    subprocess.run([*environment, *kept, *pip], check=True, timeout=MINUTES, cwd=tmp_path)
    told = run_command([str(tmp_path / "venv/bin/omni-daemon"), "--version"])
    assert told.stdout.startswith("omni-daemon ")
    native = [str(tmp_path / "venv/bin/python"), "-c", "import omninervous._native as n; print(n.__file__)"]
    assert str(tmp_path) in run_command(native).stdout


def test_the_wheel_is_installed_as_the_readme_says(dist: Path, tmp_path: Path) -> None:
    """The README's commands, in another directory than /opt/omninervous."""
    (wheel,) = dist.glob("*.whl")
    run_command(["python3", "-m", "venv", str(tmp_path / "venv")], seconds=120.0)
    run_command([str(tmp_path / "venv/bin/pip"), "install", "--quiet", str(wheel)], seconds=MINUTES)
    told = run_command([str(tmp_path / "venv/bin/omni-daemon"), "--state-dir", str(tmp_path / "state"), "--init"])
    assert told.stdout.startswith("Your Public Identity: ")
