"""Two data paths back to back: frames arrive as they were, or a counter says why not."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from omninervous.core.dataplane import DatagramReceived, FrameUnresolved, FrameWithoutSession, SendControl
from omninervous.wire.frame import BROADCAST_MAC
from omninervous.wire.payload import PayloadKind
from tests.datapaths import drops, twins, udp_frame

MAX_FRAME = 9234


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Anything a local stack may hand over, well-formed or not; some from foreign MACs."""
    one, two = twins()
    choice = draw(st.integers(0, 3))
    if choice == 0:
        return udp_frame(one, two, draw(st.binary(max_size=64)) * draw(st.integers(1, 40)))
    source = draw(st.sampled_from([one.mac, one.mac, one.mac, two.mac]))
    destination = draw(st.sampled_from([two.mac, BROADCAST_MAC, bytes.fromhex("333300000001"), bytes(6)]))
    ethertype = draw(st.sampled_from([0x0800, 0x0806, 0x86DD, 0x8100, 0x88B5, 3]))
    body = draw(st.binary(max_size=100)) * draw(st.sampled_from([1, 1, 20, 100]))
    frame = destination + source + ethertype.to_bytes(2, "big") + body
    return frame if choice < 3 else frame[: draw(st.integers(0, len(frame)))]


@given(st.lists(frames(), max_size=10), st.sampled_from([600, 1280, 1500, 9000]))
def test_a_frame_is_sent_told_or_counted_and_then_arrives_identical_or_is_counted(sent: list[bytes], mtu: int) -> None:
    one, two = twins(mtu=mtu)
    for frame in sent:
        before, before_there = sum(drops(one).values()), sum(drops(two).values())
        one.datapath.from_tap(1.0, frame)
        output = one.take()
        told = [event for event in output.events if isinstance(event, (FrameUnresolved, FrameWithoutSession))]
        fates = [bool(output.datagrams), bool(told), sum(drops(one).values()) > before]
        assert sum(fates) == 1
        for _, data in output.datagrams:
            two.datapath.from_underlay(1.0, one.endpoint, data)
        delivered, dropped = two.take().frames, sum(drops(two).values()) > before_there
        assert delivered in ([], [frame])
        assert bool(delivered) + dropped == bool(output.datagrams)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([600, 1500]), st.floats(0, 0.3), st.floats(0, 0.3), st.integers(0, 40))
def test_a_bad_network_loses_frames_but_never_changes_or_doubles_one(
    seed: int, mtu: int, loss: float, duplication: float, shuffle: int
) -> None:
    one, two = twins(seed, mtu=mtu)
    dice = random.Random(seed)
    sent = [
        udp_frame(one, two, number.to_bytes(4, "big") + dice.randbytes(dice.randrange(2500))) for number in range(30)
    ]
    for frame in sent:
        one.datapath.from_tap(1.0, frame)
    flying = []
    for position, (_, data) in enumerate(one.take().datagrams):
        for _ in range(0 if dice.random() < loss else 2 if dice.random() < duplication else 1):
            flying.append((position + dice.uniform(0, shuffle), data))
    for _, data in sorted(flying):
        two.datapath.from_underlay(1.0, one.endpoint, data)
    delivered = two.take().frames
    assert len(delivered) == len(set(delivered))
    assert set(delivered) <= set(sent)
    if loss == duplication == shuffle == 0:
        assert delivered == sent


@given(st.lists(st.tuples(st.integers(0, 7), st.binary(max_size=300)), max_size=20), st.integers(0, 2**32))
def test_a_hostile_member_gets_output_events_or_counted_drops(payloads: list[tuple[int, bytes]], seed: int) -> None:
    one, two = twins(seed)
    hostile = one.hostile()
    for kind, body in payloads:
        datagram = hostile.seal(bytes([kind]) + body)
        before = sum(drops(two).values())
        two.datapath.from_underlay(1.0, one.endpoint, datagram)
        output = two.take()
        counted = sum(drops(two).values()) - before
        waits = two.datapath.next_deadline() is not None
        assert output.frames or output.events or counted or waits


@given(st.binary(max_size=200))
def test_any_datagram_is_an_event_or_a_counted_drop(data: bytes) -> None:
    one, two = twins()
    for each in (data, b"\x04\0\0\0" + data, b"\x04\0\0\0" + one.index.to_bytes(4, "little") + data):
        before = sum(drops(one).values())
        one.datapath.from_underlay(1.0, two.endpoint, each)
        told = [event for event in one.take().events if isinstance(event, DatagramReceived)]
        assert len(told) + sum(drops(one).values()) - before == 1


@given(st.binary(max_size=400))
def test_control_crosses_unchanged(body: bytes) -> None:
    one, two = twins()
    payload = bytes([PayloadKind.CONTROL]) + body
    one.datapath.submit(1.0, [SendControl(one.index, payload)])
    ((_, data),) = one.take().datagrams
    two.datapath.from_underlay(1.0, one.endpoint, data)
    assert [getattr(event, "payload", None) for event in two.take().events] == [None, payload]
