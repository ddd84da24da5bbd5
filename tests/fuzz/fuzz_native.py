"""Invariant: on any input, the native engine gives the reference's output, events, counters and verdicts, and lives on.

An edge with peers of all three kinds gets mutated datagrams, mutated *plaintexts* sealed with valid keys (what a
hostile member can send), mutated frames from its own stack, and senseless commands; the traces of both engines must be
equal, byte for byte. In between, an engine that merges gets many datagrams at once, and frames behind random virtio
headers. Run: python -m tests.fuzz.fuzz_native --seconds 60 --seed 1
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

from omninervous.synapse.datapath import MAX_FRAME
from tests.datapaths import twins
from tests.differential.engines import START, Native, Operation, Submit, Tap, Trace, Underlay, trace
from tests.differential.frames import Frames
from tests.differential.streams import Stream, by_flow, native
from tests.differential.vnet import Vnet, begun
from tests.differential.world import STATIONS, US, World
from tests.fuzz.command import main
from tests.fuzz.fuzz_datapath import sound_frames

INPUTS_PER_ROUND = 150


def mutate(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 6))):
        position = dice.randrange(min(len(changed), 120) or 1)
        match dice.randrange(5):
            case 0 | 1:
                changed[position : position + 1] = dice.randbytes(1)
            case 2:
                del changed[position : position + dice.randrange(1, 40)]
            case 3:
                changed[position:position] = dice.randbytes(dice.randrange(1, 40))
            case 4:
                width = dice.choice((1, 2, 4, 16))
                changed[position : position + width] = dice.choice((b"\0", b"\xff", b"\x86", b"\x45")) * width
    return bytes(changed)


def mutated(dice: random.Random, operation: Operation) -> Operation:
    match operation:
        case Tap(frame) if dice.randrange(3) == 0:
            return Tap(mutate(dice, frame))
        case Underlay(source, data, ecn) if dice.randrange(6) == 0:
            return Underlay(source, mutate(dice, data), ecn)
    return operation


def compare(dice: random.Random) -> list[Trace]:
    """The life of an edge on both engines."""
    world = World(dice)
    for _ in range(INPUTS_PER_ROUND):
        world.act()
    operations = [mutated(dice, operation) for operation in world.operations]
    expected = trace("reference", US.mac, operations)
    for operation, ours, theirs in zip(operations, expected, trace("native", US.mac, operations), strict=True):
        assert theirs == ours, f"{operation}\nreference: {ours}\nnative:    {theirs}"
    return expected


def merge(dice: random.Random) -> int:
    """Streams and mutated plaintexts, opened at once: the frames of every flow stay what they were."""
    us, member = twins(dice.getrandbits(32), mtu=9000)
    engine, hostile = native(us, member, 9000), member.hostile()
    streams = [Stream(dice, member, us, number, dice.choice((20, 60, 400))) for number in range(dice.randrange(1, 12))]
    others = sound_frames(member, us)
    for _ in range(INPUTS_PER_ROUND):
        kind, frame = dice.choice(streams).next()
        if dice.randrange(10) == 0:
            kind, frame = dice.choice((1, 2)), dice.choice(others)
        if dice.randrange(10) == 0:
            frame = mutate(dice, frame)
        data = hostile.seal(bytes([kind]) + frame)
        us.datapath.from_underlay(START, member.endpoint, data)
        engine.apply(START, Underlay(member.endpoint, data))
    frames = us.take().frames
    assert by_flow(engine.take().frames) == by_flow(frames)
    assert {**engine.counters(), "refitted": 0} == us.datapath.counters()
    return len(frames)


def offload(dice: random.Random) -> int:
    """Frames behind any virtio header: sent, told or counted; and what is sent can be delivered."""
    us, member = twins(dice.getrandbits(32))
    engine = Native(us.mac, dice.randbytes)
    engine.apply(START, Submit(tuple(us.introduce(member, mtu=dice.choice((600, 1500, 9000))))))
    frames, streams = Frames(dice, STATIONS), [Stream(dice, us, member, number) for number in range(4)]
    sent = 0
    for _ in range(INPUTS_PER_ROUND):
        frame = frames.any(US, STATIONS[1]) if dice.randrange(2) else dice.choice(streams).next()[1]
        header = Vnet(*(dice.choice((0, 1, 4, 5, dice.randrange(256))) for _ in range(2))).encode()[:2]
        header += b"".join(
            dice.choice((0, 14, 16, 34, 54, 1400, dice.randrange(1 << 16))).to_bytes(2, "little") for _ in range(4)
        )
        if dice.randrange(2):
            size = dice.choice((1, 100, 1400, 9000))
            header, frame = begun(streams[0].whole(dice.randrange(1, min(20 * size, 60_000))), size)
            at = dice.randrange(10)
            header = header[:at] + mutate(dice, header[at : at + 1])[:1].ljust(1, b"\0") + header[at + 1 :]
        before = engine.counters()
        engine.datapath.from_tap(START, header, frame)
        output = engine.take()
        assert output.datagrams or output.events or engine.counters() != before, "vanished"
        for _, data in output.datagrams:
            member.datapath.from_underlay(START, us.endpoint, data)
        arrived = member.take().frames
        assert all(len(each) <= MAX_FRAME for each in arrived), "length"
        sent += len(arrived)
    return sent


def run(seconds: float, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not outcomes or time.monotonic() < end:
        number = outcomes["rounds"]
        try:
            for step in compare(random.Random(f"{seed}/{number}/compare")):
                outcomes.update({name: amount for name, amount in step.counted if name.startswith("drop_")})
                outcomes["delivered"] += len(step.frames)
            outcomes["merged"] += merge(random.Random(f"{seed}/{number}/merge"))
            outcomes["cut"] += offload(random.Random(f"{seed}/{number}/offload"))
        except BaseException:
            print(f"seed {seed}, round {number}", file=sys.stderr)
            raise
        outcomes["rounds"] += 1
    return outcomes


if __name__ == "__main__":
    main(run, __doc__)
