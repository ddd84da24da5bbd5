"""The kernel's lane on this machine: whether it runs, where it receives, and the reason for either.

The programs live as long as this process: their links and maps belong to descriptors, so even `kill -9` leaves none.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from omninervous.core.capabilities import REFLEX_SESSIONS
from omninervous.core.cookies import mac1_key
from omninervous.core.dataplane import PeerId
from omninervous.errors import SystemFailure
from omninervous.ganglion.netlink import Interface
from omninervous.ganglion.overlay import Overlay
from omninervous.ganglion.underlay import Hook, bare, choose_hook, underlays
from omninervous.hostos.process import CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, has_capability
from omninervous.synapse.port import Synapse
from omninervous.synapse.reflex import Programs, ReflexEngine
from omninervous.wire.transport import LANE_REFLEX

__all__ = ["MINIMUM_KERNEL", "Reflex", "Wish", "start_reflex"]

log = structlog.get_logger()

MINIMUM_KERNEL = "6.6"
"""For both mechanisms: TCX links, which die with their owner."""
_GONE = (errno.ENODEV, errno.ENXIO)
_INITIATIONS_PER_SESSION = 5
"""The programs are the coarse sieve, Ganglion the fine one: what is sent again, or for a cookie, must reach it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for."""

    ebpf: str
    """One of `options.EBPF`."""
    device: str
    """Name of the overlay interface."""
    iface: str | None


class Reflex:
    """The kernel's lane at work, or the reason why there is none. Every method blocks on the kernel for a moment."""

    def __init__(self, wish: Wish, programs: Programs | None, because: str) -> None:
        self._wish = wish
        self._programs = programs
        self._because = because
        self._hooks: dict[int, tuple[str, Hook]] = {}
        self._trouble = ""
        self._failing = ""
        self._bare: tuple[str, ...] = ()

    @property
    def lanes(self) -> tuple[int, ...]:
        """What it adds to the lanes that this edge receives on: nothing while datagrams may come where no program sees
        them, for they would be lost."""
        return () if self._programs is None or self._bare else (LANE_REFLEX,)

    @property
    def trouble(self) -> str:
        """Why an interface is not covered, with the consequence; empty if all is well."""
        return self._trouble or self._failing

    def begin(self, present: Sequence[Interface]) -> None:
        """Receive everywhere, then send. SystemFailure if it cannot be had as it was wished for."""
        assert self._programs is not None
        self.follow(present)
        if self._trouble:
            raise SystemFailure(self._trouble)
        if self._wish.ebpf == "xdp" and self._mechanism != "xdp":
            reasons = "; ".join(f"{name}: {hook.because}" for name, hook in self._hooks.values())
            raise SystemFailure(f"no interface takes an XDP program ({reasons or 'there is no interface'})")
        try:
            self._programs.attach_overlay()
        except OSError as error:
            raise SystemFailure(f"{self._wish.device} takes no program: {_words(error)}") from error

    def follow(self, present: Sequence[Interface]) -> None:
        """Receive on the underlays that there are now; routes are looked up anew."""
        if self._programs is None:
            return
        wanted = {each.index: each for each in underlays(present, self._wish.device, self._wish.iface)}
        for index in self._hooks.keys() - wanted.keys():
            del self._hooks[index]
            self._programs.detach_underlay(index)
        self._trouble = ""
        for index, interface in wanted.items():
            if index not in self._hooks:
                self._attach(self._programs, interface)
        found = bare(present, self._wish.device, self._wish.iface)
        if found != self._bare:
            self._bare = found
            log.info("note", text=self._rest or "single frames take the kernel's lane again")
        self.tick()

    def limit_sessions(self, per_second: int) -> None:
        """New sessions of one address and second."""
        if self._programs is not None:
            self._programs.limit(per_second * _INITIATIONS_PER_SESSION)

    def watch(self, peer: PeerId, on: bool) -> None:
        """Send to a peer by the bulk lane, where the interface's taps see it, or no longer."""
        if self._programs is not None:
            self._programs.watch(peer, on)

    def tick(self) -> None:
        """About once a second: what has expired is wiped, and routes are looked up anew."""
        if self._programs is None:
            return
        try:
            self._programs.tick()
            failing = ""
        except OSError as error:  # more addresses than a map holds, memory is short: what is known still holds
            failing = f"the kernel's lane does not follow this machine's addresses and routes: {_words(error)}"
        if failing != self._failing:
            self._failing = failing
            log.warning("note", text=failing or "the kernel's lane follows this machine's addresses and routes again")

    def status(self) -> dict[str, Any]:
        """For `omni status`."""
        if self._programs is None:
            return {
                "mechanism": "off",
                "because": self._because,
                "minimum_kernel": MINIMUM_KERNEL,
                "interfaces": [],
                "programs": [],
                "counters": {},
            }
        names = {index: name for index, (name, _) in self._hooks.items()}
        return {
            "mechanism": self._mechanism,
            "because": self._trouble
            or self._rest
            or "; ".join(f"{name}: {hook.because}" for name, hook in self._hooks.values()),
            "minimum_kernel": MINIMUM_KERNEL,
            "interfaces": [{"name": name, "mechanism": hook.mechanism} for name, hook in self._hooks.values()],
            "programs": [
                {"name": name, "hook": hook, "interface": names.get(index, self._wish.device)}
                for name, hook, index in self._programs.programs()
            ],
            "counters": {name: number for name, number in self._programs.counters() if number},
        }

    @property
    def _rest(self) -> str:
        """Why the lane is not offered to peers now; empty if it is."""
        names = ", ".join(self._bare)
        return f"single frames take the userspace lane: {names} has no Ethernet header for programs" if names else ""

    @property
    def _mechanism(self) -> str:
        used = {hook.mechanism for _, hook in self._hooks.values()}
        return "xdp" if "xdp" in used else "tc"

    def _attach(self, programs: Programs, interface: Interface) -> None:
        hook = choose_hook(interface, self._wish.ebpf)
        try:
            try:
                programs.attach_underlay(interface.index, hook.mechanism)
            except OSError as error:
                if hook.mechanism == "tc" or error.errno in _GONE:
                    raise
                hook = Hook("tc", f"it takes no XDP program ({_words(error)})")
                programs.attach_underlay(interface.index, "tc")
        except OSError as error:
            if error.errno not in _GONE:  # gone: the next news say so
                self._trouble = f"{interface.name} takes no program of the kernel's lane: {_words(error)}"
                log.warning("note", text=self._trouble)
            return
        self._hooks[interface.index] = interface.name, hook
        log.info("reflex", interface=interface.name, mechanism=hook.mechanism, because=hook.because)


