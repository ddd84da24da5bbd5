"""Engines under one harness: operations in, and for each operation what came out.

The reference data path is the oracle. Another engine joins by a class with these methods and a line in `ENGINES`.
What must be equal: datagrams, frames, events, the counters that moved, every session's activity, what was learned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from omninervous._native import NativeDatapath
from omninervous.core.clock import Entropy
from omninervous.core.dataplane import (
    Aead,
    Command,
    DeliverFrames,
    Event,
    InstallSession,
    LaneKeys,
    OpenLanes,
    SendControl,
    SendDatagram,
    SendFrames,
    SessionActivity,
)
from omninervous.core.session import Session
from omninervous.synapse.datapath import Datapath, Output
from omninervous.synapse.native import activity_of, events_of, table_handlers
from omninervous.wire.address import Endpoint
from tests.datapaths import FAR_FUTURE
from tests.differential.vnet import PLAIN, written

__all__ = [
    "ENGINES",
    "EngineUnderTest",
    "Native",
    "Operation",
    "Reference",
    "Skip",
    "Step",
    "Submit",
    "Tap",
    "Trace",
    "Underlay",
    "both_ends",
    "peer_session",
    "trace",
]

START = 100.0


@dataclass(frozen=True, slots=True)
class Submit:
    """Commands from the core."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Tap:
    """A frame from the local stack."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Underlay:
    """A datagram from the network."""

    source: Endpoint
    data: bytes
    ecn: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Time passes."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Skip:
    """Sequence numbers of a sending lane are used up."""

    local_index: int
    lane: int
    count: int


Operation = Submit | Tap | Underlay | Step | Skip


class EngineUnderTest(Protocol):
    """An engine whose clock and inputs are the test's. Instants are multiples of 1/8 s: exact in every engine."""

    def __init__(self, own_mac: bytes, entropy: Entropy) -> None: ...

    def apply(self, now: float, operation: Operation) -> None:
        """Carry out one operation to its end."""
        ...

    def take(self) -> Output:
        """What came out since the last call."""
        ...

    def counters(self) -> dict[str, int]:
        """As `Synapse.counters`."""
        ...

    def activity(self) -> list[SessionActivity]:
        """As `Synapse.activity`."""
        ...

    def learned(self) -> dict[bytes, float]:
        """As `Synapse.learned`."""
        ...


class Reference:
    """The oracle."""

    def __init__(self, own_mac: bytes, entropy: Entropy) -> None:
        self._datapath = Datapath(own_mac, entropy)

    def apply(self, now: float, operation: Operation) -> None:
        match operation:
            case Submit(commands):
                self._datapath.submit(now, commands)
            case Tap(frame):
                self._datapath.from_tap(now, frame)
            case Underlay(source, data, ecn):
                self._datapath.from_underlay(now, source, data, ecn)
            case Step():
                self._datapath.handle_timeout(now)
            case Skip(local_index, lane, number):
                self._skip(local_index, lane, number)

    def take(self) -> Output:
        return self._datapath.take()

    def counters(self) -> dict[str, int]:
        return self._datapath.counters()

    def activity(self) -> list[SessionActivity]:
        return self._datapath.activity()

    def learned(self) -> dict[bytes, float]:
        return self._datapath.learned()

    def _skip(self, local_index: int, lane: int, number: int) -> None:
        entry = self._datapath._table.sessions.get(local_index)
        state = entry.session._lanes[lane] if entry is not None else None
        if state is not None:
            state.sequences = count(next(state.sequences) + number)


