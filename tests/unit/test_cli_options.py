"""Values that the command line must refuse by itself, before anything begins."""

from __future__ import annotations

import pytest

from omninervous.cli.omni import omni
from omninervous.cli.run import run
from omninervous.ganglion.engines import ENGINES
from omninervous.lab.bench_peers import DEFAULT_PEERS, PEERS


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("config check |", "it is empty: name a file"),
        ("bundle |", "it is empty: name a file"),
        ("service install --root |", "it is empty: name a file"),
        ("service remove --root |", "it is empty: name a file"),
        ("pcap --peer x --write |", "it is empty: name a file"),
        ("autotest --logs |", "it is empty: name a file"),
        ("cloud sync host --tree |", "it is empty: name a file"),
        ("pcap --peer x --seconds nan", "'nan' is not a number of seconds"),
        ("ping x --interval nan", "'nan' is not a number of seconds"),
        ("ping x --interval inf", "not in the range"),
        ("autotest --engine bogus", "'bogus' is unknown: give one of auto, native, reference"),
        ("bench --engine bogus", "'bogus' is unknown"),
        ("lab nat --engine bogus", "'bogus' is unknown"),
    ],
)
def test_bad_values_are_refused(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(omni, "omni", ["" if word == "|" else word for word in words.split()]) == 2
    told = capsys.readouterr()
    assert says in told.err and told.out == "" and told.err.count("\n") == 1


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(omni, "omni", [*words, "--help"]) == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_the_help_of_the_laboratory_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    told = help_of("bench", capsys=capsys)
    assert all(engine in told for engine in ENGINES)
    assert "all but fastd, nebula, tinc and omninervous-null (no cryptography)" in told
    assert set(PEERS) - set(DEFAULT_PEERS) == {"fastd", "nebula", "tinc", "omninervous-null"}
