"""Keeps the endpoints of named Nuclei and peers fresh: addresses at once, names by DNS while nobody answers there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from omninervous.core.events import NodeSnapshot, Problem
from omninervous.ganglion.config import EdgeConfig, PeerPlace
from omninervous.ganglion.resolve import NameCache, resolve
from omninervous.hostos import clock
from omninervous.wire.address import Endpoint

__all__ = ["Names", "Target"]

Target = str | bytes
"""Whose endpoints they are: a Nucleus by its name, a peer by its X25519 key."""


class Names:
    """All places of one configuration."""

    def __init__(
        self, config: EdgeConfig, *, ipv6: bool, resolved: Callable[[Target, tuple[Endpoint, ...]], None]
    ) -> None:
        self._ipv6 = ipv6
        self._resolved = resolved
        self._tasks: set[asyncio.Task[None]] = set()
        self._caches: dict[Target, NameCache] = {str(each.place): NameCache(each.place) for each in config.nuclei}
        self.follow(config.peers)

    def follow(self, peers: Iterable[PeerPlace]) -> None:
        """The operator names these peers from now on. All names are looked up again: some may belong to new peers."""
        self._caches = {target: cache for target, cache in self._caches.items() if isinstance(target, str)}
        for peer in peers:
            if peer.endpoint is not None and peer.endpoint.literal is None:
                self._caches[peer.x25519] = NameCache(peer.endpoint)

    def tick(self, now_boot: float, snapshot: NodeSnapshot) -> None:
        """Begin the look-ups that are due."""
        reached: set[Target] = {each.name for each in snapshot.nuclei if each.registered}
        reached.update(each.peer for each in snapshot.peers if each.state == "up")
        for target, cache in self._caches.items():
            if cache.wants_lookup(now_boot, reachable=target in reached):
                cache.busy = True
                task = asyncio.get_running_loop().create_task(self._look_up(target, cache))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _look_up(self, target: Target, cache: NameCache) -> None:
        endpoints = await resolve(cache.place, ipv6=self._ipv6)
        changed = cache.done(clock.now().boot, endpoints)
        if changed and self._caches.get(target) is cache:
            self._resolved(target, endpoints)

    def problems(self) -> tuple[Problem, ...]:
        """Names that have never been resolved."""
        return tuple(
            Problem("name_unresolved", _why(cache, self._ipv6), str(cache.place))
            for cache in self._caches.values()
            if not cache.endpoints and cache.due > 0
        )


def _why(cache: NameCache, ipv6: bool) -> str:
    if cache.place.literal is not None and not ipv6:
        return f"{cache.place} is an IPv6 address, but this host has no IPv6"
    return f"{cache.place.host} cannot be resolved: check the name and this machine's DNS"
