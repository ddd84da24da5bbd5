"""Handshakes per second (each side by itself) and seals and opens per second, on one core.

Run: python tests/bench/bench_handshake.py [--seconds N]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import count

from omninervous.core.dataplane import Aead, OpenLanes
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, Initiator, StaticKeys, Transport
from omninervous.core.replay import ReplayWindow
from omninervous.core.session import Session

STAMP = bytes(12)
BATCH = 200


def rate(seconds: float, prepare: Callable[[], list[bytes]], work: Callable[[bytes], object]) -> float:
    """Calls of `work` per second; `prepare` makes the inputs of a batch and is not counted."""
    spent, calls = 0.0, 0
    while spent < seconds:
        inputs = prepare()
        begin = time.perf_counter()
        for item in inputs:
            work(item)
        spent += time.perf_counter() - begin
        calls += len(inputs)
    return calls / spent


def handshakes(seconds: float) -> dict[str, float]:
    ours, theirs = StaticKeys(os.urandom(32)), StaticKeys(os.urandom(32))

    def initiate() -> Initiator:
        return Initiator.create(ours, theirs.public, ZERO_PSK, STAMP, 1, os.urandom)

    def respond(message: bytes, keys: StaticKeys = theirs) -> tuple[bytes, Transport]:
        return IncomingInitiation.open(keys, message).respond(ZERO_PSK, 2, os.urandom)

    pending: dict[bytes, Initiator] = {}

    def answered() -> list[bytes]:
        pending.clear()
        for _ in range(BATCH):
            initiator = initiate()
            pending[respond(initiator.message)[0]] = initiator
        return list(pending)

    def initiations() -> list[bytes]:
        return [initiate().message for _ in range(BATCH)]

    def from_strangers() -> list[bytes]:
        return [
            Initiator.create(os.urandom(32), theirs.public, ZERO_PSK, STAMP, 1, os.urandom).message
            for _ in range(BATCH)
        ]

    create = rate(seconds, lambda: [b""] * BATCH, lambda _: initiate())
    finish = rate(seconds, answered, lambda response: pending[response].finish(response))
    wrong = initiate().message[:-33] + bytes(33)
    return {
        "initiator, whole handshakes/s": 1 / (1 / create + 1 / finish),
        "initiator, create/s": create,
        "initiator, finish/s": finish,
        "responder, handshakes/s (known peer)": rate(seconds, initiations, respond),
        "responder, handshakes/s (new peer)": rate(seconds, from_strangers, respond),
        "responder, refused at mac1/s": rate(seconds, lambda: [wrong] * BATCH, refused(theirs)),
    }


def refused(keys: StaticKeys) -> Callable[[bytes], object]:
    def work(message: bytes) -> None:
        try:
            IncomingInitiation.open(keys, message)
        except Exception:
            return
        raise AssertionError

    return work


def packets(seconds: float, size: int) -> dict[str, float]:
    ours, theirs = StaticKeys(os.urandom(32)), StaticKeys(os.urandom(32))
    initiator = Initiator.create(ours, theirs.public, ZERO_PSK, STAMP, 1, os.urandom)
    response, end = IncomingInitiation.open(theirs, initiator.message).respond(ZERO_PSK, 2, os.urandom)
    start = initiator.finish(response)
    sender, receiver = Session(start.install(1e9)), Session(end.install(1e9))
    sender.open_lanes(OpenLanes(1, (start.lane_keys(1, Aead.AES_256_GCM),), (1,)))
    receiver.open_lanes(OpenLanes(2, (end.lane_keys(1, Aead.AES_256_GCM),), (1,)))
    payload = os.urandom(size)
    results = {}
    for lane, name in ((0, "ChaCha20-Poly1305"), (1, "AES-256-GCM")):
        results[f"seals/s, {size} B, {name}"] = rate(
            seconds,
            lambda: [payload] * BATCH,
            lambda data, lane=lane: sender.seal(data, lane),  # type: ignore[misc]
        )
        results[f"opens/s, {size} B, {name}"] = rate(
            seconds,
            lambda lane=lane: [sender.seal(payload, lane) for _ in range(BATCH)],  # type: ignore[misc]
            lambda data: receiver.open(0.0, data),
        )
    return results


def window(seconds: float) -> dict[str, float]:
    replay, numbers = ReplayWindow(), count()
    return {"replay window, accepts/s": rate(seconds, lambda: [b""] * BATCH, lambda _: replay.accept(next(numbers)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="per figure")
    seconds = parser.parse_args().seconds
    for results in (handshakes(seconds), packets(seconds, 64), packets(seconds, 1420), window(seconds)):
        for name, value in results.items():
            print(f"{name:42} {value:12,.0f}")


if __name__ == "__main__":
    main()
