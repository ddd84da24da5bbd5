"""Keeps a port open at each default gateway while the daemon runs; renewed at half of its life, deleted at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import structlog

from omninervous.ganglion import gateway
from omninervous.ganglion.addresses import Underlay
from omninervous.ganglion.gateway import Lease, Way
from omninervous.wire.address import Endpoint

__all__ = ["PortMapper", "ways_of"]

log = structlog.get_logger()

MAX_WAYS = 2
"""Gateways that are asked."""
ASK_AGAIN = 300.0
"""Seconds after which a gateway that gave nothing is asked again."""
_SOONEST = 15.0
"""Seconds between two renewals at least, however short the gateway's leases are."""
_LAST_WORDS = 1.0
"""Seconds for the deletion of everything."""
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""RFC 1918 and 6598. A host with any other address is behind no IPv4 NAT, and asks nobody."""


class PortMapper:
    """The mappings of one daemon. `changed` is called in the loop when `endpoints` is another."""

    def __init__(self, port: int, changed: Callable[[], None], *, wanted: bool) -> None:
        self._port = port
        self._changed = changed
        self._wanted = wanted
        self._leases: dict[Way, Lease] = {}
        self._keepers: dict[Way, asyncio.Task[None]] = {}
        self._giving_back: asyncio.Task[None] | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where peers may reach us by a mapping."""
        return tuple(dict.fromkeys(lease.outside for lease in self._leases.values()))

    def follow(self, underlay: Underlay) -> None:
        """The ways out are these now. A mapping at a gateway that is gone is left to its lifetime."""
        ways = ways_of(underlay) if self._wanted else ()
        for way in self._keepers.keys() - set(ways):
            self._keepers.pop(way).cancel()
            self._leases.pop(way, None)
        for way in ways:
            if way not in self._keepers:
                self._keepers[way] = asyncio.get_running_loop().create_task(self._keep(way))

    def want(self, wanted: bool, underlay: Underlay | None) -> None:
        """Whether gateways are asked from now on. What they gave goes back to them."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if not wanted:
            self._giving_back = asyncio.get_running_loop().create_task(self._give_back())
        elif underlay is not None:
            self.follow(underlay)

    async def close(self) -> None:
        """Delete what was mapped, as far as the gateways still answer."""
        if self._giving_back is not None:
            await self._giving_back
        await self._give_back()

    async def _give_back(self) -> None:
        keepers, self._keepers = self._keepers, {}
        for task in keepers.values():
            task.cancel()
        await asyncio.gather(*keepers.values(), return_exceptions=True)
        leases, self._leases = self._leases, {}
        if leases:
            self._changed()
        deletions = [gateway.ask(way, self._port, lease, lifetime=0) for way, lease in leases.items()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await asyncio.gather(*deletions)

    def status(self) -> dict[str, Any]:
        """For `omni netcheck`."""
        return {
            "wanted": self._wanted,
            "gateways": [_view(way, self._leases.get(way)) for way in self._keepers],
        }

    async def _keep(self, way: Way) -> None:
        if self._giving_back is not None:
            await asyncio.wait([self._giving_back])  # it would delete what we are about to get
        while True:
            earlier = self._leases.get(way)
            lease = await gateway.ask(way, self._port, earlier)
            if lease is None and earlier is not None:
                del self._leases[way]  # the gateway may speak another protocol now, or be another one
                self._changed()
                continue
            if lease is not None:
                self._leases[way] = lease
                if earlier is None or earlier.outside != lease.outside:
                    log.debug("port_mapped", protocol=lease.protocol, outside=str(lease.outside))
                    self._changed()
            await asyncio.sleep(ASK_AGAIN if lease is None else max(_SOONEST, (lease.seconds or 2 * ASK_AGAIN) / 2))


def ways_of(underlay: Underlay) -> tuple[Way, ...]:
    """The IPv4 gateways that this host is behind, with its private address on each one's network."""
    found = []
    clients = [IPv4Address(each.host) for each in underlay.candidates if ":" not in each.host]
    for nic, gateways in underlay.ways_out:
        for text in gateways:
            if not text or ":" in text:
                continue
            near = [network for network in underlay.networks if ip_address(text) in network]
            for client in clients:
                if any(client in network for network in near) and any(client in network for network in _PRIVATE):
                    found.append(Way(nic, IPv4Address(text), client))
                    break
    return tuple(found[:MAX_WAYS])


def _view(way: Way, lease: Lease | None) -> dict[str, Any]:
    return {
        "gateway": str(way.gateway),
        "protocol": None if lease is None else lease.protocol,
        "outside": None if lease is None else str(lease.outside),
        "seconds": None if lease is None else lease.seconds,
    }
