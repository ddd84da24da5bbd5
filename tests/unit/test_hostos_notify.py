"""What a service manager hears, on a socket as systemd makes it."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omninervous.hostos.notify import ServiceManager

PATIENCE = 20.0


@contextmanager
def listener(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(address)
        made.settimeout(PATIENCE)
        yield made


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_and_stopping(tmp_path: Path, abstract: bool) -> None:
    name = secrets.token_hex(8)
    bound, told = (f"\0{name}", f"@{name}") if abstract else (str(tmp_path / name), str(tmp_path / name))
    with listener(bound) as manager:
        service = ServiceManager({"NOTIFY_SOCKET": told})
        service.ready("omni0 is up")
        assert manager.recv(4096) == b"READY=1\nSTATUS=omni0 is up"
        service.stopping()
        assert manager.recv(4096) == b"STOPPING=1"


def test_a_watchdog_hears_a_pulse_until_the_end(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    with listener(environ["NOTIFY_SOCKET"]) as manager:

        async def run() -> list[bytes]:
            service = ServiceManager(environ)
            service.ready("up")
            heard = [await asyncio.to_thread(manager.recv, 4096) for _ in range(4)]
            service.stopping()
            # What came before the goodbye; behind it the pulse is still.
            while heard[-1] != b"STOPPING=1":
                heard.append(await asyncio.to_thread(manager.recv, 4096))
            await asyncio.sleep(0.1)
            return heard

        heard = asyncio.run(run())
        assert heard[0].startswith(b"READY=1") and set(heard[1:-1]) == {b"WATCHDOG=1"}
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_USEC": "no number"},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nobody/listens", "WATCHDOG_USEC": "0"},
    ],
)
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    service = ServiceManager(environ)
    service.ready("up")  # a pulse would fail here: no event loop runs
    service.stopping()
