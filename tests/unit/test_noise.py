"""The handshake: wireguard-go's transcripts byte for byte, and what happens when something is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from omninervous.core.cookies import MacGenerator, with_macs
from omninervous.core.dataplane import Aead
from omninervous.core.noise import (
    SHARED_SECRETS_KEPT,
    ZERO_PSK,
    IncomingInitiation,
    Initiator,
    StaticKeys,
    Transport,
    public_key,
)
from omninervous.core.session import Session
from omninervous.errors import RemoteError
from omninervous.wire.handshake import decode_cookie_reply

PATH = Path(__file__).parents[1] / "vectors" / "wireguard_transcript.json"
TRANSCRIPTS: dict[str, dict[str, Any]] = json.loads(PATH.read_text())["transcripts"]

STAMP = bytes.fromhex("400000006400000001000000")
PSK = bytes(range(32))
A, B = (bytes([first]) * 32 for first in (0x11, 0x22))


def handshake(psk: bytes = PSK) -> tuple[Transport, Transport]:
    entropy = random.Random(1).randbytes
    initiator = Initiator.create(A, public_key(B), psk, STAMP, 1, entropy)
    response, ours = IncomingInitiation.open(B, initiator.message).respond(psk, 2, entropy)
    return initiator.finish(response), ours


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_it_is_wireguard_byte_for_byte(name: str) -> None:
    t = TRANSCRIPTS[name]
    data = {key: bytes.fromhex(value) for key, value in t.items() if isinstance(value, str)}
    cookie = data.get("cookie")

    initiator = Initiator.create(
        data["initiator_static"],
        data["responder_public"],
        data["psk"],
        data["timestamp"],
        t["initiator_index"],
        lambda size: data["initiator_ephemeral"],
        cookie=cookie,
    )
    assert initiator.message == data["initiation"]
    incoming = IncomingInitiation.open(data["responder_static"], data["initiation"])
    assert incoming.remote_static == data["initiator_public"]
    assert incoming.timestamp == data["timestamp"]
    assert incoming.sender_index == t["initiator_index"]
    response, responder_end = incoming.respond(
        data["psk"], t["responder_index"], lambda size: data["responder_ephemeral"]
    )
    assert response == data["response"]
    initiator_end = initiator.finish(response)

    for end in (initiator_end, responder_end):
        assert end.handshake_hash == data["handshake_hash"]
        assert end.session_id == data["handshake_hash"][:8]
    for lane in t["lanes"]:
        keys = initiator_end.lane_keys(lane["lane"], Aead(lane["aead"]))
        back = responder_end.lane_keys(lane["lane"], Aead(lane["aead"]))
        assert keys.send_key.hex() == back.recv_key.hex() == lane["initiator_to_responder"]
        assert keys.recv_key.hex() == back.send_key.hex() == lane["responder_to_initiator"]

    sessions = Session(initiator_end.install(1e9)), Session(responder_end.install(1e9))
    for (sender, receiver), way in (
        (sessions, "initiator_to_responder"),
        (sessions[::-1], "responder_to_initiator"),
    ):
        for packet in t[way]:
            if packet["counter"] > 1:
                sender.advance(0, packet["counter"])
            assert sender.seal(bytes.fromhex(packet["plaintext"])).hex() == packet["datagram"]
            opened = receiver.open(0.0, bytes.fromhex(packet["datagram"]))
            assert (opened.sequence, opened.payload.hex()) == (packet["counter"], packet["plaintext"])


def test_a_cookie_of_wireguard_go_is_understood() -> None:
    t = {key: bytes.fromhex(v) for key, v in TRANSCRIPTS["with_cookie"].items() if isinstance(v, str)}
    macs = MacGenerator(t["responder_public"])
    assert macs.sign(0.0, t["initiation_before_cookie"]) == t["initiation_before_cookie"]
    macs.handle_reply(1.0, decode_cookie_reply(t["cookie_reply"]))
    assert macs.cookie(1.0) == t["cookie"]
    assert macs.sign(1.0, t["initiation_before_cookie"]) == t["initiation"]


def test_both_ends_share_everything_but_their_role() -> None:
    one, two = handshake()
    assert (one.initiator, two.initiator) == (True, False)
    assert (one.send_key, one.recv_key) == (two.recv_key, two.send_key)
    assert (one.local_index, one.remote_index) == (two.remote_index, two.local_index) == (1, 2)
    assert (one.remote_static, two.remote_static) == (public_key(B), public_key(A))
    assert one.session_id == two.session_id


def test_every_lane_aead_and_direction_has_its_own_key() -> None:
    one, _ = handshake()
    keys = [one.send_key, one.recv_key]
    for lane in range(1, 9):
        for aead in Aead if lane < 8 else (Aead.CHACHA20_POLY1305,):
            lane_keys = one.lane_keys(lane, aead)
            keys += [lane_keys.send_key, lane_keys.recv_key]
    assert len({*keys}) == len(keys) == 2 + 7 * 4 + 2


def test_lane_0_has_no_labelled_key_and_reflex_only_one_aead() -> None:
    one, _ = handshake()
    for lane, aead in ((0, Aead.CHACHA20_POLY1305), (9, Aead.CHACHA20_POLY1305), (8, Aead.AES_256_GCM)):
        with pytest.raises(AssertionError):
            one.lane_keys(lane, aead)


@pytest.mark.parametrize("position", range(0, 92, 3))
def test_a_damaged_response_does_not_kill_the_handshake(position: int) -> None:
    entropy = random.Random(2).randbytes
    initiator = Initiator.create(A, public_key(B), PSK, STAMP, 7, entropy)
    response, _ = IncomingInitiation.open(B, initiator.message).respond(PSK, 8, entropy)
    damaged = bytearray(response)
    damaged[position] ^= 1
    if position < 76:  # mac2 means nothing to an initiator without load
        with pytest.raises(RemoteError):
            initiator.finish(bytes(damaged))
    assert initiator.finish(response).remote_index == 8
    with pytest.raises(RemoteError, match="handshake_done"):
        initiator.finish(response)


@pytest.mark.parametrize("position", range(0, 148, 5))
def test_a_damaged_initiation_is_refused(position: int) -> None:
    message = bytearray(Initiator.create(A, public_key(B), PSK, STAMP, 7, random.Random(3).randbytes).message)
    message[position] ^= 0x80
    if position < 132:
        with pytest.raises(RemoteError):
            IncomingInitiation.open(B, bytes(message))


def test_a_response_to_another_handshake_is_refused() -> None:
    entropy = random.Random(4).randbytes
    first, second = (Initiator.create(A, public_key(B), PSK, STAMP, index, entropy) for index in (1, 2))
    response, _ = IncomingInitiation.open(B, first.message).respond(PSK, 3, entropy)
    with pytest.raises(RemoteError, match="unknown_handshake"):
        second.finish(response)


def test_another_psk_is_noticed_by_the_initiator_only() -> None:
    entropy = random.Random(5).randbytes
    initiator = Initiator.create(A, public_key(B), PSK, STAMP, 1, entropy)
    response, _ = IncomingInitiation.open(B, initiator.message).respond(ZERO_PSK, 2, entropy)
    with pytest.raises(RemoteError, match="bad_tag"):
        initiator.finish(response)


def test_an_initiation_for_another_key_fails_at_mac1() -> None:
    message = Initiator.create(A, public_key(B), PSK, STAMP, 1, random.Random(6).randbytes).message
    with pytest.raises(RemoteError, match="bad_mac1"):
        IncomingInitiation.open(A, message)


def test_a_stranger_cannot_claim_another_static_key() -> None:
    """Knowing a public key is enough to encrypt it, but not to make the timestamp's tag."""
    entropy = random.Random(7).randbytes
    thief = StaticKeys(bytes([9]) * 32)
    honest = public_key(A)
    thief.public = honest  # type: ignore[misc]
    message = Initiator.create(thief, public_key(B), PSK, STAMP, 1, entropy).message
    owner = StaticKeys(B)
    with pytest.raises(RemoteError, match="bad_tag"):
        IncomingInitiation.open(owner, message)


