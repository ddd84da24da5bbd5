"""The README's figures are those of `docs/bench.json`."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from omninervous.lab.bench_rows import ROWS
from tests.bench.readme import CHART, README, RESULTS, chart, table, with_table

REPORT = {
    "rounds": 3,
    "machine": {
        "cpus": "2",
        "cpu": "X <&>",
        "kernel": "6",
        "python": "3",
        "date": "2026-01-01",
        "command": "omni bench",
    },
    "rows": [
        {
            "name": "tcp1",
            "title": "TCP",
            "unit": "Gbit/s",
            "better": "higher",
            "results": [
                {"peer": "omninervous", "median": 4.0, "ratio": 2.5, "ratios": [2.0, 2.5, 12.0]},
                {"peer": "wireguard-go", "median": 1.6, "ratio": 1.0, "ratios": [1.0, 1.0, 1.0]},
            ],
        },
        {
            "name": "loaded_p99",
            "title": "ping <loaded>",
            "unit": "us",
            "better": "lower",
            "results": [
                {"peer": "omninervous", "median": 2000.0, "ratio": 0.2, "ratios": [0.2]},
                {"peer": "wireguard-go", "median": 10000.0, "ratio": 1.0, "ratios": [1.0]},
            ],
        },
    ],
}


def test_readme_and_chart_are_what_the_results_make() -> None:
    report = json.loads(RESULTS.read_text())
    readme = README.read_text()
    assert with_table(readme, report) == readme, "run: .venv/bin/python -m tests.bench.readme"
    assert chart(report) == CHART.read_text()
    assert {row["name"] for row in report["rows"]} == set(ROWS), "run the benchmark again: there are other rows now"


def test_a_row_shows_medians_ratios_and_their_range() -> None:
    lines = table(REPORT).splitlines()
    assert "| TCP, Gbit/s | **4** (2.5x, 2-12) | - | - | - | 1.6 | - | about 10 Gbit/s; line rate |" in lines
    assert "| ping <loaded>, us | **2,000** (0.20x, 0.20-0.20) | - | - | - | 10,000 | - |  |" in lines


def test_the_chart_shows_times_better_either_way() -> None:
    drawn = ElementTree.fromstring(chart(REPORT))
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "2.5x" in texts and "5x" in texts and "ping <loaded>" in texts
