"""Every outcome of a command: exit status and what the user reads."""

from __future__ import annotations

import pytest
import rich_click as click

from omninervous.cli.run import run
from omninervous.errors import DecodeError, SystemFailure, UserError


def outcome(error: BaseException | int, *words: str) -> int:
    @click.command()
    @click.option("--verbose", is_flag=True)
    def command(verbose: bool) -> int:
        if isinstance(error, int):
            return error
        raise error

    return run(command, "prog", words)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (UserError("--port 'x' is not\na port"), 2, "prog: --port 'x' is not a port\n"),
        (SystemFailure("no room"), 1, "prog: no room\n"),
        (DecodeError("odd"), 1, "prog: odd\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (click.UsageError("odd"), 2, "prog: odd (see prog --help)\n"),
    ],
)
def test_an_outcome_is_a_status_and_one_line(
    error: BaseException | int, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(error) == status
    captured = capsys.readouterr()
    assert captured.err == says and captured.out == ""


def test_a_bug_is_one_line_and_a_traceback_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ValueError("odd\nmore")) == 1
    short = capsys.readouterr().err
    assert "ValueError: odd" in short and short.count("\n") == 1 and "Traceback" not in short
    assert outcome(ValueError("odd"), "--verbose") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--nope"], ["extra"], ["--verbose=1"]])
def test_what_click_refuses_is_bad_input(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(0, *words) == 2
    assert capsys.readouterr().err.count("\n") == 1
