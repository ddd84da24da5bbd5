"""Faults on purpose: each makes one row of `omni autotest` fail, to show that the row can.

A fault is made in the lab, never in what is measured: a rule of a NAT box, a firewall on a machine, a process that
sends, a daemon killed.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from omninervous.errors import UserError
from omninervous.lab import checks
from omninervous.lab.namespaces import Namespace
from omninervous.lab.nat import NatKind, NatPolicy
from omninervous.lab.scene import RAW_PORT, Scene
from omninervous.lab.topology import NatBox

__all__ = ["BREAKAGES", "Breakage", "find_breakage"]

_RELAY_PORT = 9999
_RELAYED_SIZE = 1000
_RELAYED_INTERVAL = 0.01
"""Seconds between two relayed datagrams."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One fault, and when it comes."""

    row: str
    """The row that it breaks; what depends on it goes untried."""
    policy: Callable[[Scene, NatBox, NatPolicy], NatPolicy] = lambda _scene, _nat, policy: policy
    """The NAT boxes' configuration."""
    before: tuple[str, Callable[[Scene], None]] | None = None
    """Called ahead of that row."""
    traffic: Callable[[Scene], AbstractContextManager[None]] = lambda _scene: nullcontext()
    """Around every measurement that sends traffic."""


def find_breakage(name: str | None) -> Breakage | None:
    """The fault of that name. UserError if there is none."""
    if name is None:
        return None
    if name not in BREAKAGES:
        raise UserError(f"nothing can be broken under the name {name!r}: choose one of {', '.join(BREAKAGES)}")
    return BREAKAGES[name]


# ---------------------------------------------------------------- NAT boxes


def _no_rule_at_all(box: str) -> Callable[[Scene, NatBox, NatPolicy], NatPolicy]:
    def policy(_scene: Scene, nat: NatBox, usual: NatPolicy) -> NatPolicy:
        return replace(usual, kind=NatKind.ROUTER) if nat.namespace.role == box else usual

    return policy


def _no_rule_towards_edges(scene: Scene, nat: NatBox, usual: NatPolicy) -> NatPolicy:
    """The NAT knows the way to the Nucleus only: the edge registers, but no hole can be punched."""
    return replace(usual, only_towards=scene.net.nucleus.address) if nat is scene.net.nat_a else usual


# ---------------------------------------------------------------- daemons and machines


def _kill_nucleus(scene: Scene) -> None:
    scene.nucleus.process.kill()


def _kill_edge_b(scene: Scene) -> None:
    scene.edge_b.daemon.process.kill()


def _mute_edge_b(scene: Scene) -> None:
    """Edge B's own firewall lets nothing out of omni0: nobody can learn its MAC from a frame."""
    out = 'chain out { type filter hook output priority 0; policy accept; oifname "omni0" drop; }'
    ruleset = f"table inet mute {{\n{out}\n}}\ntable arp mute {{\n{out}\n}}\n"
    scene.load_fault(scene.edge_b.host.namespace, ruleset)


def _drop_at_edge_b(match: str) -> Callable[[Scene], None]:
    def drop(scene: Scene) -> None:
        rule = f'iifname "omni0" {match} drop'
        into = f"chain in {{ type filter hook input priority 0; policy accept; {rule}; }}"
        scene.load_fault(scene.edge_b.host.namespace, f"table inet broken {{\n{into}\n}}\n")

    return drop


def _leave_process(scene: Scene) -> None:
    """A process that holds a UDP socket on edge A's machine, unknown to the lab."""
    machine = scene.edge_a.host.namespace
    script = (
        "import socket, time; s = socket.socket(2, 2); s.bind(('', 9)); print('bound', flush=True); time.sleep(600)"
    )
    left = subprocess.Popen(machine.command("python3", "-c", script), stdout=subprocess.PIPE)
    assert left.stdout is not None
    left.stdout.readline()
    # It ends with its namespace, and is nobody's child to wait for then: this thread is.
    threading.Thread(target=left.communicate, daemon=True).start()


# ---------------------------------------------------------------- traffic that must not be


@contextmanager
def _relay(scene: Scene) -> Generator[None, None, None]:
    """Data takes the way through the Nucleus's machine: edge A sends there, a process there passes it on to NAT B."""
    nucleus, target = scene.net.nucleus, (str(scene.net.nat_b.wan), _RELAY_PORT)
    with (
        _sending(scene, scene.edge_a.host.namespace, (str(nucleus.address), _RELAY_PORT), b"\x04" * _RELAYED_SIZE),
        nucleus.namespace.udp_socket(str(nucleus.address), _RELAY_PORT) as relay,
    ):
        relay.settimeout(0.1)
        ended = threading.Event()

        def pass_on() -> None:
            while not ended.is_set():
                try:
                    relay.sendto(relay.recv(2048), target)
                except TimeoutError:
                    continue

        thread = threading.Thread(target=pass_on)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def _plaintext(scene: Scene) -> Generator[None, None, None]:
    """A process on edge A sends the ping's marker in clear; its first byte is that of a sealed message."""
    target = (str(scene.net.nat_b.wan), _RELAY_PORT)
    with _sending(scene, scene.edge_a.host.namespace, target, b"\x04" + scene.marker):
        yield


@contextmanager
def _sending(_scene: Scene, machine: Namespace, target: tuple[str, int], payload: bytes) -> Generator[None, None, None]:
    ended = threading.Event()
    with machine.udp_socket() as sender:

        def send() -> None:
            while not ended.wait(_RELAYED_INTERVAL):
                sender.sendto(payload, target)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


BREAKAGES = {
    "nucleus": Breakage(checks.NUCLEUS, before=(checks.NUCLEUS, _kill_nucleus)),
    "registration_a": Breakage(checks.REGISTRATION_A, policy=_no_rule_at_all("nat-a")),
    "registration_b": Breakage(checks.REGISTRATION_B, policy=_no_rule_at_all("nat-b")),
    "nat_rule": Breakage(checks.NAT, policy=_no_rule_towards_edges),
    "relayed_data": Breakage(checks.DIRECT, traffic=_relay),
    "killed_edge": Breakage(checks.HANDSHAKE, before=(checks.HANDSHAKE, _kill_edge_b)),
    "plaintext": Breakage(checks.SEALED, traffic=_plaintext),
    "fdb": Breakage(checks.FDB, before=(checks.NUCLEUS, _mute_edge_b)),
    "ping": Breakage(checks.PING, before=(checks.PING, _drop_at_edge_b("icmp type echo-request"))),
    "tcp": Breakage(checks.TCP, before=(checks.TCP, _drop_at_edge_b(f"tcp dport {RAW_PORT}"))),
    "udp": Breakage(checks.UDP, before=(checks.UDP, _drop_at_edge_b(f"udp dport {RAW_PORT} meta length > 500"))),
    "teardown": Breakage(checks.TEARDOWN, before=(checks.TEARDOWN, _leave_process)),
}
