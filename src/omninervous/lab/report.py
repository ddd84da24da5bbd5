"""Rows of a report, and the rule by which one row's failure keeps others from being tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from omninervous.errors import OmniError, SystemFailure

__all__ = ["Check", "Finding", "Progress", "Report", "Row", "RowFailed", "run_checks"]

Value = float | int | str | None


class RowFailed(SystemFailure):
    """What a row claims does not hold. The text is the cause."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was observed of something that holds."""

    value: Value
    unit: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results."""

    name: str
    ok: bool
    value: Value
    unit: str
    evidence: str
    """What was observed; for a row that is not ok, the cause."""


@dataclass(frozen=True, slots=True)
class Check:
    """How a row comes about."""

    name: str
    needs: tuple[str, ...]
    """Rows without which this one makes no sense; they come earlier."""
    measure: Callable[[], Finding]
    """Raises an OmniError with the cause if the row does not hold."""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of a run."""

    rows: tuple[Row, ...]
    seconds: float
    logs: Path | None = None
    """Where the logs are; None if they were not kept."""

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {"rows": [asdict(row) for row in self.rows], "seconds": round(self.seconds, 2)}


class Progress(Protocol):
    """Whoever watches a run."""

    def step(self, text: str) -> None:
        """Something begins."""

    def row(self, row: Row) -> None:
        """A row is known."""


def run_checks(checks: Sequence[Check], progress: Progress, before: Callable[[str], None]) -> list[Row]:
    """Make the rows in this order. A row that needs a failed one is not tried, and says which failure is to blame.

    `before` gets the name of every row that is tried, ahead of its measurement.
    """
    blame: dict[str, str] = {}
    rows = []
    for check in checks:
        culprit = next((blame[need] for need in check.needs if need in blame), None)
        if culprit is None:
            progress.step(check.name)
            row = _measure(check, before)
        else:
            row = Row(check.name, False, None, "", f"not tried: {culprit} failed")
        if not row.ok:
            blame[check.name] = culprit or check.name
        rows.append(row)
        progress.row(row)
    return rows


def _measure(check: Check, before: Callable[[str], None]) -> Row:
    try:
        before(check.name)
        finding = check.measure()
    except OmniError as error:
        return Row(check.name, False, None, "", str(error))
    return Row(check.name, True, finding.value, finding.unit, finding.evidence)
