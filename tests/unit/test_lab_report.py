from __future__ import annotations

import io
import json

from rich.console import Console

from omninervous.errors import SystemFailure
from omninervous.lab.console import ConsoleProgress
from omninervous.lab.report import Check, Finding, Report, Row, RowFailed, run_checks
from omninervous.lab.tables import report_table


class Watcher:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def step(self, text: str) -> None:
        self.seen.append(f"step {text}")

    def row(self, row: Row) -> None:
        self.seen.append(f"row {row.name}")


def holds() -> Finding:
    return Finding(1.5, "ms", "seen")


def fails() -> Finding:
    raise RowFailed("nothing there")


def breaks_down() -> Finding:
    raise SystemFailure("`ping` was not found")


def test_a_row_that_needs_a_failed_one_is_not_tried_and_names_the_first_cause() -> None:
    watcher, tried = Watcher(), list[str]()
    rows = run_checks(
        [
            Check("a", (), holds),
            Check("b", ("a",), fails),
            Check("c", ("b",), holds),
            Check("d", ("a", "c"), holds),
            Check("e", ("a",), holds),
            Check("f", (), breaks_down),
        ],
        watcher,
        tried.append,
    )
    assert [(row.name, row.ok, row.evidence) for row in rows] == [
        ("a", True, "seen"),
        ("b", False, "nothing there"),
        ("c", False, "not tried: b failed"),
        ("d", False, "not tried: b failed"),
        ("e", True, "seen"),
        ("f", False, "`ping` was not found"),
    ]
    assert tried == ["a", "b", "e", "f"]
    assert watcher.seen[:4] == ["step a", "row a", "step b", "row b"]


def test_a_report_holds_if_all_rows_do() -> None:
    good, bad = Row("a", True, 1.5, "ms", "seen"), Row("b", False, None, "", "[cause]")
    assert Report((good,), 1).ok and not Report((good, bad), 1).ok
    assert json.loads(json.dumps(Report((good, bad), 1.234).to_json())) == {
        "rows": [
            {"name": "a", "ok": True, "value": 1.5, "unit": "ms", "evidence": "seen"},
            {"name": "b", "ok": False, "value": None, "unit": "", "evidence": "[cause]"},
        ],
        "seconds": 1.23,
    }


def test_causes_are_shown_as_they_are() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100)
    row = Row("b", False, None, "", "status says [bold]x[/bold]")
    ConsoleProgress(console).row(row)
    console.print(report_table(Report((row,), 1)))
    assert out.getvalue().count("[bold]x[/bold]") == 2
    assert "0 of 1 rows hold" in out.getvalue()
