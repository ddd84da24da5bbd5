"""Keeps one port open at one gateway: asks for it, renews it at half of its life, and asks at once when it is lost.

A mapping that cannot be renewed still holds until its lease is over, and is announced to peers so long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from omninervous.ganglion import gateway
from omninervous.ganglion.gateway import Lease, Way
from omninervous.hostos import clock
from omninervous.wire import portmap

__all__ = ["PortKeeper"]

ASK_AGAIN = 300.0
"""Seconds after which a gateway that gave nothing is asked again."""
_FOR_EVER = 2 * ASK_AGAIN
"""Seconds for which a mapping without a lifetime counts: the gateway may be another one then."""
_SOONEST = 15.0
"""Seconds between two questions at least, however short the gateway's leases are, and whatever it announces."""


class PortKeeper:
    """`changed` is called in the loop when the mapping is another one, or none any more."""

    def __init__(self, way: Way, port: int, changed: Callable[[], None]) -> None:
        self.way = way
        self.lease: Lease | None = None
        self._port = port
        self._changed = changed
        self._asked_at = 0.0
        self._ends_at = 0.0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, after: asyncio.Task[None] | None) -> None:
        """Begin when `after` is done."""
        self._task = asyncio.get_running_loop().create_task(self._keep(after))

    def stop(self) -> asyncio.Future[None]:
        """Look after the mapping no longer; done when nothing is under way any more."""
        assert self._task is not None
        self._task.cancel()
        return self._task

    def wake(self) -> None:
        """Ask again soon."""
        self._woken.set()

    def handle_announcement(self, epoch: int) -> None:
        """The gateway says since when it keeps its mappings. Is ours one of them?"""
        passed = clock.now().boot - self._asked_at
        known = None if self.lease is None else self.lease.epoch
        if self.lease is None or (known is not None and not portmap.epoch_goes_on(known, epoch, passed)):
            self.wake()

    def view(self) -> dict[str, Any]:
        """For `omni netcheck`."""
        lease = self.lease
        return {
            "gateway": str(self.way.gateway),
            "protocol": None if lease is None else lease.protocol,
            "outside": None if lease is None else str(lease.outside),
            "seconds": None if lease is None else lease.seconds,
        }

    async def _keep(self, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
        while True:
            await self._ask()
            # RFC 6887 section 11.2.1: at a half of the lease, then at a half of what is left.
            left = self._ends_at - clock.now().boot
            await self._sleep(ASK_AGAIN if self.lease is None else min(left, max(_SOONEST, left / 2)))
            await asyncio.sleep(max(0.0, self._asked_at + _SOONEST - clock.now().boot))

    async def _ask(self) -> None:
        self._woken.clear()
        self._asked_at = clock.now().boot
        lease = await gateway.ask(self.way, self._port, self.lease)
        if lease is None and self.lease is not None:
            # The gateway may speak another protocol now, or be another one.
            lease = await gateway.ask(self.way, self._port, None)
        earlier = self.lease
        if lease is not None:
            self.lease = lease
            self._ends_at = self._asked_at + (lease.seconds or _FOR_EVER)
        elif clock.now().boot >= self._ends_at:
            self.lease = None
        if _outside(earlier) != _outside(self.lease):
            self._changed()

    async def _sleep(self, seconds: float) -> None:
        """Until it is woken, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()


def _outside(lease: Lease | None) -> object:
    return None if lease is None else lease.outside
