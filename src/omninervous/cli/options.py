"""Options and output that the commands of `omni` share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from omninervous.hostos.state import CONFIG_VARIABLE, default_config_path, state_path

__all__ = ["chosen_state_dir", "json_option", "print_json", "state_dir_option"]

F = TypeVar("F", bound=Callable[..., Any])

_STATE_DIR = "omninervous.state-dir"


def state_dir_option(function: F) -> F:
    """`--state-dir`, before or behind the command."""
    return click.option(
        "--state-dir",
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="The daemon's directory. [default: as omni-daemon's]",
    )(function)


def _remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.meta[_STATE_DIR] = value


def chosen_state_dir(ctx: click.Context) -> Path:
    """The state directory that is meant: the option, else what the daemon's environment and file would say."""
    if _STATE_DIR in ctx.meta:
        return state_path(ctx.meta[_STATE_DIR])
    if CONFIG_VARIABLE not in os.environ and not default_config_path().exists():
        return state_path(os.environ.get("OMNI_STATE_DIR"))

    from omninervous.cli.layers import gather  # costs a tenth of a second

    return state_path(gather({}).text("state_dir"))


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def print_json(value: Any) -> None:  # noqa: ANN401
    """One object on stdout."""
    click.echo(json.dumps(value, indent=2))
