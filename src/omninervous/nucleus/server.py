"""The Nucleus daemon: UDP sockets, a clock, a timer and the control socket around a `core.rendezvous.Rendezvous`.

    sockets ──► batch of datagrams ──► Rendezvous ──► datagrams ──► sockets
                     timer ──► Rendezvous

One mutation, then everything is drained. Log lines are about totals: who is unauthenticated writes nothing into a log.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvloop
from prometheus_client.metrics_core import Metric

import omninervous
from omninervous.core.identity import Identity
from omninervous.core.rendezvous import Rendezvous, RendezvousConfig
from omninervous.errors import SystemFailure, UserError
from omninervous.hostos import clock, logs
from omninervous.hostos.answering import Answering
from omninervous.hostos.control import ControlServer
from omninervous.hostos.journal import Journal
from omninervous.hostos.metrics import MetricsServer, queue_metrics
from omninervous.hostos.notify import ServiceManager
from omninervous.hostos.reload import Reloader, Reread
from omninervous.hostos.state import StateDir
from omninervous.hostos.udp import UdpSockets, bind_udp
from omninervous.nucleus.metrics import nucleus_metrics
from omninervous.wire.address import Endpoint
from omninervous.wire.keytext import encode_key

__all__ = ["NucleusConfig", "run_nucleus"]

log = structlog.get_logger()

BATCH = 128
"""Datagrams read from one socket before answers are sent and the others get their turn."""
DATAGRAM_MAX = 2048
"""Longer than anything that we answer; the rest of a longer datagram is cut off, and no tag will fit."""
TIMER_MIN = 0.05
"""Seconds between two runs of the timer: with many edges something is due all the time."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what `omni events` should tell."""
LOG_EVERY = 60.0
"""Seconds between two log lines with totals, when they have changed."""
_DROP = "drop_"
_TOLD = {
    **dict.fromkeys(("registered", "expired", "displaced"), "info"),
    **dict.fromkeys((f"{_DROP}rate_limited", f"{_DROP}message_rate", f"{_DROP}membership_bad_signature"), "warning"),
}
"""Counters that `omni events` tells of, and how much they matter."""
_LINK_LOCAL = "%"
"""Marks the zone in an IPv6 address: only link-local ones have one."""


@dataclass(frozen=True, slots=True)
class NucleusConfig:
    """What a Nucleus is started with. Checked values, except for what only the system can say."""

    state_dir: Path
    port: int = 51820
    """UDP port; 0: any free one."""
    iface: str | None = None
    """Listen on this interface only."""
    limits: RendezvousConfig = field(default_factory=RendezvousConfig)
    metrics: Endpoint | None = None
    """Where metrics are served; None: nowhere."""
    log_format: logs.LogFormat = "auto"
    verbose: bool = False
    notes: tuple[str, ...] = ()
    """Sentences for the log."""


def run_nucleus(
    config: NucleusConfig,
    reread: Reread[NucleusConfig] | None = None,
    ready: Callable[[int], None] | None = None,
) -> int:
    """Run a Nucleus until SIGTERM or SIGINT; the exit status. UserError and SystemFailure leave nothing behind.

    `ready` is told the port once datagrams are answered.
    """
    state = StateDir(config.state_dir)
    state.check()
    state.load_seed()  # refuses a damaged or readable key before anything is made
    with ExitStack() as undo:
        sockets = bind_udp(config.port, config.iface)
        undo.callback(sockets.close)
        metrics = undo.enter_context(closing(MetricsServer(config.metrics)))
        state.create()
        undo.callback(state.lock().release)
        identity = Identity.from_seed(state.create_seed())
        # What is loaded by now stays: the collector need not look at it again. A registry has many long-lived objects
        # and next to no cycles, so a collection is seldom worth its pause.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        for sentence in config.notes:
            log.warning("note", text=sentence)
        daemon = NucleusDaemon(config, identity, sockets, metrics, reread)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run(ready))


