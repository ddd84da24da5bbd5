"""Words to the service manager: ready, alive, stopping (sd_notify(3)). Without one they go nowhere.

systemd names its datagram socket in NOTIFY_SOCKET; with a watchdog it also gives WATCHDOG_USEC, and restarts a daemon
that has said nothing for so long. A daemon says `alive` from its event loop, so a loop that hangs is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

__all__ = ["ServiceManager"]

_SHARE = 0.5
"""Of the watchdog's time: sd_watchdog_enabled(3) recommends half."""
_ABSTRACT = "@"
"""Stands for the zero byte of an abstract socket address."""


class ServiceManager:
    """Whoever started this process and wants to hear of it. Create it once: the variables are taken from `environ`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self._interval = _watchdog_interval(environ)
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """What was asked for works from now on. In an event loop: its pulse begins as well."""
        self._say("READY=1", f"STATUS={status}")
        if self._interval is not None:
            self._alive(self._interval)

    def stopping(self) -> None:
        """The end has begun, on purpose."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._say("STOPPING=1")

    def _alive(self, interval: float) -> None:
        self._say("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(interval, self._alive, interval)

    def _say(self, *lines: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
            # Nobody listens any more, or its queue is full: the manager's own business, and no reason to stop.
            speaker.setblocking(False)
            with contextlib.suppress(OSError):
                speaker.sendto("\n".join(lines).encode(), self._address)


def _socket_address(text: str) -> str | None:
    """None: nobody listens, or at an address of a kind that we cannot reach; no reason not to run."""
    if text.startswith(_ABSTRACT):
        return f"\0{text[1:]}"
    return text if text.startswith("/") else None


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life; None if nobody waits for them."""
    text = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1e6 * _SHARE if meant and text.isascii() and text.isdecimal() and int(text) else None
