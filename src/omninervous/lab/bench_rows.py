"""What `omni bench` measures, and how."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from omninervous.errors import DecodeError, SystemFailure
from omninervous.lab.bench_crowd import Crowd
from omninervous.lab.bench_programs import ProgramTime, counted
from omninervous.lab.capture import udp_datagram
from omninervous.lab.evidence import parse_iperf3, parse_ping, parse_sockperf, percentile
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process, cpu_seconds
from omninervous.wire.address import Endpoint
from omninervous.wire.transport import LANE_REFLEX, decode_header, lane_of

__all__ = ["CROWDED", "DISCIPLINES", "IDLE", "JUMBO", "PLAIN", "ROWS", "Discipline", "Row", "Scene", "Track"]


@dataclass(frozen=True, slots=True)
class Scene:
    """What the two machines of every contestant are."""

    name: str
    """Tells it in the names of machines; empty for the usual one."""
    mtu: int
    """Of the underlay."""
    crowd: int = 0
    """Stock WireGuard peers that the sink has beside the source."""


PLAIN, JUMBO, CROWDED = Scene("", 1500), Scene("jumbo", 9000), Scene("crowd", 1500, 1000)
IDLE = Scene("idle", 1500)
"""Nothing but the memory of tunnels that carry nothing is measured there."""
_FLOOD_LIMIT = 5000
_FLOODS = {"ping_flood": 56, "ping_flood_512": 512, "ping_flood_1372": 1372}
"""Payload bytes; the largest makes two frames of ours, whose MTU is 1380."""
_SOCKPERF_PORT = 11111
_JUNK = {"transport": "junk_session", "initiation": "junk_initiation", "noise": "junk_noise"}
_JUNK_RATE = 200_000
_AS_FAST_AS_CAN_BE = 10_000_000
"""Datagrams a second."""
_INTERVAL = 0.002
"""Seconds between two pings."""
_WARM_UP = 0.5
"""Seconds of a stream before the pings beside it count."""


@dataclass(frozen=True, slots=True)
class Track:
    """Where a contestant runs: from one machine to an address of the other."""

    lab: Lab
    source: Namespace
    sink: Namespace
    target: IPv4Address
    processes: tuple[Process, ...] = ()
    """The tunnel's own, of both ends."""
    underlay: Endpoint | None = None
    """Where the sink's end of the tunnel listens."""
    crowd: Crowd | None = None
    sink_key: str = ""
    """WireGuard public key of the sink's end, for the crowd."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    title: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Discipline:
    """One measurement, which may give several figures."""

    name: str
    rows: tuple[Row, ...]
    measure: Callable[[Track, int, str], Mapping[str, float]]
    """Track, seconds, a name for logs -> figure by row; SystemFailure if it cannot be had. A figure that a contestant
    cannot have is left out."""
    scene: Scene = PLAIN


# ---------------------------------------------------------------- throughput


def _tcp(name: str, streams: int, *more: str) -> Callable[[Track, int, str], Mapping[str, float]]:
    def measure(track: Track, seconds: int, log: str) -> Mapping[str, float]:
        before = _cpu_seconds(track)
        rate = _iperf3(track, seconds, log, "-P", str(streams), *more)
        used, gigabytes = _cpu_seconds(track) - before, rate * seconds / 8
        found = {name: rate}
        if name == "tcp1" and track.processes:
            found["cpu_per_gb"] = used / gigabytes
        return found

    return measure


def _iperf3(track: Track, seconds: int, log: str, *arguments: str) -> float:
    """Gbit/s that arrived, both ways together."""
    report = _iperf3_report(track, seconds, log, *arguments)
    back = json.loads(report)["end"].get("sum_received_bidir_reverse", {}).get("bits_per_second", 0.0)
    return (parse_iperf3(report).bits_per_second + float(back)) / 1e9


def _iperf3_report(track: Track, seconds: int, log: str, *arguments: str) -> str:
    server = track.lab.start(track.sink, f"iperf3-{log}", ["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening", 5.0)
    try:
        argv = ("iperf3", "-c", str(track.target), "-t", str(seconds), "-J", "--connect-timeout", "3000", *arguments)
        done = track.source.run(*argv, check=False, seconds=seconds + 15.0)
    finally:
        server.stop()
    parse_iperf3(done.stdout)  # says why it failed
    return done.stdout


def _udp(name: str, size: int) -> Callable[[Track, int, str], Mapping[str, float]]:
    def measure(track: Track, seconds: int, log: str) -> Mapping[str, float]:
        """The sender sends as fast as it can; thousands a second that arrived, and what each of them cost."""
        before = _busy_seconds()
        report = json.loads(_iperf3_report(track, seconds, log, "-u", "-b", "0", "-l", str(size)))
        used, total = _busy_seconds() - before, report["end"]["sum"]
        arrived = total["packets"] - total["lost_packets"]
        found = {name: arrived / total["seconds"] / 1e3}
        if name == "udp64" and arrived:
            found["cpu_per_packet"] = used * 1e6 / arrived
        return found

    return measure


# ---------------------------------------------------------------- latency


def _flood(name: str, size: int) -> Callable[[Track, int, str], Mapping[str, float]]:
    def measure(track: Track, seconds: int, _log: str) -> Mapping[str, float]:
        """Average round trip in microseconds."""
        argv = ("ping", "-q", "-f", "-s", str(size), "-c", str(_FLOOD_LIMIT), "-w", str(seconds), str(track.target))
        done = track.source.run(*argv, check=False, seconds=seconds + 10.0)
        result = parse_ping(done.stdout)
        if not result.received:
            raise SystemFailure(f"all {result.sent} pings were lost")
        return {name: result.average * 1000}

    return measure


def _slow(track: Track, seconds: int, _log: str) -> Mapping[str, float]:
    times = _round_trips(track, seconds)
    return {"ping_2ms_p50": percentile(times, 50), "ping_2ms_p99": percentile(times, 99)}


def _round_trips(track: Track, seconds: int) -> list[float]:
    """Of pings every 2 ms, in microseconds, ordered."""
    pings = ("ping", "-n", "-i", str(_INTERVAL), "-c", str(int(seconds / _INTERVAL)), "-w", str(seconds))
    done = track.source.run(*pings, str(track.target), check=False, seconds=seconds + 10.0)
    times = sorted(float(each) * 1000 for each in re.findall(r" time=([\d.]+) ms", done.stdout))
    if not times:
        raise SystemFailure("all pings were lost")
    return times


def _udp_latency(track: Track, seconds: int, log: str) -> Mapping[str, float]:
    """Half a round trip of 64 bytes between two processes, in microseconds."""
    where = ("-i", str(track.target), "-p", str(_SOCKPERF_PORT))
    server = track.lab.start(track.sink, f"sockperf-{log}", ["sockperf", "server", *where])
    server.wait_for_output("Warmup stage", 5.0)
    try:
        argv = ("sockperf", "ping-pong", *where, "-m", "64", "-t", str(seconds))
        done = track.source.run(*argv, check=False, seconds=seconds + 15.0)
    finally:
        server.stop()
    found = parse_sockperf(done.stdout)
    return {"udp_p50": found[50.0], "udp_p99": found[99.0], "udp_p999": found[99.9]}


def _loaded(track: Track, seconds: int, log: str) -> Mapping[str, float]:
    """Round trips beside one TCP stream, in microseconds."""
    server = track.lab.start(track.sink, f"iperf3-{log}", ["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening", 5.0)
    length = str(math.ceil(seconds + 2 * _WARM_UP))
    stream = track.lab.start(
        track.source, f"stream-{log}", ["iperf3", "-c", str(track.target), "-t", length, "-i", "0.5", "--forceflush"]
    )
    try:
        stream.wait_for_output("sec", 10.0)  # the first interval is over
        times = _round_trips(track, seconds)
    finally:
        stream.stop()
        server.stop()
    return {"loaded_p50": percentile(times, 50), "loaded_p99": percentile(times, 99)}


def _junk(track: Track, seconds: int, log: str) -> Mapping[str, float]:
    """How much junk of each kind is got rid of in a second, and what a ping notices of it."""
    if track.underlay is None:
        return {}
    found = {}
    for kind, row in _JUNK.items():
        sent = _send_junk(track, kind, _AS_FAST_AS_CAN_BE, seconds, f"{log}-{kind}")
        sent.wait(seconds + 30.0)
        found[row] = int(sent.output()) / seconds / 1e3
    beside = _send_junk(track, "transport", _JUNK_RATE, seconds + _WARM_UP, f"{log}-beside")
    times = _round_trips(track, seconds)
    beside.wait(30.0)
    return {**found, "junk_p99": percentile(times, 99)}


def _send_junk(track: Track, kind: str, per_second: int, seconds: float, log: str, *index: str) -> Process:
    assert track.underlay is not None
    argv = [
        sys.executable,
        "-m",
        "omninervous.lab.junk",
        *map(str, track.underlay),
        kind,
        str(per_second),
        str(seconds),
        *index,
    ]
    return track.lab.start(track.source, f"junk-{log}", argv)


def _programs(track: Track, seconds: int, log: str) -> Mapping[str, float]:
    """Nanoseconds that the sink's eBPF programs take to drop a datagram."""
    if track.underlay is None or ProgramTime.of(track.processes[1].pid) is None:
        return {}
    found = {}
    for row, index in (("program_session", ()), ("program_tag", (str(_reflex_index(track, track.underlay)),))):
        with counted():
            before = ProgramTime.of(track.processes[1].pid)
            _send_junk(track, "transport", _JUNK_RATE, seconds, f"{log}-{row}", *index).wait(seconds + 30.0)
            after = ProgramTime.of(track.processes[1].pid)
        mean = before.mean_until(after) if before and after else None
        if mean is None:
            raise SystemFailure("no program saw the junk")
        found[row] = mean
    return found


