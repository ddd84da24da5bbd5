"""`omni cloud test`: a Nucleus and two edges on three machines over ssh, measured, and taken away again.

The bare path between the two nodes is measured as well: what the tunnel makes of it is what counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from omninervous.core.secret import check_secret
from omninervous.errors import UserError
from omninervous.lab.cloud_checks import MACHINES, TEARDOWN, CloudChecks
from omninervous.lab.cloud_hosts import HostSpec, Remote, SshOptions
from omninervous.lab.cloud_install import Release, copy_tree, install
from omninervous.lab.cloud_remote import CloudDaemon, stop_all
from omninervous.lab.process import ended_in_order
from omninervous.lab.report import Check, Finding, Progress, Report, RowFailed, run_checks

__all__ = ["CloudOptions", "run_cloud_nucleus", "run_cloud_stop", "run_cloud_sync", "run_cloud_test"]

_SERVICE = "nucleus-service"


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """What the operator asked for."""

    nucleus: HostSpec
    node_a: HostSpec
    node_b: HostSpec
    dist: Path
    ssh: SshOptions
    secret: str | None = field(default=None, repr=False)
    """None: one is made for this run."""
    port: int = 51820
    seconds: int = 3
    """Length of each iperf3 measurement."""


def run_cloud_test(options: CloudOptions, progress: Progress) -> Report:
    """Make all rows. UserError for bad options; whatever a machine does or does not do is in the report."""
    started = time.monotonic()
    specs = (options.nucleus, options.node_a, options.node_b)
    if len({spec.destination for spec in specs}) < len(specs):
        raise UserError("--nucleus, --node-a and --node-b must be three machines: one is given twice")
    if options.secret is not None:
        check_secret(options.secret)
    release = Release.open(options.dist)
    hosts = tuple(Remote(role, spec, options.ssh) for role, spec in zip(MACHINES, specs, strict=True))
    with ended_in_order():
        try:
            checks = CloudChecks(hosts, release, options.secret, options.port, options.seconds, progress.step)
            rows = run_checks(checks.in_order(), progress, _nothing)
            rows += run_checks([Check(TEARDOWN, (), lambda: _teardown(hosts))], progress, _nothing)
        except BaseException:
            # Ended by a signal, or by a bug: all the same nothing goes on running elsewhere.
            for failure in stop_all(hosts)[1]:
                progress.step(failure)
            raise
    return Report(tuple(rows), time.monotonic() - started)


def run_cloud_sync(spec: HostSpec, tree: Path, ssh: SshOptions) -> str:
    """Copy the source tree to a machine; the directory there."""
    host = Remote("machine", spec, ssh)
    host.look()
    return copy_tree(tree, host)


def run_cloud_nucleus(spec: HostSpec, dist: Path, ssh: SshOptions, port: int, progress: Progress) -> tuple[str, str]:
    """Install a Nucleus and (re)start it; what to give as --nucleus, and the name of its log there."""
    release = Release.open(dist)
    host = Remote(_SERVICE, spec, ssh)
    host.look()
    version = install(release, host, progress.step)
    daemon = CloudDaemon(host, state_dir=f"{host.directory}/state")
    for ended in daemon.stop():
        progress.step(f"ended {ended}")
    progress.step(f"starting {version} as a Nucleus on UDP port {port}")
    daemon.start("--mode", "nucleus", "--port", str(port))
    return f"{host.address()}:{port}#{daemon.ask('status')['identity']}", daemon.log


def run_cloud_stop(specs: tuple[HostSpec, ...], ssh: SshOptions) -> list[str]:
    """End all that `omni cloud` has started on these machines; what there was, in words."""
    found = []
    for spec in specs:
        for role in (*MACHINES, _SERVICE):
            host = Remote(role, spec, ssh)
            host.look()
            found += [f"{spec.destination}: {each}" for each in CloudDaemon(host).stop()]
    return found


def _teardown(hosts: tuple[Remote, ...]) -> Finding:
    ended, failures = stop_all(hosts)
    if failures:
        raise RowFailed("; ".join(failures))
    logs = ", ".join(CloudDaemon(host).log for host in hosts if host.reached)
    return Finding(len(ended), "ended", f"nothing left but the installation and logs: {logs or 'none'}")


def _nothing(_row: str) -> None:
    """No faults are made on purpose here."""
