"""The edge daemon: starts everything in an order that leaves nothing half-made, and drives a Node.

    sockets ──► engine ◄── TAP        engine.events() ──► Node ──► commands ──► engine.submit()
                                      clock, DNS, netlink news ──► Node ──► NodeEvents ──► omni0, disk, log

The Node decides; this module reads clocks and descriptors, and carries out. One mutation, then everything is drained.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any, TypeVar, TypeVarTuple

import structlog
import uvloop
from prometheus_client.metrics_core import Metric

from omninervous.core.dataplane import Event
from omninervous.core.events import Problem
from omninervous.core.identity import Identity, mac_of, ula_of
from omninervous.core.node import Node
from omninervous.core.secret import ClusterKeys, derive_cluster
from omninervous.core.vip import DEFAULT_SUBNET
from omninervous.errors import OmniError, SystemFailure, UserError
from omninervous.ganglion import addresses, netlink, preflight
from omninervous.ganglion.captures import Captures
from omninervous.ganglion.config import EdgeConfig
from omninervous.ganglion.engines import EngineChoice, choose_engine, start_engine
from omninervous.ganglion.metrics import edge_metrics
from omninervous.ganglion.names import Names, Target
from omninervous.ganglion.node_config import named_peers, node_config
from omninervous.ganglion.overlay import Overlay
from omninervous.ganglion.pathtools import PathTools
from omninervous.ganglion.persist import Memory
from omninervous.ganglion.portmapper import PortMapper
from omninervous.ganglion.reactions import Reactions
from omninervous.ganglion.reflex import Reflex, Wish, start_reflex
from omninervous.ganglion.status import EngineView, OverlayView, edge_peers, edge_status, missing
from omninervous.ganglion.tap import Tap
from omninervous.ganglion.watch import Watch, short_name
from omninervous.hostos import clock, logs
from omninervous.hostos.control import ControlServer
from omninervous.hostos.journal import Journal
from omninervous.hostos.metrics import MetricsServer, queue_metrics
from omninervous.hostos.notify import ServiceManager
from omninervous.hostos.reload import Reloader, Reread
from omninervous.hostos.state import StateDir
from omninervous.hostos.udp import UdpQueues, bind_udp_queues
from omninervous.synapse.port import Synapse
from omninervous.wire.address import Endpoint

__all__ = ["EdgeDaemon", "run_edge"]

log = structlog.get_logger()
Ts = TypeVarTuple("Ts")
R = TypeVar("R")

TICK = 1.0
"""Seconds between looks at suspend, and at what is not settled."""
LOOK_EVERY = 5.0
"""Seconds between looks at the whole state (names that wait for DNS, events of paths), once all is well."""
SETTLING = 30.0
"""Seconds after the start in which that happens every TICK."""
ADDRESS_CHECK = 30.0
"""Seconds between looks at our own addresses, should netlink news have been lost."""
LAST_WORDS = 0.05
"""Seconds that the engine gets to send what says goodbye."""


def run_edge(config: EdgeConfig, reread: Reread[EdgeConfig] | None = None) -> int:
    """Run an edge until it is told to stop; the exit status. UserError and SystemFailure leave nothing behind."""
    state = StateDir(config.state_dir)
    _check_identity(config, state)
    preflight.check_privileges()
    present = netlink.interfaces()
    if config.iface is not None:
        preflight.check_interface(config.iface, present)
    preflight.check_vip_free(config, present)
    preflight.check_device_free(config, present)
    with ExitStack() as undo:
        choice = choose_engine(config.engine, config.queues, config.aead)
        sockets = bind_udp_queues(config.port, config.iface, choice.queues)
        undo.callback(sockets.close)
        metrics = undo.enter_context(closing(MetricsServer(config.metrics)))
        state.create()
        undo.callback(state.lock().release)
        identity = Identity.from_seed(state.create_seed())
        cluster = None if config.cluster is None else derive_cluster(config.cluster, config.secret)
        memory = Memory(state, b"" if cluster is None else cluster.public, config.claim)
        tap = Tap.create(config.device, offloads=choice.offloads, queues=choice.queues)
        undo.callback(tap.close)
        overlay = Overlay.set_up(config.device, mac_of(identity.public), config.mtu, ula_of(identity.public))
        engine = start_engine(choice, tap.queues, sockets.queues, overlay.mac, config.mtu)
        undo.callback(engine.close)
        wish = Wish(config.ebpf, config.device, config.iface)
        engine, reflex = start_reflex(wish, engine, overlay, identity.x25519_public, sockets.port, present)
        undo.callback(engine.close)
        reflex.limit_sessions(config.sessions_per_ip)
        notes = (*config.notes, *_overlaps(config, present), *missing(config), sockets.buffer_note)
        for sentence in filter(None, notes):
            log.warning("note", text=sentence)
        daemon = EdgeDaemon(
            config, identity, cluster, memory, sockets, overlay, choice, engine, reflex, metrics, reread
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(daemon.run())


def _check_identity(config: EdgeConfig, state: StateDir) -> None:
    state.check()
    seed = state.load_seed()
    if seed is None:
        return
    _refuse_own_key(config, Identity.from_seed(seed))


def _refuse_own_key(config: EdgeConfig, own: Identity) -> None:
    if any(peer.x25519 == own.x25519_public for peer in config.peers):
        raise UserError("--peer is this machine's own key: give the key that --init printed on the other machine")


def _overlaps(config: EdgeConfig, present: tuple[netlink.Interface, ...]) -> tuple[str, ...]:
    claim = config.claim
    network = DEFAULT_SUBNET if claim is None else IPv4Network((claim.address, claim.prefix), strict=False)
    return preflight.overlap_notes(network, config.device, present)


class EdgeDaemon:
    """One running edge, inside an event loop. What was handed in is closed by its maker."""

    def __init__(
        self,
        config: EdgeConfig,
        identity: Identity,
        cluster: ClusterKeys | None,
        memory: Memory,
        sockets: UdpQueues,
        overlay: Overlay,
        choice: EngineChoice,
        engine: Synapse,
        reflex: Reflex,
        metrics: MetricsServer,
        reread: Reread[EdgeConfig] | None,
    ) -> None:
        self._config = config
        self._identity = identity
        self._sockets = sockets
        self._overlay = overlay
        self._engine = engine
        self._choice = choice
        self._reflex = reflex
        remembered = memory.recall()
        self._node = Node(node_config(config, cluster, remembered, choice, reflex.lanes), identity, os.urandom)
        # One worker: what is asked of netlink and of the disk happens in the order it was asked.
        self._worker = ThreadPoolExecutor(1, "ganglion")
        self._names = Names(config, ipv6=sockets.v6 is not None, resolved=self._resolved)
        self._journal = Journal()
        self._watch = Watch(self._journal)
        self._reactions = Reactions(memory, overlay, self._in_worker, self._watch)
        self._metrics = metrics
        self._reloader = Reloader(reread, self._apply)
        self._underlay: addresses.Underlay | None = None
        self._began_at = self._look_at = clock.now().boot
        self._mapper = PortMapper(sockets.port, self._announce, wanted=config.port_mapping)
        self._path_tools = PathTools(self._node, self._drain, lambda: self._underlay, self._mapper.status, config.iface)
        self._captures = Captures(reflex.watch)
        self._suspend = clock.SuspendDetector()
        self._manager = ServiceManager()
        self._timer: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> int:
        """Until SIGTERM, SIGINT or a failure; the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        control = ControlServer(self._config.state_dir, self._answer)
        monitor = addresses.AddressMonitor(self._addresses_changed)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._signalled, number)
            loop.add_signal_handler(signal.SIGHUP, self._reloader.signalled)
            await self._metrics.start(self._collect)
            monitor.start()
            await self._begin(loop)
            # Last: whoever gets an answer, or waits for READY=1, finds omni0 with the VIP that needs no Nucleus.
            await control.start()
            self._manager.ready(f"{self._overlay.name} is up, UDP port {self._sockets.port}")
            await self._stop.wait()
        finally:
            monitor.close()
            loop.remove_reader(self._engine.fileno())
            await self._end()
            await control.close()
            self._worker.shutdown(wait=True, cancel_futures=False)
        if self._failure is not None:
            raise self._failure
        log.info("stopped")
        return 0

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        log.info("up", device=self._overlay.name, port=self._sockets.port, engine=self._engine.name)
        self._node.start(clock.now())
        self._use_addresses(await loop.run_in_executor(self._worker, netlink.interfaces))
        loop.add_reader(self._engine.fileno(), self._engine_ready)
        self._drain()
        self._tick()
        self._check_addresses()
        await loop.run_in_executor(self._worker, lambda: None)  # what the first drain asked of the host is done

    async def _end(self) -> None:
        """Say goodbye; errors here must not keep the rest from being undone."""
        self._manager.stopping()
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._node.close(clock.now())
            self._drain()
            await asyncio.sleep(LAST_WORDS)
            await self._mapper.close()
        except OmniError as error:
            log.warning("goodbye", error=str(error))

    # ------------------------------------------------------------ inputs

    def _engine_ready(self) -> None:
        events: tuple[Event, ...] = tuple(self._engine.events())
        if events:
            self._node.handle_events(clock.now(), events)
            self._drain()

    def _deadline(self) -> None:
        self._timer = None
        now = clock.now()
        self._node.handle_activity(now, tuple(self._engine.activity()))
        self._node.handle_timeout(now)
        self._drain()

    def _tick(self) -> None:
        if self._stop.is_set():
            return
        now = clock.now()
        if asleep := self._suspend.slept():
            self._journal.say("info", "woke", seconds=round(asleep, 1))
            self._node.reset_sessions(now, "suspend")
            self._mapper.woke()
        self._reflex.tick()
        self._captures.expire(now.boot)
        if now.boot >= self._look_at:
            snapshot = self._node.snapshot(now)
            self._names.tick(now.boot, snapshot)
            self._watch.look(snapshot)
            settled = all(each.registered for each in snapshot.nuclei) and now.boot >= self._began_at + SETTLING
            self._look_at = now.boot + (LOOK_EVERY if settled else TICK)
        self._drain()
        asyncio.get_running_loop().call_later(TICK, self._tick)

    def _resolved(self, give: Target, endpoints: tuple[Endpoint, ...]) -> None:
        if isinstance(give, str):
            self._node.set_nucleus_endpoints(clock.now(), give, endpoints)
        else:
            self._node.set_peer_endpoints(clock.now(), give, endpoints)
        self._drain()

    def _check_addresses(self) -> None:
        if self._stop.is_set():
            return
        self._addresses_changed()
        asyncio.get_running_loop().call_later(ADDRESS_CHECK, self._check_addresses)

    def _addresses_changed(self) -> None:
        if not self._stop.is_set():
            self._in_worker(netlink.interfaces, then=self._use_addresses)

    def _use_addresses(self, present: tuple[netlink.Interface, ...]) -> None:
        if not self._overlay.exists():
            # A TAP cannot come back to its descriptor: better a clean end, and a new start by whoever watches over us.
            self._fail(SystemFailure(f"interface {self._overlay.name} was deleted: start omni-daemon again"))
            return
        self._overlay.notice(present)
        self._reflex.follow(present)
        self._node.set_lanes(clock.now(), (*self._choice.lanes, *self._reflex.lanes))
        found = addresses.underlay(
            present,
            self._sockets.port,
            device=self._overlay.name,
            iface=self._config.iface,
            ipv6=self._sockets.v6 is not None,
        )
        if found != self._underlay:
            moved, self._underlay = self._underlay is not None, found
            self._mapper.follow(found)
            self._announce()
            if moved:
                self._node.network_changed(clock.now())
                self._drain()

    def _announce(self) -> None:
        """Tell the Node where peers may reach us."""
        if self._underlay is None or self._stop.is_set():
            return
        candidates = addresses.with_mapped(self._underlay.candidates, self._mapper.endpoints)
        log.debug("candidates", endpoints=[str(each) for each in candidates])
        self._node.set_candidates(clock.now(), candidates, self._underlay.networks)
        self._drain()

    # ------------------------------------------------------------ outputs

    def _drain(self) -> None:
        """Carry out all that the Node wants. Marks reach the disk before the datagrams that use them leave."""
        while True:
            events, commands = self._node.poll_events(), self._node.poll_commands()
            if not events and not commands:
                break
            for event in events:
                self._reactions.react(event)
            if commands:
                self._engine.submit(commands)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._node.poll_timeout()
        if deadline is not None and not self._stop.is_set():
            delay = max(0.0, deadline - clock.now().boot)
            self._timer = asyncio.get_running_loop().call_later(delay, self._deadline)

    def _in_worker(self, work: Callable[[*Ts], R], /, *arguments: *Ts, then: Callable[[R], None] | None = None) -> None:
        """Run blocking work in the worker, then hand its result to `then` in the loop."""
        loop = asyncio.get_running_loop()

        def done(future: asyncio.Future[R]) -> None:
            error = future.exception()
            if isinstance(error, OmniError):
                log.error("system", error=str(error))
            elif error is not None:
                self._fail(error)
            elif then is not None and not self._stop.is_set():
                then(future.result())

        loop.run_in_executor(self._worker, work, *arguments).add_done_callback(done)

    # ------------------------------------------------------------ end

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():  # asked twice: no more patience
            os._exit(1)
        log.info("stopping", signal=signal.Signals(number).name)
        self._stop.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stop.set()

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._fail(context.get("exception") or SystemFailure(str(context.get("message"))))

    # ------------------------------------------------------------ control socket

    def _apply(self, config: EdgeConfig) -> None:
        """What of a new configuration needs no new start. UserError: nothing was changed."""
        _refuse_own_key(config, self._identity)
        self._metrics.move(config.metrics)
        logs.configure(config.log_format, verbose=config.verbose)
        self._node.limit_sessions(config.sessions_per_ip)
        self._reflex.limit_sessions(config.sessions_per_ip)
        self._mapper.want(config.port_mapping, self._underlay)
        if config.peers != self._config.peers:
            self._config = replace(self._config, peers=config.peers)
            self._node.set_peers(clock.now(), named_peers(config))
            self._names.follow(config.peers)
            self._look_at = clock.now().boot
            self._drain()

    def _collect(self) -> Iterable[Metric]:
        snapshot = self._node.snapshot(clock.now())
        yield from edge_metrics(snapshot, self._engine.counters(), (*snapshot.problems, *self._problems()))
        yield from self._reactions.durations.collect()
        yield from queue_metrics(each for queue in self._sockets.queues for each in queue)

    def _problems(self) -> tuple[Problem, ...]:
        """What the host says, beside what the Node knows."""
        return (*self._names.problems(), *self._overlay.problems(), *self._host_problems())

    def _host_problems(self) -> tuple[Problem, ...]:
        """What shows as loss that nothing else explains."""
        found = {"small_udp_buffers": self._sockets.buffer_note, "reflex_underlay": self._reflex.trouble}
        return tuple(Problem(code, text) for code, text in found.items() if text)

    async def _answer(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if command == "reload":
            return self._reloader.reload()
        if command == "events":
            return await self._journal.answer(arguments)
        if command in PathTools.COMMANDS:
            return await self._path_tools.answer(command, arguments)
        now = clock.now()
        snapshot = self._node.snapshot(now)
        if command == "pcap":
            peer = self._path_tools.find(str(arguments.get("peer", "")), snapshot)
            lease = self._captures.renew(
                now.boot, peer.peer, peer.name or short_name(peer.identity, peer.peer), peer.mac
            )
            return lease | {"interface": self._overlay.name}
        if command == "peers":
            return edge_peers(snapshot)
        if command != "status":
            raise UserError(f"the daemon does not know {command!r}: are omni and omni-daemon of one version?")
        present = await asyncio.get_running_loop().run_in_executor(self._worker, netlink.interfaces)
        self._overlay.notice(present)
        mine = next((each for each in present if each.name == self._overlay.name), None)
        overlay = OverlayView(
            self._overlay.name,
            self._overlay.mac,
            self._config.mtu,
            () if mine is None else tuple(str(each) for each in mine.addresses),
        )
        engine = EngineView(
            self._engine.name,
            self._engine.counters(),
            self._engine.learned(),
            self._choice.bulk_queues,
            self._choice.single_because,
        )
        return edge_status(
            self._config,
            self._identity.public,
            self._identity.x25519_public,
            snapshot,
            overlay,
            engine,
            self._reflex.status(),
            self._captures.status(now.boot),
            now.boot,
            self._problems(),
        )
