"""What the daemon does about each NodeEvent: the interface, the disk, the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVarTuple

import structlog

from omninervous.core import events as node
from omninervous.ganglion.metrics import Durations
from omninervous.ganglion.overlay import Overlay
from omninervous.ganglion.persist import Memory
from omninervous.ganglion.watch import Watch, short_name
from omninervous.wire.keytext import encode_key

__all__ = ["Reactions", "Worker"]

log = structlog.get_logger()
Ts = TypeVarTuple("Ts")


class Worker(Protocol):
    """Runs blocking work elsewhere, in the order it was asked."""

    def __call__(self, work: Callable[[*Ts], object], /, *arguments: *Ts) -> None: ...


class Reactions:
    """Takes NodeEvents one by one. Marks and pins are on the disk when `react` returns; the rest goes to the worker.

    What is wrong comes as a Problem with a sentence for the operator; the event that says the same to programs
    (`SecretMismatchHint`, `NucleusKeyMismatch`, ...) is then not logged a second time.
    """

    def __init__(self, memory: Memory, overlay: Overlay, worker: Worker, watch: Watch) -> None:
        self._memory = memory
        self._watch = watch
        self._journal = watch.journal
        self._overlay = overlay
        self._worker = worker
        self.durations = Durations()

    def react(self, event: node.NodeEvent) -> None:
        """Carry out, log and keep."""
        say = self._journal.say
        match event:
            case node.PersistTimestamp(mark):
                self._memory.keep_timestamp(mark)
            case node.PersistSerial(serial):
                self._memory.keep_serial(serial)
            case node.PersistVip(derivation):
                self._memory.keep_vip(derivation)
            case node.PersistMembers(members):
                self._worker(self._memory.keep_members, members)
            case node.NucleusPinned(name, identity):
                self._memory.keep_pin(name, identity)
                say("info", "nucleus_pinned", nucleus=name, identity=encode_key(identity))
            case node.VipAssigned(address, prefix, derivation):
                say(
                    "info", "vip", address=f"{address}/{prefix}", source="explicit" if derivation is None else "derived"
                )
                self._worker(self._overlay.set_vip, address, prefix)
            case node.VipLost(address, _) | node.VipRefused(address, _):
                say("warning", "vip_lost", address=str(address))
                self._worker(self._overlay.drop_vip)
            case node.Problem(code, text, subject):
                say("error", "problem", code=code, text=text, **({"subject": subject} if subject else {}))
            case node.ProblemSolved(code, subject):
                say("info", "solved", code=code, **({"subject": subject} if subject else {}))
            case node.NucleusUp(name, endpoint, identity):
                self._memory.keep_pin(name, identity)  # a key given by #KEY replaces an older pin
                say("info", "nucleus_up", nucleus=name, endpoint=str(endpoint))
            case node.NucleusDown(name, reason):
                say("warning", "nucleus_down", nucleus=name, reason=reason)
            case node.PeerUp() | node.PeerDown():
                self._say_peer(event)
            case node.PathMeasured(kind, seconds):
                self.durations.round_trip(kind, seconds)
            case _:
                log.debug("event", kind=type(event).__name__)

    def _say_peer(self, event: node.PeerUp | node.PeerDown) -> None:
        peer = short_name(event.identity, event.peer)
        if isinstance(event, node.PeerDown):
            self._journal.say("info", "peer_down", peer=peer, reason=event.reason)
            return
        self._watch.begin(event)
        self.durations.handshake(event.seconds)
        self._journal.say(
            *("info", "peer_up"),
            peer=peer,
            endpoint=str(event.endpoint),
            session=event.session_id.hex(),
            initiator=event.initiator,
            seconds=round(event.seconds, 3),
        )
