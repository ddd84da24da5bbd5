"""No two sessions share a key: across rekeys, crossing handshakes, copies, restarts, clocks that go back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.dataplane import Aead
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, Initiator, StaticKeys, Transport
from omninervous.core.tai64n import Tai64nClock
from omninervous.errors import RemoteError

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["initiate", "deliver_initiation", "deliver_response", "restart"]),
        st.integers(0, 1),
        st.integers(0, 5),
        st.floats(0, 3e9),
    ),
    max_size=40,
)


def all_keys(transport: Transport) -> list[bytes]:
    lanes = [transport.lane_keys(lane, Aead.CHACHA20_POLY1305) for lane in range(1, 9)]
    return [transport.send_key, *(lane.send_key for lane in lanes)]


@given(STEPS, st.integers(0, 2**32))
def test_every_installed_key_is_new(steps: list[tuple[str, int, int, float]], seed: int) -> None:
    entropy = random.Random(seed).randbytes
    keys = [StaticKeys(entropy(32)), StaticKeys(entropy(32))]
    clocks = [Tai64nClock(None), Tai64nClock(None)]
    pending: list[list[Initiator]] = [[], []]
    initiations: list[tuple[int, bytes]] = []
    responses: list[tuple[int, bytes]] = []
    used: list[set[bytes]] = [set(), set()]

    def install(side: int, transport: Transport) -> None:
        for key in all_keys(transport):
            assert key not in used[side]
            used[side].add(key)

    for action, side, pick, wall in steps:
        if action == "initiate":
            initiator = Initiator.create(
                keys[side], keys[1 - side].public, ZERO_PSK, clocks[side].next(wall), len(initiations), entropy
            )
            pending[side].append(initiator)
            initiations.append((side, initiator.message))
        elif action == "deliver_initiation" and initiations:
            sender, message = initiations[pick % len(initiations)]
            response, transport = IncomingInitiation.open(keys[1 - sender], message).respond(ZERO_PSK, pick, entropy)
            install(1 - sender, transport)
            responses.append((sender, response))
        elif action == "deliver_response" and responses:
            receiver, response = responses[pick % len(responses)]
            for initiator in pending[receiver]:
                try:
                    install(receiver, initiator.finish(response))
                except RemoteError as error:
                    assert error.reason in ("unknown_handshake", "handshake_done")
        elif action == "restart":
            pending[side].clear()
            clocks[side] = Tai64nClock(None)
