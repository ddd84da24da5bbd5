"""The parsers, on outputs recorded from the real programs."""

from __future__ import annotations

import json

import pytest

from omninervous.errors import SystemFailure
from omninervous.lab.evidence import (
    TrafficCount,
    parse_conntrack,
    parse_iperf3,
    parse_link_counters,
    parse_ping,
    parse_sockperf,
)

# conntrack v1.4.7 -L -p udp
CONNTRACK = (
    "udp      17 28 src=192.168.1.2 dst=192.168.2.2 sport=51820 dport=51820 [UNREPLIED]"
    " src=192.168.2.2 dst=198.51.100.11 sport=51820 dport=51820 mark=0 use=1\n"
    "udp      17 118 src=192.168.1.2 dst=198.51.100.12 sport=51820 dport=51820"
    " src=198.51.100.12 dst=198.51.100.11 sport=51820 dport=13870 [ASSURED] mark=0 use=1\n"
    "conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.\n"
)

# iputils 20221126, ping -c 5 -i 0.05
PING = """\
PATTERN: 0x6f6d6e69
PING 10.1.0.2 (10.1.0.2) 56(84) bytes of data.
64 bytes from 10.1.0.2: icmp_seq=1 ttl=64 time=0.353 ms

--- 10.1.0.2 ping statistics ---
5 packets transmitted, 4 received, 20% packet loss, time 221ms
rtt min/avg/max/mdev = 0.043/0.110/0.353/0.121 ms
"""

PING_UNANSWERED = """\
PING 192.168.2.2 (192.168.2.2) 56(84) bytes of data.
From 192.168.1.1 icmp_seq=1 Destination Host Unreachable

--- 192.168.2.2 ping statistics ---
1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms
"""

# iperf 3.12, the `end` object without its streams
TCP = {
    "sum_sent": {"seconds": 1.000649, "bytes": 1585446912, "bits_per_second": 12675348994.5, "retransmits": 2736},
    "sum_received": {"seconds": 1.00144, "bytes": 1585446912, "bits_per_second": 12665337210.4, "sender": True},
}
UDP = {
    "sum": {"bits_per_second": 49961355.1, "jitter_ms": 0.0101, "lost_packets": 52, "packets": 5205, "lost_percent": 1},
    "sum_sent": {"bits_per_second": 49961355.1, "jitter_ms": 0, "lost_packets": 0, "packets": 5205, "lost_percent": 0},
    "sum_received": {"bits_per_second": 49461802.6, "jitter_ms": 0.0101, "lost_packets": 52, "packets": 5205},
}

LINK = """[{"ifindex":2,"link_index":2,"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1500,"stats64":
{"rx":{"bytes":1326307,"packets":19821,"errors":0,"dropped":0,"over_errors":0,"multicast":0},
"tx":{"bytes":1598029510,"packets":37760,"errors":0,"dropped":0,"carrier_errors":0,"collisions":0}}}]"""


def test_conntrack_entries_show_both_tuples_and_whether_answers_came() -> None:
    local, punched = parse_conntrack(CONNTRACK)
    assert not local.replied and local.destination == "192.168.2.2"
    assert punched.replied
    assert str(punched) == "192.168.1.2:51820 -> 198.51.100.12:51820 as 198.51.100.11:13870"


def test_conntrack_without_entries() -> None:
    assert parse_conntrack("conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.\n") == []


def test_ping_summary() -> None:
    result = parse_ping(PING)
    assert (result.sent, result.received, result.minimum, result.average, result.maximum) == (5, 4, 0.043, 0.11, 0.353)
    assert result.loss == pytest.approx(0.2)


def test_ping_without_an_answer_lost_everything() -> None:
    assert parse_ping(PING_UNANSWERED).loss == 1


def test_ping_that_says_nothing_is_an_error() -> None:
    with pytest.raises(SystemFailure, match="no output"):
        parse_ping("")


def test_iperf3_tcp() -> None:
    result = parse_iperf3(json.dumps({"end": TCP}))
    assert result.bits_per_second == 12665337210.4 and result.retransmits == 2736


def test_iperf3_udp_counts_what_the_receiver_got() -> None:
    result = parse_iperf3(json.dumps({"end": UDP}))
    assert (result.bits_per_second, result.lost, result.jitter_ms) == (49461802.6, 0.01, 0.0101)


def test_an_iperf3_failure_is_told_in_its_own_words() -> None:
    with pytest.raises(SystemFailure, match="unable to connect to server: Connection refused"):
        parse_iperf3('{"start": {}, "end": {}, "error": "unable to connect to server: Connection refused"}')
    with pytest.raises(SystemFailure, match="no output"):
        parse_iperf3("")


def test_interface_counters_are_both_ways_together() -> None:
    count = parse_link_counters(LINK)
    assert count == TrafficCount(57581, 1599355817)
    assert count - TrafficCount(57580, 1599355810) + TrafficCount(1, 1) == TrafficCount(2, 8)


def test_sockperf_percentiles_are_read() -> None:
    text = "sockperf: ---> percentile 99.900 = 1455.840\nsockperf: ---> percentile 50.000 =    6.606\n"
    assert parse_sockperf(text) == {99.9: 1455.84, 50.0: 6.606}
    with pytest.raises(SystemFailure, match="no latencies"):
        parse_sockperf("sockperf: ERROR: _seqN > m_maxSequenceNo\n")
