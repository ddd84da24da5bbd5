"""The Nucleus daemon as a process: real sockets on loopback, real signals, a real state directory."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omninervous.core.identity import x25519_of
from omninervous.errors import UserError
from omninervous.hostos import clock
from omninervous.hostos.control import SOCKET_NAME, request
from omninervous.nucleus.server import NucleusConfig, run_nucleus
from omninervous.wire.address import Endpoint
from omninervous.wire.hello import Hello, decode_hello_reply
from omninervous.wire.keytext import encode_key
from omninervous.wire.signalling import RegisterAck, RegisterStatus
from tests.nucleus_edges import Edge

_PROGRAM = """
import sys
from pathlib import Path
from omninervous.hostos import logs
from omninervous.nucleus.server import NucleusConfig, run_nucleus
logs.configure("json")
sys.exit(run_nucleus(NucleusConfig(Path(sys.argv[1]), 0), ready=lambda port: print(port, flush=True)))
"""
PATIENCE = 20.0


@contextmanager
def nucleus(state: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running Nucleus and its port."""
    command = [sys.executable, "-c", _PROGRAM, str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def ask(udp: socket.socket, port: int, datagram: bytes) -> bytes:
    host = "::1" if udp.family == socket.AF_INET6 else "127.0.0.1"
    udp.sendto(datagram, (host, port))
    return udp.recv(2048)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def udp(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param, socket.SOCK_DGRAM) as made:
        made.settimeout(PATIENCE)
        made.bind(("::1" if request.param == socket.AF_INET6 else "127.0.0.1", 0))
        yield made


def test_an_edge_registers_and_the_status_tells(tmp_path: Path, udp: socket.socket) -> None:
    with nucleus(tmp_path / "state") as (process, port):
        identity = decode_hello_reply(ask(udp, port, Hello(bytes(16)).encode())).identity
        now, here = clock.now(), Endpoint(*udp.getsockname()[:2])
        edge = Edge(1, x25519_of(identity), here)
        edge.finish(now, ask(udp, port, edge.initiation(now)))
        ack = edge.open(now, ask(udp, port, edge.seal(edge.register(now))))
        assert isinstance(ack, RegisterAck) and ack.status is RegisterStatus.OK and ack.observed == here
        udp.sendto(b"junk", (here.host, port))
        ask(udp, port, Hello(bytes(16)).encode())  # answered after the junk was read
        status = request(tmp_path / "state", "status")
        assert status["mode"] == "nucleus" and status["pid"] == process.pid and status["port"] == port
        assert status["identity"] == encode_key(identity)
        assert status["registry"] == {"clusters": 1, "edges": 1} and status["sessions"] == 1
        assert status["counters"]["registered"] == 1 and status["drops"] == {"bad_type": 1}
        with pytest.raises(UserError, match="does not know"):
            request(tmp_path / "state", "dance")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_its_identity_stays(tmp_path: Path, number: signal.Signals) -> None:
    keys = []
    for _ in range(2):
        with nucleus(tmp_path) as (process, _):
            keys.append(request(tmp_path, "status")["identity"])
            assert stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode) == 0o600
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
        assert not (tmp_path / SOCKET_NAME).exists()
    assert keys[0] == keys[1]


def test_a_taken_port_is_the_operators_to_mend_and_nothing_is_made(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 0))
        port = holder.getsockname()[1]
        with pytest.raises(UserError, match=rf"UDP port {port} is in use.*--port"):
            run_nucleus(NucleusConfig(tmp_path / "state", port))
    assert not (tmp_path / "state").exists()


def test_one_nucleus_per_state_directory(tmp_path: Path) -> None:
    with nucleus(tmp_path) as (process, _), pytest.raises(UserError, match=rf"pid {process.pid}"):
        run_nucleus(NucleusConfig(tmp_path, 0))


def test_a_readable_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_text("x")
    os.chmod(tmp_path / "identity.key", 0o644)
    with pytest.raises(UserError, match="chmod 600"):
        run_nucleus(NucleusConfig(tmp_path, 0))


def test_a_service_manager_hears_of_start_pulse_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        with nucleus(tmp_path / "state") as (process, port):
            assert manager.recv(4096).decode() == f"READY=1\nSTATUS=UDP port {port}"
            assert manager.recv(4096) == manager.recv(4096) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while (heard := manager.recv(4096)) == b"WATCHDOG=1":
                pass
            assert heard == b"STOPPING=1"
            assert process.wait(PATIENCE) == 0
