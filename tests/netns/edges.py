"""What the tests of running edges ask again and again."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv6Address, ip_interface
from typing import Any

from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import PingResult, parse_ping
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.nat import NatKind, NatPolicy
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host, Internet, NatBox

__all__ = ["SECRET", "Pair", "all_answered", "assert_answered", "behind", "ping", "transfer", "ula", "vip", "wait_for"]

SECRET = "a secret of more than sixteen characters"


def ping(where: Namespace, address: str, count: int = 3) -> PingResult:
    """`ping` five times a second."""
    done = where.run("ping", "-n", "-c", str(count), "-i", "0.2", "-W", "2", address, check=False)
    return parse_ping(done.stdout)


def all_answered(where: Namespace, address: str, count: int, *options: str, seconds: int = 60) -> None:
    argv = ("ping", "-n", "-c", str(count), "-w", str(seconds), *options, address)
    assert_answered(where.run(*argv, check=False, seconds=seconds + 10.0).stdout, count)


def assert_answered(said: str, count: int) -> None:
    """`ping -c count -w SECONDS` had every echo answered, each once. Its own loss says less: it counts what is still
    under way when ping ends, and without -w ping ends when the last answer takes twice as long as any before."""
    answers = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)]
    lost = set(range(1, max(answers, default=count))) - set(answers)
    assert not lost, f"no answer to {sorted(lost)}: {said[-300:]}"
    assert len(answers) == len(set(answers)) >= count, said[-300:]


def vip(daemon: Daemon) -> str:
    """The address that the daemon says it has."""
    address: str = daemon.status()["vip"]["address"]
    return address


def ula(daemon: Daemon) -> str:
    """The IPv6 address of its omni0, as the kernel has it."""
    addresses = [ip_interface(text).ip for text in daemon.status()["interface"]["addresses"]]
    (found,) = (each for each in addresses if isinstance(each, IPv6Address) and not each.is_link_local)
    return str(found)


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Ask until the answer is true; an AssertionError with `what` if it does not become so."""
    answer = poll_until(condition, seconds, 0.2)
    assert answer, f"not within {seconds:.0f} s: {what}"
    return answer


def behind(internet: Internet, name: str, kind: NatKind) -> tuple[NatBox, Host]:
    """A machine behind a NAT of its own, which is configured."""
    box = internet.nat(f"nat-{name}", kind)
    host = internet.edge(name, box)
    box.configure(NatPolicy(kind, host.address))
    return box, host


def transfer(source: Namespace, sink: Namespace, address: str, data: bytes) -> bytes:
    """Send it from one machine to an address of the other over TCP; what arrived."""
    listener = sink.call(lambda: socket.create_server((address, 7000)))
    client = source.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    with listener, client:
        client.settimeout(60)
        client.connect((address, 7000))
        server, _ = listener.accept()
        with server:
            server.settimeout(60)

            def send() -> None:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received = bytearray()
            while chunk := server.recv(65536):
                received += chunk
            sender.join()
    return bytes(received)


class Pair:
    """Two daemons that know each other's keys, on one wire; not started yet."""

    def __init__(self, lab: Lab, hosts: tuple[Host, Host]) -> None:
        self.hosts = hosts
        self.a, self.b = (Daemon(lab, host.namespace, name) for host, name in zip(hosts, "ab", strict=True))
        self.key_a, self.key_b = self.a.init(), self.b.init()

    def start_a(self, *more: str) -> Daemon:
        """The user's command on machine A."""
        return self.a.launch("--peer", self.key_b, "--endpoint", f"{self.hosts[1].address}:51820", *more)

    def start_b(self, *more: str) -> Daemon:
        """The user's command on machine B."""
        return self.b.launch("--peer", self.key_a, "--endpoint", f"{self.hosts[0].address}:51820", *more)

    def start(self) -> None:
        """Both, until both have a session."""
        self.start_a().wait_ready()
        self.start_b().wait_ready()
        self.a.wait_for_peer()
        self.b.wait_for_peer()
