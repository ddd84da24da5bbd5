"""Processes of the lab: started with a log of their own, followed by pid, ended by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from omninervous.errors import SystemFailure

__all__ = ["Process", "cpu_seconds", "ended_in_order", "missing_command", "poll_until", "run_command"]

T = TypeVar("T")

_PACKAGES = {
    "conntrack": "conntrack",
    "iperf3": "iperf3",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "rsync": "rsync",
    "sockperf": "sockperf",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "sysctl": "procps",
    "tcpdump": "tcpdump",
    "wg": "wireguard-tools",
}
"""Debian package of each command that the lab calls."""

_TAIL_LINES = 12


class Process:
    """A running command. Output of both kinds goes to `log`."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        with log.open("ab") as output:
            try:
                # A session of its own: Ctrl-C at the terminal reaches us alone, and we end the others in order.
                self._popen = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise missing_command(argv) from error

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status; minus the signal's number if one ended it; None while it runs."""
        return self._popen.poll()

    def stop(self, seconds: float = 5.0) -> int:
        """SIGTERM, and SIGKILL if that was not enough. The exit status."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL. The exit status."""
        if self._popen.poll() is None:
            self._popen.kill()
        return self._popen.wait()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for its end. SystemFailure, and the process killed, if it takes longer."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SystemFailure(f"{self.name} did not end within {seconds:.0f} s: {self.tail()}") from None

    def wait_for_output(self, text: str, seconds: float) -> None:
        """Wait until it has written `text`. SystemFailure if it ends before, or takes longer."""

        def written() -> bool:
            # The status first: what a process wrote before its end is there when we look afterwards.
            ended = self.status is not None
            if text in self.output():
                return True
            if ended:
                raise SystemFailure(f"{self.name} ended with status {self.status}: {self.tail()}")
            return False

        if not poll_until(written, seconds):
            raise SystemFailure(f"{self.name} did not say {text!r} within {seconds:.0f} s: {self.tail()}")

    def output(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """The last lines of its output, for an error's text."""
        return "\n".join(self.output().splitlines()[-_TAIL_LINES:]) or "(no output)"


def run_command(
    argv: Sequence[str], *, check: bool = True, text_in: str | None = None, seconds: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. SystemFailure names the command and what it said, if it fails (and `check`)."""
    try:
        done = subprocess.run(argv, input=text_in, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError as error:
        raise missing_command(argv) from error
    except subprocess.TimeoutExpired as error:
        raise SystemFailure(f"`{' '.join(argv)}` took longer than {seconds:.0f} s") from error
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[:2000]
        raise SystemFailure(f"`{' '.join(argv)}` failed with status {done.returncode}: {said}")
    return done


def cpu_seconds(pid: int) -> float:
    """User and system time of a process. What the kernel does in interrupts belongs to nobody."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


def poll_until(condition: Callable[[], T], seconds: float, interval: float = 0.05) -> T:
    """Ask until the answer is true or the time is over; the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(interval)
    return answer


@contextlib.contextmanager
def ended_in_order() -> Generator[None, None, None]:
    """SIGTERM unwinds the stack, so that what we have begun goes away with us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def missing_command(argv: Sequence[str]) -> SystemFailure:
    """The error for a command that is not installed."""
    package = _PACKAGES.get(argv[0])
    remedy = f": `apt-get install --no-install-recommends {package}`" if package else ""
    return SystemFailure(f"`{argv[0]}` was not found{remedy}")
