"""The metrics of an edge. Labels come from code and configuration alone: there are few of them, however many peers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric

from omninervous.core.dataplane import Link
from omninervous.core.events import NodeSnapshot, PeerStatus, Problem
from omninervous.core.pathkind import PathKind
from omninervous.hostos.metrics import common_metrics, labelled, value

__all__ = ["PATHS", "edge_metrics"]

PATHS = (*(kind.value for kind in PathKind), "relayed")
"""Kinds of paths that frames can take (`PeerStatus.path`)."""
_STATES = ("up", "connecting", "idle")
_LANE = re.compile(r"lane(\d)_(rx|tx)_(packets|bytes)")
_LANES = 9
_DROP = "drop_"


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
