"""`omni autotest`: all rows hold; each row fails when its matter is broken, and takes only its dependents along."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omninervous.errors import UserError
from omninervous.lab import checks
from omninervous.lab.autotest import AutotestOptions, run
from omninervous.lab.breakage import BREAKAGES
from omninervous.lab.daemons import find_command
from omninervous.lab.names import NAMESPACE_DIRECTORY

TIMEOUT = 240

TRAFFIC = {checks.DIRECT, checks.SEALED, checks.PING, checks.TCP, checks.UDP}
CONNECTION = {checks.NAT, checks.HANDSHAKE, checks.FDB} | TRAFFIC
DEPENDENTS = {
    checks.NUCLEUS: {checks.REGISTRATION_A, checks.REGISTRATION_B} | CONNECTION,
    checks.REGISTRATION_A: CONNECTION,
    checks.REGISTRATION_B: CONNECTION,
    checks.NAT: CONNECTION - {checks.NAT},
    checks.HANDSHAKE: {checks.FDB} | TRAFFIC,
    checks.FDB: TRAFFIC,
    checks.TCP: {checks.UDP},
}
"""What each row takes along; the others none."""


@dataclass(frozen=True)
class Run:
    """A finished `omni autotest`."""

    pid: int
    status: int
    out: str
    progress: str

    @property
    def report(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    @property
    def left(self) -> list[str]:
        """Its namespaces that are still there."""
        return [path.name for path in NAMESPACE_DIRECTORY.glob(f"omnilab-{self.pid}-*")]


def autotest(*arguments: str) -> Run:
    """Run it to its end."""
    with start(*arguments) as process:
        out, progress = process.communicate(timeout=TIMEOUT)
    return Run(process.pid, process.returncode, out, progress)


def start(*arguments: str) -> subprocess.Popen[str]:
    argv = [find_command("omni"), "autotest", *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def broken_runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[dict[str, Future[Run]], None, None]:
    """A run for every fault that the collected tests ask for; two at a time, for most of their time is waiting."""
    collected = " ".join(item.name for item in request.session.items if item.path == request.path)
    logs = tmp_path_factory.mktemp("logs")
    with ThreadPoolExecutor(2) as pool:
        yield {
            fault: pool.submit(autotest, "--json", "--break", fault, "--seconds", "1", "--logs", str(logs / fault))
            for fault in BREAKAGES
            if f"[{fault}]" in collected
        }
        pool.shutdown(cancel_futures=True)


def test_all_rows_hold_in_two_runs_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    logs = [tmp_path / "first", tmp_path / "second"]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda path: autotest("--json", "--seconds", "2", "--logs", str(path)), logs))
    for each, path in zip(runs, logs, strict=True):
        assert each.status == 0, each.progress
        assert [row["name"] for row in each.report["rows"] if row["ok"]] == list(checks.ROW_ORDER)
        assert f"logs: {path}" in each.progress
        assert {"edge-a.log", "nucleus.log", "ping.pcap"} <= {entry.name for entry in path.iterdir()}
        assert each.left == []


def test_a_failed_row_gives_status_1_and_keeps_the_logs() -> None:
    failed = autotest("--break", "nucleus")
    assert failed.status == 1
    assert "ended with status -9" in failed.progress and "1 of 12 rows hold" in failed.out
    logs = Path(failed.progress.partition("logs: ")[2].strip())
    assert (logs / "nucleus.log").exists()
    shutil.rmtree(logs)


def test_a_run_that_is_terminated_takes_its_cluster_away() -> None:
    with start() as process:
        assert process.stderr is not None
        for line in process.stderr:
            if checks.REGISTRATION_A in line:
                break
        process.terminate()
        _, progress = process.communicate(timeout=20)
    ended = Run(process.pid, process.returncode, "", progress)
    assert ended.status == 128 + signal.SIGTERM, progress
    assert ended.left == []


@pytest.mark.parametrize("fault", BREAKAGES)
def test_a_broken_row_fails_and_takes_only_its_dependents_along(
    fault: str, broken_runs: dict[str, Future[Run]]
) -> None:
    broken = BREAKAGES[fault].row
    done = broken_runs[fault].result()
    rows = {row["name"]: row for row in done.report["rows"]}
    failed = {name for name, row in rows.items() if not row["ok"]}
    assert failed == {broken} | DEPENDENTS.get(broken, set()), done.progress
    for name in failed - {broken}:
        assert rows[name]["evidence"] == f"not tried: {broken} failed"
    assert not rows[broken]["evidence"].startswith("not tried")
    assert done.status == 1 and done.left == []
    assert "logs: " in done.progress


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(UserError, match="choose one of nucleus, "):
        run(AutotestOptions(break_row="nonsense"))
