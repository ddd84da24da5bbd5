"""A port at each default gateway while the daemon runs (`portkeeper.py`), given back at the end.

A gateway that has started again says so to 224.0.0.1. That is heard, and leads to a question to that gateway and to
nothing else: anybody on the LAN can forge it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import structlog

from omninervous.errors import DecodeError
from omninervous.ganglion import gateway
from omninervous.ganglion.addresses import Underlay
from omninervous.ganglion.gateway import Way
from omninervous.ganglion.portkeeper import PortKeeper
from omninervous.wire import portmap
from omninervous.wire.address import Endpoint

__all__ = ["PortMapper", "ways_of"]

log = structlog.get_logger()

MAX_WAYS = 2
"""Gateways that are asked."""
_LAST_WORDS = 1.0
"""Seconds for the deletion of everything."""
_ALL_HOSTS = "224.0.0.1"
_HEARD_AT_ONCE = 16
"""Announcements: anybody on the LAN can send them."""
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""RFC 1918 and 6598. A host with any other address is behind no IPv4 NAT, and asks nobody."""


class PortMapper:
    """The mappings of one daemon. `changed` is called in the loop when `endpoints` is another."""

    def __init__(self, port: int, changed: Callable[[], None], *, wanted: bool) -> None:
        self._port = port
        self._changed = changed
        self._wanted = wanted
        self._keepers: dict[Way, PortKeeper] = {}
        self._giving_back: asyncio.Task[None] | None = None
        self._ears: socket.socket | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where peers may reach us by a mapping."""
        leases = [keeper.lease for keeper in self._keepers.values()]
        return tuple(dict.fromkeys(lease.outside for lease in leases if lease is not None))

    def follow(self, underlay: Underlay) -> None:
        """The ways out are these now. A mapping at a gateway that is gone is left to its lifetime."""
        ways = ways_of(underlay) if self._wanted else ()
        for way in self._keepers.keys() - set(ways):
            self._keepers.pop(way).stop()
        for way in ways:
            if way not in self._keepers:
                keeper = self._keepers[way] = PortKeeper(way, self._port, self._keeper_changed)
                keeper.start(self._giving_back)  # which would delete what we are about to get
        if self._keepers:
            self._listen()

    def want(self, wanted: bool, underlay: Underlay | None) -> None:
        """Whether gateways are asked from now on. What they gave goes back to them."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if not wanted:
            self._giving_back = asyncio.get_running_loop().create_task(self._give_back())
        elif underlay is not None:
            self.follow(underlay)

    def woke(self) -> None:
        """The machine was suspended: leases may be over, and the loop's clock stood still."""
        for keeper in self._keepers.values():
            keeper.wake()

    async def close(self) -> None:
        """Delete what was mapped, as far as the gateways still answer."""
        if self._giving_back is not None:
            await self._giving_back
        await self._give_back()

    def status(self) -> dict[str, Any]:
        """For `omni netcheck`."""
        return {"wanted": self._wanted, "gateways": [keeper.view() for keeper in self._keepers.values()]}

    async def _give_back(self) -> None:
        keepers, self._keepers = self._keepers, {}
        self._stop_listening()
        await asyncio.gather(*(keeper.stop() for keeper in keepers.values()), return_exceptions=True)
        leases = {keeper.way: keeper.lease for keeper in keepers.values() if keeper.lease is not None}
        if leases:
            self._changed()
        deletions = [gateway.ask(way, self._port, lease, lifetime=0) for way, lease in leases.items()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await asyncio.gather(*deletions)

    def _keeper_changed(self) -> None:
        log.debug("port_mapped", outside=[str(each) for each in self.endpoints])
        self._changed()

    # ------------------------------------------------------------ what gateways say unasked

    def _listen(self) -> None:
        if self._ears is not None:
            return
        self._ears = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ears.setblocking(False)
        try:
            # Others on this host want to hear them, too.
            self._ears.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._ears.bind((_ALL_HOSTS, portmap.ANNOUNCEMENT_PORT))
        except OSError as error:  # then a mapping that is lost comes back when it is renewed
            log.debug("no_announcements", error=str(error))
            return
        asyncio.get_running_loop().add_reader(self._ears, self._hear)

    def _stop_listening(self) -> None:
        if self._ears is not None:
            asyncio.get_running_loop().remove_reader(self._ears)
            self._ears.close()
            self._ears = None

    def _hear(self) -> None:
        assert self._ears is not None
        for _ in range(_HEARD_AT_ONCE):
            try:
                data, (host, port) = self._ears.recvfrom(2048)
                epoch = portmap.decode_announcement(data)
            except DecodeError:
                continue
            except OSError:
                return
            for way, keeper in self._keepers.items():
                if (host, port) == (str(way.gateway), portmap.GATEWAY_PORT):
                    keeper.handle_announcement(epoch)


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
