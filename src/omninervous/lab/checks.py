"""The rows of `omni autotest`: each an observation made from outside, by another program than the one observed."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from omninervous.errors import OmniError
from omninervous.lab.capture import Verdict, examine, frames_of
from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import (
    ConntrackEntry,
    StreamResult,
    parse_conntrack,
    parse_iperf3,
    parse_ping,
)
from omninervous.lab.namespaces import Namespace
from omninervous.lab.process import poll_until
from omninervous.lab.report import Check, Finding, RowFailed
from omninervous.lab.scene import NUCLEUS_PORT, RAW_PORT, Edge, Scene
from omninervous.wire.hello import Hello, decode_hello_reply
from omninervous.wire.keytext import encode_key

__all__ = ["DIRECT", "FDB", "HANDSHAKE", "NAT", "NUCLEUS", "PING", "REGISTRATION_A", "REGISTRATION_B", "ROW_ORDER"]
__all__ += ["SEALED", "TCP", "TEARDOWN", "UDP", "Checks"]

NUCLEUS = "Nucleus Rendezvous"
REGISTRATION_A = "Edge A Registration"
REGISTRATION_B = "Edge B Registration"
NAT = "NAT Traversal"
DIRECT = "Direct P2P Channel"
HANDSHAKE = "Noise_IK Handshake"
SEALED = "Sealed Underlay"
FDB = "FDB Learning"
PING = "Ping"
TCP = "iperf3 TCP"
UDP = "iperf3 UDP"
TEARDOWN = "Teardown"
ROW_ORDER = (NUCLEUS, REGISTRATION_A, REGISTRATION_B, NAT, DIRECT, HANDSHAKE, SEALED, FDB, PING, TCP, UDP, TEARDOWN)
"""As shown. Rows about traffic are measured after the traffic."""

_START_SECONDS = 10.0
_PUNCH_SECONDS = 12.0
_SETTLE_SECONDS = 5.0
_POLL = 0.2
_PINGS = 20
_NUCLEUS_PACKETS = 60
"""Packets that may pass the Nucleus while traffic flows: heartbeats and keepalives, never data."""
_UDP_SIZE = 1200
_UDP_SHARES = (0.5, 0.25, 0.1, 0.05)
"""Of what this machine can move: rates at which UDP is offered until it arrives. What is asked is whether it does."""
_UDP_LOSS_LIMIT = 0.02
_RAW_UDP_RATE = "1G"
_WIRE_TYPES = range(1, 5)


class Checks:
    """The measurements, over one scene."""

    def __init__(self, scene: Scene, seconds: int) -> None:
        self._scene = scene
        self._seconds = seconds
        self._tcp_rate = 0.0

    def in_order(self) -> list[Check]:
        """All rows but the teardown, in the order of their measurement, with what they depend on."""
        scene = self._scene
        return [
            Check(NUCLEUS, (), self._nucleus),
            Check(REGISTRATION_A, (NUCLEUS,), lambda: self._registration(scene.edge_a)),
            Check(REGISTRATION_B, (NUCLEUS,), lambda: self._registration(scene.edge_b)),
            Check(NAT, (REGISTRATION_A, REGISTRATION_B), self._nat_traversal),
            Check(HANDSHAKE, (NAT,), self._handshake),
            Check(FDB, (HANDSHAKE,), self._fdb),
            Check(PING, (FDB,), self._ping),
            Check(TCP, (FDB,), self._tcp),
            Check(UDP, (TCP,), self._udp),  # iperf3's own control connection is TCP
            Check(DIRECT, (FDB,), self._direct),
            Check(SEALED, (FDB,), self._sealed),
        ]

    # ------------------------------------------------------------ the control plane

    def _nucleus(self) -> Finding:
        scene = self._scene
        scene.nucleus.wait_ready()
        status = scene.nucleus.status()
        if status["mode"] != "nucleus":
            raise RowFailed(f"the Nucleus's status says mode {status['mode']}")
        nonce = secrets.token_bytes(16)
        address = (str(scene.net.nucleus.address), NUCLEUS_PORT)
        with scene.net.internet.gateway.udp_socket() as stranger:
            stranger.settimeout(1.0)

            def answer() -> bytes | None:
                stranger.sendto(Hello(nonce).encode(), address)
                try:
                    return stranger.recv(2048)
                except TimeoutError:
                    return None

            reply = poll_until(answer, 3.0)
        if reply is None:
            raise RowFailed(f"{address[0]}:{address[1]} does not answer a HELLO")
        hello = decode_hello_reply(reply)
        if hello.nonce != nonce or encode_key(hello.identity) != status["identity"]:
            raise RowFailed("the HELLO's answer does not carry its nonce and the Nucleus's key")
        return Finding(f"{address[0]}:{address[1]}", "", f"answers HELLO from a public host as {status['identity']}")

    def _registration(self, edge: Edge) -> Finding:
        """The edge says that it is registered, and the Nucleus counts one edge more than before."""
        scene = self._scene
        earlier = int(scene.nucleus.status()["registry"]["edges"])
        scene.start_edge(edge)
        edge.daemon.wait_ready()
        poll_until(lambda: _registered(edge.daemon.peek("status")), _START_SECONDS)
        status = edge.daemon.status()
        if not _registered(status):
            said = status["nuclei"]
            raise RowFailed(f"{edge.title} is not registered after {_START_SECONDS:.0f} s; its status says {said}")
        count = int(scene.nucleus.status()["registry"]["edges"])
        if count != earlier + 1:
            raise RowFailed(f"{edge.title} says that it is registered, but the Nucleus counts {count} edges")
        if status["vip"] is None or status["vip"]["address"] != str(edge.vip):
            raise RowFailed(f"{edge.title} asked for {edge.vip} and has {status['vip']}")
        edge.mac = status["interface"]["mac"]
        observed = next(nucleus["observed"] for nucleus in status["nuclei"] if nucleus["registered"])
        return Finding(str(edge.vip), "", f"seen by the Nucleus as {observed}; its registry: {count} edge(s)")

    def _nat_traversal(self) -> Finding:
        """Both NAT boxes translate a two-way UDP connection between the edge behind them and the other box."""
        scene = self._scene
        sides = ((scene.edge_a, scene.edge_b), (scene.edge_b, scene.edge_a))

        def pairs() -> list[ConntrackEntry]:
            return [entry for near, far in sides if (entry := _punched(near, far)) is not None]

        found = poll_until(lambda: entries if len(entries := pairs()) == len(sides) else [], _PUNCH_SECONDS, _POLL)
        if not found:
            have = [str(entry) for near, _ in sides for entry in _conntrack(near.nat.namespace)]
            raise RowFailed(
                f"no two-way UDP connection between the NATs' public addresses after {_PUNCH_SECONDS:.0f} s; "
                f"conntrack has {'; '.join(have) or 'nothing'}"
            )
        ends = [f"{entry.reply_destination}:{entry.reply_destination_port}" for entry in found]
        return Finding(" <-> ".join(ends), "", "conntrack: " + "; ".join(str(entry) for entry in found))

    def _handshake(self) -> Finding:
        """Both edges list the same session id."""
        daemons = self._scene.edge_a.daemon, self._scene.edge_b.daemon

        def common(look: Callable[[Daemon], dict[str, Any]]) -> list[str]:
            first, second = (_session_ids(look(daemon).get("peers", [])) for daemon in daemons)
            return sorted(first & second)

        poll_until(lambda: common(lambda daemon: daemon.peek("peers")), _SETTLE_SECONDS)
        sessions = common(lambda daemon: daemon.ask("peers"))
        if not sessions:
            raise RowFailed("the edges list no common session id")
        return Finding(sessions[0], "session id", "listed by `omni peers` on both edges")

    def _fdb(self) -> Finding:
        """Each edge's FDB has an entry for the other's MAC, learned from a frame."""
        a, b = self._scene.edge_a, self._scene.edge_b

        def unknown() -> list[str]:
            # Its frames teach; whether it comes back is another row's question.
            a.host.namespace.run("ping", "-c", "1", "-W", "0.5", str(b.vip), check=False)
            views = ((a, b, a.daemon.peek("status")), (b, a, b.daemon.peek("status")))
            return [text for near, far, status in views if (text := _not_learned(near, far, status)) is not None]

        if not poll_until(lambda: not unknown(), _SETTLE_SECONDS):
            raise RowFailed("; ".join(unknown()) or "entries come and go")
        return Finding(2, "entries", f"{a.title}: {b.mac} is {b.vip}; {b.title}: {a.mac} is {a.vip}")

    # ------------------------------------------------------------ traffic

    def _ping(self) -> Finding:
        a, b = self._scene.edge_a, self._scene.edge_b
        pattern = self._scene.marker.hex()
        with self._scene.watching("ping"):
            done = a.host.namespace.run(
                "ping", "-c", str(_PINGS), "-i", "0.05", "-W", "1", "-p", pattern, str(b.vip), check=False
            )
        result = parse_ping(done.stdout)
        if result.loss:
            raise RowFailed(f"{result.sent - result.received} of {result.sent} pings to {b.vip} were lost")
        evidence = f"{result.received} of {result.sent}; rtt {result.minimum}/{result.average}/{result.maximum} ms"
        return Finding(result.average, "ms", evidence)

    def _tcp(self) -> Finding:
        raw = self._raw("tcp", [])
        with self._scene.watching("tcp"):
            result = self._iperf3("tcp", str(self._scene.edge_b.vip), [], self._seconds)
        if result.bits_per_second <= 0:
            raise RowFailed("iperf3 received nothing")
        self._tcp_rate = result.bits_per_second
        return Finding(_megabits(result), "Mbit/s", f"{result.retransmits} retransmits; {_in_words(raw)}")

    def _udp(self) -> Finding:
        """Datagrams arrive; offered slower and slower, if the first rate was too much for this machine."""
        raw = self._raw("udp", ["-u", "-b", _RAW_UDP_RATE, "-l", str(_UDP_SIZE)])
        # TCP travels in super-frames: how many single packets a second this machine can move, the raw figure says.
        ceiling = min(self._tcp_rate, raw.bits_per_second if isinstance(raw, StreamResult) else self._tcp_rate)
        for share in _UDP_SHARES:
            rate, name = int(ceiling * share), f"udp-{share:g}"
            with self._scene.watching(name):
                arguments = ["-u", "-b", str(rate), "-l", str(_UDP_SIZE)]
                result = self._iperf3(name, str(self._scene.edge_b.vip), arguments, self._seconds)
            if result.bits_per_second <= 0:
                raise RowFailed("iperf3 received nothing")
            offered = f"{result.lost:.2%} lost of {rate / 1e6:.1f} Mbit/s offered"
            if result.lost <= _UDP_LOSS_LIMIT:
                evidence = f"{offered}, jitter {result.jitter_ms:.3f} ms; {_in_words(raw)}"
                return Finding(_megabits(result), "Mbit/s", evidence)
        raise RowFailed(offered)

    def _iperf3(self, name: str, target: str, arguments: list[str], seconds: int) -> StreamResult:
        """From edge A to a server on edge B."""
        a, b = self._scene.edge_a.host.namespace, self._scene.edge_b.host.namespace
        server = self._scene.lab.start(b, f"iperf3-{name}", ["iperf3", "-s", "-1", "--forceflush"])
        server.wait_for_output("Server listening", 5.0)
        try:
            done = a.run(
                *("iperf3", "-c", target, "-p", str(RAW_PORT), "-t", str(seconds), "-J", "--connect-timeout", "3000"),
                *arguments,
                check=False,
                seconds=seconds + 15.0,
            )
        finally:
            server.stop()
        return parse_iperf3(done.stdout)

    def _raw(self, name: str, arguments: list[str]) -> StreamResult | str:
        """The same measurement without the tunnel; why there is none, for it is a figure beside a row and no row."""
        try:
            return self._iperf3(f"raw-{name}", str(self._scene.net.nat_b.wan), arguments, 1)
        except OmniError as error:
            return str(error)

    # ------------------------------------------------------------ what was seen of it on the underlay

    def _direct(self) -> Finding:
        """While data flowed between the edges, next to nothing passed the Nucleus."""
        watched = self._scene.watched
        edges, nucleus = watched.edges, watched.nucleus
        if edges.packets < _PINGS:
            raise RowFailed(f"only {edges.packets} packets passed edge A: there was no data to look for")
        if nucleus.packets > _NUCLEUS_PACKETS:
            raise RowFailed(
                f"{nucleus.packets} packets ({nucleus.bytes} bytes) passed the Nucleus while data flowed; "
                f"at most {_NUCLEUS_PACKETS} are signalling"
            )
        evidence = f"{nucleus.bytes} bytes, while {edges.packets} packets ({edges.bytes} bytes) passed edge A"
        return Finding(nucleus.packets, "packets at the Nucleus", evidence)

    def _sealed(self) -> Finding:
        """No captured datagram is anything but a sealed message, and no inner bytes are to be found."""
        patterns = self._inner_patterns()
        verdicts = [examine(frames_of(path), patterns) for path in self._scene.watched.captures]
        found: Counter[str] = Counter()
        types: Counter[int] = Counter()
        for verdict in verdicts:
            found.update(verdict.found)
            types.update(verdict.first_bytes)
        if found:
            listed = ", ".join(f"{name} in {count} packets" for name, count in sorted(found.items()))
            raise RowFailed(f"in clear on the underlay: {listed}")
        foreign = {kind: count for kind, count in sorted(types.items()) if kind not in _WIRE_TYPES}
        if foreign:
            raise RowFailed(f"datagrams of foreign types on the underlay (first byte: count): {foreign}")
        if types[4] < _PINGS:
            raise RowFailed(f"only {types[4]} transport messages were captured: there was nothing to judge")
        return Finding(
            _datagrams(verdicts),
            "datagrams captured",
            f"message types {dict(sorted(types.items()))}; not to be found: {', '.join(name for name, _ in patterns)}",
        )

    def _inner_patterns(self) -> list[tuple[str, bytes]]:
        scene = self._scene
        a, b = scene.edge_a, scene.edge_b
        return [
            ("the ping's marker", scene.marker),
            ("edge A's MAC", bytes.fromhex(a.mac.replace(":", ""))),
            ("edge B's MAC", bytes.fromhex(b.mac.replace(":", ""))),
            # One VIP alone is four bytes: chance would find it in this much ciphertext now and then.
            ("the VIPs A, B", a.vip.packed + b.vip.packed),
            ("the VIPs B, A", b.vip.packed + a.vip.packed),
            ("iperf3's parameters", b'"client_version"'),
        ]


def _in_words(raw: StreamResult | str) -> str:
    if isinstance(raw, str):
        return f"raw underlay not measured: {raw}"
    lost = f" ({raw.lost:.0%} lost of {_RAW_UDP_RATE}bit/s)" if raw.lost else ""
    return f"raw underlay, same path: {raw.bits_per_second / 1e6:.0f} Mbit/s{lost}"


def _megabits(result: StreamResult) -> float:
    return round(result.bits_per_second / 1e6, 1)


def _registered(status: dict[str, Any]) -> bool:
    return any(nucleus["registered"] for nucleus in status.get("nuclei", []))


def _not_learned(near: Edge, far: Edge, status: dict[str, Any]) -> str | None:
    """In words, if the FDB of one edge holds nothing learned of the other's MAC."""
    if any(entry["mac"] == far.mac and entry["learned"] for entry in status.get("fdb", [])):
        return None
    return f"{near.title}'s FDB has no learned entry for {far.mac} of {far.title}"


def _punched(near: Edge, far: Edge) -> ConntrackEntry | None:
    """The two-way connection of an edge to the other edge's NAT box, in its own NAT box."""
    for entry in _conntrack(near.nat.namespace):
        ends = (entry.source, entry.destination, entry.reply_destination)
        if entry.replied and ends == (str(near.host.address), str(far.nat.wan), str(near.nat.wan)):
            return entry
    return None


def _conntrack(box: Namespace) -> list[ConntrackEntry]:
    return parse_conntrack(box.run("conntrack", "-L", "-p", "udp").stdout)


def _session_ids(peers: list[dict[str, Any]]) -> set[str]:
    return {session["id"] for peer in peers for session in peer["sessions"]}


def _datagrams(verdicts: list[Verdict]) -> int:
    return sum(verdict.datagrams for verdict in verdicts)
