"""The rows of `omni cloud test`, observed on the machines themselves."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable
from typing import Any

from omninervous.errors import SystemFailure
from omninervous.lab.cloud_hosts import Remote
from omninervous.lab.cloud_install import Release, install
from omninervous.lab.cloud_remote import TEST_DEVICE, CloudDaemon, require_tools
from omninervous.lab.cloud_scripts import IPERF3_CLIENT, PING
from omninervous.lab.evidence import PingResult, StreamResult, parse_iperf3, parse_ping
from omninervous.lab.report import Check, Finding, RowFailed

__all__ = ["MACHINES", "TEARDOWN", "CloudChecks"]

MACHINES = ("nucleus", "node-a", "node-b")
"""Roles, in the order of the options."""

INSTALLATION = "Installation"
BARE_PING = "Bare ping"
BARE_TCP = "Bare iperf3"
NUCLEUS = "Nucleus Rendezvous"
REGISTRATIONS = ("Edge A Registration", "Edge B Registration")
HANDSHAKE = "Noise_IK Handshake"
DIRECT = "Direct P2P Channel"
TUNNEL_PING = "Tunnel ping"
TUNNEL_TCP = "Tunnel iperf3"
TEARDOWN = "Teardown"

_REGISTRATION_SECONDS = 20.0
_HANDSHAKE_SECONDS = 30.0
_BARE_PORT, _TUNNEL_PORT = 5201, 5202
_LISTENING = "listening"


class CloudChecks:
    """The measurements on three machines: the Nucleus's, and those of the nodes A and B."""

    def __init__(
        self,
        hosts: tuple[Remote, ...],
        release: Release,
        secret: str | None,
        port: int,
        seconds: int,
        step: Callable[[str], None],
    ) -> None:
        self._hosts = hosts
        self._release = release
        self._secret = secret or secrets.token_urlsafe(24)
        self._cluster = f"cloud-test-{secrets.token_hex(4)}"
        self._port = port
        self._seconds = seconds
        self._step = step
        self._place = ""
        self._bare_tcp: StreamResult | None = None

    def in_order(self) -> list[Check]:
        """All rows but the teardown, with what they depend on."""
        names = tuple(f"Machine {host.role}" for host in self._hosts)
        machines = [Check(name, (), _bound(self._machine, host)) for name, host in zip(names, self._hosts, strict=True)]
        edges = [
            Check(name, (NUCLEUS,), _bound(self._registration, host))
            for name, host in zip(REGISTRATIONS, self._hosts[1:], strict=True)
        ]
        return [
            *machines,
            Check(INSTALLATION, names, self._installation),
            Check(BARE_PING, names, self._ping_bare),
            Check(BARE_TCP, names, self._tcp_bare),
            Check(NUCLEUS, (INSTALLATION,), self._nucleus),
            *edges,
            Check(HANDSHAKE, REGISTRATIONS, self._handshake),
            Check(DIRECT, (HANDSHAKE,), self._direct),
            Check(TUNNEL_PING, (HANDSHAKE,), self._ping_tunnel),
            Check(TUNNEL_TCP, (TUNNEL_PING,), self._tcp_tunnel),
        ]

    # ------------------------------------------------------------ the machines

    def _machine(self, host: Remote) -> Finding:
        """It lets us in, has what is needed, and holds nothing of an earlier run any more."""
        host.look()
        is_node = host.role != MACHINES[0]
        require_tools(host, "rsync", "setsid", "timeout", *(("ping", "iperf3") if is_node else ()))
        if is_node and not host.probe.sudo:
            raise SystemFailure(f"{host.title}: an edge needs root: log in as root, or allow sudo without a password")
        removed = CloudDaemon(host).stop()
        probe = host.probe
        value = f"Python {probe.python_version[0]}.{probe.python_version[1]}, {probe.machine}"
        return Finding(value, "", f"removed of an earlier run: {'; '.join(removed)}" if removed else host.title)

    def _installation(self) -> Finding:
        versions = {install(self._release, host, self._step) for host in self._hosts}
        return Finding(", ".join(sorted(versions)), "", f"{self._release.wheel.name} runs on all three machines")

    def _ping_bare(self) -> Finding:
        return _ping_finding(self._ping(self._hosts[2].address()), "between the machines' own addresses")

    def _tcp_bare(self) -> Finding:
        self._bare_tcp = self._iperf3(self._hosts[2].address(), _BARE_PORT)
        return Finding(round(self._bare_tcp.bits_per_second / 1e6, 1), "Mbit/s", "between the machines' own addresses")

    # ------------------------------------------------------------ the daemons

    def _nucleus(self) -> Finding:
        host = self._hosts[0]
        daemon = CloudDaemon(host)
        daemon.start("--mode", "nucleus", "--port", str(self._port))
        identity = daemon.ask("status")["identity"]
        # The key comes over ssh: nobody on the way can be the Nucleus in its place.
        address = host.address()
        self._place = f"{f'[{address}]' if ':' in address else address}:{self._port}#{identity}"
        return Finding(f"{address}:{self._port}", "", f"runs as {identity}")

    def _registration(self, host: Remote) -> Finding:
        edge = _edge(host)
        edge.start(
            *("--nucleus", self._place, "--cluster", self._cluster),
            *("--port", str(self._port), "--dev", TEST_DEVICE),
            secret=self._secret,
        )
        status = edge.ask_until("status", _registered, _REGISTRATION_SECONDS)
        if not _registered(status):
            raise RowFailed(f"not registered after {_REGISTRATION_SECONDS:.0f} s; its status says {status['nuclei']}")
        observed = next(each["observed"] for each in status["nuclei"] if each["registered"])
        return Finding(status["vip"]["address"], "", f"seen by the Nucleus as {observed}")

    def _handshake(self) -> Finding:
        """Both edges list the same session id."""
        a, b = (_edge(host) for host in self._hosts[1:])
        # Traffic makes the edges look for one another.
        self._ping(_vip(b))

        def common(answer: dict[str, Any]) -> set[str]:
            return _session_ids(answer) & _session_ids(b.ask("peers"))

        sessions = sorted(common(a.ask_until("peers", common, _HANDSHAKE_SECONDS)))
        if not sessions:
            raise RowFailed(f"the edges list no common session id after {_HANDSHAKE_SECONDS:.0f} s")
        return Finding(sessions[0], "session id", "listed by `omni peers` on both nodes")

    def _direct(self) -> Finding:
        """The session's packets go straight to the other node, not to the Nucleus."""
        endpoints = [_endpoint(_edge(host)) for host in self._hosts[1:]]
        nucleus = self._hosts[0].address()
        if any(_host(endpoint) == nucleus for endpoint in endpoints):
            raise RowFailed(f"the edges send to {' and '.join(endpoints)}: that is the Nucleus's machine")
        return Finding(" <-> ".join(reversed(endpoints)), "", "endpoints of the session")

    # ------------------------------------------------------------ the tunnel

    def _ping_tunnel(self) -> Finding:
        return _ping_finding(self._ping(_vip(_edge(self._hosts[2]))), f"through {TEST_DEVICE}")

    def _tcp_tunnel(self) -> Finding:
        result = self._iperf3(_vip(_edge(self._hosts[2])), _TUNNEL_PORT)
        share = ""
        if self._bare_tcp is not None and self._bare_tcp.bits_per_second:
            share = f", {result.bits_per_second / self._bare_tcp.bits_per_second:.0%} of the bare path"
        return Finding(round(result.bits_per_second / 1e6, 1), "Mbit/s", f"through {TEST_DEVICE}{share}")

    # ------------------------------------------------------------ measuring

    def _ping(self, target: str) -> PingResult:
        return parse_ping(self._hosts[1].shell(PING, target))

    def _iperf3(self, target: str, port: int) -> StreamResult:
        client, server = self._hosts[1:]
        beside = _edge(server)
        log = f"/tmp/omni-cloud-{server.role}-iperf3.log"
        serve = ("timeout", str(self._seconds + 60), "iperf3", "--server", "--one-off", "--forceflush")
        beside.start_beside(log, _LISTENING, *serve, "--port", str(port))
        seconds = str(self._seconds)
        return parse_iperf3(client.shell(IPERF3_CLIENT, target, str(port), seconds, seconds=self._seconds + 60.0))