def test_a_peer_with_a_key_of_low_order_is_refused() -> None:
    with pytest.raises(RemoteError, match="weak_key"):
        Initiator.create(A, bytes(32), PSK, STAMP, 1, random.Random(8).randbytes)


def test_remembered_shared_secrets_do_not_change_the_result() -> None:
    keys = StaticKeys(B)
    for _ in range(2):
        message = Initiator.create(A, keys.public, PSK, STAMP, 1, random.Random(9).randbytes).message
        assert IncomingInitiation.open(keys, message).timestamp == STAMP


def test_nothing_is_remembered_of_a_sender_that_has_not_proven_its_key() -> None:
    owner = StaticKeys(B)
    message = Initiator.create(A, owner.public, PSK, STAMP, 1, random.Random(11).randbytes).message
    damaged = bytearray(message)
    damaged[90] ^= 1  # the static key opens, the timestamp does not
    with pytest.raises(RemoteError, match="bad_tag"):
        IncomingInitiation.open(owner, with_macs(owner.public, bytes(damaged), None))
    assert not owner._shared
    IncomingInitiation.open(owner, message)
    assert list(owner._shared) == [public_key(A)]


def test_memory_for_shared_secrets_is_bounded() -> None:
    keys = StaticKeys(B)
    for number in range(SHARED_SECRETS_KEPT + 5):
        keys.remember(number.to_bytes(32, "big"), b"")
    assert len(keys._shared) == SHARED_SECRETS_KEPT
    assert (0).to_bytes(32, "big") not in keys._shared


def test_no_key_shows_in_a_repr() -> None:
    one, two = handshake()
    keys = StaticKeys(A)
    initiator = Initiator.create(keys, public_key(B), PSK, STAMP, 1, random.Random(10).randbytes)
    incoming = IncomingInitiation.open(B, initiator.message)
    session = Session(one.install(1.0))
    lane = one.lane_keys(1, Aead.AES_256_GCM)
    shown = " ".join(map(repr, (one, two, keys, initiator, incoming, session, lane, one.install(1.0))))
    for secret in (A, PSK, one.send_key, one.recv_key, one.chaining_key, lane.send_key, lane.recv_key):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
