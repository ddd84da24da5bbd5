from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from omninervous.errors import UserError
from omninervous.lab.bench import BenchOptions, BenchReport, BenchRow, Score, run
from omninervous.lab.bench_peers import BASELINE
from omninervous.lab.bench_rows import DISCIPLINES, ROWS
from omninervous.lab.tables import bench_table

ROW = BenchRow(
    "tcp1",
    "TCP, 1 stream",
    "Gbit/s",
    True,
    (
        Score("ours", (6.0, 1.0, 4.0)),
        Score(BASELINE, (2.0, 1.0, 2.0)),
        Score("broken", (None, None, None), "no route [to host]"),
        Score("partly", (None, 3.0, None), "lost"),
    ),
)


def test_medians_are_compared_to_the_baseline() -> None:
    ours, baseline, broken, partly = ROW.scores
    assert ours.median == 4.0 and ours.ratios(ROW.baseline) == [3.0, 1.0, 2.0]
    assert ours.ratio(ROW.baseline) == 2.0 and baseline.ratio(ROW.baseline) == 1.0
    assert partly.median == 3.0 and partly.ratios(ROW.baseline) == [3.0], "paired with its own round"
    assert broken.median is None and broken.ratio(ROW.baseline) is None
    assert ours.ratio(None) is None


def test_a_report_with_a_failed_contestant_is_not_ok_and_says_why() -> None:
    report = BenchReport((ROW,), 3, 12.34, {"kernel": "6.18", "cpus": "2"})
    assert not report.ok
    printed = json.loads(json.dumps(report.to_json()))
    assert printed["rows"][0]["better"] == "higher"
    assert [result["ratio"] for result in printed["rows"][0]["results"]] == [2.0, 1.0, None, 3.0]
    out = io.StringIO()
    Console(file=out, width=120).print(bench_table(report))
    assert (
        "2.00" in out.getvalue() and "no route [to host]" in out.getvalue() and "kernel 6.18, cpus 2" in out.getvalue()
    )


@pytest.mark.parametrize(
    "options", [BenchOptions(rows=("nonsense",)), BenchOptions(peers=("nobody",)), BenchOptions(rounds=0)]
)
def test_bad_options_are_refused_before_anything_is_made(options: BenchOptions) -> None:
    with pytest.raises(UserError):
        run(options)


def test_rows_have_names_of_their_own() -> None:
    assert len(ROWS) == sum(len(discipline.rows) for discipline in DISCIPLINES)