def start_reflex(
    wish: Wish, engine: Synapse, overlay: Overlay, x25519: bytes, port: int, present: Sequence[Interface]
) -> tuple[Synapse, Reflex]:
    """The engine to use from now on, and the lane. What `auto` cannot have is said and done without; what was asked for
    by name and cannot be had is a SystemFailure."""
    if wish.ebpf == "off":
        return engine, Reflex(wish, None, "--ebpf off asks for it")
    if engine.name != "native":
        return engine, Reflex(wish, None, f"the {engine.name} engine works without it")
    if not _may_load():
        return engine, _without(wish, "this process lacks CAP_BPF and CAP_PERFMON: give it both, or run it as root")
    from omninervous._native import Reflex as NativeReflex

    try:
        programs: Programs = NativeReflex(overlay.index, overlay.mac, mac1_key(x25519), port, REFLEX_SESSIONS)
    except OSError as error:
        return engine, _without(wish, _words(error))
    lane = Reflex(wish, programs, "")
    try:
        lane.begin(present)
    except SystemFailure as error:
        programs.close()
        return engine, _without(wish, str(error))
    return ReflexEngine(engine, programs), lane


def _may_load() -> bool:
    return has_capability(CAP_SYS_ADMIN) or (has_capability(CAP_BPF) and has_capability(CAP_PERFMON))


def _without(wish: Wish, because: str) -> Reflex:
    if wish.ebpf != "auto":
        raise SystemFailure(f"--ebpf {wish.ebpf}: {because}")
    log.warning("note", text=f"single frames take the userspace lane: {because}")
    return Reflex(wish, None, because)


def _words(error: OSError) -> str:
    return error.strerror or str(error)
