"""Invariant: any bytes give an object or DecodeError; what is accepted re-encodes to a form that decodes to the same.

Mutates every example of every control, signalling, membership and HELLO message (bits, slices, lengths, splices of
two) and feeds all decoders with it. What decodes as a membership goes to `core.membership.verify`: that raises
RemoteError, or the bytes are the one membership that was really signed.

Run: python -m tests.fuzz.fuzz_wire --seconds 60 --seed 1
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from omninervous.core.identity import Identity
from omninervous.core.membership import issue, verify
from omninervous.core.secret import derive_cluster
from omninervous.core.vip import derive_claim
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.tlv import CONTROL_KIND
from tests.wire_examples import DECODERS, EXAMPLES, MEMBERSHIP

IDENTITY = Identity.from_seed(b"i" * 32)
CLUSTER = derive_cluster("fuzz", None)
SIGNED = issue(IDENTITY, CLUSTER, derive_claim(IDENTITY.public, 0), "robot-1", 1, 0.0)
SEEDS = [SIGNED, MEMBERSHIP, *(message.encode() for _, message in EXAMPLES)]
MUTATIONS_PER_ROUND = 1000


def mutate(dice: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(dice.choice(corpus))
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        position = dice.randrange(len(data) or 1)
        match dice.randrange(8):
            case 0 | 1 if data:
                data[position] ^= 1 << dice.randrange(8)
            case 2 if data:
                data[position] = dice.choice((0, 1, 2, 0x7F, 0x80, 0xFF))
            case 3:
                del data[position : position + dice.randrange(1, 40)]
            case 4:
                data[position:position] = dice.randbytes(dice.randrange(1, 40))
            case 5:  # a whole field, of a plausible type and any length
                value = dice.randbytes(dice.choice((0, 1, 2, 4, 6, 7, 8, 16, 19, 32, 222)))
                data[position:position] = bytes((dice.randrange(14),)) + len(value).to_bytes(2, "big") + value
            case 6:
                other = dice.choice(corpus)
                data[position:] = other[dice.randrange(len(other) or 1) :]
            case 7:
                data[:2] = bytes((CONTROL_KIND, dice.choice((1, 2, 3, 4, 5, *range(0x40, 0x48)))))
    return bytes(data)


def check(name: str, data: bytes) -> str:
    decode = DECODERS[name]
    try:
        message = decode(data)
    except DecodeError:
        return "refused"
    if message is None:
        return "unknown type"
    form = message.encode()
    again = decode(form)
    assert again == message, f"{message} re-encodes as {again}"
    if name == "membership":
        assert form == data
        try:
            verify(data, CLUSTER.public, 0.0)
        except RemoteError as error:
            return error.reason
        assert data == SIGNED, "a membership that nobody signed verifies"
    return "accepted"


def run(seconds: float, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not outcomes or time.monotonic() < end:
        outcomes["rounds"] += 1
        dice = random.Random(f"{seed}/{outcomes['rounds']}")
        corpus = SEEDS.copy()
        for _ in range(MUTATIONS_PER_ROUND):
            data = mutate(dice, corpus)
            for name in DECODERS:
                try:
                    outcome = check(name, data)
                except Exception:
                    print(f"seed {seed}, round {outcomes['rounds']}, {name}: {data.hex()}", file=sys.stderr)
                    raise
                outcomes[f"{name}: {outcome}"] += 1
                if outcome == "accepted" and len(corpus) < 10 * len(SEEDS):
                    corpus.append(data)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, number in sorted(run(arguments.seconds, arguments.seed).items()):
        print(f"{number:10} {name}")


if __name__ == "__main__":
    main()