def _edge(host: Remote) -> CloudDaemon:
    return CloudDaemon(host, root=True)


def _bound(measure: Callable[[Remote], Finding], host: Remote) -> Callable[[], Finding]:
    return lambda: measure(host)


def _ping_finding(result: PingResult, where: str) -> Finding:
    if result.loss == 1.0:
        raise RowFailed(f"no answer to {result.sent} pings {where}")
    lost = f", {result.loss:.0%} lost" if result.loss else ""
    return Finding(result.average, "ms", f"{where}: average of {result.received}{lost}")


def _registered(status: dict[str, Any]) -> bool:
    return status.get("vip") is not None and any(each["registered"] for each in status.get("nuclei", []))


def _vip(edge: CloudDaemon) -> str:
    address: str = edge.ask("status")["vip"]["address"]
    return address


def _session_ids(answer: dict[str, Any]) -> set[str]:
    return {session["id"] for peer in answer.get("peers", []) for session in peer["sessions"]}


def _endpoint(edge: CloudDaemon) -> str:
    (peer,) = (each for each in edge.ask("peers")["peers"] if each["sessions"])
    endpoint: str = peer["endpoint"]
    return endpoint


def _host(endpoint: str) -> str:
    host = endpoint.rpartition(":")[0].strip("[]")
    return str(ipaddress.ip_address(host))
