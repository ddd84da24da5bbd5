"""This package with a native engine that seals nothing: what is left of the work when there is no cryptography.

It is built beside the real one, from the source tree, and lives as long as the laboratory.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import omninervous
from omninervous.errors import SystemFailure
from omninervous.lab.process import run_command

__all__ = ["null_cipher_package"]

_BUILD_SECONDS = 1200.0


def null_cipher_package(folder: Path, name: str) -> Path:
    """What to put on PYTHONPATH, by a name of its own in a folder. SystemFailure if it cannot be built."""
    package = Path(omninervous.__file__).resolve().parent
    root = package.parents[1]
    manifest = root / "native" / "Cargo.toml"
    cargo = shutil.which("cargo")
    if cargo is None or not manifest.exists():
        raise SystemFailure("omninervous-null is built from the source tree with cargo: use `make bench` in a clone")
    built = root / ".tools" / "null-cipher"
    argv = [cargo, "build", "--quiet", "--locked", "--release", "--manifest-path", str(manifest)]
    argv += ["--package", "omninervous-python", "--features", "null-cipher", "--target-dir", str(built)]
    run_command(argv, seconds=_BUILD_SECONDS)
    copy = folder / f"null-cipher-{name}" / package.name
    copy.mkdir(parents=True)
    for each in package.iterdir():
        if not each.name.startswith("_native."):
            (copy / each.name).symlink_to(each)
    shutil.copy(built / "release" / "lib_native.so", copy / "_native.abi3.so")
    shutil.copy(package / "_native.pyi", copy)
    return copy.parent
