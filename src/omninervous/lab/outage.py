"""How long there is no connection: a numbered datagram every few milliseconds, and when each arrives; TCP beside it."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from itertools import pairwise

from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process

__all__ = ["TcpStream", "UdpStream"]

_NUMBER = struct.Struct("!Q")
_PORT = 9998
_BLINK = 0.2
"""Seconds after which the receiver looks whether it is to end."""


class UdpStream:
    """A stream from one machine's address to another's, over the overlay. Use it as a context manager."""

    def __init__(
        self, sender: tuple[Namespace, str], receiver: tuple[Namespace, str], every: float = 0.005, port: int = _PORT
    ) -> None:
        self._every = every
        self._target = (receiver[1], port)
        self._out = sender[0].udp_socket(sender[1])
        self._in = receiver[0].udp_socket(receiver[1], port)
        self._in.settimeout(_BLINK)
        self._arrivals: list[float] = []
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._receive)]
        self.sent = 0

    def __enter__(self) -> UdpStream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._out.close()
        self._in.close()

    @property
    def received(self) -> int:
        """Datagrams that have arrived."""
        return len(self._arrivals)

    def outage(self, since: float, within: float) -> float:
        """Seconds from an instant (`time.monotonic`) to the next arrival; infinity if there is none in time."""
        while time.monotonic() < since + within:
            later = [at for at in self._arrivals[-10_000:] if at > since]
            if later:
                return later[0] - since
            time.sleep(0.01)
        return float("inf")

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds of the longest time without an arrival between two instants."""
        arrivals = [at for at in self._arrivals if since < at < until]
        return max(later - earlier for earlier, later in pairwise([since, *arrivals, until]))

    def _send(self) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            with contextlib.suppress(OSError):  # omni0 has no address or neighbour for the moment
                self._out.sendto(_NUMBER.pack(self.sent), self._target)
            self.sent += 1
            due = max(due + self._every, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError, socket.timeout):
                self._in.recv(64)
                self._arrivals.append(time.monotonic())


class TcpStream:
    """An iperf3 of 2 Mbit/s from one machine's address to another's, until the lab ends."""

    def __init__(self, lab: Lab, sender: tuple[Namespace, str], receiver: tuple[Namespace, str]) -> None:
        argv = ["iperf3", "-s", "-B", receiver[1], "--one-off", "--forceflush"]
        lab.start(receiver[0], "iperf3-server", argv).wait_for_output("listening", 10.0)
        argv = ["iperf3", "-c", receiver[1], "-B", sender[1], "-t", "86400", "-b", "2M", "--forceflush"]
        self.client: Process = lab.start(sender[0], "iperf3-client", argv)

    @property
    def good_seconds(self) -> int:
        """Those in which it sent anything."""
        sent = re.findall(r"([\d.]+) [KM]Bytes", self.client.output())
        return sum(float(each) > 0 for each in sent)
