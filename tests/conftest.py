"""What all tests share: privilege, seeds, Hypothesis profiles.

- A test under tests/netns needs root. Without it the test fails, unless `--skip-privileged` was given.
- A random test takes the fixture `seed`. A failure prints the seed; `--seed N` runs with it again.
- Hypothesis profiles: `ci` (every run) and `long` (`make soak`; `--hypothesis-profile long`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".tools"

_SEED = pytest.StashKey[int]()

# No deadline and no complaint about slow data: two busy cores would make both a matter of luck.
settings.register_profile(
    "ci", max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("ci"), max_examples=5000)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skip-privileged", action="store_true", help="skip tests that need root instead of failing them")
    parser.addoption("--seed", type=int, default=None, help="seed of random tests (a failure prints the one it had)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below tests/netns carries the marker `netns`."""
    for item in items:
        if item.path.is_relative_to(REPOSITORY / "tests" / "netns"):
            item.add_marker("netns")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") is None:
        return
    missing = _missing_privilege()
    if missing and item.config.getoption("--skip-privileged"):
        pytest.skip(missing)
    if missing:
        pytest.fail(f"{missing} (or skip such tests with --skip-privileged)", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    seed = item.stash.get(_SEED, None)
    if report.failed and seed is not None:
        report.sections.append(("seed", f"run it again with: pytest '{item.nodeid}' --seed {seed}"))
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Another seed in every run, unless `--seed` names one; a failed test prints it."""
    given: int | None = request.config.getoption("--seed")
    chosen = random.SystemRandom().getrandbits(32) if given is None else given
    request.node.stash[_SEED] = chosen
    return chosen


@pytest.fixture(scope="session")
def wireguard_go() -> Path:
    """The program wireguard-go, an implementation that is not ours to talk to."""
    return _tool(TOOLS / "bin" / "wireguard", "no wireguard-go: install Go 1.23 or newer, then run make setup")


@pytest.fixture(scope="session")
def guest_kernels() -> Path:
    """Unpacked Debian kernel packages for virtual machines, each below its version: 5.10, 6.1, 6.12."""
    return _tool(TOOLS / "guest-kernels", "no guest kernels: make soak fetches them (scripts/setup.sh --soak)")


@pytest.fixture(scope="session")
def guest_kernel(guest_kernels: Path) -> Path:
    """The one that has been tried longest."""
    return guest_kernels / "6.1"


def _tool(path: Path, remedy: str) -> Path:
    if not path.exists():
        pytest.fail(remedy, pytrace=False)
    return path


def _missing_privilege() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root: run the tests with sudo"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun: mkdir -p /dev/net && mknod /dev/net/tun c 10 200"
    return None
