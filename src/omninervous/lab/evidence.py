"""Reading what other programs say: conntrack, ping, iperf3, interface counters. Pure: text in, values out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omninervous.errors import SystemFailure

__all__ = [
    "ConntrackEntry",
    "PingResult",
    "StreamResult",
    "TrafficCount",
    "parse_conntrack",
    "parse_iperf3",
    "parse_link_counters",
    "parse_ping",
    "parse_sockperf",
    "percentile",
]


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """One connection of a NAT box: the tuple its client sent, and the tuple that answers must have."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    reply_source: str
    reply_destination: str
    reply_source_port: int
    reply_destination_port: int
    replied: bool
    """Packets went both ways."""

    def __str__(self) -> str:
        return (
            f"{self.source}:{self.source_port} -> {self.destination}:{self.destination_port}"
            f" as {self.reply_destination}:{self.reply_destination_port}"
        )


@dataclass(frozen=True, slots=True)
class PingResult:
    """Summary of a ping; times in milliseconds, 0 if nothing came back."""

    sent: int
    received: int
    minimum: float
    average: float
    maximum: float

    @property
    def loss(self) -> float:
        """Share of lost packets, 0..1."""
        return 1.0 - self.received / self.sent if self.sent else 1.0


@dataclass(frozen=True, slots=True)
class StreamResult:
    """Summary of an iperf3 run, as the receiver saw it."""

    bits_per_second: float
    retransmits: int
    """TCP only."""
    lost: float
    """UDP only: share of lost datagrams, 0..1."""
    jitter_ms: float
    """UDP only."""


@dataclass(frozen=True, slots=True)
class TrafficCount:
    """Packets and bytes of an interface, both ways together."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: TrafficCount) -> TrafficCount:
        return TrafficCount(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, earlier: TrafficCount) -> TrafficCount:
        return TrafficCount(self.packets - earlier.packets, self.bytes - earlier.bytes)


_FIELD = re.compile(r"(src|dst|sport|dport)=(\S+)")
_TUPLE_FIELDS = 4


def parse_conntrack(text: str) -> list[ConntrackEntry]:
    """The UDP entries in the output of `conntrack -L`."""
    entries = []
    for line in text.splitlines():
        values = [value for _, value in _FIELD.findall(line)]
        if not line.startswith("udp") or len(values) != 2 * _TUPLE_FIELDS:
            continue
        entries.append(
            ConntrackEntry(
                values[0], values[1], int(values[2]), int(values[3]),
                values[4], values[5], int(values[6]), int(values[7]),
                "[UNREPLIED]" not in line,
            )
        )  # fmt: skip
    return entries


def parse_ping(text: str) -> PingResult:
    """The summary that iputils' ping ends with."""
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    if counts is None:
        raise SystemFailure(f"ping gave no summary: {text.strip()[-300:] or '(no output)'}")
    times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", text)
    minimum, average, maximum = (float(times[place]) for place in (1, 2, 3)) if times else (0.0, 0.0, 0.0)
    return PingResult(int(counts[1]), int(counts[2]), minimum, average, maximum)


def parse_iperf3(text: str) -> StreamResult:
    """The JSON of `iperf3 --json`. SystemFailure with its own words if the run failed."""
    try:
        report: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        raise SystemFailure(f"iperf3 gave no result: {text.strip()[-300:] or '(no output)'}") from None
    if "error" in report:
        raise SystemFailure(f"iperf3: {report['error']}")
    end = report["end"]
    if "sum" in end:  # UDP; `sum` holds what the receiver lost
        received = end.get("sum_received", end["sum"])
        total = end["sum"]
        return StreamResult(
            float(received["bits_per_second"]), 0, float(total["lost_percent"]) / 100, float(total["jitter_ms"])
        )
    return StreamResult(
        float(end["sum_received"]["bits_per_second"]), int(end["sum_sent"].get("retransmits", 0)), 0.0, 0.0
    )


def parse_sockperf(text: str) -> dict[float, float]:
    """Percentile -> microseconds, as sockperf's ping-pong ends with."""
    found = re.findall(r"percentile ([\d.]+) = +([\d.]+)", text)
    if not found:
        raise SystemFailure(f"sockperf gave no latencies: {text.strip()[-300:] or '(no output)'}")
    return {float(percent): float(time) for percent, time in found}


def parse_link_counters(text: str) -> TrafficCount:
    """The JSON of `ip -j -s link show INTERFACE`."""
    statistics = json.loads(text)[0]["stats64"]
    ways = (statistics["rx"], statistics["tx"])
    return TrafficCount(sum(way["packets"] for way in ways), sum(way["bytes"] for way in ways))


def percentile(ordered: Sequence[float], percent: int) -> float:
    """By nearest rank, of values in ascending order, at least one."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
