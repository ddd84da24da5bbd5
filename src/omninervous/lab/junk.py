"""Junk for a tunnel's port: `python -m omninervous.lab.junk HOST PORT KIND PER_SECOND SECONDS [INDEX]`.

What an outsider can send without knowing a key. INDEX is that of a session, as he may have read it on the wire; without
it transport messages are for a session that nobody has. Prints how many datagrams left.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from collections.abc import Sequence

__all__ = ["KINDS", "main", "send"]

_TRANSPORT_SIZE = 128
_INITIATION_SIZE = 148
_BATCH = 64
"""Datagrams between two looks at the clock."""


def _transport(dice: random.Random, index: int | None) -> bytes:
    """A transport message of lane 8 whose tag is not right."""
    if index is None:
        index = dice.getrandbits(32)
    head = struct.pack("<IIQ", 4, index, 8 << 60 | dice.getrandbits(40))
    return head + dice.randbytes(_TRANSPORT_SIZE - len(head))


def _initiation(dice: random.Random, _index: int | None) -> bytes:
    """A handshake for a key that the sender does not know."""
    return b"\x01\0\0\0" + dice.randbytes(_INITIATION_SIZE - 4)


def _noise(dice: random.Random, _index: int | None) -> bytes:
    """No message at all."""
    return bytes((dice.randrange(7, 256),)) + dice.randbytes(_TRANSPORT_SIZE - 1)


KINDS = {"transport": _transport, "initiation": _initiation, "noise": _noise}


def send(target: tuple[str, int], kind: str, per_second: int, seconds: float, index: int | None = None) -> int:
    """As many as asked for, or as the machine can; how many left."""
    dice = random.Random(kind)
    datagrams = [KINDS[kind](dice, index) for _ in range(_BATCH)]
    sent, begun = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        while (elapsed := time.monotonic() - begun) < seconds:
            if sent > elapsed * per_second:
                time.sleep(_BATCH / per_second)
                continue
            for each in datagrams:
                try:
                    sender.send(each)
                except ConnectionRefusedError:  # what ICMP said of an earlier one
                    continue
            sent += _BATCH
    return sent


def main(arguments: Sequence[str]) -> int:
    """The command."""
    host, port, kind, per_second, seconds, *index = arguments
    print(send((host, int(port)), kind, int(per_second), float(seconds), *map(int, index)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
