"""Super-frames: what the native engine cuts and joins is what the reference sends and delivers one by one.

The checksums of merged frames travel as metadata, so a receiving stack would not notice a wrong byte: these tests must.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.dataplane import InstallSession, Link, SelectSession, SetEndpoint, SetFlood, SetPeer
from omninervous.synapse.datapath import MAX_FRAME
from omninervous.wire.frame import (
    BROADCAST_MAC,
)
from tests.datapaths import twins, udp_frame
from tests.differential.engines import Submit, Underlay
from tests.differential.frames import Frames
from tests.differential.streams import ACK, CWR, ECE, FIN, PSH, TAG, TCP, UDP, Stream, by_flow, content, native, packet
from tests.differential.vnet import PLAIN, Vnet, begun, kernel_segments, written
from tests.differential.world import STATIONS, US

# ---------------------------------------------------------------- splitting


@given(st.randoms(use_true_random=False), st.sampled_from([600, 1280, 1500, 9000]))
def test_a_super_frame_arrives_as_the_frames_that_a_kernel_would_have_sent(dice: random.Random, mtu: int) -> None:
    us, member = twins(mtu=mtu)
    ours, theirs = native(us, member, mtu), native(member, us, mtu)
    v6 = dice.randrange(2) == 1
    size = dice.choice((1, 100, 536, 1220, 1326, 1500, 8900))
    protocol = dice.choice((TCP, TCP, UDP))
    whole = packet(
        us,
        member,
        content(dice, 1 + dice.randrange(min(40 * size, 60_000))),
        v6=v6,
        tags=TAG * dice.choice((0, 0, 1, 2)),
        protocol=protocol,
        sequence=dice.choice((0, 1 << 31, (1 << 32) - 5)),
        flags=dice.choice((ACK, ACK | PSH, ACK | FIN, ACK | PSH | CWR | ECE, 0xFF)),
        options=bytes(dice.choice((0, 12, 40))),
        identification=dice.choice((7, 0xFFFF)),
        extension=dice.choice((b"", bytes([protocol]) + bytes(7))) if v6 else b"",
    )
    gso_size = dice.choice((0, size))
    if gso_size == 0 and len(whole) > MAX_FRAME:
        gso_size = size
    header, frame = begun(whole, gso_size)
    ours.datapath.from_tap(1.0, header, frame)
    expected = kernel_segments(header, frame) if gso_size else [whole]
    datagrams = ours.take().datagrams
    for _, data in datagrams:
        member.datapath.from_underlay(1.0, us.endpoint, data)
        theirs.apply(1.0, Underlay(us.endpoint, data))
    assert [*member.take().frames] == expected
    assert by_flow(theirs.take().frames) == by_flow(expected)
    assert {name for name in ours.counters() if name.startswith("drop")} == set()


def test_a_broadcast_super_frame_reaches_every_peer_whole() -> None:
    us, member = twins()
    ours = native(us, member, 1500)
    third = bytes([3]) * 32
    ours.apply(
        0.0,
        Submit(
            (
                SetPeer(third, Link.ETHERNET, bytes([2, 0, 0, 0, 0, 3])),
                SetEndpoint(third, us.endpoint),
                InstallSession(third, 77, 78, bytes(32), bytes(32), 1e9),
                SelectSession(third, 77),
                SetFlood((member.id, third)),
            )
        ),
    )
    header, frame = begun(BROADCAST_MAC + packet(us, member, bytes(3000), protocol=UDP)[6:], 1000)
    ours.datapath.from_tap(1.0, header, frame)
    assert [to for to, _ in ours.take().datagrams] == [member.endpoint] * 3 + [us.endpoint] * 3


@given(st.randoms(use_true_random=False))
def test_any_virtio_header_before_any_frame_is_sent_told_or_counted(dice: random.Random) -> None:
    us, member = twins()
    ours = native(us, member, 1500)
    frame = Frames(dice, STATIONS).any(US, STATIONS[1])
    if dice.randrange(3) == 0:
        frame = packet(us, member, bytes(dice.randrange(60_000)), v6=dice.randrange(2) == 1)
    header = Vnet(
        dice.choice((0, 1, 1, 2, 3, 0xFF)),
        dice.choice((0, 0, 1, 1, 3, 4, 5, 0x81, 0x84, 6, 0xFF)),
        dice.choice((0, 54, 66, 0xFFFF)),
        dice.choice((0, 1, 100, 1400, 9300, 0xFFFF)),
        dice.choice((0, 14, 34, 54, len(frame), 0xFFFF)) & 0xFFFF,
        dice.choice((0, 6, 16, 0xFFFF)),
    )
    before = ours.counters()
    ours.datapath.from_tap(1.0, header.encode(), frame)
    output = ours.take()
    assert output.datagrams or output.events or ours.counters() != before
    for _, data in output.datagrams:
        member.datapath.from_underlay(1.0, us.endpoint, data)
    assert all(len(each) <= MAX_FRAME for each in member.take().frames)


# ---------------------------------------------------------------- merging


@given(st.randoms(use_true_random=False), st.integers(1, 12), st.integers(1, 40))
def test_merged_frames_are_those_that_arrived_in_order_within_their_flow(
    dice: random.Random, flows: int, count: int
) -> None:
    us, member = twins(mtu=9000)
    ours, hostile = native(us, member, 9000), member.hostile()
    streams = [Stream(dice, member, us, number) for number in range(flows)]
    stream = streams[0]
    for _ in range(count):
        stream = dice.choice((stream, stream, stream, dice.choice(streams)))
        kind, frame = stream.next()
        data = hostile.seal(bytes([kind]) + frame)
        us.datapath.from_underlay(1.0, member.endpoint, data)
        ours.apply(1.0, Underlay(member.endpoint, data))
    assert by_flow(ours.take().frames) == by_flow(us.take().frames)
    assert {**ours.counters(), "refitted": 0} == us.datapath.counters()


def test_long_streams_merge_and_stay_the_same_bytes(seed: int) -> None:
    us, member = twins(mtu=9000)
    ours, hostile, dice = native(us, member, 9000), member.hostile(), random.Random(seed)
    frames = writes = 0
    for _ in range(60):
        streams = [Stream(dice, member, us, number, 400) for number in range(dice.randrange(1, 12))]
        stream = streams[0]
        for _ in range(200):
            stream = stream if dice.randrange(10) else dice.choice(streams)
            kind, frame = stream.next()
            data = hostile.seal(bytes([kind]) + frame)
            us.datapath.from_underlay(1.0, member.endpoint, data)
            ours.datapath.from_underlay(1.0, *member.endpoint, data)
        _, written_now, _ = ours.datapath.take()
        writes += len(written_now)
        arrived = [each for header, frame in written_now for each in written(header, frame)]
        frames += len(arrived)
        assert by_flow(arrived) == by_flow(us.take().frames)
    assert frames > 3 * writes


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_splitting_then_merging_gives_the_stream_back(protocol: int, v6: bool) -> None:
    us, member = twins(mtu=1500)
    ours, theirs = native(us, member, 1500), native(member, us, 1500)
    payload = random.Random(1).randbytes(50_000)
    header, frame = begun(packet(us, member, payload, v6=v6, protocol=protocol, flags=ACK | PSH), 1200)
    ours.datapath.from_tap(1.0, header, frame)
    for _, data in ours.take().datagrams:
        theirs.apply(1.0, Underlay(us.endpoint, data))
    _, writes, _ = theirs.datapath.take()
    if protocol == TCP:
        assert [each for _, each in writes] == [frame]
    else:
        assert b"".join(each[62 if v6 else 42 :] for _, each in writes) == payload


def test_a_frame_beside_a_stream_is_written_in_the_same_batch() -> None:
    us, member = twins()
    ours, hostile = native(us, member, 1500), member.hostile()
    stream = [packet(member, us, bytes(100), sequence=1000 + 100 * number) for number in range(5)]
    beside = udp_frame(member, us, b"ping")
    for frame in (*stream[:3], beside, *stream[3:]):
        ours.apply(1.0, Underlay(member.endpoint, hostile.seal(b"\x01" + frame)))
    _, writes, _ = ours.datapath.take()
    assert [header == PLAIN for header, _ in writes] == [True, False]
    assert writes[0][1] == beside