def _reflex_index(track: Track, underlay: Endpoint) -> int:
    """Receiver index of the session on which the kernel's lane sends to the sink, read from the wire."""
    with track.source.packet_socket("eth0") as wire:
        wire.settimeout(5.0)
        track.source.run("ping", "-c", "3", "-i", "0.01", "-W", "1", str(track.target), check=False)
        try:
            while True:
                datagram = udp_datagram(wire.recv(2048))
                if datagram is None or str(datagram.destination) != underlay.host:
                    continue
                with contextlib.suppress(DecodeError):
                    header = decode_header(datagram.payload)
                    if lane_of(header.counter) == LANE_REFLEX:
                        return header.receiver_index
        except TimeoutError as error:
            raise SystemFailure("no frame took the kernel's lane") from error


# ---------------------------------------------------------------- cost


def _foreign(track: Track, seconds: int, log: str) -> Mapping[str, float]:
    """Gbit/s of TCP between the two machines beside the tunnel, not through it."""
    if track.underlay is None and track.processes:
        return {}
    beside = track if track.underlay is None else replace(track, target=IPv4Address(track.underlay.host))
    return {"foreign": _iperf3(beside, seconds, log)}


def _memory(name: str) -> Callable[[Track, int, str], Mapping[str, float]]:
    """MiB resident, of the larger end."""

    def measure(track: Track, _seconds: int, _log: str) -> Mapping[str, float]:
        return {name: max(_resident(each.pid) for each in track.processes)} if track.processes else {}

    return measure


