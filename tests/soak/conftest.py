"""The machines of `tests/netns`, for tests that take minutes. Each module here says `soak` and its own time limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.conftest import daemon, lab, no_leftovers, pair_lan, pytest_runtest_makereport, two_nats

__all__ = ["daemon", "lab", "no_leftovers", "pair_lan", "pytest_runtest_makereport", "two_nats"]

_HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They need root like all that makes namespaces."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker("netns")
