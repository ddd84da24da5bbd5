"""Junk for a tunnel's port: `python -m omninervous.lab.junk HOST PORT KIND PER_SECOND SECONDS`.

What an outsider can send without knowing a key. Prints how many datagrams left.
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


def _unknown_session(dice: random.Random) -> bytes:
    """A transport message of lane 8 for an index that nobody has."""
    return struct.pack("<IIQ", 4, dice.getrandbits(32), 8 << 60 | dice.getrandbits(40)) + dice.randbytes(
        _TRANSPORT_SIZE - 16
    )


def _initiation(dice: random.Random) -> bytes:
    """A handshake for a key that the sender does not know."""
    return b"\x01\0\0\0" + dice.randbytes(_INITIATION_SIZE - 4)


def _noise(dice: random.Random) -> bytes:
    """No message at all."""
    return bytes((dice.randrange(7, 256),)) + dice.randbytes(_TRANSPORT_SIZE - 1)


KINDS = {"unknown-session": _unknown_session, "initiation": _initiation, "noise": _noise}


def send(target: tuple[str, int], kind: str, per_second: int, seconds: float) -> int:
    """As many as asked for, or as the machine can; how many left."""
    dice = random.Random(kind)
    datagrams = [KINDS[kind](dice) for _ in range(_BATCH)]
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
    host, port, kind, per_second, seconds = arguments
    print(send((host, int(port)), kind, int(per_second), float(seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
