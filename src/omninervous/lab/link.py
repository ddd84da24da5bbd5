"""A bad link on purpose: two TAPs joined by a process that loses, delays, reorders, duplicates and damages frames.

    namespace A [TAP] <--- this process ---> [TAP] namespace B

`omni lab link A eth0 B eth0 --seed 7 --loss 0.01 --delay 0.010` makes the TAPs, prints one JSON line
when they are there, and another one with its counts when SIGTERM ends it.

The fate of the n-th frame of a direction is a pure function of (seed, direction, n): a run that sends the same frames
sees the same losses. Only when a frame leaves depends on the clock.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import json
import math
import os
import random
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from types import FrameType

from pyroute2 import netns

from omninervous.errors import SystemFailure
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process

__all__ = ["Blackout", "Counts", "Delivery", "LinkModel", "LinkSpec", "damage", "main", "start_link"]

_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_FRAME_LIMIT = 65536
_ETHERNET_HEADER = 14
_IPV4, _ARP, _UDP_PROTOCOL, _UDP_HEADER = b"\x08\x00", b"\x08\x06", 17, 8


@dataclass(frozen=True, slots=True)
class Blackout:
    """The link is dead for `seconds`, from `start` seconds after the link's first frame on; again every `every` seconds
    if that is not 0."""

    start: float
    seconds: float
    every: float = 0.0

    def covers(self, elapsed: float) -> bool:
        since = elapsed - self.start
        if self.every and since > 0:
            since %= self.every
        return 0 <= since < self.seconds


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """What a link does to frames, alike in both directions. Probabilities 0..1, times in seconds."""

    loss: float = 0.0
    loss_burst: float = 1.0
    """Mean number of frames lost in a row (a two-state Gilbert model); `loss` stays the share of lost frames."""
    delay: float = 0.0
    jitter: float = 0.0
    """Added to the delay: evenly spread over 0..jitter. Frames stay in order."""
    reorder: float = 0.0
    """Share of frames that are held back by `reorder_by`, so that later ones overtake them."""
    reorder_by: float = 0.005
    duplicate: float = 0.0
    corrupt: float = 0.0
    """Share of frames with one flipped bit (`damage`)."""
    rate: float = 0.0
    """Bits a second; 0 = no limit. Frames wait in a queue."""
    queue: int = 256 * 1024
    """Bytes that may wait for `rate`; a frame that does not fit is lost."""
    blackouts: tuple[Blackout, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame leaves the link at `at` seconds, with bit `flip` (0..1, a place in the frame) damaged if not None."""

    at: float
    flip: float | None = None


@dataclass(slots=True)
class Counts:
    """What one direction did."""

    frames: int = 0
    lost: int = 0
    blacked_out: int = 0
    queue_full: int = 0
    reordered: int = 0
    duplicated: int = 0
    corrupted: int = 0
    delivered: int = 0


class LinkModel:
    """One direction of a link. Pure: time is an argument, chance comes from the seed."""

    def __init__(self, spec: LinkSpec, seed: int, direction: int) -> None:
        self.counts = Counts()
        self._spec = spec
        self._random = random.Random(f"{seed} {direction}")
        self._in_burst = False
        self._first: float | None = None
        self._free_at = 0.0
        self._last_at = 0.0

    def handle_frame(self, now: float, size: int) -> tuple[Delivery, ...]:
        """The deliveries that one frame of `size` bytes leads to: none, one, or two."""
        spec, counts = self._spec, self.counts
        # Always the same number of draws per frame: what happens to one never shifts the fate of the next.
        lose, jitter, reorder, duplicate, corrupt, place = (self._random.random() for _ in range(6))
        counts.frames += 1
        self._first = now if self._first is None else self._first
        if self._loses(lose):
            counts.lost += 1
            return ()
        if any(blackout.covers(now - self._first) for blackout in spec.blackouts):
            counts.blacked_out += 1
            return ()
        sent_at = self._serialise(now, size)
        if sent_at is None:
            counts.queue_full += 1
            return ()
        at = sent_at + spec.delay + jitter * spec.jitter
        if reorder < spec.reorder:
            counts.reordered += 1
            at += spec.reorder_by
        else:
            at = self._last_at = max(at, self._last_at)
        flip = place if corrupt < spec.corrupt else None
        counts.corrupted += flip is not None
        deliveries = [Delivery(at, flip)]
        if duplicate < spec.duplicate:
            counts.duplicated += 1
            deliveries.append(Delivery(at))
        counts.delivered += len(deliveries)
        return tuple(deliveries)

    def _loses(self, draw: float) -> bool:
        """Gilbert's model: in a burst all is lost; the chances to enter and leave follow from mean length and share."""
        spec = self._spec
        if spec.loss >= 1.0:
            return True
        leave = 1.0 / max(spec.loss_burst, 1.0)
        if self._in_burst and leave < 1.0:
            self._in_burst = draw >= leave
        else:
            # With single losses (leave = 1) the model would forbid two in a row; then each frame stands alone.
            enter = spec.loss if leave == 1.0 else leave * spec.loss / (1.0 - spec.loss)
            self._in_burst = draw < enter
        return self._in_burst

    def _serialise(self, now: float, size: int) -> float | None:
        if not self._spec.rate:
            return now
        start = max(now, self._free_at)
        if (start - now) * self._spec.rate / 8 + size > self._spec.queue:
            return None
        self._free_at = start + size * 8 / self._spec.rate
        return self._free_at


