"""What `omni status` and `omni peers` say: JSON objects made from snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import omninervous
from omninervous.core.dataplane import Link
from omninervous.core.events import NodeSnapshot, NucleusStatus, PathStatus, PeerStatus, Problem, SessionStatus
from omninervous.core.identity import wireguard_text
from omninervous.ganglion.config import EdgeConfig
from omninervous.wire.address import format_mac
from omninervous.wire.keytext import encode_key
from omninervous.wire.membership import VipClaim

__all__ = ["EngineView", "OverlayView", "edge_peers", "edge_status", "missing"]

_DROP = "drop_"


@dataclass(frozen=True, slots=True)
class OverlayView:
    """The overlay interface as the kernel has it now."""

    name: str
    mac: bytes
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the engine reports."""

    name: str
    counters: Mapping[str, int]
    learned: Mapping[bytes, float] = field(default_factory=dict)
    bulk_queues: int = 0
    """Beside an express queue; 0: one queue carries everything."""
    single_because: str = ""


def missing(config: EdgeConfig) -> list[str]:
    """What the operator must still give before this edge can meet anybody."""
    if config.peers or (config.nuclei and config.cluster):
        return []
    if config.cluster is None:
        return ["no --nucleus/--cluster and no --peer: give --nucleus HOST --cluster NAME, or --peer KEY"]
    return ["no --nucleus: only members known from earlier runs can be met"]


def edge_status(
    config: EdgeConfig,
    identity: bytes,
    x25519: bytes,
    snapshot: NodeSnapshot,
    overlay: OverlayView,
    engine: EngineView,
    reflex: Mapping[str, Any],
    captures: Sequence[Mapping[str, Any]],
    now_boot: float,
    extra_problems: Iterable[Problem] = (),
) -> dict[str, Any]:
    """The object of `omni status --json`."""
    return {
        "mode": "edge",
        "version": omninervous.__version__,
        "pid": os.getpid(),
        "identity": encode_key(identity),
        "wireguard_public_key": wireguard_text(x25519),
        "interface": {
            "name": overlay.name,
            "mac": format_mac(overlay.mac),
            "mtu": overlay.mtu,
            "addresses": list(overlay.addresses),
        },
        "engine": engine.name,
        "queues": {
            "bulk": max(1, engine.bulk_queues),
            "express": engine.bulk_queues > 0,
            "reason": engine.single_because or None,
        },
        "reflex": reflex,
        "captures": list(captures),
        "port": config.port,
        "cluster": config.cluster,
        "vip": _vip(snapshot.vip),
        "nuclei": [_nucleus(each) for each in snapshot.nuclei],
        "named_peers": [
            {"wireguard_public_key": wireguard_text(each.x25519), "endpoint": each.endpoint and str(each.endpoint)}
            for each in config.peers
        ],
        "sessions_active": snapshot.sessions_active,
        "handshakes_completed": snapshot.handshakes_completed,
        "rate_limited": snapshot.rate_limited,
        "counters": _sum(snapshot.counters, {k: n for k, n in engine.counters.items() if not k.startswith(_DROP)}),
        "drops": _sum(
            snapshot.drops,
            {k.removeprefix(_DROP): n for k, n in engine.counters.items() if k.startswith(_DROP) and n},
        ),
        "fdb": _fdb(snapshot.peers, engine.learned, now_boot),
        "problems": [_problem(each) for each in (*snapshot.problems, *extra_problems)],
        "missing": missing(config),
    }


def edge_peers(snapshot: NodeSnapshot) -> dict[str, Any]:
    """The object of `omni peers --json`."""
    return {"peers": [_peer(each) for each in snapshot.peers if each.link is not Link.SIGNALLING]}


def _vip(claim: VipClaim | None) -> dict[str, Any] | None:
    if claim is None:
        return None
    return {
        "address": str(claim.address),
        "prefix": claim.prefix,
        "source": "explicit" if claim.explicit else "derived",
        "derivation": claim.derivation,
    }


def _nucleus(status: NucleusStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "endpoint": None if status.endpoint is None else str(status.endpoint),
        "identity": None if status.identity is None else encode_key(status.identity),
        "state": status.state,
        "registered": status.registered,
        "version": status.version,
        "observed": None if status.observed is None else str(status.observed),
        "hint": status.hint,
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {"code": problem.code, "text": problem.text, "subject": problem.subject}


def _fdb(peers: Iterable[PeerStatus], learned: Mapping[bytes, float], now_boot: float) -> list[dict[str, Any]]:
    return [
        {
            "mac": format_mac(peer.mac),
            "peer": _peer_text(peer),
            "vip": None if peer.vip is None else str(peer.vip),
            "learned": peer.mac in learned,
            "age_seconds": round(now_boot - learned[peer.mac], 3) if peer.mac in learned else None,
        }
        for peer in peers
        if peer.mac is not None
    ]


def _peer(peer: PeerStatus) -> dict[str, Any]:
    return {
        "identity": None if peer.identity is None else encode_key(peer.identity),
        "wireguard_public_key": wireguard_text(peer.peer),
        "name": peer.name,
        "vip": None if peer.vip is None else str(peer.vip),
        "mac": None if peer.mac is None else format_mac(peer.mac),
        "ula": peer.ula,
        "kind": peer.kind,
        "state": peer.state,
        "endpoint": None if peer.endpoint is None else str(peer.endpoint),
        "path": None if peer.path is None else _path(peer.path) | {"alternatives": list(map(_path, peer.alternatives))},
        "keepalive_seconds": peer.keepalive,
        "proven": peer.proven,
        "sessions": [_session(each) for each in peer.sessions],
        "handshake_age_seconds": None if peer.handshake_age is None else round(peer.handshake_age, 3),
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "rx_packets": peer.rx_packets,
        "tx_packets": peer.tx_packets,
        "lanes": list(peer.lanes),
        "aead": None if peer.aead is None else peer.aead.name.lower().replace("_", "-"),
    }


def _path(path: PathStatus) -> dict[str, Any]:
    return {
        "kind": path.kind,
        "rtt_ms": None if path.rtt is None else round(path.rtt * 1000, 3),
        "endpoint": str(path.endpoint),
    }


def _session(session: SessionStatus) -> dict[str, Any]:
    return {
        "id": session.session_id.hex(),
        "initiator": session.initiator,
        "age_seconds": round(session.age, 3),
        "current": session.current,
    }


def _peer_text(peer: PeerStatus) -> str:
    return wireguard_text(peer.peer) if peer.identity is None else encode_key(peer.identity)


def _sum(*tables: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for table in tables:
        for name, number in table.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))
