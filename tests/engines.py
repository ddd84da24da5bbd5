"""Reference engines without privileges: UDP sockets on loopback, and a datagram socket pair in the place of the TAP."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from types import TracebackType

from omninervous.core.dataplane import Event
from omninervous.synapse.reference import ReferenceEngine
from omninervous.wire.address import Endpoint
from tests.datapaths import Side

PATIENCE = 10.0
"""Seconds until a wait gives up; none of them decides whether a test passes on a slow machine."""


class EngineOnLoopback:
    """A reference engine of `side`. `stack` is the local stack's end: send frames to it, receive frames from it."""

    def __init__(self, side: Side, host: str = "127.0.0.1") -> None:
        self.side = side
        self.stack, self.tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stack.settimeout(PATIENCE)
        self.udp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((host, 0))
        self.endpoint = Endpoint(*self.udp.getsockname()[:2])
        self.engine = ReferenceEngine(self.tap.fileno(), [self.udp], side.mac, 1380)

    def __enter__(self) -> EngineOnLoopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()
        for each in (self.stack, self.tap, self.udp):
            each.close()

    def next_events(self) -> list[Event]:
        """Wait for the engine's descriptor, then its events."""
        ready, _, _ = select.select([self.engine], [], [], PATIENCE)
        assert ready, "no event came"
        return list(self.engine.events())

    def counter(self, name: str) -> int:
        return self.engine.counters().get(name, 0)

    def wait_for(self, name: str, count: int = 1) -> None:
        """Until a counter has come that far."""
        wait_until(lambda: self.counter(name) >= count, f"{name} >= {count}")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition that another thread or process makes true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.001)
