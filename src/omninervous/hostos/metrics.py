"""Metrics for Prometheus: what both daemons count alike, and GET /metrics over HTTP.

A scrape is answered in the daemon's own loop from the same snapshot that `omni status` shows. Who is not authenticated
can move counters, never make a label: no address and no key is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterable

import prometheus_client
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import omninervous
from omninervous.errors import UserError
from omninervous.wire.address import Endpoint

__all__ = [
    "MetricsServer",
    "Source",
    "common_metrics",
    "labelled",
    "listen",
    "queue_metrics",
    "value",
]

log = structlog.get_logger()

PATH = "/metrics"
REQUEST_LIMIT = 8192
"""Bytes of a request's line and headers."""
REQUEST_SECONDS = 5.0
MAX_CONNECTIONS = 16
_SO_MEMINFO = 55
"""<asm-generic/socket.h>; nine numbers of 32 bits, <linux/sock_diag.h>."""
_MEMINFO = struct.Struct("9I")
_RECEIVE_QUEUE, _SEND_QUEUE, _DROPS = 0, 2, 8

# A `_created` sample beside every counter tells nothing that a daemon's start does not.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


# ---------------------------------------------------------------- families


def value(name: str, text: str, number: float) -> Metric:
    """One number without labels: a counter if its name says so (`_total`), else a gauge."""
    family = CounterMetricFamily(name, text) if name.endswith("_total") else GaugeMetricFamily(name, text)
    family.add_metric([], number)
    return family


def labelled(name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    """One number for each combination of labels."""
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def common_metrics(
    mode: str, *, sessions: int, packets_received: int, handshakes: int, rate_limited: int
) -> Iterable[Metric]:
    """What the user asked for by name, in either daemon."""
    yield InfoMetricFamily("omni_build", "This daemon.", {"version": omninervous.__version__, "mode": mode})
    yield value("omni_sessions_active", "Peers (of a Nucleus: edges) with a session.", sessions)
    yield value("omni_packets_rx_total", "Datagrams received: an edge's authenticated ones.", packets_received)
    yield value("omni_handshakes_completed_total", "Handshakes completed.", handshakes)
    yield value("omni_sessions_dropped_ratelimit_total", "New sessions refused by the rate limit.", rate_limited)


def queue_metrics(sockets: Iterable[socket.socket]) -> Iterable[Metric]:
    """What waits in the kernel's queues of the UDP sockets, and what did not fit into them."""
    totals = [0] * 9
    for each in sockets:
        with contextlib.suppress(OSError):
            found = _MEMINFO.unpack(each.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
            totals = [total + number for total, number in zip(totals, found, strict=True)]
    queues = {("rx",): totals[_RECEIVE_QUEUE], ("tx",): totals[_SEND_QUEUE]}
    text = "Memory that datagrams take which wait in the UDP sockets."
    yield labelled("omni_udp_queue_bytes", text, ("direction",), queues.items())
    yield value("omni_udp_overflows_total", "Datagrams that the kernel dropped: the queue was full.", totals[_DROPS])


# ---------------------------------------------------------------- HTTP


def listen(endpoint: Endpoint) -> socket.socket:
    """A socket for `MetricsServer`. UserError if the address is not ours or the port is taken."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((endpoint.host, endpoint.port))
        listener.listen(MAX_CONNECTIONS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        remedy = "choose another port" if error.errno == errno.EADDRINUSE else "name an address of this machine"
        raise UserError(f"--metrics {endpoint}: {error.strerror}; {remedy}") from error
    return listener


Source = Callable[[], Iterable[Metric]]


class MetricsServer(Collector):
    """GET /metrics. It listens from its making on, so that a taken port is known before anything else is made, and
    answers from `start` on."""

    def __init__(self, endpoint: Endpoint | None) -> None:
        self._endpoint = endpoint
        self._listener = None if endpoint is None else listen(endpoint)
        self._source: Source = list
        self._tasks: set[asyncio.Task[None]] = set()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        return self._source()

    async def start(self, source: Source) -> None:
        """Answer with what `source` gives, from within this loop."""
        self._source = source
        self._watch()

    def move(self, endpoint: Endpoint | None) -> None:
        """Serve there from now on. UserError: all stays as it was."""
        if endpoint == self._endpoint:
            return
        listener = None if endpoint is None else listen(endpoint)
        self.close()
        self._endpoint, self._listener = endpoint, listener
        self._watch()

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._listener is not None:
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _watch(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept, self._listener)
            log.info("metrics", endpoint=str(self._endpoint), path=PATH)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if len(self._tasks) >= MAX_CONNECTIONS:
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=REQUEST_LIMIT)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.decode("latin-1")))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _answer(self, head: str) -> bytes:
        line, *headers = head.split("\r\n")
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"GET only\n")
        if path != PATH:
            return _response("404 Not Found", "text/plain", f"metrics are at {PATH}\n".encode())
        accept = next((each.partition(":")[2] for each in headers if each.lower().startswith("accept:")), "")
        encode, kind = choose_encoder(accept)
        body = encode(self._registry)
        return _response("200 OK", kind, body, headers_only=method == "HEAD")


def _response(status: str, kind: str, body: bytes, *, headers_only: bool = False) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if headers_only else body)
