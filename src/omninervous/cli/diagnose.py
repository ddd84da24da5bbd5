"""What `omni doctor` and `omni bundle` look at: the daemon, if one runs, and what it would be started with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omninervous.cli.daemon_command import edge_config
from omninervous.cli.layers import gather
from omninervous.errors import SystemFailure, UserError
from omninervous.ganglion.config import EdgeConfig
from omninervous.ganglion.doctor import Finding, examine
from omninervous.hostos.control import NoDaemon, request

__all__ = ["diagnose"]


def diagnose(state_dir: Path, config: str | None) -> list[Finding]:
    """All that `omni doctor` finds. Without a daemon the configuration must be sound, for it says what to look at."""
    try:
        status, peers = request(state_dir, "status"), request(state_dir, "peers")["peers"]
    except NoDaemon:
        status, peers = None, []
    except SystemFailure as error:  # one runs, and what the host looks like without it is beside the point
        text, _, remedy = str(error).partition(": ")
        return [Finding("daemon", "fault", text, remedy)]
    try:
        wanted, faults = edge_config(gather({}, (), config)), []
    except UserError as error:
        wanted, faults = EdgeConfig(state_dir), [Finding("configuration", "fault", str(error), "omni config check")]
    return [*faults, *examine(replace(wanted, state_dir=state_dir), status, peers)]
