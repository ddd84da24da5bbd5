"""Options and output that the commands of `omni` share."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from omninervous.hostos.state import CONFIG_VARIABLE, default_config_path, state_path

__all__ = ["FileName", "Seconds", "chosen_state_dir", "engine_option", "json_option", "print_json", "state_dir_option"]

F = TypeVar("F", bound=Callable[..., Any])

_STATE_DIR = "omninervous.state-dir"


class FileName(click.Path):
    """A path; an empty one, which Python takes for the working directory, is refused."""

    def __init__(self, **rules: bool) -> None:
        super().__init__(path_type=Path, **rules)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        if value == "":
            self.fail("it is empty: name a file or directory", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A time span. NaN is in every range, for click compares with its ends."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


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


def engine_option(function: F) -> F:
    """`--engine` of what starts edges in the laboratory."""
    return click.option(
        "--engine",
        default="auto",
        show_default=True,
        metavar="NAME",
        callback=_known_engine,
        help="Data plane of the edges: auto, native or reference.",
    )(function)


def _known_engine(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    from omninervous.ganglion.engines import ENGINES  # costs what a mere --help need not

    if value not in ENGINES:
        raise click.BadParameter(f"{value!r} is unknown: give one of {', '.join(ENGINES)}")
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def print_json(value: Any) -> None:  # noqa: ANN401
    """One object on stdout."""
    click.echo(json.dumps(value, indent=2))
