"""DNS for the Nuclei and peers that the operator named by a host name."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omninervous.ganglion.options import HostPort
from omninervous.wire.address import Endpoint

__all__ = ["MAX_ADDRESSES", "NameCache", "resolve"]

MAX_ADDRESSES = 8
TIMEOUT = 10.0
"""Seconds for one look-up."""
_RETRY_FIRST, _RETRY_LAST = 1.0, 30.0
_Answers = Sequence[tuple[Any, Any, Any, Any, tuple[Any, ...]]]
"""As socket.getaddrinfo gives them; the address is the last of five."""
_REFRESH_UNREACHABLE = 15.0
"""Seconds after which the name of somebody who does not answer is looked up again: it may have moved."""


async def resolve(place: HostPort, *, ipv6: bool) -> tuple[Endpoint, ...]:
    """Endpoints of the place in the resolver's order; empty if the name cannot be resolved now. Never raises."""
    if place.literal is not None:
        return (place.literal,) if ipv6 or ":" not in place.literal.host else ()
    family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
    try:
        answers = await asyncio.wait_for(_ask_system(place, family), TIMEOUT)
    except TimeoutError:
        return ()
    found = [Endpoint(str(address[0]), int(address[1])) for *_, address in answers if "%" not in str(address[0])]
    return tuple(dict.fromkeys(found))[:MAX_ADDRESSES]


async def _ask_system(place: HostPort, family: socket.AddressFamily) -> _Answers:
    """getaddrinfo in a daemon thread: the event loop's own would keep the process from ending while DNS is silent."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Answers] = loop.create_future()

    def deliver(answers: _Answers) -> None:
        if not future.done():
            future.set_result(answers)

    def work() -> None:
        try:
            answers: _Answers = socket.getaddrinfo(place.host, place.port, family=family, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            answers = []
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(deliver, answers)

    threading.Thread(target=work, name="dns", daemon=True).start()
    return await future


@dataclass(slots=True)
class NameCache:
    """One name: what it resolved to last, and when it is to be looked up again."""

    place: HostPort
    endpoints: tuple[Endpoint, ...] = ()
    due: float = 0.0
    """Boot-time second."""
    busy: bool = False
    _retry: float = field(default=_RETRY_FIRST)

    def wants_lookup(self, now_boot: float, *, reachable: bool) -> bool:
        """Whether to look up now. Nobody looks up somebody who is reached, or an address."""
        if self.busy or (self.place.literal is not None and self.endpoints):
            return False
        return now_boot >= self.due and not (reachable and self.endpoints)

    def done(self, now_boot: float, endpoints: tuple[Endpoint, ...]) -> bool:
        """Take the answer of a look-up; whether it changed anything. A failed look-up keeps the old answer."""
        self.busy = False
        if not endpoints:
            self.due, self._retry = now_boot + self._retry, min(2 * self._retry, _RETRY_LAST)
            return False
        self.due, self._retry = now_boot + _REFRESH_UNREACHABLE, _RETRY_FIRST
        changed = endpoints != self.endpoints
        self.endpoints = endpoints
        return changed
