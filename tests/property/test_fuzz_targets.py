"""Every target of tests/fuzz for a moment: `make fuzz` gives each a minute, `make soak` a quarter of an hour."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "fuzz"
TARGETS = sorted(path.stem for path in FOLDER.glob("fuzz_*.py"))
SECONDS = 1.0


@pytest.mark.parametrize("target", TARGETS)
def test_its_invariant_holds(target: str, seed: int) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")
    assert sum(module.run(SECONDS, seed).values()) > 0
