"""The daemon's side of `omni ping`, `omni why` and `omni netcheck`."""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from omninervous.core.dataplane import Link, PeerId
from omninervous.core.diagnosis import diagnose
from omninervous.core.events import NodeSnapshot, PeerStatus
from omninervous.core.identity import x25519_of
from omninervous.core.natview import count_of, mapping_of
from omninervous.core.node import Node
from omninervous.core.trials import Trial
from omninervous.errors import UserError
from omninervous.ganglion.addresses import Underlay
from omninervous.ganglion.netcheck import Findings, Server, examine, hints
from omninervous.hostos import clock
from omninervous.wire.address import Endpoint
from omninervous.wire.keytext import encode_key

__all__ = ["PathTools"]

_LOOK_EVERY = 0.005
_CALL_EVERY = 0.5
_PATIENCE = 2.0
"""Seconds that one ping waits."""
_REFUSALS = {errno.ENETUNREACH: "no route", errno.EHOSTUNREACH: "host unreachable", errno.EMSGSIZE: "too big"}


class PathTools:
    """Answers control commands; `drain` carries out what the Node wants."""

    COMMANDS = ("ping", "why", "netcheck")

    def __init__(
        self,
        node: Node,
        drain: Callable[[], None],
        underlay: Callable[[], Underlay | None],
        port_mapping: Callable[[], dict[str, Any]],
        iface: str | None,
    ) -> None:
        self._node = node
        self._drain = drain
        self._underlay = underlay
        self._port_mapping = port_mapping
        self._iface = iface

    async def answer(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One of COMMANDS. UserError when nobody is meant by `peer`."""
        if command == "netcheck":
            return await self._netcheck()
        who = str(arguments.get("peer", ""))
        return await self._ping(who) if command == "ping" else self._why(who)

    # ------------------------------------------------------------ ping

    async def _ping(self, who: str) -> dict[str, Any]:
        began = clock.now().boot
        target, call_at = self._target(who), began
        while (now := clock.now()).boot < began + _PATIENCE:
            if now.boot >= call_at:
                call_at = now.boot + _CALL_EVERY
                key = self._node.call(now, target)
                self._drain()
            peer = None if key is None else self._find(key)
            if peer is not None and peer.link is not Link.ETHERNET:
                raise UserError(f"{who} is a stock WireGuard peer, which answers no challenge: ping its address")
            if peer is not None and _answered(peer, began):
                return {"peer": who, "ok": True, "state": peer.state, **_way(peer)}
            await asyncio.sleep(_LOOK_EVERY)
        state = "unknown" if key is None or peer is None else peer.state
        return {"peer": who, "ok": False, "state": state, "path": None, "lane": None}

    def _target(self, who: str) -> PeerId | IPv4Address | IPv6Address:
        """What a name, an address or a key (or the beginning of one) means."""
        try:
            return ip_address(who)
        except ValueError:
            pass
        peers = self._node.snapshot(clock.now()).peers
        found = [each for each in peers if each.name == who] or [
            each for each in peers if _key_text(each).startswith(who)
        ]
        if len(found) == 1 and who:
            return found[0].peer
        if len(found) > 1:
            raise UserError(f"{who!r} means {len(found)} peers: give an address or more of the key")
        raise UserError(
            f"no peer is known by the name or key {who!r}: omni peers lists them, or give its virtual address"
        )

    def find(self, who: str, snapshot: NodeSnapshot) -> PeerStatus:
        """The peer that is meant by a name, an address or a key. UserError if there is none."""
        target = self._target(who)
        for each in snapshot.peers:
            if target in (each.peer, each.vip) or str(target) == each.ula:
                return each
        known = "no Nucleus answers that could be asked"
        if any(each.registered for each in snapshot.nuclei):
            known = "the Nucleus is asked when something is sent there: try omni ping"
        raise UserError(f"nobody is known who has {who}: {known}")

    def _find(self, key: PeerId) -> PeerStatus | None:
        return next((each for each in self._node.snapshot(clock.now()).peers if each.peer == key), None)

    # ------------------------------------------------------------ why

    def _why(self, who: str) -> dict[str, Any]:
        now = clock.now()
        snapshot = self._node.snapshot(now)
        peer = self.find(who, snapshot)
        trials = self._node.trials(peer.peer)
        found = diagnose(peer, trials, snapshot, mapping_of(self._views(4), self._own()))
        return {
            "peer": _key_text(peer),
            "name": peer.name,
            "vip": None if peer.vip is None else str(peer.vip),
            "state": peer.state,
            **_way(peer),
            "tried": [_trial(each, now.boot) for each in trials],
            "nuclei": [
                {"name": each.name, "registered": each.registered, "hint": each.hint} for each in snapshot.nuclei
            ],
            "cause": found.cause,
            "remedy": found.remedy,
        }

    # ------------------------------------------------------------ netcheck

    async def _netcheck(self) -> dict[str, Any]:
        snapshot = self._node.snapshot(clock.now())
        own = self._own()
        found4, found6 = await asyncio.gather(*(self._try_out(version, snapshot) for version in (4, 6)))
        return {
            "addresses": [str(each) for each in own],
            "default_routes": [name for name, _ in self._ways_out()],
            "ipv4": self._family(4, snapshot, found4),
            "ipv6": self._family(6, snapshot, found6),
            "port_mapping": self._port_mapping(),
            "nuclei": [
                {
                    "name": each.name,
                    "registered": each.registered,
                    "observed": None if each.observed is None else str(each.observed),
                    "rtt_ms": None if each.rtt is None else round(each.rtt * 1000, 3),
                    "hint": each.hint,
                }
                for each in snapshot.nuclei
            ],
        }

    async def _try_out(self, version: int, snapshot: NodeSnapshot) -> Findings:
        """With the Nuclei that are not on a network of ours, the nearest first."""
        asked = [
            (each.rtt or math.inf, Server(each.endpoint, x25519_of(each.identity)))
            for each in snapshot.nuclei
            if each.registered and each.identity is not None and each.endpoint is not None
        ]
        asked.sort(key=lambda each: each[0])
        servers = [server for _, server in asked if _version(server.endpoint) == version and self._far(server.endpoint)]
        return await asyncio.to_thread(examine, servers, self._own(), self._iface)

    def _family(self, version: int, snapshot: NodeSnapshot, found: Findings) -> dict[str, Any]:
        """One IP version by the terms of RFC 4787, as far as it is known."""
        own = [each for each in self._own() if _version(each) == version]
        views = self._views(version)
        up = [each for each in snapshot.peers if each.path is not None and _version(each.path.endpoint) == version]
        mapping, usable = mapping_of(views, own), bool(views or up)
        counting = bool(count_of(what for _, what in views))
        silent = any(each.endpoint is not None and _version(each.endpoint) == version for each in snapshot.nuclei)
        return {
            "usable": usable,
            "addresses": [str(each) for each in own],
            "mapping": mapping.value,
            "counting": counting,
            "filtering": found.filtering.value,
            "hairpin": found.hairpin,
            "hints": hints(version, mapping, found, counting=counting, silent=silent and not usable),
            "seen_as": [{"by": str(who), "as": str(what)} for who, what in views],
            "peers": len(up),
        }

    def _views(self, version: int) -> list[tuple[Endpoint, Endpoint]]:
        """What others say, but those on networks of our own: no NAT lies between."""
        views = self._node.views()
        return [(who, what) for who, what in views if _version(who) == version and self._far(who)]

    def _far(self, endpoint: Endpoint) -> bool:
        """Whether it is on no network of our own."""
        underlay = self._underlay()
        networks = () if underlay is None else underlay.networks
        return not any(ip_address(endpoint.host) in each for each in networks)

    def _own(self) -> Sequence[Endpoint]:
        underlay = self._underlay()
        return () if underlay is None else underlay.candidates

    def _ways_out(self) -> Sequence[tuple[str, tuple[str, ...]]]:
        underlay = self._underlay()
        return () if underlay is None else underlay.ways_out


def _answered(peer: PeerStatus, since: float) -> bool:
    path = peer.path
    return path is not None and peer.proven and path.answered_at is not None and path.answered_at >= since


def _way(peer: PeerStatus) -> dict[str, Any]:
    path = peer.path
    if path is None:
        return {"path": None, "lane": None}
    rtt = None if path.newest is None else round(path.newest * 1000, 3)
    return {
        "path": {"kind": path.kind, "endpoint": str(path.endpoint), "rtt_ms": rtt},
        "lane": max(peer.lanes, default=None),
    }


def _trial(trial: Trial, boot: float) -> dict[str, Any]:
    refused = None if trial.errno is None else _REFUSALS.get(trial.errno, os.strerror(trial.errno))
    return {
        "endpoint": str(trial.endpoint),
        "initiations": trial.initiations,
        "challenges": trial.challenges,
        "answers": trial.answers,
        "tried_seconds_ago": round(boot - trial.tried_at, 1) if trial.tried_at else None,
        "answered_seconds_ago": None if trial.answered_at is None else round(boot - trial.answered_at, 1),
        "refused": refused,
    }


def _key_text(peer: PeerStatus) -> str:
    return encode_key(peer.identity) if peer.identity is not None else peer.peer.hex()


def _version(endpoint: Endpoint) -> int:
    return 6 if ":" in endpoint.host else 4
