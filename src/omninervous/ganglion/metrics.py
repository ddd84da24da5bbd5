"""The metrics of an edge. Labels come from code and configuration alone: there are few of them, however many peers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric

from omninervous.core.dataplane import Link
from omninervous.core.events import NodeSnapshot, PeerStatus, Problem
from omninervous.core.pathkind import PathKind
from omninervous.hostos.metrics import common_metrics, labelled, value

__all__ = ["PATHS", "Durations", "edge_metrics"]

PATHS = (*(kind.value for kind in PathKind), "relayed")
"""Kinds of paths that frames can take (`PeerStatus.path`)."""
_STATES = ("up", "connecting", "idle")
_LANE = re.compile(r"lane(\d)_(rx|tx)_(packets|bytes)")
_LANES = 9
_DROP = "drop_"
_HANDSHAKE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)
_ROUND_TRIP_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds. A challenge is given up after one and a half."""


def edge_metrics(snapshot: NodeSnapshot, engine: Mapping[str, int], problems: Iterable[Problem]) -> Iterable[Metric]:
    """All but what the daemon measures itself. `engine`: the engine's counters."""
    peers = [each for each in snapshot.peers if each.link is not Link.SIGNALLING]
    yield from common_metrics(
        "edge",
        sessions=snapshot.sessions_active,
        packets_received=engine.get("rx_packets", 0),
        handshakes=snapshot.handshakes_completed,
        rate_limited=snapshot.rate_limited,
    )
    yield value("omni_packets_tx_total", "Datagrams sealed and sent.", engine.get("tx_packets", 0))
    yield from _lane_metrics(engine)
    yield from _drop_metrics(snapshot.drops, engine)
    yield from _peer_metrics(peers)
    rekeys = snapshot.counters.get("rekeys", 0)
    yield value("omni_rekeys_total", "Handshakes that renewed a session which was up.", rekeys)
    yield value("omni_fdb_entries", "MAC addresses that frames can be sent to.", sum(p.mac is not None for p in peers))
    yield value("omni_flood_peers", "Peers that get our broadcasts.", len(snapshot.flood))
    registered = {(each.name,): float(each.registered) for each in snapshot.nuclei}
    yield labelled(
        "omni_nucleus_registered", "Whether this edge is registered there.", ("nucleus",), registered.items()
    )
    codes = Counter((each.code,) for each in problems)
    yield labelled("omni_problems", "Problems that `omni status` shows, by their code.", ("code",), codes.items())


def _lane_metrics(engine: Mapping[str, int]) -> Iterable[Metric]:
    for what, text in (("packets", "Datagrams"), ("bytes", "Bytes of UDP payload")):
        rows: dict[tuple[str, ...], float] = {
            (str(lane), direction): 0 for lane in range(_LANES) for direction in ("rx", "tx")
        }
        for name, number in engine.items():
            found = _LANE.fullmatch(name)
            if found and found[3] == what:
                rows[found[1], found[2]] = number
        yield labelled(f"omni_lane_{what}_total", f"{text} by lane.", ("lane", "direction"), rows.items())


def _drop_metrics(control: Mapping[str, int], engine: Mapping[str, int]) -> Iterable[Metric]:
    rows = {(reason, "control"): number for reason, number in control.items()}
    rows |= {(k.removeprefix(_DROP), "data"): number for k, number in engine.items() if k.startswith(_DROP)}
    yield labelled("omni_drops_total", "What was dropped, by reason and plane.", ("reason", "plane"), rows.items())


def _peer_metrics(peers: Iterable[PeerStatus]) -> Iterable[Metric]:
    states = Counter(each.state for each in peers)
    yield labelled("omni_peers", "Peers by state.", ("state",), [((each,), states[each]) for each in _STATES])
    paths = Counter(dict.fromkeys(PATHS, 0))
    paths.update(each.path.kind for each in peers if each.path is not None)
    yield labelled("omni_peer_paths", "Peers that are up, by path.", ("path",), [((k,), n) for k, n in paths.items()])


class Durations:
    """What is not counted but timed, as histograms."""

    def __init__(self) -> None:
        text = "From the wish to reach a peer to its confirmed session."
        self._handshakes = Histogram("omni_handshake_duration_seconds", text, registry=None, buckets=_HANDSHAKE_BUCKETS)
        text = "Round trips of challenges to peers, by the path that their frames take."
        self._round_trips = Histogram(
            "omni_peer_rtt_seconds", text, ("path",), registry=None, buckets=_ROUND_TRIP_BUCKETS
        )
        for kind in PathKind:
            self._round_trips.labels(kind.value)  # there from the start, at zero

    def handshake(self, seconds: float) -> None:
        """A peer is up, so long after it was wanted."""
        self._handshakes.observe(seconds)

    def round_trip(self, kind: PathKind, seconds: float) -> None:
        """A challenge came back."""
        self._round_trips.labels(kind.value).observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """For a scrape."""
        yield from self._handshakes.collect()
        yield from self._round_trips.collect()
