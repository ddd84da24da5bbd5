"""What `omni autotest` looks at: a Nucleus and two edges behind NATs, and what is watched while traffic flows."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from omninervous.lab.capture import Capture
from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import TrafficCount, parse_link_counters
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.nat import Forward, NatPolicy
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host, NatBox, TwoNats, two_nats

__all__ = ["NUCLEUS_PORT", "RAW_PORT", "Edge", "Scene", "machine_state"]

NUCLEUS_PORT = 51820
RAW_PORT = 5201
"""NAT B forwards it to edge B, so that the raw figures belong to the very path that the tunnel takes."""
_CLUSTER = "autotest"
_CAPTURE_LIMIT = 3000
"""Frames captured per kind of traffic, whole: a fast engine's are of 64 KiB each, and are not to fill the disk."""
_WHOLE = 262144
MARKER_SIZE = 16
"""Bytes; the longest pattern that ping takes."""
_SETTLE_SECONDS = 5.0
"""More than duplicate address detection takes: a random delay of up to 1 s, then 1 s (RFC 4862, 5.1 and 5.4.2)."""


@dataclass(slots=True)
class Edge:
    """One edge of the scene."""

    title: str
    host: Host
    nat: NatBox
    daemon: Daemon
    vip: IPv4Address
    mac: str = ""
    """MAC of its omni0, as its daemon reports it."""


@dataclass(slots=True)
class Watched:
    """What was seen while traffic flowed."""

    captures: list[Path] = field(default_factory=list)
    nucleus: TrafficCount = field(default_factory=TrafficCount)
    edges: TrafficCount = field(default_factory=TrafficCount)
    """Of edge A's underlay interface."""


class Scene:
    """The machines and daemons of one autotest run."""

    def __init__(self, lab: Lab, engine: str, traffic: Callable[[Scene], AbstractContextManager[None]]) -> None:
        """`traffic` is entered around every measurement that sends traffic."""
        self.lab = lab
        self.marker = secrets.token_bytes(MARKER_SIZE)
        self.watched = Watched()
        self.net: TwoNats = two_nats(lab, configure=False)
        self.nucleus = Daemon(lab, self.net.nucleus.namespace, "nucleus")
        self._secret = secrets.token_urlsafe(24)
        self._engine = engine
        self._traffic = traffic
        self.edge_a = self._edge("Edge A", "edge-a", self.net.edge_a, self.net.nat_a, "10.200.0.1")
        self.edge_b = self._edge("Edge B", "edge-b", self.net.edge_b, self.net.nat_b, "10.200.0.2")
        self.started: list[Daemon] = []
        self._usual = {each.name: machine_state(each) for each in self._machines}

    def policy(self, nat: NatBox) -> NatPolicy:
        """What a NAT box does when nothing is broken on purpose."""
        forwards = (Forward(RAW_PORT, self.net.edge_b.address),) if nat is self.net.nat_b else ()
        return NatPolicy(nat.kind, forwards=forwards)

    def start_nucleus(self) -> None:
        """`omni-daemon --mode nucleus`."""
        self.nucleus.launch("--mode", "nucleus", "--port", str(NUCLEUS_PORT))
        self.started.append(self.nucleus)

    def start_edge(self, edge: Edge) -> None:
        """The user's command, with the secret in a file."""
        secret = self.lab.directory / f"{edge.daemon.name}.secret"
        secret.write_text(self._secret + "\n")
        secret.chmod(0o600)
        edge.daemon.launch(
            *("--nucleus", f"{self.net.nucleus.address}:{NUCLEUS_PORT}", "--cluster", _CLUSTER),
            *("--secret-file", str(secret), "--vip", str(edge.vip), "--engine", self._engine),
        )
        self.started.append(edge.daemon)

    @contextmanager
    def watching(self, name: str) -> Generator[None, None, None]:
        """Watch the underlay for as long as the block runs: a capture at NAT A's public side, and counters."""
        nat = self.net.nat_a.namespace
        capture = Capture(self.lab, nat, "wan0", name, frames=_CAPTURE_LIMIT, snap=_WHOLE, packet_filter="ip or ip6")
        nucleus, edges = self._count(self.net.nucleus), self._count(self.edge_a.host)
        try:
            with self._traffic(self):
                yield
        finally:
            watched = self.watched
            watched.nucleus += self._count(self.net.nucleus) - nucleus
            watched.edges += self._count(self.edge_a.host) - edges
            watched.captures.append(capture.stop())

    def load_fault(self, machine: Namespace, ruleset: str) -> None:
        """Load rules that are ours, not a daemon's."""
        earlier = machine_state(machine)
        machine.nft(ruleset)
        self._usual[machine.name] |= machine_state(machine) - earlier

    def left_on_machines(self) -> list[str]:
        """What the daemons' machines hold that they did not hold before the daemons started."""
        return [
            f"{machine.role}: {thing}"
            for machine in self._machines
            for thing in sorted(machine_state(machine) - self._usual[machine.name])
        ]

    @property
    def _machines(self) -> tuple[Namespace, ...]:
        return tuple(host.namespace for host in (self.net.nucleus, self.net.edge_a, self.net.edge_b))

    def _edge(self, title: str, name: str, host: Host, nat: NatBox, vip: str) -> Edge:
        return Edge(title, host, nat, Daemon(self.lab, host.namespace, name), IPv4Address(vip))

    @staticmethod
    def _count(host: Host) -> TrafficCount:
        return parse_link_counters(host.namespace.ip("-j", "-s", "link", "show", host.interface))


def machine_state(machine: Namespace) -> frozenset[str]:
    """Processes, interfaces, addresses, routes, rules and sockets of a machine, one line each."""
    # The kernel lists a link-local address before its route, which a work queue of its own adds (addrconf_dad_work).
    poll_until(lambda: _link_local_routes(machine) >= _link_local_addresses(machine), _SETTLE_SECONDS)
    listings = {
        "process": "\n".join(str(pid) for pid in machine.pids()),
        "interface": machine.ip("-br", "link"),
        "address": machine.ip("-br", "address"),
        "route": machine.ip("route", "show", "table", "all") + machine.ip("-6", "route", "show", "table", "all"),
        "rule": machine.run("nft", "list", "ruleset").stdout,
        "UDP socket": machine.run("ss", "-Hnau").stdout,
        "TCP socket": machine.run("ss", "-Hnlt").stdout,
        "local socket": machine.run("ss", "-Hlx").stdout,
    }
    return frozenset(
        f"{kind} {' '.join(line.split())}" for kind, text in listings.items() for line in text.splitlines() if line
    )


def _link_local_addresses(machine: Namespace) -> set[str]:
    listed = json.loads(machine.ip("-j", "-6", "address"))
    return {address["local"] for link in listed for address in link["addr_info"] if address["scope"] == "link"}


def _link_local_routes(machine: Namespace) -> set[str]:
    listed = json.loads(machine.ip("-j", "-6", "route", "show", "table", "local", "type", "local"))
    return {route["dst"] for route in listed}
