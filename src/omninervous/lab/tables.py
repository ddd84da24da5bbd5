"""Results for people: tables."""

from __future__ import annotations

import statistics

from rich import box
from rich.table import Table
from rich.text import Text

from omninervous.lab.bench import BenchReport, BenchRow, Score
from omninervous.lab.console import value_text
from omninervous.lab.natlab import Meeting, NatLabReport
from omninervous.lab.report import Report

__all__ = ["bench_table", "nat_table", "report_table"]

_WHOLE_FROM = 100
"""Figures from here on are shown without decimals."""


def report_table(report: Report, what: str = "autotest") -> Table:
    """The results as a table."""
    held = sum(row.ok for row in report.rows)
    table = Table(title=f"OmniNervous {what}: {held} of {len(report.rows)} rows hold ({report.seconds:.0f} s)")
    table.add_column("")
    table.add_column("Row", no_wrap=True)
    table.add_column("Value")
    table.add_column("Evidence", overflow="fold")
    for row in report.rows:
        mark = Text("ok", style="green") if row.ok else Text("FAIL", style="bold red")
        table.add_row(mark, row.name, value_text(row), Text(row.evidence))
    return table


def bench_table(report: BenchReport) -> Table:
    """Medians with the spread, and the ratios to wireguard-go, round by round."""
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    title = f"Medians of {report.rounds} interleaved rounds; ratios to wireguard-go, each in its own round"
    table = Table(title=title, caption=machine, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in ("Median", "Lowest", "Highest", "Ratio", "Spread"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(Text(f"{row.title}, {row.unit}", style="bold"))
        for score in row.scores:
            table.add_row(f"  {score.peer}", *_score_texts(row, score))
    return table


def nat_table(report: NatLabReport) -> Table:
    """A line per pair of kinds, over all runs. Times are of those that met; a failed pair shows the oracle's reason."""
    held = sum(pair.ok for pair in report.pairs)
    title = f"{held} of {len(report.pairs)} pairs as the oracle says ({report.seconds:.0f} s)"
    if report.times is not None:
        title += f"; time to direct: median {report.times[0]:.2f} s, p99 {report.times[1]:.2f} s"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "Pair", "Oracle", "Observed"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Median", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    grouped: dict[tuple[str, str], list[Meeting]] = {}
    for pair in report.pairs:
        grouped.setdefault((pair.a, pair.b), []).append(pair)
    for (a, b), runs in grouped.items():
        seconds = [each.seconds for each in runs if each.seconds is not None]
        direct = sum(each.observed for each in runs)
        observed = f"{direct} of {len(runs)}" if 0 < direct < len(runs) else ("direct" if direct else "none")
        good = all(each.ok for each in runs)
        mark = Text("ok", style="green") if good else Text("FAIL", style="bold red")
        # By nearest rank, the 99th percentile of fewer than 100 runs is the slowest.
        times = [f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s"] if seconds else []
        table.add_row(mark, f"{a} - {b}", runs[0].oracle.value, observed, *times)
        if not good:
            where = ", ".join(each.internet for each in runs if not each.ok)
            table.add_row("", Text(f"  {runs[0].reason} ({where})", style="dim"))
    return table


def _score_texts(row: BenchRow, score: Score) -> tuple[str | Text, ...]:
    if score.median is None:
        return (Text(score.error or "-", style="red" if score.error else "dim"),)
    ratios = score.ratios(row.baseline)
    figures = [_figure(each) for each in (score.median, min(score.known), max(score.known))]
    spread = [f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}"] if ratios else []
    return (*figures, *spread)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= _WHOLE_FROM else f"{value:.3g}"
