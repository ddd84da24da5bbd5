"""`omni pcap`: what a peer and this machine say to each other, unsealed, for Wireshark and its kin."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import rich_click as click

import omninervous
from omninervous.cli.options import FileName, Seconds, chosen_state_dir, print_json, state_dir_option
from omninervous.errors import OmniError, SystemFailure, UserError

if TYPE_CHECKING:
    from omninervous.hostos.sniffer import Sniffer

__all__ = ["pcap"]

_RENEW_EVERY = 1.0
_LOOK_EVERY = 0.2
_LARGEST = 65_561


@click.command()
@state_dir_option
@click.option("--peer", metavar="NAME|VIP|KEY", required=True, help="Whose frames.")
@click.option("--count", "-c", type=click.IntRange(1), help="End after so many frames.")
@click.option("--seconds", type=Seconds(0.1), help="End after so long. [default: Ctrl-C]")
@click.option(
    "--snaplen", "-s", type=click.IntRange(14, _LARGEST), default=_LARGEST, help="Keep so many bytes of a frame."
)
@click.option("--write", "-w", type=FileName(), help="A file instead of standard output.")
@click.option("--json", "as_json", is_flag=True, help="With --write: what was captured, as one JSON object on stdout.")
@click.pass_context
def pcap(
    ctx: click.Context,
    peer: str,
    count: int | None,
    seconds: float | None,
    snaplen: int,
    write: Path | None,
    as_json: bool,
) -> None:
    """Frames between this machine and a peer, as pcapng: omni pcap --peer robot-7 | tshark -r -

    Traffic never waits for the reader: frames that it does not take in time are left out, and counted in the file. omni
    status shows who is looked at; meanwhile what is sent to that peer takes the userspace lane."""
    from omninervous.hostos.sniffer import Sniffer

    if write is None and as_json:
        raise UserError("--json needs --write FILE: standard output carries the frames")
    if write is None and sys.stdout.isatty():
        raise UserError("a capture is not for a terminal: omni pcap ... | tshark -r -, or --write FILE")
    lease = _Lease(chosen_state_dir(ctx), peer)
    target = lease.renew()
    mac = bytes.fromhex(target["mac"].replace(":", ""))
    with Sniffer(target["interface"], mac, snaplen) as sniffer, closing(_opened(write)) as to, lease:
        copy = _Copy(sniffer, to, count, None if seconds is None else time.monotonic() + seconds)
        try:
            copy.begin(target["interface"], snaplen)
            copy.run(lease)
        except BrokenPipeError:  # the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        except OSError as error:
            raise SystemFailure(f"{write or 'standard output'} cannot be written: {error.strerror}") from error
    if as_json:
        print_json({"peer": target["peer"], "file": str(write), "frames": copy.written, "dropped": copy.dropped})
        return
    lost = f"; {copy.dropped} more were not taken in time" if copy.dropped else ""
    click.echo(f"omni pcap: {copy.written} frames of {target['peer']}{lost}", err=True)


def _opened(path: Path | None) -> BinaryIO:
    if path is None:
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    try:
        # What two machines say to each other is a secret.
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as error:
        raise UserError(f"--write {path}: {error.strerror}; name a file that can be written") from error


class _Copy:
    """Frames from the kernel to a file, until there are enough, the time is over, or Ctrl-C."""

    def __init__(self, sniffer: Sniffer, to: BinaryIO, count: int | None, until: float | None) -> None:
        self.written = self.dropped = 0
        self._sniffer = sniffer
        self._to = to
        self._count = count
        self._until = until
        self._over = False
        # A flag: an exception could leave half a block behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)

    def begin(self, interface: str, snaplen: int) -> None:
        from omninervous.hostos.pcapng import file_header

        self._to.write(file_header(f"omni {omninervous.__version__}", interface, snaplen))
        self._to.flush()

    def run(self, lease: _Lease) -> None:
        from omninervous.hostos.pcapng import frame_block, statistics_block

        while not self._over and self.written != self._count:
            if self._until is not None and time.monotonic() >= self._until:
                break
            frame = self._sniffer.take(_LOOK_EVERY)
            lease.check()
            if frame is None:
                self._to.flush()
                continue
            self._to.write(frame_block(*frame))
            self.written += 1
        received, self.dropped = self._sniffer.statistics()
        self._to.write(statistics_block(time.time_ns(), received, self.dropped))
        self._to.flush()

    def _end(self, _number: int, _frame: Any) -> None:  # noqa: ANN401
        self._over = True


class _Lease:
    """What the daemon forgets unless it is renewed; it is, also while the reader keeps us waiting."""

    def __init__(self, state_dir: Path, peer: str) -> None:
        self._state_dir = state_dir
        self._peer = peer
        self._failure: OmniError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def renew(self) -> dict[str, Any]:
        from omninervous.hostos.control import request

        return request(self._state_dir, "pcap", peer=self._peer)

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_RENEW_EVERY):
            try:
                self.renew()
            except OmniError as error:
                self._failure = error
                return
