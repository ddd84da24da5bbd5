"""The metrics of a Nucleus: totals only, so that a hundred thousand edges make no more series than one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric

from omninervous.core.rendezvous import RendezvousSnapshot
from omninervous.hostos.metrics import common_metrics, labelled, value

__all__ = ["nucleus_metrics"]

_DROP = "drop_"
_MESSAGES = ("register", "heartbeat", "query_peer", "leave")
_EVENTS = ("registered", "expired", "displaced", "pushed", "push_limited", "push_impossible", "withheld", "hellos")


def nucleus_metrics(snapshot: RendezvousSnapshot, io: Mapping[str, int]) -> Iterable[Metric]:
    """`io`: what the daemon counts at its sockets."""
    counters = snapshot.counters
    yield from common_metrics(
        "nucleus",
        sessions=snapshot.sessions,
        packets_received=io.get("rx_packets", 0),
        handshakes=counters.get("handshakes_completed", 0),
        rate_limited=counters.get(f"{_DROP}rate_limited", 0) + counters.get("rate_limited_sources", 0),
    )
    yield value("omni_packets_tx_total", "Datagrams sent.", io.get("tx_packets", 0))
    for direction in ("rx", "tx"):
        text = f"UDP payload bytes {'received' if direction == 'rx' else 'sent'}."
        yield value(f"omni_bytes_{direction}_total", text, io.get(f"{direction}_bytes", 0))
    yield value("omni_registry_edges", "Edges that are registered.", snapshot.registry.edges)
    yield value("omni_registry_clusters", "Clusters that have a registered edge.", snapshot.registry.clusters)
    messages = {(each,): counters.get(f"rx_{each}", 0) for each in _MESSAGES}
    yield labelled("omni_messages_rx_total", "Signalling messages by type.", ("type",), messages.items())
    events = {(each,): counters.get(each, 0) for each in _EVENTS}
    yield labelled("omni_registry_events_total", "Registrations and pushes.", ("event",), events.items())
    drops = {(k.removeprefix(_DROP),): n for k, n in {**counters, **io}.items() if k.startswith(_DROP)}
    yield labelled("omni_drops_total", "What was dropped, by reason.", ("reason",), drops.items())
