"""The README's table and chart of a run: `omni bench --json > docs/bench.json`, then `python -m tests.bench.readme`.

A test compares both files with what this makes of `docs/bench.json`, so that no figure is ever typed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "bench.json"
CHART = ROOT / "docs" / "bench.svg"
README = ROOT / "README.md"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->"

BASELINE = "wireguard-go"
CONTESTANTS = ("omninervous", "omninervous-xdp", "omninervous-userspace", "omninervous-chacha", BASELINE, "raw")
HEADINGS = {
    "omninervous": "OmniNervous (tc)",
    "omninervous-xdp": "with XDP",
    "omninervous-userspace": "userspace (AES)",
    "omninervous-chacha": "userspace (ChaCha)",
    BASELINE: "wireguard-go",
    "raw": "no tunnel",
}
PROMISED = {
    "tcp1": "about 10 Gbit/s; line rate",
    "ping_flood": "about 100 us; < 10 us",
    "ping_2ms_p50": "about 100 us; < 10 us",
}
"""What was asked of the userspace mode, and of XDP; on which machine was not said."""

Row = dict[str, Any]


def table(report: Row) -> str:
    """The block between the README's markers."""
    machine = report["machine"]
    lines = [
        f"{machine['cpus']} cores of an {machine['cpu']}, kernel {machine['kernel']}, Python {machine['python']}, "
        f"{machine['date']}: `{machine['command']}`. Both ends, the load",
        "generator and the kernel share these cores, and a ping between namespaces crosses no wire: the *ratios* are "
        "what carries over. Medians of",
        f"{report['rounds']} interleaved rounds; in brackets the ratio to wireguard-go (the newest) of the same round, "
        'median and range. "Asked" are the figures of the',
        "project's first document for the userspace mode, and with XDP. The first column is `--ebpf auto`, which takes",
        "tc on these veth interfaces, the second `--ebpf xdp`, the userspace columns are `--ebpf off`.",
        "",
        f"| | {' | '.join(HEADINGS[name] for name in CONTESTANTS)} | Asked |",
        f"|---|{'---|' * (len(CONTESTANTS) + 1)}",
    ]
    for row in report["rows"]:
        results = {each["peer"]: each for each in row["results"]}
        cells = [_cell(results.get(name), name) for name in CONTESTANTS]
        title = f"{row['title']}, {row['unit']}"
        lines.append(f"| {title} | {' | '.join(cells)} | {PROMISED.get(row['name'], '')} |")
    lines += ["", "![Ratios to wireguard-go](docs/bench.svg)", ""]
    return "\n".join(lines)


def _cell(result: Row | None, name: str) -> str:
    if result is None or result["median"] is None:
        return "-"
    figure = _figure(result["median"])
    if name in (BASELINE, "raw") or not result["ratios"]:
        return figure
    low, high = _figure(min(result["ratios"])), _figure(max(result["ratios"]))
    return f"**{figure}** ({_figure(result['ratio'])}x, {low}-{high})"


def _figure(value: float) -> str:
    if value >= 1:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


# ---------------------------------------------------------------- chart

BAR, GAP, LEFT, WIDTH, TOP = 14, 14, 250, 860, 64
OURS = {
    "omninervous": "#2f7ed8",
    "omninervous-xdp": "#7cb5ec",
    "omninervous-userspace": "#8bbc21",
    "omninervous-chacha": "#c5dc90",
}
LARGEST = 16.0
"""Times; a longer bar is cut, and says its figure."""


def chart(report: Row) -> str:
    """Bars: how many times better than wireguard-go, whatever better means in a row. Readable on light and dark."""
    rows = [row for row in report["rows"] if _times(row)]
    height = TOP + len(rows) * (len(OURS) * BAR + GAP) + 30
    unit = (WIDTH - LEFT - 70) / LARGEST
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="24" font-size="15" font-weight="bold" fill="#222">Times better than wireguard-go, '
        "same machine, same round</text>",
    ]
    for number, (name, colour) in enumerate(OURS.items()):
        x = 16 + 190 * number
        out.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 18}" y="46" fill="#222">{escape(HEADINGS[name])}</text>')
    bottom = height - 24
    for mark in (0, 1, *range(2, int(LARGEST) + 1, 2)):
        at = LEFT + mark * unit
        dash = "" if mark == 1 else ' stroke-dasharray="2,4"'
        colour = "#cc3333" if mark == 1 else "#cccccc"
        out.append(f'<line x1="{at:.0f}" y1="{TOP - 6}" x2="{at:.0f}" y2="{bottom}" stroke="{colour}"{dash}/>')
        out.append(f'<text x="{at:.0f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{mark}x</text>')
    y = TOP
    for row in rows:
        out.append(
            f'<text x="{LEFT - 10}" y="{y + BAR + 4}" text-anchor="end" fill="#222">{escape(row["title"])}</text>'
        )
        for name, times in _times(row).items():
            length = min(times, LARGEST) * unit
            out.append(f'<rect x="{LEFT}" y="{y}" width="{length:.0f}" height="{BAR - 2}" fill="{OURS[name]}"/>')
            out.append(f'<text x="{LEFT + length + 6:.0f}" y="{y + BAR - 4}" fill="#222">{_figure(times)}x</text>')
            y += BAR
        y += GAP
    return "\n".join([*out, "</svg>", ""])


def _times(row: Row) -> dict[str, float]:
    ratios = {each["peer"]: each["ratio"] for each in row["results"] if each["ratio"]}
    better = {name: ratios[name] for name in OURS if name in ratios}
    return better if row["better"] == "higher" else {name: 1 / ratio for name, ratio in better.items()}


# ---------------------------------------------------------------- files


def with_table(readme: str, report: Row) -> str:
    """The README with the block made anew."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{table(report)}{END}{tail}"


def main(arguments: Sequence[str]) -> int:
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    report = json.loads(RESULTS.read_text())
    README.write_text(with_table(README.read_text(), report))
    CHART.write_text(chart(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
