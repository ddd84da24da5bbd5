"""Progress for people: a line per event."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from omninervous.lab.report import Row

__all__ = ["ConsoleProgress", "value_text"]


class ConsoleProgress:
    """Progress on a console; stderr by default, so that stdout holds results only."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def step(self, text: str) -> None:
        self._console.print(Text(f"  .. {text}", style="dim"), soft_wrap=True)

    def row(self, row: Row) -> None:
        line = Text("  ok " if row.ok else "FAIL ", style="green" if row.ok else "bold red")
        line.append(f"{row.name}: ", style="bold")
        line.append("; ".join(part for part in (value_text(row), row.evidence) if part))
        self._console.print(line, soft_wrap=True)


def value_text(row: Row) -> str:
    """Value and unit of a row."""
    if row.value is None:
        return ""
    return f"{row.value:g} {row.unit}".strip() if isinstance(row.value, float) else f"{row.value} {row.unit}".strip()
