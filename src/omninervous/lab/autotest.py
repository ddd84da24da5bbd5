"""`omni autotest`: build a whole cluster on this machine, look at it from outside, take it away again."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from omninervous.errors import SystemFailure, UserError
from omninervous.hostos.control import SOCKET_NAME
from omninervous.lab import checks
from omninervous.lab.breakage import Breakage, find_breakage
from omninervous.lab.checks import Checks
from omninervous.lab.console import ConsoleProgress
from omninervous.lab.namespaces import Lab, clean_leftovers, require_privileges
from omninervous.lab.process import ended_in_order, run_command
from omninervous.lab.report import Check, Finding, Progress, Report, RowFailed, run_checks
from omninervous.lab.scene import Scene

__all__ = ["AutotestOptions", "run"]

_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AutotestOptions:
    """What the operator asked for."""

    json: bool = False
    """Print one JSON object (`Report.to_json`) instead of the table; the caller does."""
    keep: bool = False
    """Leave the machines and daemons as they are in the end; the next run removes them."""
    seconds: int = 3
    """Length of each iperf3 measurement through the tunnel."""
    break_row: str | None = None
    """Name of a fault to make on purpose (`breakage.BREAKAGES`)."""
    logs: Path | None = None
    """Directory that gets the logs and captures in any case; without it they are kept only if a row fails."""
    engine: str = "auto"
    """`--engine` of the edges."""


def run(options: AutotestOptions, progress: Progress | None = None) -> Report:
    """Make all rows. Progress goes to stderr unless `progress` is given.

    UserError for bad options, SystemFailure if the lab itself cannot be built; a row that fails is in the report.
    """
    started = time.monotonic()
    progress = progress or ConsoleProgress()
    breakage = find_breakage(options.break_row)
    if options.logs is not None and options.logs.exists() and not options.logs.is_dir():
        raise UserError(f"--logs {options.logs} is not a directory: name one")
    require_privileges()
    for leftover in clean_leftovers():
        progress.step(f"removed {leftover} of an earlier run")
    with ended_in_order(), Lab() as lab:
        return _Run(lab, options, breakage or Breakage(""), progress).run(started)


class _Run:
    """One run, from an open lab to a report."""

    def __init__(self, lab: Lab, options: AutotestOptions, breakage: Breakage, progress: Progress) -> None:
        self._lab = lab
        self._options = options
        self._breakage = breakage
        self._progress = progress
        self._interfaces = _overlay_interfaces()
        self._logs: Path | None = None
        progress.step("building the network: internet, Nucleus, two NATs, two edges")
        self._scene = Scene(lab, options.engine, breakage.traffic)

    def run(self, started: float) -> Report:
        scene = self._scene
        for nat in (scene.net.nat_a, scene.net.nat_b):
            nat.configure(self._breakage.policy(scene, nat, scene.policy(nat)))
        scene.start_nucleus()
        rows = run_checks(Checks(scene, self._options.seconds).in_order(), self._progress, self._before)
        if self._options.keep:
            self._lab.abandon()
            self._logs = self._lab.logs
        else:
            rows += run_checks([Check(checks.TEARDOWN, (), self._teardown)], self._progress, self._before)
            if self._logs is not None and self._options.logs is None and all(row.ok for row in rows):
                shutil.rmtree(self._logs)
                self._logs = None
        rows.sort(key=lambda row: checks.ROW_ORDER.index(row.name))
        return Report(tuple(rows), time.monotonic() - started, self._logs)

    def _before(self, row: str) -> None:
        if self._breakage.before is not None and self._breakage.before[0] == row:
            self._breakage.before[1](self._scene)

    def _teardown(self) -> Finding:
        """Daemons end in order and leave their machines as they found them; then the machines go, and leave nothing."""
        found = self._stop_daemons() + self._scene.left_on_machines()
        self._save_logs()
        try:
            self._lab.close()
        except SystemFailure as failure:
            found.append(str(failure))
        found += self._lab.remains()
        found += sorted(f"interface {name}" for name in _overlay_interfaces() - self._interfaces)
        if found:
            raise RowFailed(f"left behind: {'; '.join(found)}")
        evidence = "daemons ended with status 0; no process, interface, address, route, rule, socket, namespace, file"
        return Finding(0, "left behind", evidence)

    def _stop_daemons(self) -> list[str]:
        """SIGTERM to all that still run; what is wrong with their end, in words."""
        found = []
        for daemon in reversed(self._scene.started):
            if daemon.process.status is not None:
                continue  # killed on purpose, or another row has told why it ended
            status = daemon.process.stop(_STOP_SECONDS)
            if status:
                found.append(f"{daemon.name} ended with status {status} upon SIGTERM: {daemon.process.tail()}")
            elif (daemon.state_dir / SOCKET_NAME).exists():
                found.append(f"{daemon.name} left its control socket")
        return found

    def _save_logs(self) -> None:
        """Take the logs out of the directory that is about to go. They are dropped later if all is well."""
        target = self._options.logs or Path(tempfile.gettempdir()) / f"omni-autotest-logs-{self._lab.run.tail}"
        shutil.copytree(self._lab.logs, target, dirs_exist_ok=True)
        self._logs = target


def _overlay_interfaces() -> set[str]:
    """Interfaces of the namespace that we run in, which is nobody's playground, with a name as daemons give it."""
    listed = json.loads(run_command(["ip", "-j", "link"]).stdout)
    return {link["ifname"] for link in listed if link["ifname"].startswith("omni")}
