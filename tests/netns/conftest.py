"""Machines for the tests of this directory. Every test has its own; all is taken away again after a failure too."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from omninervous._native import Reflex
from omninervous.core.cookies import mac1_key
from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab, Namespace, clean_leftovers
from omninervous.lab.topology import Host, TwoNats
from omninervous.lab.topology import pair_lan as make_pair_lan
from omninervous.lab.topology import two_nats as make_two_nats
from tests.netns.reflex_packets import OUR_KEY, PORT

_LOG_LINES = 60
_LOOPBACK = 1

DaemonFactory = Callable[..., Daemon]


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> None:
    """What a killed test run left behind is removed first."""
    clean_leftovers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of every log that its lab wrote."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab) and lab.logs.exists():
        for log in sorted(lab.logs.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            report.sections.append((f"log {log.stem}", "\n".join(lines[-_LOG_LINES:])))
    return report


@pytest.fixture
def lab() -> Generator[Lab, None, None]:
    """Fresh machines: `lab.namespace(role)`; processes and files of the lab end with the test."""
    with Lab() as made:
        yield made


@pytest.fixture
def pair_lan(lab: Lab) -> tuple[Host, Host]:
    """Two machines on one wire."""
    return make_pair_lan(lab)


@pytest.fixture
def two_nats(lab: Lab) -> TwoNats:
    """A public host for a Nucleus, and two edges, each behind a port-restricted NAT of its own."""
    return make_two_nats(lab)


@pytest.fixture
def daemon(lab: Lab) -> DaemonFactory:
    """`daemon(host, name, *arguments)`: a running `omni-daemon` that answers on its control socket."""

    def start(where: Host | Namespace, name: str, *arguments: str) -> Daemon:
        namespace = where.namespace if isinstance(where, Host) else where
        return Daemon(lab, namespace, name).launch(*arguments).wait_ready()

    return start


@pytest.fixture
def lane() -> Generator[Reflex, None, None]:
    """The reflex lane's programs in the kernel, attached to nothing."""
    made = Reflex(_LOOPBACK, bytes([2, 0, 0, 0, 0, 2]), mac1_key(OUR_KEY), PORT, 16)
    yield made
    made.close()