def _crowded_memory(track: Track, _seconds: int, _log: str) -> Mapping[str, float]:
    """MiB resident of the end that has just shaken hands with the whole crowd."""
    if track.crowd is None or track.underlay is None:
        return {}
    with track.source.udp_socket() as own:
        track.crowd.shake_hands(own, track.underlay, track.sink_key)
    return {"memory_1000": _resident(track.processes[1].pid)}


def _resident(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise SystemFailure(f"process {pid} has ended")
    return int(found[1]) / 1024


def _cpu_seconds(track: Track) -> float:
    """Of the tunnel's processes."""
    return sum(cpu_seconds(process.pid) for process in track.processes)


def _busy_seconds() -> float:
    """What all processors together did since they were started, whoever it was for: processes, kernel, interrupts."""
    fields = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # proc(5): idle, iowait


_TCP1 = Row("tcp1", "TCP, 1 stream", "Gbit/s", True)
DISCIPLINES = (
    Discipline("memory", (Row("memory", "resident memory, idle", "MiB", False),), _memory("memory"), IDLE),
    Discipline(
        "memory_1000",
        (Row("memory_1000", "resident memory, 1,000 peers in session", "MiB", False),),
        _crowded_memory,
        CROWDED,
    ),
    Discipline("tcp1", (_TCP1, Row("cpu_per_gb", "CPU of both ends", "s/GB", False)), _tcp("tcp1", 1)),
    Discipline("tcp4", (Row("tcp4", "TCP, 4 streams", "Gbit/s", True),), _tcp("tcp4", 4)),
    Discipline("tcp8", (Row("tcp8", "TCP, 8 streams", "Gbit/s", True),), _tcp("tcp8", 8)),
    Discipline("tcp_both", (Row("tcp_both", "TCP, both ways", "Gbit/s", True),), _tcp("tcp_both", 1, "--bidir")),
    Discipline(
        "udp64",
        (
            Row("udp64", "UDP 64 B delivered", "kpps", True),
            Row("cpu_per_packet", "whole machine per UDP packet of 64 B", "us", False),
        ),
        _udp("udp64", 64),
    ),
    Discipline("udp1400", (Row("udp1400", "UDP 1,400 B delivered", "kpps", True),), _udp("udp1400", 1400)),
    *(
        Discipline(name, (Row(name, f"ping -f, {size:,} B, average", "us", False),), _flood(name, size))
        for name, size in _FLOODS.items()
    ),
    Discipline(
        "ping_2ms",
        (
            Row("ping_2ms_p50", "ping -i 2 ms, p50", "us", False),
            Row("ping_2ms_p99", "ping -i 2 ms, p99", "us", False),
        ),
        _slow,
    ),
    Discipline(
        "udp_latency",
        (
            Row("udp_p50", "UDP 64 B, half a round trip, p50", "us", False),
            Row("udp_p99", "UDP 64 B, half a round trip, p99", "us", False),
            Row("udp_p999", "UDP 64 B, half a round trip, p99.9", "us", False),
        ),
        _udp_latency,
    ),
    Discipline(
        "loaded",
        (
            Row("loaded_p50", "ping beside a TCP stream, p50", "us", False),
            Row("loaded_p99", "ping beside a TCP stream, p99", "us", False),
        ),
        _loaded,
    ),
    Discipline(
        "junk",
        (
            Row("junk_session", "junk, unknown session, taken", "kpps", True),
            Row("junk_initiation", "junk, handshakes for another key, taken", "kpps", True),
            Row("junk_noise", "junk, no message at all, taken", "kpps", True),
            Row("junk_p99", "ping -i 2 ms beside 200 kpps of junk, p99", "us", False),
        ),
        _junk,
    ),
    Discipline(
        "programs",
        (
            Row("program_session", "eBPF, a datagram of an unknown session", "ns", False),
            Row("program_tag", "eBPF, a datagram of 128 B whose tag is wrong", "ns", False),
        ),
        _programs,
    ),
    Discipline("foreign", (Row("foreign", "TCP, 1 stream, beside the tunnel", "Gbit/s", True),), _foreign),
    Discipline(
        "memory_loaded",
        (Row("memory_loaded", "resident memory after the loads above", "MiB", False),),
        _memory("memory_loaded"),
    ),
    Discipline("jumbo", (Row("jumbo", "TCP, 1 stream, MTU 9000", "Gbit/s", True),), _tcp("jumbo", 1), JUMBO),
)
ROWS = {row.name: row for discipline in DISCIPLINES for row in discipline.rows}