class NucleusDaemon:
    """One running Nucleus, inside an event loop. The sockets are closed by their maker."""

    def __init__(
        self,
        config: NucleusConfig,
        identity: Identity,
        sockets: UdpSockets,
        metrics: MetricsServer,
        reread: Reread[NucleusConfig] | None,
    ) -> None:
        self._config = config
        self._identity = identity
        self._sockets = sockets
        self._answering = Answering(sockets)
        self._metrics = metrics
        self._rendezvous = Rendezvous(config.limits, identity, os.urandom)
        self._reloader = Reloader(reread, self._apply)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._started = clock.now().boot
        self._io: dict[str, int] = {}
        self._journal = Journal()
        self._manager = ServiceManager()

    async def run(self, ready: Callable[[int], None] | None) -> int:
        """Until SIGTERM, SIGINT or a failure; the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        control = ControlServer(self._config.state_dir, self._answer)
        totals: asyncio.TimerHandle | None = None
        try:
            await control.start()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._signalled, number)
            loop.add_signal_handler(signal.SIGHUP, self._reloader.signalled)
            await self._metrics.start(self._collect)
            for each in self._sockets:
                loop.add_reader(each.fileno(), self._readable, each)
            log.info("up", port=self._sockets.port, identity=encode_key(self._identity.public))
            totals = loop.call_later(LOG_EVERY, self._log_totals, {})
            self._look(self._rendezvous.snapshot().counters)
            if ready is not None:
                ready(self._sockets.port)
            self._manager.ready(f"UDP port {self._sockets.port}")
            await self._stop.wait()
        finally:
            self._manager.stopping()
            for each in self._sockets:
                loop.remove_reader(each.fileno())
            for handle in (totals, self._timer):
                if handle is not None:
                    handle.cancel()
            await control.close()
        if self._failure is not None:
            raise self._failure
        log.info("stopped")
        return 0

    # ------------------------------------------------------------ datagrams

    def _readable(self, udp: socket.socket) -> None:
        now = clock.now()
        handle = self._rendezvous.handle_datagram
        packets = size = 0
        for _ in range(BATCH):
            try:
                data, source = self._answering.receive(udp, DATAGRAM_MAX)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._count(f"rx_error_{error.errno}")
                break
            if _LINK_LOCAL in source.host:
                self._count(f"{_DROP}link_local")  # an address that no other edge could use
                continue
            packets += 1
            size += len(data)
            handle(now, source, data)
        self._count("rx_packets", packets)
        self._count("rx_bytes", size)
        self._drain(now.boot)

    def _drain(self, now_boot: float) -> None:
        packets = size = 0
        for endpoint, data in self._rendezvous.poll_transmit():
            try:
                if self._answering.send(data, endpoint):
                    packets += 1
                    size += len(data)
            except (BlockingIOError, InterruptedError):
                self._count("tx_full")
            except OSError as error:
                self._count(f"tx_error_{error.errno}")
        self._count("tx_packets", packets)
        self._count("tx_bytes", size)
        deadline = self._rendezvous.poll_timeout()
        # Deadlines mostly move away: a timer that is early looks again, so that a heartbeat costs no new timer.
        if deadline is not None and deadline < self._timer_at:
            self._arm(deadline, now_boot)

    def _arm(self, deadline: float, now_boot: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        delay = max(TIMER_MIN, deadline - now_boot)
        self._timer = asyncio.get_running_loop().call_later(delay, self._deadline)

    def _deadline(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        now = clock.now()
        self._rendezvous.handle_timeout(now)
        self._drain(now.boot)

    # ------------------------------------------------------------ the rest

    def _count(self, name: str, by: int = 1) -> None:
        self._io[name] = self._io.get(name, 0) + by

    def _collect(self) -> Iterable[Metric]:
        yield from nucleus_metrics(self._rendezvous.snapshot(), self._io)
        yield from queue_metrics(self._sockets)

    def _log_totals(self, before: Mapping[str, int]) -> None:
        snapshot = self._rendezvous.snapshot()
        totals = {
            "edges": snapshot.registry.edges,
            "clusters": snapshot.registry.clusters,
            "sessions": snapshot.sessions,
            "registered": snapshot.counters.get("registered", 0),
            "expired": snapshot.counters.get("expired", 0),
        }
        if totals != before:
            log.info("totals", **totals)
        if not self._stop.is_set():
            asyncio.get_running_loop().call_later(LOG_EVERY, self._log_totals, totals)

    def _look(self, before: Mapping[str, int]) -> None:
        """Totals that grew become one event each: who causes them could otherwise push the others out."""
        counters = self._rendezvous.snapshot().counters
        for name, level in _TOLD.items():
            if (count := counters.get(name, 0) - before.get(name, 0)) > 0:
                self._journal.keep(level, name.removeprefix(_DROP), count=count)
        if not self._stop.is_set():
            asyncio.get_running_loop().call_later(LOOK_EVERY, self._look, counters)

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():  # asked twice: no more patience
            os._exit(1)
        log.info("stopping", signal=signal.Signals(number).name)
        self._stop.set()

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failure = self._failure or context.get("exception") or SystemFailure(str(context.get("message")))
        self._stop.set()

    def _apply(self, config: NucleusConfig) -> None:
        """What of a new configuration needs no new start. UserError: nothing was changed."""
        self._metrics.move(config.metrics)
        logs.configure(config.log_format, verbose=config.verbose)
        self._rendezvous.limit_sessions(config.limits.handshakes.per_source)

    async def _answer(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if command == "events":
            return await self._journal.answer(arguments)
        if command == "reload":
            return self._reloader.reload()
        if command == "peers":
            return {"peers": []}  # a Nucleus has edges in its registry, but no peers
        if command != "status":
            raise UserError(f"this daemon is a Nucleus, and does not know {command!r}: ask the daemon of an edge")
        snapshot = self._rendezvous.snapshot()
        counters = {**snapshot.counters, **self._io}
        drops = {name.removeprefix(_DROP): value for name, value in counters.items() if name.startswith(_DROP)}
        return {
            "mode": "nucleus",
            "version": omninervous.__version__,
            "pid": os.getpid(),
            "port": self._sockets.port,
            "identity": encode_key(self._identity.public),
            "uptime_seconds": round(clock.now().boot - self._started, 1),
            "registry": {"clusters": snapshot.registry.clusters, "edges": snapshot.registry.edges},
            "sessions": snapshot.sessions,
            "counters": {name: value for name, value in counters.items() if not name.startswith(_DROP)},
            "drops": drops,
        }
