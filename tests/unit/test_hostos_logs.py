"""Log lines: JSON where no person reads them, no secrets by construction of the callers."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest
import structlog

from omninervous.hostos import logs


@pytest.fixture(autouse=True)
def restored() -> Generator[None, None, None]:
    yield
    structlog.reset_defaults()


def test_without_a_terminal_each_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("auto")
    structlog.get_logger().info("up", port=5)
    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert (line["event"], line["level"], line["port"]) == ("up", "info", 5) and line["timestamp"].endswith("Z")
    assert captured.out == ""


def test_human_lines_have_colours_only_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("human")
    structlog.get_logger().warning("note", text="mind the gap")
    shown = capsys.readouterr().err
    assert "mind the gap" in shown and "\x1b" not in shown


@pytest.mark.parametrize(("verbose", "lines"), [(False, 0), (True, 1)])
def test_debug_lines_are_for_verbose(verbose: bool, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", verbose=verbose)
    structlog.get_logger().debug("detail")
    assert capsys.readouterr().err.count("\n") == lines


def test_a_flood_of_one_event_is_cut_counted_and_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    limit = logs.RateLimit(lambda: now[0])

    def passes(name: str) -> dict[str, object] | None:
        try:
            return dict(limit(None, "info", {"event": name}))
        except structlog.DropEvent:
            return None

    given = [passes("flood") for _ in range(1000)]
    assert len([each for each in given if each]) == logs.BURST
    assert passes("other") == {"event": "other"}
    now[0] = 1.0
    assert passes("flood") == {"event": "flood", "left_out": 1000 - logs.BURST}
    assert passes("flood") == {"event": "flood"}, "two a second"
    assert passes("flood") is None


def test_a_flood_reaches_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    for _ in range(1000):
        structlog.get_logger().info("flood")
    assert logs.BURST <= capsys.readouterr().err.count("\n") < 200