class Native:
    """The engine crate. Its writes are taken apart as a kernel would, one datagram's at a time: nothing is merged."""

    def __init__(self, own_mac: bytes, entropy: Entropy) -> None:
        self.datapath = NativeDatapath(own_mac)
        self._handlers = table_handlers(self.datapath, entropy)

    def apply(self, now: float, operation: Operation) -> None:
        match operation:
            case Submit(commands):
                for command in commands:
                    self._command(now, command)
            case Tap(frame):
                self.datapath.from_tap(now, PLAIN, frame)
            case Underlay(source, data, ecn):
                self.datapath.from_underlay(now, *source, data, ecn)
            case Step():
                self.datapath.timeout(now)
            case Skip(local_index, lane, number):
                self.datapath.skip(local_index, lane, number)

    def take(self) -> Output:
        datagrams, writes, events = self.datapath.take()
        return Output(
            [(Endpoint(*to), data) for to, data, _ in datagrams],
            [frame for header, super_frame in writes for frame in written(header, super_frame)],
            events_of(events),
            {at: traffic_class for at, (_, _, traffic_class) in enumerate(datagrams) if traffic_class},
        )

    def counters(self) -> dict[str, int]:
        return dict(self.datapath.counters())

    def activity(self) -> list[SessionActivity]:
        return activity_of(self.datapath.activity())

    def learned(self) -> dict[bytes, float]:
        return dict(self.datapath.learned())

    def _command(self, now: float, command: Command) -> None:
        match command:
            case SendControl(local_index, payload, endpoint):
                self.datapath.send_control(now, local_index, payload, endpoint)
            case SendFrames(peer, frames):
                self.datapath.send_frames(now, peer, list(frames))
            case SendDatagram(endpoint, data):
                self.datapath.send_datagram(endpoint, data)
            case DeliverFrames(frames):
                self.datapath.deliver_frames(list(frames))
            case _:
                self._handlers[type(command)](command)


ENGINES: dict[str, Callable[[bytes, Entropy], EngineUnderTest]] = {"native": Native, "reference": Reference}


@dataclass(frozen=True, slots=True)
class Trace:
    """What one operation did: the verdict of an engine."""

    datagrams: tuple[tuple[Endpoint, bytes], ...]
    classes: tuple[tuple[int, int], ...]
    """Traffic class of those datagrams that have one, by position."""
    frames: tuple[bytes, ...]
    events: tuple[Event, ...]
    counted: tuple[tuple[str, int], ...]
    """Counters that moved, and by how much; sorted by name."""
    activity: tuple[SessionActivity, ...]
    """Sorted by index."""
    learned: tuple[tuple[bytes, float], ...]
    """Sorted by MAC."""


def trace(name: str, own_mac: bytes, operations: Sequence[Operation], *, together: bool = False) -> list[Trace]:
    """Run the operations on a fresh engine. Same operations, same trace: bytes included. `together`: a single trace,
    of what there is to take after all of them."""
    engine = ENGINES[name](own_mac, _same_bytes)
    now, before, steps = START, engine.counters(), []
    for number, operation in enumerate(operations):
        if isinstance(operation, Step):
            now += operation.seconds
        engine.apply(now, operation)
        if together and number + 1 < len(operations):
            continue
        output, after = engine.take(), engine.counters()
        moved = [(key, value - before.get(key, 0)) for key, value in sorted(after.items())]
        before = after
        steps.append(
            Trace(
                tuple(output.datagrams),
                tuple(sorted(output.classes.items())),
                tuple(output.frames),
                tuple(output.events),
                tuple((key, difference) for key, difference in moved if difference),
                tuple(sorted(engine.activity(), key=lambda each: each.local_index)),
                tuple(sorted(engine.learned().items())),
            )
        )
    return steps


def _same_bytes(size: int) -> bytes:
    """Engines may ask for entropy a different number of times."""
    return b"\xa5" * size


def peer_session(index: int, send_key: bytes, recv_key: bytes, lanes: Sequence[LaneKeys] = ()) -> Session:
    """The far end of a session with the engine: seals what the engine opens. `index` is the engine's local index."""
    session = Session(InstallSession(bytes(32), 0, index, send_key, recv_key, FAR_FUTURE))
    session.open_lanes(OpenLanes(0, tuple(lanes), tuple(lane.lane for lane in lanes)))
    return session


def both_ends(lane: int, aead: Aead, dice: random.Random) -> tuple[LaneKeys, LaneKeys]:
    """Keys of a lane for the engine and for its peer."""
    one, two = dice.randbytes(32), dice.randbytes(32)
    return LaneKeys(lane, aead, one, two), LaneKeys(lane, aead, two, one)
