"""The reflex lane's programs one packet at a time (BPF_PROG_TEST_RUN): the cipher against `cryptography` and published
vectors, the verdicts against the reference engine."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from omninervous._native import Reflex
from omninervous.core.dataplane import Aead, LaneKeys, OpenLanes
from omninervous.lab.topology import Host
from omninervous.wire.address import Endpoint
from tests.datapaths import Side, drops, twins
from tests.differential.frames import Frames, Station
from tests.netns.reflex_packets import OTHER_ID, PORT, TCX_DROP, TCX_NEXT, TCX_REDIRECT, THEIR_ID, THERE, packet

VECTORS = Path(__file__).parents[1] / "vectors"
_SHORTEST = 34
_LANE = 8
_LOOPBACK = 1
_LONGEST = 1500
_FRAGMENT = b"\x03"


def seal(lane: Reflex, key: bytes, nonce: bytes, message: bytes) -> bytes:
    verdict, after, _ = lane.test_run("aead_seal", key + nonce + message + bytes(16))
    assert verdict == 0
    return after[44:]


def opened(lane: Reflex, key: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
    verdict, after, _ = lane.test_run("aead_open", key + nonce + sealed)
    assert verdict in (0, 1)
    return after[44:-16] if verdict == 0 else None


def test_every_length_agrees_with_cryptography(lane: Reflex, seed: int) -> None:
    dice = random.Random(seed)
    for length in range(1501):
        key, nonce, message = dice.randbytes(32), dice.randbytes(12), dice.randbytes(length)
        sealed = ChaCha20Poly1305(key).encrypt(nonce, message, None)
        assert seal(lane, key, nonce, message) == sealed, length
        assert opened(lane, key, nonce, sealed) == message, length


def test_a_flipped_bit_in_any_byte_is_seen(lane: Reflex, seed: int) -> None:
    dice = random.Random(seed)
    for length in (0, 1, 15, 16, 63, 64, 65, 1400):
        key, nonce = dice.randbytes(32), dice.randbytes(12)
        sealed = bytearray(ChaCha20Poly1305(key).encrypt(nonce, dice.randbytes(length), None))
        for at in range(len(sealed)):
            bit = 1 << dice.randrange(8)
            sealed[at] ^= bit
            assert opened(lane, key, nonce, bytes(sealed)) is None, (length, at, bit)
            sealed[at] ^= bit
        assert opened(lane, key, nonce, bytes(sealed)) is not None


def test_published_vectors(lane: Reflex) -> None:
    tried = 0
    for cipher, result, key, nonce, aad, plaintext, ciphertext, tag, comment in json.loads(
        (VECTORS / "wycheproof_aead.json").read_text()
    )["vectors"]:
        if cipher != "chacha20_poly1305" or aad:
            continue  # the lane has no additional data
        message = opened(lane, bytes.fromhex(key), bytes.fromhex(nonce), bytes.fromhex(ciphertext + tag))
        assert message == (bytes.fromhex(plaintext) if result == "valid" else None), comment
        tried += 1
    assert tried == 45


# ---------------------------------------------------------------- verdicts


class Pair:
    """The kernel and the reference engine as edge 2, with the same session from edge 1."""

    def __init__(self, lane: Reflex, dice: random.Random) -> None:
        self.one, self.two = twins(1)
        self.lane = lane
        self.keys = LaneKeys(_LANE, Aead.CHACHA20_POLY1305, dice.randbytes(32), dice.randbytes(32))
        self.two.datapath.submit(0.0, [OpenLanes(self.two.index, (self.keys,), ())])
        lane.set_peer(self.one.id, self.one.mac, [self.one.vip.packed, self.one.ula.packed], 1500)
        lane.install_session(self.one.id, self.two.index, self.one.index, 1e9)
        assert lane.open_lane(self.two.index, self.keys.send_key, self.keys.recv_key, False)
        self.sequence = 0
        self._counted = lane.counters()
        self._dropped = drops(self.two)

    def sealed(self, payload: bytes) -> bytes:
        """The next datagram of lane 8."""
        counter = struct.pack("<Q", _LANE << 60 | self.sequence)
        self.sequence += 1
        body = ChaCha20Poly1305(self.keys.recv_key).encrypt(bytes(4) + counter, payload, None)
        return b"\x04\0\0\0" + struct.pack("<I", self.two.index) + counter + body

    def by_kernel(self, datagram: bytes, tos: int) -> tuple[str | None, bytes | None]:
        """Why it was dropped, or the frame that came of it."""
        # Reading all counters takes as long as a run: those after one packet are those before the next.
        before = self._counted
        verdict, after, _ = self.lane.test_run("tc_synapse", packet(datagram, tos=tos))
        self._counted = self.lane.counters()
        changed = [new[0] for old, new in zip(before, self._counted, strict=True) if old != new]
        new = [name.removeprefix("drop_") for name in changed if name.startswith("drop_")]
        assert len(new) <= 1
        assert verdict in (TCX_NEXT, TCX_DROP, TCX_REDIRECT)
        return (new[0] if new else None), (after if verdict == TCX_REDIRECT else None)

    def by_reference(self, datagram: bytes, ecn: int) -> tuple[str | None, bytes | None]:
        """The same of the reference engine."""
        before = self._dropped
        self.two.datapath.from_underlay(1.0, self.one.endpoint, datagram, ecn)
        self._dropped = drops(self.two)
        new = [name for name, number in self._dropped.items() if number != before.get(name, 0)]
        frames = self.two.take().frames
        return (new[0] if new else None), (frames[0] if frames else None)


def station(side: Side) -> Station:
    return Station(side.mac, side.vip, side.ula)


def assert_same_verdicts(lane: Reflex, dice: random.Random, count: int) -> None:
    """Frames of every kind, each packet damaged: before it was sealed, on its way, or sent again."""
    pair = Pair(lane, dice)
    frames = Frames(
        dice, [station(pair.one), station(pair.two), Station(b"\x02\0\0\0\0\x09", pair.two.vip, pair.two.ula)]
    )
    seen: set[str | None] = set()
    old = [pair.sealed(b"")]
    for _ in range(count):
        frame = frames.any(station(pair.one), station(pair.two))[:_LONGEST]
        payload = bytes([dice.choice((1,) * 12 + (2,) * 6 + (0, 4, 5, 6, 0x45))]) + frame
        how = dice.randrange(8)
        if how < 6:
            payload = mutated(dice, payload)[: _LONGEST + 1]
            if (
                payload[:1] == _FRAGMENT
            ):  # the kernel drops them on lane 8, where the reference engine waits for the rest
                payload = b"\x01" + payload[1:]
            datagram = pair.sealed(payload)
        else:
            datagram = mutated(dice, pair.sealed(payload)) if how == 6 else dice.choice(old)
        old = [*old[-20:], datagram]
        tos = dice.choice((0, 0, 0, 1, 2, 3))
        if may_differ(datagram):
            continue
        kernel, reference = pair.by_kernel(datagram, tos), pair.by_reference(datagram, tos)
        assert kernel[0] == reference[0], (datagram.hex(), tos)
        expected = reference[1]
        assert kernel[1] == (expected if expected is None else expected.ljust(_SHORTEST, b"\0")), (datagram.hex(), tos)
        seen.add(kernel[0])
    assert {None, "replay", "bad_tag", "source_guard", "bad_payload", "payload_kind"} <= seen


def mutated(dice: random.Random, data: bytes) -> bytes:
    """One to four bits, bytes, lengths or pieces are others."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        # Headers are at the beginning.
        at = dice.randrange(max(1, len(made) if dice.randrange(2) else min(len(made), 80)))
        match dice.randrange(6):
            case 0 | 1 if made:
                made[at % len(made)] ^= 1 << dice.randrange(8)
            case 2 if made:
                made[at % len(made)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 3:
                del made[at:]
            case 4:
                del made[at : at + dice.randrange(1, 9)]
            case _:
                made[at:at] = dice.randbytes(dice.randrange(1, 9))
    return bytes(made)


def may_differ(datagram: bytes) -> bool:
    """What the kernel judges and an engine leaves to the core, and lanes that the engine opens."""
    if datagram[:1] and datagram[:4] != b"\x04\0\0\0":
        return len(datagram) >= 4 and datagram[0] in (1, 2, 3, 5, 6) and datagram[1:4] == bytes(3)
    return len(datagram) >= 32 and datagram[15] >> 4 < _LANE


@pytest.mark.parametrize("part", range(4))
def test_verdicts_are_the_reference_engines(lane: Reflex, seed: int, part: int) -> None:
    assert_same_verdicts(lane, random.Random(f"{seed} {part}"), 25_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_verdicts_are_the_reference_engines_for_long(lane: Reflex, seed: int) -> None:
    assert_same_verdicts(lane, random.Random(seed), 1_000_000)


def test_the_replay_window_gives_the_published_verdicts(lane: Reflex, seed: int) -> None:
    pair = Pair(lane, random.Random(seed))
    for sequence, accepted in json.loads((VECTORS / "replay.json").read_text())["steps"]:
        pair.sequence = sequence
        reason, _ = pair.by_kernel(pair.sealed(b""), 0)
        expected = "counter_limit" if sequence >= (1 << 60) - (1 << 13) - 1 else "replay"
        assert reason == (None if accepted else expected), sequence


def test_a_session_that_is_over_or_gone_opens_nothing(lane: Reflex, seed: int) -> None:
    pair = Pair(lane, random.Random(seed))
    lane.install_session(pair.one.id, 7, 8, 0.5)  # half a second after this machine started
    assert lane.open_lane(7, bytes(32), pair.keys.recv_key, False)
    late = pair.sealed(b"")
    assert pair.by_kernel(late[:4] + struct.pack("<I", 7) + late[8:], 0)[0] == "expired"
    assert pair.by_kernel(pair.sealed(b""), 0)[0] is None
    lane.remove_session(pair.two.index)
    assert pair.by_kernel(pair.sealed(b""), 0)[0] == "unknown_session"


def test_other_traffic_is_left_alone(lane: Reflex, seed: int) -> None:
    dice = random.Random(seed)
    pair = Pair(lane, dice)
    frames = Frames(dice, [station(pair.one), station(pair.two)])
    others = [frames.any(station(pair.one), station(pair.two)) for _ in range(2000)]
    others.append(packet(pair.sealed(b""), port=PORT + 1))
    before = lane.counters()
    for each in others:
        if not 54 <= len(each) <= 1514:
            continue  # a test run refuses less than the headers that the ethertype names, and more than a page
        for program, passes in (("tc_synapse", TCX_NEXT), ("tc_opened", TCX_NEXT), ("xdp_synapse", 2)):
            assert lane.test_run(program, each)[:2] == (passes, each)
    assert lane.counters() == before


def test_an_address_that_another_peer_has_now_stays_in_the_fdb(lane: Reflex) -> None:
    mac = bytes([2, 0, 0, 0, 0, 7])
    frame = mac + bytes([2, 0, 0, 0, 0, 2]) + b"\x88\xb5" + bytes(50)

    def left_because() -> str:
        before = dict(lane.counters())
        lane.test_run("omni_egress", frame)
        (name,) = [name for name, number in lane.counters() if number != before[name]]
        return name

    assert left_because() == "reflex_pass_unresolved"
    for each in (THEIR_ID, OTHER_ID):
        lane.set_peer(each, mac, [], 1500)
    lane.remove_peer(THEIR_ID)
    assert left_because() == "reflex_pass_no_session"
    lane.remove_peer(OTHER_ID)
    assert left_because() == "reflex_pass_unresolved"


def test_who_has_an_address_first_keeps_it_and_the_next_inherits(lane: Reflex) -> None:
    """As in the userspace engine: a second key that hashes to the same MAC is a forgery, and gets no traffic."""
    mac = bytes([2, 0, 0, 0, 0, 7])
    frame = mac + bytes([2, 0, 0, 0, 0, 2]) + b"\x88\xb5" + bytes(50)

    def left_because() -> set[str]:
        before = dict(lane.counters())
        lane.test_run("omni_egress", frame)
        return {name for name, number in lane.counters() if number != before[name]}

    for each in (THEIR_ID, OTHER_ID):
        lane.set_peer(each, mac, [], 1500)
    lane.install_session(OTHER_ID, 9, 10, 1e9)
    assert lane.open_lane(9, bytes(32), bytes(32), True)
    lane.select_session(OTHER_ID, 9)
    assert left_because() == {"reflex_pass_no_session"}, "the first one's"
    lane.set_peer(OTHER_ID, mac, [], 1400)
    assert left_because() == {"reflex_pass_no_session"}
    lane.set_peer(THEIR_ID, bytes([2, 0, 0, 0, 0, 8]), [], 1500)
    assert left_because() == {"reflex_pass_no_endpoint"}, "the other's, whose endpoint is not known"


def test_an_address_is_ours_for_as_long_as_the_machine_has_it(pair_lan: tuple[Host, Host]) -> None:
    """The programs remember the one that came last."""
    machine = pair_lan[0].namespace
    lane = machine.call(lambda: Reflex(_LOOPBACK, bytes([2, 0, 0, 0, 0, 2]), bytes(32), PORT, 16))
    junk = struct.pack("<IIQ", 4, 7, _LANE << 60) + bytes(64)
    try:
        for address, source in (("127.0.0.1/8", THERE), ("::1/128", Endpoint("2001:db8::1", 51820))):
            datagram = packet(junk, source=source)
            for there, verdict in ((True, TCX_DROP), (False, TCX_NEXT), (True, TCX_DROP)):
                machine.ip("address", "replace" if there else "del", address, "dev", "lo")
                lane.tick()
                assert [lane.test_run("tc_synapse", datagram)[0] for _ in range(3)] == [verdict] * 3
    finally:
        lane.close()
