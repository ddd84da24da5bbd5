"""Every engine does what the reference data path does, byte for byte and counter for counter."""

from __future__ import annotations

import random
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from omninervous.core.dataplane import Aead, OpenLanes, SendControl, SessionExhausted
from omninervous.core.replay import REPLAY_WINDOW
from omninervous.core.session import AES_LIMIT, AES_REKEY, REKEY_AFTER_MESSAGES, Session
from omninervous.wire.address import Endpoint
from omninervous.wire.transport import HEADER, SEQUENCE_LIMIT, make_counter
from tests.datapaths import Side, partial, twins, udp_frame
from tests.differential.engines import (
    ENGINES,
    Operation,
    Skip,
    Step,
    Submit,
    Tap,
    Trace,
    Underlay,
    both_ends,
    peer_session,
    trace,
)

ELSEWHERE = Endpoint("203.0.113.5", 4444)
ENGINE_NAMES = sorted(ENGINES)
LIMITS = [
    (Aead.AES_256_GCM, AES_REKEY, AES_LIMIT),
    (Aead.CHACHA20_POLY1305, REKEY_AFTER_MESSAGES, SEQUENCE_LIMIT),
]


class Script:
    """Operations for an engine that plays `us`, and the session of the member it talks to."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.us, self.member = twins(seed, introduced=False)
        mtu = self.dice.choice((600, 1280, 1500))
        self.operations: list[Operation] = [Submit(tuple(self.us.introduce(self.member, mtu=mtu)))]
        ours, theirs = both_ends(3, Aead(self.dice.randrange(2)), self.dice)
        self.operations.append(Submit((OpenLanes(self.us.index, (ours,), tx=self.dice.choice(((), (3,)))),)))
        self.session: Session = peer_session(self.us.index, self.member.send_key, self.member.recv_key, (theirs,))

    def receive(self, data: bytes, source: Endpoint | None = None) -> None:
        self.operations.append(Underlay(source or self.member.endpoint, data))

    def seal_frame(self, frame: bytes, kind: int = 1, lane: int = 0) -> bytes:
        return self.session.seal(bytes([kind]) + frame, lane)

    def random_operation(self) -> None:
        dice, us, member = self.dice, self.us, self.member
        match dice.randrange(8):
            case 0 | 1:
                self.operations.append(Tap(udp_frame(us, member, dice.randbytes(dice.randrange(2000)))))
            case 2:
                self.operations.append(Tap(damaged(udp_frame(us, member), dice)))
            case 3:
                self.receive(
                    self.seal_frame(
                        udp_frame(member, us, dice.randbytes(dice.randrange(1400))), lane=dice.choice((0, 3))
                    )
                )
            case 4:
                self.receive(
                    self.seal_frame(damaged(partial(udp_frame(member, us, b"x" * 50)), dice), dice.choice((1, 2)))
                )
            case 5:
                self.receive(damaged(self.seal_frame(udp_frame(member, us)), dice), dice.choice((None, ELSEWHERE)))
            case 6:
                self.operations.append(Submit((SendControl(us.index, dice.choice((b"", b"\x04\x01"))),)))
            case 7:
                self.operations.append(Step(dice.choice((0.125, 1.0))))


def damaged(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def reference(us: Side, operations: list[Operation]) -> list[Trace]:
    return trace("reference", us.mac, operations)


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_random_traffic_has_the_same_trace(engine: str, seed: int) -> None:
    for number in range(10):
        script = Script(seed + number)
        for _ in range(60):
            script.random_operation()
        expected = reference(script.us, script.operations)
        for operation, ours, theirs in zip(
            script.operations, expected, trace(engine, script.us.mac, script.operations), strict=True
        ):
            assert theirs == ours, operation


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_one_flipped_bit_in_any_field_is_seen(engine: str) -> None:
    script = Script(1)
    good = script.seal_frame(udp_frame(script.member, script.us))
    for position in range(len(good)):
        script.receive(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
    script.receive(good)
    steps = trace(engine, script.us.mac, script.operations)
    assert steps == reference(script.us, script.operations)
    assert [len(step.frames) for step in steps[2:]] == [0] * len(good) + [1]


@pytest.mark.parametrize("lane", [0, 3])
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_counters_at_their_edges(engine: str, lane: int) -> None:
    script = Script(4)
    limit = SEQUENCE_LIMIT if lane == 0 else 1 << 28
    frame = udp_frame(script.member, script.us)
    sequences = [0, 1, REPLAY_WINDOW, REPLAY_WINDOW + 1, limit - 1]
    sealed = {}
    for sequence in sequences:
        script.session.advance(lane, sequence)
        sealed[sequence] = script.seal_frame(frame, lane=lane)
    # 1 is just inside the window of REPLAY_WINDOW, 0 just outside; then everything is a replay or too old.
    order = [REPLAY_WINDOW, 1, 0, REPLAY_WINDOW + 1, limit - 1, 1, limit - 1]
    for sequence in order:
        script.receive(sealed[sequence])
    steps = trace(engine, script.us.mac, script.operations)
    assert steps == reference(script.us, script.operations)
    assert [len(step.frames) for step in steps[2:]] == [1, 1, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("aead", "rekey", "limit"), LIMITS)
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_a_lane_asks_for_a_rekey_and_ends_at_its_own_limits(engine: str, aead: Aead, rekey: int, limit: int) -> None:
    us, member = twins(introduced=False)
    ours, theirs = both_ends(1, aead, random.Random(5))
    frame = Tap(udp_frame(us, member))
    operations: list[Operation] = [
        Submit((*us.introduce(member), OpenLanes(us.index, (ours,), tx=(1,)))),
        Skip(us.index, 1, rekey - 1),
        *(frame, frame, frame),
        Skip(us.index, 1, limit - rekey - 3),
        *(frame, frame, frame),
    ]
    for sequence in (limit - 1, limit):
        counter = make_counter(1, sequence)
        payload = b"\x01" + udp_frame(member, us)
        cipher = AESGCM if aead is Aead.AES_256_GCM else ChaCha20Poly1305
        sealed = cipher(theirs.send_key).encrypt(struct.pack("<4xQ", counter), payload, None)
        operations.append(Underlay(member.endpoint, HEADER.pack(4, us.index, counter) + sealed))
    steps = trace(engine, us.mac, operations)
    assert steps == reference(us, operations)
    assert [len(step.datagrams) for step in steps] == [0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0]
    assert [SessionExhausted(member.id, us.index) in step.events for step in steps[2:5]] == [False, True, False]
    assert [len(step.frames) for step in steps[-2:]] == [1, 0]
