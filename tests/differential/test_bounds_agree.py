"""Where memory or rates run out, the native engine drops what the reference drops."""

from __future__ import annotations

import random

from omninervous.core.dataplane import (
    Event,
    FrameUnresolved,
    FrameWithoutSession,
    InstallSession,
    Link,
    RemoveSession,
    SetPeer,
)
from omninervous.core.fragments import split
from omninervous.wire.address import Endpoint
from tests.datapaths import FAR_FUTURE, Side, twins, udp_frame
from tests.differential.engines import Operation, Step, Submit, Tap, Trace, Underlay, peer_session, trace

ANYWHERE = Endpoint("203.0.113.5", 4444)
CROWD = 64


def agreed(own: Side, operations: list[Operation], *, together: bool = False) -> list[Trace]:
    """The trace, after a look that both engines give the same. `together`: output is taken at the end only."""
    expected = trace("reference", own.mac, operations, together=together)
    native = trace("native", own.mac, operations, together=together)
    for number, (ours, theirs) in enumerate(zip(expected, native, strict=True)):
        assert theirs == ours, f"operation {number}"
    return expected


def counted(steps: list[Trace], reason: str) -> int:
    return sum(amount for step in steps for name, amount in step.counted if name == f"drop_{reason}")


def told(steps: list[Trace], kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for step in steps for event in step.events)


def test_frames_without_a_way_are_limited_alike() -> None:
    us, member = twins()
    nowhere = bytes([2, 9, 9, 9, 9, 9]) + udp_frame(us, member)[6:]
    operations: list[Operation] = [Submit((*us.introduce(member), RemoveSession(us.index)))]
    for frame, count in ((nowhere, 300), (udp_frame(us, member), 40)):
        operations += [Tap(frame)] * count + [Step(0.125)] + [Tap(frame)] * 100
    steps = agreed(us, operations)
    assert told(steps, FrameUnresolved) == 256 + 32
    assert told(steps, FrameWithoutSession) == 32 + 4
    assert counted(steps, "unresolved") > 0
    assert counted(steps, "no_session") > 0


def test_the_event_queue_overflows_alike() -> None:
    us, member = twins()
    hostile = member.hostile()
    control = [Underlay(ANYWHERE, hostile.seal(b"\x04\x01")) for _ in range(1500)]
    stranger = Underlay(ANYWHERE, b"\x01\0\0\0" + bytes(144))
    operations: list[Operation] = [Submit(tuple(us.introduce(member))), *[stranger] * 3200, *control]
    operations += [Tap(bytes([2, 9, 9, 9, 9, 9]) + udp_frame(us, member)[6:])]
    steps = agreed(us, operations, together=True)
    assert counted(steps, "event_overflow") == 3200 - 3072 + 1500 - 1024 + 1 + 1


def test_sources_are_told_and_forgotten_alike() -> None:
    us, member = twins()
    hostile, dice = member.hostile(), random.Random(3)
    operations: list[Operation] = [Submit(tuple(us.introduce(member)))]
    for number in range(3000):
        source = Endpoint("192.0.2.77", 1 + (number % 1100 if number < 2200 else dice.randrange(1100)))
        operations.append(Underlay(source, hostile.seal(b"")))
        if number % 5 == 0:
            operations.append(Step(0.125))
    agreed(us, operations)


def test_memory_for_fragments_runs_out_and_comes_back_alike() -> None:
    us, member = twins(mtu=9000)
    operations: list[Operation] = [Submit(tuple(us.introduce(member)))]
    sessions = []
    for number in range(CROWD):
        peer, here, there = (bytes([number, way]) * 16 for way in (1, 2, 3))
        install = InstallSession(peer, 0x5000 + number, 9, here, there, FAR_FUTURE)
        operations.append(Submit((SetPeer(peer, Link.ETHERNET, bytes([2, 1, 1, 1, 1, number])), install)))
        sessions.append(peer_session(install.local_index, there, here))
    first_pieces = [split(bytes(9100), number, 9000)[0] for number in range(9)]
    for piece in first_pieces[:8]:
        for session in sessions:
            operations.append(Underlay(ANYWHERE, session.seal(piece)))
    whole = b"\x01" + udp_frame(member, us, bytes(9100))
    hostile = member.hostile()

    def pieces(number: int) -> list[Operation]:
        return [Underlay(member.endpoint, hostile.seal(piece)) for piece in split(whole, number, 1400)]

    one_more = Underlay(ANYWHERE, sessions[0].seal(first_pieces[8]))
    steps = agreed(us, [*operations, *pieces(1), one_more, Step(1.0), *pieces(2)])
    assert counted(steps, "fragment_memory") > 0
    assert counted(steps, "fragment_evicted") > 0
    assert counted(steps, "fragment_timeout") > 0
    assert [frame for step in steps for frame in step.frames] == [whole[1:]]
