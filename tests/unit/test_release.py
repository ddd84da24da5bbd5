"""What a release is made of: the bill of materials against what is locked, the source against what a build reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

from tests.conftest import REPOSITORY


def test_the_bill_of_materials_names_what_is_locked(tmp_path: Path) -> None:
    written = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in written:
        subprocess.run([sys.executable, str(REPOSITORY / "scripts/sbom.py"), str(path)], check=True, cwd=tmp_path)
    assert written[0].read_bytes() == written[1].read_bytes(), "the same sources give the same bytes"
    bill = json.loads(written[0].read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["purl"]: part for part in bill["components"]}
    assert set(bill["dependencies"][0]["dependsOn"]) == set(parts), "every part is one of ours"
    assert all(part["hashes"] for part in parts.values())

    pinned = re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / "requirements/runtime.txt").read_text(), re.MULTILINE)
    python = {url for url in parts if url.startswith("pkg:pypi/")}
    assert python == {f"pkg:pypi/{name}@{version}" for name, version in pinned}

    lock = tomllib.loads((REPOSITORY / "native/Cargo.lock").read_text())["package"]
    locked = {f"pkg:cargo/{crate['name']}@{crate['version']}": crate.get("checksum") for crate in lock}
    rust = {url: part for url, part in parts.items() if url.startswith("pkg:cargo/")}
    assert {url: part["hashes"][0]["content"] for url, part in rust.items()}.items() <= locked.items()
    assert {"pyo3", "zeroize"} <= {part["name"] for part in rust.values()}
    assert all(part["licenses"][0]["expression"] for part in rust.values())


def test_the_source_distribution_holds_what_a_build_reads(tmp_path: Path) -> None:
    maturin = Path(sys.executable).parent / "maturin"
    subprocess.run([maturin, "sdist", "--out", tmp_path], check=True, cwd=REPOSITORY, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    crates = [path for path in (REPOSITORY / "native").iterdir() if path.name not in ("fuzz", "target")]
    read = [*(REPOSITORY / "bpf").iterdir(), *(each for crate in crates for each in crate.rglob("*.rs"))]
    assert len(read) > 40
    assert {str(path.relative_to(REPOSITORY)) for path in read} <= held
