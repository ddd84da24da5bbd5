"""docs/METRICS.md and what the daemons export are one list."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric

from omninervous.core.events import NodeSnapshot
from omninervous.core.registry import RegistryStats
from omninervous.core.rendezvous import RendezvousSnapshot
from omninervous.ganglion.metrics import Durations, edge_metrics
from omninervous.hostos.metrics import queue_metrics
from omninervous.nucleus.metrics import nucleus_metrics

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "METRICS.md"
IDLE = NodeSnapshot(None, (), (), (), (), 0, 0, 0, {}, {})


def exported() -> Iterable[Metric]:
    yield from edge_metrics(IDLE, {}, ())
    yield from nucleus_metrics(RendezvousSnapshot(RegistryStats(0, 0), 0, {}), {})
    yield from queue_metrics(())
    yield from Durations().collect()


def name_of(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"`(omni_\w+)", DOCUMENT.read_text()))
    assert documented == {name_of(family) for family in exported()}


def test_every_family_says_what_it_is_and_has_few_labels() -> None:
    for family in exported():
        assert family.documentation and family.unit == ""
        series = {tuple((k, v) for k, v in each.labels.items() if k != "le") for each in family.samples}
        assert len(series) <= 32


def test_labels_never_come_from_a_peer() -> None:
    labels = {label for family in exported() for sample in family.samples for label in sample.labels}
    assert labels <= {"version", "mode", "direction", "lane", "state", "path", "type", "event", "le"}
