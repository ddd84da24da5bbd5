"""`omni bench`: this project beside its peers, on this machine, in this run.

Every contestant gets two machines joined by a veth pair of its own. The contestants take turns, round by round, so that
a slow minute of the machine hits all of them. Each round gives a ratio to wireguard-go in the same round; the median of
these ratios is what travels from one machine to another.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import omninervous
from omninervous.errors import SystemFailure, UserError
from omninervous.lab.bench_peers import BASELINE, DEFAULT_PEERS, PEERS
from omninervous.lab.bench_rows import DISCIPLINES, ROWS, Discipline, Scene, Track
from omninervous.lab.console import ConsoleProgress
from omninervous.lab.namespaces import Lab, clean_leftovers, require_privileges
from omninervous.lab.process import poll_until
from omninervous.lab.report import Progress

__all__ = ["BenchOptions", "BenchReport", "BenchRow", "Score", "run"]

T = TypeVar("T")

_UP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What the operator asked for; empty tuples mean all rows, and the usual contestants."""

    rows: tuple[str, ...] = ()
    rounds: int = 5
    peers: tuple[str, ...] = ()
    seconds: int = 3
    """Length of one measurement."""
    engine: str = "auto"
    """`--engine` of the edges."""


@dataclass(frozen=True, slots=True)
class Score:
    """One contestant in one row."""

    peer: str
    values: tuple[float | None, ...]
    """One a round; None where it failed or has no such figure."""
    error: str = ""
    """Why the last failed round failed."""

    @property
    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def median(self) -> float | None:
        return statistics.median(self.known) if self.known else None

    def ratios(self, baseline: Score | None) -> list[float]:
        """To the baseline, of each round that both finished."""
        if baseline is None:
            return []
        pairs = zip(self.values, baseline.values, strict=True)
        return [mine / other for mine, other in pairs if mine is not None and other]

    def ratio(self, baseline: Score | None) -> float | None:
        """Median of the rounds' ratios."""
        ratios = self.ratios(baseline)
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One figure of all contestants."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    scores: tuple[Score, ...]

    @property
    def baseline(self) -> Score | None:
        return next((score for score in self.scores if score.peer == BASELINE), None)


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The results, and what they were measured on."""

    rows: tuple[BenchRow, ...]
    rounds: int
    seconds: float
    machine: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return not any(score.error for row in self.rows for score in row.scores)

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        rows = []
        for row in self.rows:
            results = [
                {
                    "peer": score.peer,
                    "values": list(score.values),
                    "median": score.median,
                    "ratio": score.ratio(row.baseline),
                    "ratios": score.ratios(row.baseline),
                    "error": score.error,
                }
                for score in row.scores
            ]
            better = "higher" if row.higher_is_better else "lower"
            rows.append({"name": row.name, "title": row.title, "unit": row.unit, "better": better, "results": results})
        return {"rows": rows, "rounds": self.rounds, "seconds": round(self.seconds, 1), "machine": dict(self.machine)}


def run(options: BenchOptions, progress: Progress | None = None) -> BenchReport:
    """Measure. UserError for bad options, SystemFailure if a contestant cannot be set up."""
    rows = _chosen(options.rows, ROWS, tuple(ROWS), "--rows")
    peers = _chosen(options.peers, PEERS, DEFAULT_PEERS, "--peers")
    if options.rounds < 1 or options.seconds < 1:
        raise UserError("--rounds and --seconds are 1 or more")
    disciplines = [each for each in DISCIPLINES if any(row.name in rows for row in each.rows)]
    progress = progress or ConsoleProgress()
    require_privileges()
    clean_leftovers()
    started = time.monotonic()
    scores: dict[str, list[Score]] = {}
    for scene in dict.fromkeys(each.scene for each in disciplines):
        # Machines of one scene only: what a thousand peers cost would be in every other figure.
        scores |= _play(scene, options, [each for each in disciplines if each.scene == scene], peers, progress)
    results = tuple(
        BenchRow(row, ROWS[row].title, ROWS[row].unit, ROWS[row].higher_is_better, tuple(scores[row])) for row in rows
    )
    return BenchReport(results, options.rounds, time.monotonic() - started, _machine(options))


def _play(
    scene: Scene, options: BenchOptions, disciplines: Sequence[Discipline], peers: Sequence[str], progress: Progress
) -> dict[str, list[Score]]:
    """All rounds of one scene, by row."""
    with Lab() as lab:
        tracks = {}
        for peer in peers:
            progress.step(f"setting up {peer}{f', {scene.name}' if scene.name else ''}")
            tracks[peer] = PEERS[peer](lab, scene, options.engine)
            _wait_until_passable(tracks[peer], peer)
        return _take_turns(options, disciplines, tracks, progress)


def _take_turns(
    options: BenchOptions,
    disciplines: Sequence[Discipline],
    tracks: Mapping[str, Track],
    progress: Progress,
) -> dict[str, list[Score]]:
    rows = [row.name for discipline in disciplines for row in discipline.rows]
    values: dict[tuple[str, str], list[float | None]] = {(row, peer): [] for row in rows for peer in tracks}
    errors: dict[tuple[str, str], str] = {}
    for number in range(1, options.rounds + 1):
        for discipline in disciplines:
            for peer, track in tracks.items():
                name = f"{discipline.name}-{peer}-{number}"
                found: Mapping[str, float] = {}
                try:
                    found = discipline.measure(track, options.seconds, name)
                except SystemFailure as error:
                    errors.update({(row.name, peer): str(error) for row in discipline.rows})
                    progress.step(f"round {number}: {discipline.name}: {peer}: failed: {error}")
                for row in discipline.rows:
                    values[row.name, peer].append(found.get(row.name))
                shown = ", ".join(f"{ROWS[row].title} {value:.4g} {ROWS[row].unit}" for row, value in found.items())
                progress.step(f"round {number}: {peer}: {shown}")
    return {
        row: [Score(peer, tuple(values[row, peer]), errors.get((row, peer), "")) for peer in tracks] for row in rows
    }


def _wait_until_passable(track: Track, peer: str) -> None:
    def answers() -> bool:
        return track.source.run("ping", "-c", "1", "-W", "1", str(track.target), check=False).returncode == 0

    if not poll_until(answers, _UP_SECONDS):
        logs = {process.name: process.tail() for process in track.processes}
        raise SystemFailure(f"{peer}: {track.target} does not answer within {_UP_SECONDS:.0f} s; {logs}")


def _chosen(asked: tuple[str, ...], known: Mapping[str, T], usual: tuple[str, ...], option: str) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            raise UserError(f"{option} {name!r} is unknown: choose of {', '.join(known)}")
    return asked or usual


def _machine(options: BenchOptions) -> dict[str, str]:
    """What the figures were measured on, and how."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": omninervous.__version__,
        "kernel": platform.release(),
        "cpu": model,
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        "engine": options.engine,
        "command": " ".join(["omni", *sys.argv[1:]]),
    }
