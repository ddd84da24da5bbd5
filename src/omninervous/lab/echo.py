"""Datagrams between many machines at once, sent until they come back: who reaches whom, and since when."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address

from omninervous.lab.namespaces import Namespace

__all__ = ["Echoes"]

_PORT = 9999
_EVERY = 0.1
"""Seconds between two datagrams of a pair that has not met yet."""
_MESSAGE = struct.Struct("!cHHH")
"""`?` or `!` (the echo), which call it belongs to, the caller's number, the called one's."""
_IP_FREEBIND = 15
"""<linux/in.h>: bind before the address exists."""

PairOf = tuple[int, int]


class Echoes:
    """A socket on every machine's address, and a thread that serves them all. Use it as a context manager.

    The addresses need not exist yet: what cannot be sent is tried again.
    """

    def __init__(self, places: Sequence[tuple[Namespace, IPv4Address]]) -> None:
        self._addresses = [str(address) for _, address in places]
        self._sockets = [where.call(partial(_bind, str(address))) for where, address in places]
        self._selector = selectors.DefaultSelector()
        for number, each in enumerate(self._sockets):
            self._selector.register(each, selectors.EVENT_READ, number)
        self._round = 0
        """Goes with every datagram: an echo of an earlier call is not one of this."""
        self._calling: set[PairOf] = set()
        self._answered: dict[PairOf, float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="echoes", daemon=True)
        self._thread.start()

    def __enter__(self) -> Echoes:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._selector.close()
        for each in self._sockets:
            each.close()

    def call(self, pairs: Sequence[PairOf]) -> None:
        """Let the first machine of each pair send to the second one until an echo is back. Earlier echoes are
        forgotten."""
        self._round = (self._round + 1) & 0xFFFF
        self._answered = {}
        self._calling = set(pairs)

    def at(self, pair: PairOf) -> float | None:
        """When the pair's first echo came back, on the wall clock; None as long as there is none."""
        return self._answered.get(pair)

    def _serve(self) -> None:
        due = 0.0
        while not self._closing.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + _EVERY
                for caller, called in sorted(self._calling - self._answered.keys()):
                    self._send(caller, called, _MESSAGE.pack(b"?", self._round, caller, called))
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._receive(key.data)

    def _receive(self, number: int) -> None:
        with contextlib.suppress(OSError, struct.error):
            kind, call, caller, called = _MESSAGE.unpack(self._sockets[number].recv(64))
            if kind == b"?" and called == number:
                self._send(called, caller, _MESSAGE.pack(b"!", call, caller, called))
            elif kind == b"!" and caller == number and call == self._round:
                self._answered.setdefault((caller, called), time.time())

    def _send(self, sender: int, receiver: int, data: bytes) -> None:
        # No address, no route, nobody there: as good as lost.
        with contextlib.suppress(OSError):
            self._sockets[sender].sendto(data, (self._addresses[receiver], _PORT))


def _bind(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    made.bind((address, _PORT))
    return made
