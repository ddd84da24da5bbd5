"""Writes the bill of materials (CycloneDX 1.5): what a release contains beside our own code, with versions and hashes.

    sbom.py FILE

Rust crates come from Cargo's own resolution of the native module, Python packages from requirements/runtime.txt.
The same sources give the same bytes: there is no timestamp and no serial number.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
ROOT_CRATE = "omninervous-python"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def main() -> None:
    (target,) = sys.argv[1:]
    Path(target).write_text(json.dumps(bill_of_materials(), indent=1) + "\n")


def bill_of_materials() -> dict[str, Any]:
    """The whole document."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    parts = sorted([*rust_crates(), *python_packages()], key=lambda part: str(part["bom-ref"]))
    own = _component("pypi", project["name"], project["version"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**own, "type": "application", "licenses": [{"expression": project["license"]}]}},
        "components": parts,
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def rust_crates() -> Iterator[dict[str, Any]]:
    """Crates from outside that are compiled into the native module or its build."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", "native/Cargo.toml"]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    metadata = json.loads(done.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    lock = tomllib.loads((REPOSITORY / "native/Cargo.lock").read_text())["package"]
    checksums = {(each["name"], each["version"]): each.get("checksum") for each in lock}
    for identifier in _used(metadata, next(key for key, each in packages.items() if each["name"] == ROOT_CRATE)):
        package = packages[identifier]
        checksum = checksums[package["name"], package["version"]]
        if checksum is None:
            continue  # a crate of this workspace
        part = _component("cargo", package["name"], package["version"], [checksum])
        # Older crates write MIT/Apache-2.0, which is no SPDX expression.
        yield {**part, "licenses": [{"expression": package["license"].replace("/", " OR ")}]}


def _used(metadata: dict[str, Any], root: str) -> set[str]:
    """The root and all that it depends on, but for tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = set(), [root]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += [
                dependency["pkg"]
                for dependency in nodes[current]["deps"]
                if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
            ]
    return found


def python_packages() -> Iterator[dict[str, Any]]:
    """The locked packages that the daemons import. Each has a hash per file that the lock accepts."""
    text = (REPOSITORY / "requirements/runtime.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if pin := _PIN.match(line):
            yield _component("pypi", pin[1], pin[2], sorted(_HASH.findall(line)))


def _component(kind: str, name: str, version: str, hashes: list[str] | None = None) -> dict[str, Any]:
    url = f"pkg:{kind}/{name}@{version}"
    part: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
    if hashes:
        part["hashes"] = [{"alg": "SHA-256", "content": each} for each in hashes]
    return part


if __name__ == "__main__":
    main()