def damage(frame: bytes, place: float) -> bytes:
    """The frame with one bit flipped, never in the Ethernet header. ARP is spared: no checksum of its own would save
    the neighbours' tables, as the cable's does.

    In a UDP datagram over IPv4 a payload bit is flipped and the UDP checksum taken out (0 = none): the receiver's
    kernel would drop the datagram otherwise, and no protocol behind it would ever see a damaged one.
    """
    if frame[12:14] == _ARP:
        return frame
    data = bytearray(frame)
    first = _ETHERNET_HEADER
    if frame[12:14] == _IPV4 and len(frame) > first + 20:
        udp = first + (frame[first] & 0x0F) * 4
        if frame[first + 9] == _UDP_PROTOCOL and len(frame) > udp + _UDP_HEADER:
            data[udp + 6 : udp + 8] = b"\0\0"
            first = udp + _UDP_HEADER
    if len(data) > first:
        bit = int(place * (len(data) - first) * 8)
        data[first + bit // 8] ^= 1 << bit % 8
    return bytes(data)


def start_link(
    lab: Lab, first: tuple[Namespace, str], second: tuple[Namespace, str], spec: LinkSpec, seed: int
) -> Process:
    """Join two machines by a bad link; the interfaces are there and down. The link ends with the lab."""
    argv = [sys.executable, "-m", "omninervous.lab.link", first[0].name, first[1], second[0].name, second[1]]
    for each in fields(LinkSpec):
        value = getattr(spec, each.name)
        if value == each.default:
            continue
        if each.name == "blackouts":
            for blackout in spec.blackouts:
                argv += ["--blackout", f"{blackout.start}:{blackout.seconds}:{blackout.every}"]
        else:
            argv += [f"--{each.name.replace('_', '-')}", str(value)]
    process = lab.start(None, f"link-{first[0].role}-{second[0].role}", [*argv, "--seed", str(seed)])
    process.wait_for_output("ready", 10.0)
    return process


@dataclass(order=True, slots=True)
class _Queued:
    at: float
    order: int
    target: int = field(compare=False)
    frame: bytes = field(compare=False)


class _Joint:
    """The loop that moves frames between two descriptors."""

    def __init__(self, descriptors: tuple[int, int], models: tuple[LinkModel, LinkModel]) -> None:
        self._models = dict(zip(descriptors, models, strict=True))
        self._other = {descriptors[0]: descriptors[1], descriptors[1]: descriptors[0]}
        self._queue: list[_Queued] = []
        self._order = 0
        self.running = True

    def run(self) -> None:
        poller = select.poll()
        for descriptor in self._other:
            poller.register(descriptor, select.POLLIN)
        while self.running:
            wait = None if not self._queue else max(0.0, self._queue[0].at - time.monotonic()) * 1000
            for descriptor, _ in poller.poll(100 if wait is None else min(wait, 100)):
                self._receive(descriptor)
            self._send_due(time.monotonic())

    def _receive(self, source: int) -> None:
        try:
            frame = os.read(source, _FRAME_LIMIT)
        except OSError:  # the interface is down
            return
        for delivery in self._models[source].handle_frame(time.monotonic(), len(frame)):
            self._order += 1
            sent = frame if delivery.flip is None else damage(frame, delivery.flip)
            heapq.heappush(self._queue, _Queued(delivery.at, self._order, self._other[source], sent))

    def _send_due(self, now: float) -> None:
        while self._queue and self._queue[0].at <= now:
            due = heapq.heappop(self._queue)
            try:
                os.write(due.target, due.frame)
            except OSError:  # the interface is down: nobody receives
                continue


def main(argv: list[str] | None = None) -> int:
    """The link process."""
    options = _parse(argv)
    spec = LinkSpec(**{name: getattr(options, name) for name in _OPTIONS}, blackouts=tuple(options.blackouts))
    models = LinkModel(spec, options.seed, 0), LinkModel(spec, options.seed, 1)
    taps = _open_tap(options.first, options.first_name), _open_tap(options.second, options.second_name)
    joint = _Joint(taps, models)

    def stop(_number: int, _frame: FrameType | None) -> None:
        joint.running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(json.dumps({"ready": True, "seed": options.seed}), flush=True)
    joint.run()
    print(json.dumps({"a_to_b": asdict(models[0].counts), "b_to_a": asdict(models[1].counts)}), flush=True)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "omni lab link",
        description="Two TAPs in two network namespaces, joined by a link that is as bad as you say, alike both ways. "
        "Ctrl-C ends it. Needs root.",
    )
    for which in ("first", "second"):
        parser.add_argument(which, help=f"The {which} network namespace.")
        parser.add_argument(f"{which}_name", help="Name of the TAP in it.")
    parser.add_argument("--seed", type=int, required=True, help="Decides the fate of every frame.")
    for name, (kind, metavar, text) in _OPTIONS.items():
        default = LinkSpec.__dataclass_fields__[name].default
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} [default: {default:g}]")
    parser.add_argument(
        "--blackout",
        dest="blackouts",
        type=_blackout,
        action="append",
        default=[],
        metavar="START:SECONDS[:EVERY]",
        help="Dead from START seconds after the first frame on, for SECONDS; again every EVERY. May be repeated.",
    )
    return parser.parse_args(argv)


