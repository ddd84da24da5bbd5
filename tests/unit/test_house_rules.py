"""The rules of this repository that a tool can check, and evidence that the tools do check them.

Violations are planted in a copy: ruff and import-linter have to see each one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "omninervous"
BIN = Path(sys.executable).parent

# Written in parts, or this file would break its own rule.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("npmjs", "org"),
        ("maven", "apache", "org"),
        ("deb", "debian", "org"),
    )
]
# How Cargo.lock names the default registry on every machine in the world.
CARGO_SOURCE = "registry+https://github.com/rust-lang/" + ".".join(("crates", "io-index"))
# Absolute paths of one machine: a home directory, or where somebody keeps his work.
MACHINE_PATHS = re.compile(r"(?<![\w.~-])(?:/work/|/root/|/home/|/tmp/p)[a-z.]\w*")

# Each is one line that a pure module must not contain.
IMPURE_LINES = [
    "import asyncio",
    "import logging",
    "import os",
    "import pathlib",
    "import random",
    "import secrets",
    "import select",
    "import selectors",
    "import socket",
    "import structlog",
    "import subprocess",
    "import threading",
    "import time",
    "from os import urandom",
    "from time import monotonic as clock",
    "from concurrent.futures import ThreadPoolExecutor",
    "import nacl.utils",
    "import cryptography.hazmat.primitives.asymmetric.x25519 as x; key = x.X25519PrivateKey.generate()",
]
PURE_MODULES = ["wire/planted.py", "core/planted.py", "synapse/datapath.py"]

# Importer, what it must not import, contract that says so.
FORBIDDEN_IMPORTS = [
    ("errors", "omninervous.wire.address", "layers"),
    ("wire/planted", "omninervous.core.clock", "layers"),
    ("core/planted", "omninervous.synapse.port", "layers"),
    ("synapse/planted", "omninervous.hostos", "layers"),
    ("ganglion/planted", "omninervous.nucleus", "layers"),
    ("nucleus/planted", "omninervous.ganglion", "layers"),
    ("lab/planted", "omninervous.cli", "layers"),
    ("planted", "omninervous.errors", "layers"),
    ("wire/planted", "msgspec", "pure-parties"),
    ("core/planted", "pyroute2", "pure-parties"),
    ("synapse/datapath", "omninervous.synapse.reference", "pure-datapath"),
]


def run(directory: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`program` of the virtual environment, or else of the system."""
    found = shutil.which(program, path=f"{BIN}:{os.environ['PATH']}")
    assert found is not None, f"{program} is not installed: make setup"
    return subprocess.run([found, *arguments], cwd=directory, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its settings, to break."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "src" / "omninervous", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path


@pytest.mark.parametrize("module", PURE_MODULES)
def test_ruff_sees_every_planted_impurity(copy: Path, module: str) -> None:
    planted = copy / "src" / "omninervous" / module
    planted.write_text("\n".join(IMPURE_LINES) + "\n")
    found = run(copy, "ruff", "check", "--no-cache", "--select", "TID251", "--output-format", "concise", str(planted))
    reported = {int(line) for line in re.findall(r":(\d+):\d+: TID251", found.stdout)}
    assert reported == set(range(1, len(IMPURE_LINES) + 1))


def test_ruff_allows_io_outside_the_pure_parts(copy: Path) -> None:
    planted = copy / "src" / "omninervous" / "synapse" / "planted.py"
    planted.write_text("\n".join(IMPURE_LINES) + "\n")
    found = run(copy, "ruff", "check", "--no-cache", "--select", "TID251", str(planted))
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(("importer", "imported", "contract"), FORBIDDEN_IMPORTS)
def test_import_linter_sees_a_planted_import(copy: Path, importer: str, imported: str, contract: str) -> None:
    package = copy / "src" / "omninervous"
    # Empty modules, so that the planted import is the only one and the order of writing does not matter.
    for path in package.rglob("*.py"):
        path.write_text("")
    for name in ("synapse/datapath", "synapse/reference"):
        (package / f"{name}.py").touch()
    assert _lint_imports(copy, contract).returncode == 0
    (package / f"{importer}.py").write_text(f"import {imported}\n")
    broken = _lint_imports(copy, contract)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "broken" in broken.stdout


def _lint_imports(copy: Path, contract: str) -> subprocess.CompletedProcess[str]:
    # `python -m` puts the copy's src in front of the installed package.
    program = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as c; c()"
    return run(copy, "python", "-c", program, "--no-cache", "--no-logo", "--contract", contract)


def test_no_file_names_a_registry_or_a_machine() -> None:
    offences = [
        f"{path.relative_to(REPOSITORY)}: {found}"
        for path, text in _committed_texts()
        for found in [
            *(host for host in REGISTRY_HOSTS if host in text.replace(CARGO_SOURCE, "")),
            *MACHINE_PATHS.findall(text),
        ]
    ]
    assert offences == []


def test_unsafe_stands_in_sysio_only() -> None:
    offences = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path, text in _committed_texts()
        if path.suffix == ".rs" and "native/sysio" not in path.as_posix()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"\bunsafe\b", line.split("//")[0])
    ]
    assert offences == []


def test_engine_forbids_unsafe() -> None:
    assert "#![forbid(unsafe_code)]" in (REPOSITORY / "native/engine/src/lib.rs").read_text()


def test_everything_that_make_makes_is_ignored() -> None:
    made = [
        ".venv/bin/omni",
        ".tools/bin/wireguard",
        "native/target/release/x",
        "src/omninervous/_native.abi3.so",
        "src/omninervous/__pycache__/errors.cpython-311.pyc",
        ".mypy_cache/x",
        ".pytest_cache/x",
        ".ruff_cache/x",
        ".import_linter_cache/x",
        ".hypothesis/x",
        "soak-log/x",
    ]
    assert run(REPOSITORY, "git", "check-ignore", *made).stdout.split() == made


def _committed_texts() -> Iterator[tuple[Path, str]]:
    """Every text file that is, or would be, committed."""
    listing = run(REPOSITORY, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listing.check_returncode()
    for path in sorted(REPOSITORY / name for name in listing.stdout.split("\0") if name):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            yield path, data.decode(errors="replace")
