from __future__ import annotations

import os
from pathlib import Path

import pytest

from omninervous.lab.names import RunId, find_leftovers, process_start


def test_a_name_says_which_run_made_it() -> None:
    run = RunId.new()
    assert run.pid == os.getpid() and run.alive
    assert RunId.parse(run.name("edge-a")) == RunId.parse(str(run)) == run


def test_labs_of_one_process_have_names_of_their_own() -> None:
    assert RunId.new() != RunId.new()


@pytest.mark.parametrize(
    "name", ["", "omnilab", "omnilab-1-2", "omnilab-x-1-1-a", "netns", "omnilab-1-1-1x", "xomnilab-1-1-1"]
)
def test_other_names_are_not_ours(name: str) -> None:
    assert RunId.parse(name) is None


def test_a_pid_that_is_used_again_does_not_keep_a_dead_run_alive() -> None:
    started = process_start(os.getpid())
    assert started is not None
    assert not RunId(os.getpid(), started + 1, 1).alive


def test_what_outlives_a_run_is_no_leftover() -> None:
    assert RunId.parse(f"omni-autotest-logs-{RunId.new().tail}") is None


def test_leftovers_are_what_dead_runs_made(tmp_path: Path) -> None:
    names, temporary = tmp_path / "netns", tmp_path / "tmp"
    live, dead = RunId.new(), RunId(os.getpid(), 0, 1)
    for directory in (names, temporary):
        directory.mkdir()
        for name in (live.name("a"), dead.name("a"), "somebody-else"):
            (directory / name).mkdir()
    (temporary / str(dead)).mkdir()
    leftovers = find_leftovers(names, temporary)
    assert leftovers.namespaces == (dead.name("a"),)
    assert leftovers.directories == (temporary / str(dead), temporary / dead.name("a"))
    assert not find_leftovers(tmp_path / "absent", tmp_path / "absent")