def _from(low: float, high: float = sys.float_info.max) -> Callable[[str], float]:
    """Reads a number of this range."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            wanted = f"from {low:g} to {high:g}" if high < sys.float_info.max else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"{text!r} does not do: give a number {wanted}")
        return value

    return read


def _blackout(text: str) -> Blackout:
    parts = [_from(0)(part) for part in text.split(":")]
    if not 2 <= len(parts) <= 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not START:SECONDS[:EVERY]: write for example 5:1:20")
    return Blackout(*parts)


_OPTIONS: dict[str, tuple[Callable[[str], float], str, str]] = {
    "loss": (_from(0, 1), "SHARE", "Frames that are lost, 0 to 1."),
    "loss_burst": (_from(1), "FRAMES", "Mean number of frames that are lost in a row."),
    "delay": (_from(0), "SECONDS", "Of every frame."),
    "jitter": (_from(0), "SECONDS", "Added to the delay, evenly spread; frames stay in order."),
    "reorder": (_from(0, 1), "SHARE", "Frames that are held back, so that later ones overtake them."),
    "reorder_by": (_from(0), "SECONDS", "For how long."),
    "duplicate": (_from(0, 1), "SHARE", "Frames that arrive twice."),
    "corrupt": (_from(0, 1), "SHARE", "Frames with one flipped bit."),
    "rate": (_from(0), "BITS", "A second; 0: no limit."),
    "queue": (_from(0), "BYTES", "That may wait for the rate; what does not fit is lost."),
}
"""Options of the command line for `LinkSpec`."""


def _open_tap(namespace: str, name: str) -> int:
    """A TAP of a namespace, non-persistent: it is gone when the descriptor is closed."""
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        netns.setns(namespace, flags=0)
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
        return descriptor
    except OSError as error:
        raise SystemFailure(f"the link cannot make the TAP {name} in {namespace}: {error.strerror}") from error
    finally:
        netns.setns(ours)
        os.close(ours)


if __name__ == "__main__":
    sys.exit(main())
