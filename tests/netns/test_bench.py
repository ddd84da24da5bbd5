"""`omni bench` measures every contestant in every row."""

from __future__ import annotations

import json

import pytest

from omninervous.lab.bench_peers import DEFAULT_PEERS, PEERS
from omninervous.lab.bench_rows import ROWS
from omninervous.lab.daemons import find_command
from omninervous.lab.process import run_command

SHORT = ("raw", "omninervous", "wireguard-go")
WITHOUT_A_TUNNEL = {
    *("memory", "memory_loaded", "memory_1000", "cpu_per_gb"),
    *("junk_session", "junk_initiation", "junk_noise", "junk_p99"),
}
"""Figures that a bare wire has not."""
WITH_PROGRAMS = {"program_session", "program_tag"}
"""Figures that only the kernel's lane has."""


def bench(*arguments: str, seconds: float) -> tuple[int, list[dict[str, object]]]:
    argv = [find_command("omni"), "bench", "--json", "--rounds", "1", "--seconds", "1", *arguments]
    done = run_command(argv, check=False, seconds=seconds)
    rows: list[dict[str, object]] = json.loads(done.stdout)["rows"]
    return done.returncode, rows


@pytest.mark.timeout(300)
def test_a_short_run_has_a_figure_for_everybody() -> None:
    status, rows = bench("--peers", ",".join(SHORT), seconds=280)
    assert status == 0, rows
    assert [row["name"] for row in rows] == list(ROWS)
    for row in rows:
        results = {each["peer"]: each["median"] for each in row["results"]}  # type: ignore[attr-defined]
        assert tuple(results) == SHORT
        without = {"raw"} if row["name"] in WITHOUT_A_TUNNEL else set()
        without |= {"raw", "wireguard-go"} if row["name"] in WITH_PROGRAMS else set()
        assert {peer for peer, median in results.items() if not median} == without, row


def test_the_usual_contestants_take_part() -> None:
    status, rows = bench("--rows", "ping_flood", seconds=100)
    assert status == 0, rows
    assert tuple(each["peer"] for each in rows[0]["results"]) == DEFAULT_PEERS  # type: ignore[attr-defined]


@pytest.mark.soak
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer not in DEFAULT_PEERS])
def test_other_contestants_take_part_if_asked_for(peer: str) -> None:
    status, rows = bench("--peers", peer, "--rows", "tcp1,ping_flood,jumbo", seconds=1500)  # one is built first
    assert status == 0, rows


def test_an_unknown_row_or_contestant_is_named_with_the_choice() -> None:
    for arguments, choice in ((("--rows", "tcp99"), "tcp1"), (("--peers", "wires"), "wireguard-go")):
        done = run_command([find_command("omni"), "bench", *arguments], check=False)
        assert done.returncode == 2 and arguments[1] in done.stderr and choice in done.stderr
