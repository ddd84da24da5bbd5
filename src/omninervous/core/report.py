"""The snapshot of a Node: what `omni status`, `omni peers` and the metrics show."""

from __future__ import annotations

from collections.abc import Sequence

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import Link
from omninervous.core.events import NodeSnapshot, PeerStatus
from omninervous.core.neighbours import Neighbours
from omninervous.core.own import OwnAddress
from omninervous.core.peer import Peer
from omninervous.core.profile import Kind
from omninervous.core.roster import Roster
from omninervous.core.view import View

__all__ = ["snapshot"]


def snapshot(
    ctx: Context,
    now: Now,
    own: OwnAddress,
    neighbours: Neighbours,
    views: Sequence[View],
) -> NodeSnapshot:
    """The present state as frozen values."""
    shown = [peer for peer in neighbours.peers.values() if peer.profile.kind is not Kind.NUCLEUS]
    return NodeSnapshot(
        vip=own.claim if own.held else None,
        peers=tuple(_peer_status(peer, neighbours.roster, now) for peer in shown),
        nuclei=tuple(view.status() for view in views),
        problems=tuple(ctx.problems.values()),
        flood=neighbours.flood,
        sessions_active=sum(peer.up for peer in shown),
        handshakes_completed=ctx.counters.get("handshakes_completed", 0),
        rate_limited=ctx.counters.get("rate_limited", 0),
        counters=dict(ctx.counters),
        drops=dict(ctx.drops),
    )


def _peer_status(peer: Peer, roster: Roster, now: Now) -> PeerStatus:
    known = roster.find(peer.profile.id)
    sessions = peer.sessions.statuses(now)
    totals = peer.liveness.totals()
    paths = peer.path.statuses(now)
    return PeerStatus(
        peer=peer.profile.id,
        kind=peer.profile.kind.value,
        link=peer.link,
        state="up" if peer.up else "connecting" if peer.connecting else "idle",
        identity=peer.profile.identity,
        name="" if known is None else known.name,
        vip=None if known is None or known.claim is None else known.claim.address,
        mac=peer.mac,
        ula=None if known is None else str(known.ula),
        endpoint=peer.path.endpoint,
        path=paths[0] if paths and peer.up else None,
        alternatives=paths[1:],
        keepalive=peer.upkeep.interval if peer.link is Link.ETHERNET else None,
        proven=peer.path.proven,
        sessions=sessions,
        handshake_age=min((session.age for session in sessions), default=None),
        rx_bytes=totals.rx_bytes,
        tx_bytes=totals.tx_bytes,
        rx_packets=totals.rx_packets,
        tx_packets=totals.tx_packets,
        lanes=peer.lanes,
        aead=peer.aead,
    )
