from __future__ import annotations

from dataclasses import replace

from omninervous.core.capabilities import CapsExchange
from omninervous.core.dataplane import Aead, OpenLanes, SendControl
from omninervous.core.noise import Transport
from omninervous.core.own import OwnAddress
from omninervous.wire.control import Caps, CapsAck, decode_control
from tests.nodes import at, commands, context

CHACHA, AES = Aead.CHACHA20_POLY1305, Aead.AES_256_GCM


class Exchange:
    def __init__(self, *, initiator: bool = True, **config: object) -> None:
        self.ctx = context("own", **config)
        keys = (b"s" * 32, b"r" * 32)
        transport = Transport(1, 2, *keys, initiator, bytes(8), bytes(32), b"h" * 32, b"c" * 32)
        self.exchange = CapsExchange(self.ctx, transport)
        self.own = OwnAddress(self.ctx).caps(at(1.0), b"ourtoken", member=False)

    def sent(self) -> list[object]:
        return [decode_control(command.payload) for command in commands(self.ctx, SendControl)]


def theirs(**fields: object) -> Caps:
    return replace(Exchange().own, token=b"peertokn", **fields)  # type: ignore[arg-type]


def test_caps_are_repeated_each_second_until_acknowledged() -> None:
    side = Exchange()
    side.exchange.offer(at(1.0), side.own, at_once=True)
    for now in (1.5, 2.0, 2.5, 3.0):
        side.exchange.repeat(at(now))
    assert side.sent() == [side.own] * 3
    side.exchange.handle_ack(b"another!")
    side.exchange.repeat(at(4.0))
    assert len(side.sent()) == 1
    side.exchange.handle_ack(b"ourtoken")
    side.exchange.repeat(at(9.0), at_once=True)
    assert side.sent() == []


def test_caps_are_not_repeated_for_ever() -> None:
    side = Exchange()
    side.exchange.offer(at(1.0), side.own, at_once=False)
    for step in range(60):
        side.exchange.repeat(at(2.0 + step))
    assert len(side.sent()) == 5


def test_without_lanes_only_the_acknowledgement_is_sent() -> None:
    side = Exchange()
    side.exchange.handle_caps(theirs(lanes=0x1FF))
    assert side.exchange.lanes == (0,)
    (ack,) = side.ctx.commands
    assert isinstance(ack, SendControl) and decode_control(ack.payload) == CapsAck(b"peertokn")


def test_lanes_open_for_receiving_before_the_ack_and_for_sending_after_ours() -> None:
    side = Exchange(lanes=(1, 2, 8))
    side.exchange.offer(at(1.0), side.own, at_once=True)
    side.ctx.commands.clear()
    side.exchange.handle_caps(theirs(lanes=1 << 0 | 1 << 2 | 1 << 8))
    opened, ack = side.ctx.commands
    assert isinstance(opened, OpenLanes) and isinstance(ack, SendControl)
    assert [keys.lane for keys in opened.lanes] == [2, 8] and opened.tx == ()
    side.ctx.commands.clear()
    side.exchange.handle_ack(b"ourtoken")
    (sending,) = side.ctx.commands
    assert isinstance(sending, OpenLanes) and sending.lanes == () and sending.tx == (2, 8)
    assert side.exchange.lanes == (0, 2, 8)


def test_aes_needs_both_sides_and_never_takes_the_reflex_lane() -> None:
    both = 1 << CHACHA.value | 1 << AES.value
    for ours, peers, expected in (((CHACHA, AES), both, AES), ((CHACHA,), both, CHACHA), ((CHACHA, AES), 1, CHACHA)):
        side = Exchange(lanes=(1, 8), aeads=ours)
        side.exchange.offer(at(1.0), side.own, at_once=True)
        side.exchange.handle_caps(theirs(lanes=0x103, aeads=peers))
        (opened,) = commands(side.ctx, OpenLanes)
        assert [keys.aead for keys in opened.lanes] == [expected, CHACHA]


def test_without_a_common_aead_only_the_reflex_lane_opens() -> None:
    side = Exchange(lanes=(1, 8), aeads=(AES,))
    side.exchange.offer(at(1.0), side.own, at_once=True)
    side.exchange.handle_caps(theirs(lanes=0x103, aeads=1 << CHACHA.value))
    (opened,) = commands(side.ctx, OpenLanes)
    assert [keys.lane for keys in opened.lanes] == [8]


def test_both_sides_derive_the_same_lane_keys() -> None:
    one, other = Exchange(lanes=(1,)), Exchange(lanes=(1,), initiator=False)
    for side in (one, other):
        side.exchange.offer(at(1.0), side.own, at_once=True)
        side.exchange.handle_caps(theirs(lanes=0x3))
    (ours,), (peers,) = commands(one.ctx, OpenLanes), commands(other.ctx, OpenLanes)
    assert ours.lanes[0].send_key == peers.lanes[0].recv_key != ours.lanes[0].recv_key


def test_who_speaks_first_makes_no_difference() -> None:
    side = Exchange(lanes=(1, 8))
    side.exchange.handle_caps(theirs(lanes=0x103))
    assert commands(side.ctx, OpenLanes) == [], "nothing is offered yet"
    side.exchange.offer(at(1.0), side.own, at_once=True)
    opened, caps = side.ctx.commands
    assert isinstance(opened, OpenLanes) and [keys.lane for keys in opened.lanes] == [1, 8]
    assert isinstance(caps, SendControl), "and is only then"


def test_a_lane_can_be_taken_back_and_offered_again_within_a_session() -> None:
    side = Exchange(lanes=(1, 8))
    own = OwnAddress(side.ctx)
    sending = []
    for lanes in ((1, 8), (1,), (1, 8)):
        side.ctx.lanes = lanes
        ours = own.caps(at(1.0), b"ourtoken", member=False)
        side.exchange.offer(at(1.0), ours, at_once=True)
        side.exchange.handle_caps(theirs(lanes=0x103))
        side.exchange.handle_ack(b"ourtoken")
        sending.append([each.tx for each in commands(side.ctx, OpenLanes)][-1])
    assert sending == [(1, 8), (1,), (1, 8)]


def test_without_room_in_the_kernel_its_lane_is_not_offered() -> None:
    side = Exchange(lanes=(1, 8))
    ours = OwnAddress(side.ctx).caps(at(1.0), b"ourtoken", member=False, reflex=False)
    assert ours.lanes == 0b11
    side.exchange.offer(at(1.0), ours, at_once=True)
    side.exchange.handle_caps(theirs(lanes=0x103))
    (opened,) = commands(side.ctx, OpenLanes)
    assert [keys.lane for keys in opened.lanes] == [1]
