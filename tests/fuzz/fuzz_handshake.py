"""Invariant: any datagram yields an object, or DecodeError or RemoteError, and nothing else; and no state dies of it.

Mutates valid initiations, responses, cookie replies and transport datagrams (bits, slices, lengths, splices of two),
feeds them to every entry point that sees bytes from outside, and checks after every round that the true messages
still work. Run: python tests/fuzz/fuzz_handshake.py --seconds 60 --seed 1
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from omninervous.core.cookies import CookieChecker, MacGenerator, mac1_valid, with_macs
from omninervous.core.dataplane import Aead, OpenLanes
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, Initiator, StaticKeys
from omninervous.core.session import Session
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import decode_cookie_reply, decode_initiation, decode_response
from omninervous.wire.transport import decode_header
from tests.fuzz.command import main

SOURCE = Endpoint("192.0.2.1", 51820)
STAMP = bytes(12)
MUTATIONS_PER_ROUND = 300
NOISE_PART = slice(12, 60)
"""Of a response: ephemeral and tag."""


class Round:
    """Two peers in the middle of everything: a handshake begun, a cookie asked for, a session with three lanes."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ours, theirs = StaticKeys(dice.randbytes(32)), StaticKeys(dice.randbytes(32))
        self.initiator = Initiator.create(self.ours, theirs.public, ZERO_PSK, STAMP, 1, dice.randbytes)
        self.response, _ = IncomingInitiation.open(theirs, self.initiator.message).respond(ZERO_PSK, 2, dice.randbytes)
        to_us = Initiator.create(theirs, self.ours.public, ZERO_PSK, STAMP, 3, dice.randbytes)
        self.initiation = to_us.message
        answer, end = IncomingInitiation.open(self.ours, to_us.message).respond(ZERO_PSK, 4, dice.randbytes)
        self.session, self.peer = Session(end.install(1e9)), Session(to_us.finish(answer).install(1e9))
        lanes = tuple(end.lane_keys(lane, Aead(lane % 2)) for lane in (1, 2, 8))
        self.session.open_lanes(OpenLanes(4, lanes, (1, 2, 8)))
        self.checker = CookieChecker(theirs.public, dice.randbytes)
        self.macs = MacGenerator(theirs.public)
        self.cookie_reply = self.checker.reply(0.0, self.macs.sign(0.0, self.initiator.message), SOURCE)
        self.data = self.peer.seal(dice.randbytes(dice.randrange(200)))
        self.seeds = [self.initiation, self.response, self.cookie_reply, self.data, self.peer.seal(b"")]

    def entry_points(self) -> list[Callable[[bytes], object]]:
        return [
            decode_initiation,
            decode_response,
            decode_header,
            lambda data: mac1_valid(self.ours.public, data),
            lambda data: self.checker.valid_mac2(0.0, SOURCE, data),
            lambda data: IncomingInitiation.open(self.ours, data).respond(ZERO_PSK, 9, self.dice.randbytes),
            self.initiator.finish,
            lambda data: self.macs.handle_reply(0.0, decode_cookie_reply(data)),
            lambda data: self.session.open(0.0, data),
        ]

    def mutate(self) -> bytes:
        data = bytearray(self.dice.choice(self.seeds))
        for _ in range(self.dice.choice((1, 1, 1, 2, 8))):
            position = self.dice.randrange(len(data) or 1)
            match self.dice.randrange(7):
                case 0 | 1:
                    if data:
                        data[position] ^= 1 << self.dice.randrange(8)
                case 2:
                    del data[position : position + self.dice.randrange(1, 40)]
                case 3:
                    data[position:position] = self.dice.randbytes(self.dice.randrange(1, 40))
                case 4:
                    other = self.dice.choice(self.seeds)
                    data[position:] = other[position:]
                case 5:
                    width = self.dice.choice((1, 4, 8, 16, 32))
                    data[position : position + width] = self.dice.choice((b"\0", b"\xff")) * width
                case 6:
                    data = bytearray(self.dice.randbytes(self.dice.randrange(200)))
        if self.dice.randrange(2) and len(data) >= 32:  # let half of them get past mac1
            return with_macs(self.ours.public, bytes(data), None)
        return bytes(data)

    def check_that_all_still_works(self) -> None:
        assert self.session.open(0.0, self.data) is not None
        assert self.initiator.finish(self.response).remote_index == 2


def run(seconds: float, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not outcomes or time.monotonic() < end:
        current = Round(random.Random(f"{seed}/{outcomes['rounds']}"))
        outcomes["rounds"] += 1
        true_messages = {*current.seeds}
        for _ in range(MUTATIONS_PER_ROUND):
            data = current.mutate()
            if data in true_messages or data[NOISE_PART] == current.response[NOISE_PART]:
                continue  # Noise covers neither the sender index nor the macs: with a good mac1 this would pass
            outcomes["datagrams"] += 1
            for entry_point in current.entry_points():
                try:
                    entry_point(data)
                except (DecodeError, RemoteError) as error:
                    outcomes[getattr(error, "reason", "decode_error")] += 1
                except Exception:
                    print(f"seed {seed}, round {outcomes['rounds']}: {data.hex()}", file=sys.stderr)
                    raise
                else:
                    outcomes["object"] += 1
        current.check_that_all_still_works()
    return outcomes


if __name__ == "__main__":
    main(run, __doc__)
