"""The kernel's lane in running daemons: which frames take it, whom it wakes, what it meets, what it leaves."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Sequence
from functools import partial

import pytest

from omninervous.lab.capture import Capture
from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_cluster, start_pair
from omninervous.lab.link import LinkSpec, start_link
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import poll_until, run_command
from omninervous.lab.topology import Host, TwoNats, address_pair
from tests.conftest import REPOSITORY
from tests.netns.edges import Pair, all_answered, assert_answered, ping, wait_for
from tests.netns.kernel_objects import KernelObjects, threads_woken
from tests.netns.test_queues import lanes_from, stream

REFLEX = 8
PINGS = 10_000
WAKES = 200
UDP_SEGMENT = 103
"""<linux/udp.h>"""
MODES = ["tc", "xdp"]


def has_lane(edge: Daemon) -> bool:
    return all(REFLEX in peer["lanes"] for peer in edge.peers()) and bool(edge.peers())


def started(lab: Lab, hosts: tuple[Host, Host], *arguments: str) -> tuple[Daemon, Daemon]:
    edges = start_pair(lab, hosts, *arguments)
    wait_for("the kernel's lane", lambda: all(has_lane(edge) for edge in edges))
    return edges


def flood(host: Host, count: int = PINGS, size: int = 56) -> None:
    """Every ping is answered. Not `ping -f`, which sends as fast as -A, but says no numbers."""
    all_answered(host.namespace, str(PAIR_VIPS[1]), count, "-A", "-s", str(size))


@pytest.mark.parametrize("mode", MODES)
def test_single_frames_take_the_kernels_lane_and_wake_nobody(lab: Lab, pair_lan: tuple[Host, Host], mode: str) -> None:
    edges = started(lab, pair_lan, "--ebpf", mode)
    flood(pair_lan[0], 100)  # addresses are resolved
    capture = Capture(lab, pair_lan[0].namespace, "eth0", "ping", packet_filter="udp", snap=128)
    assert ping(pair_lan[0].namespace, str(PAIR_VIPS[1]), 10).loss == 0
    path = capture.stop()
    seen = lanes_from(path, pair_lan[0])
    assert seen[REFLEX] >= 10 and set(seen) <= {0, REFLEX}

    before = sum(threads_woken(edge.process.pid) for edge in edges)
    flood(pair_lan[0])
    woken = sum(threads_woken(edge.process.pid) for edge in edges) - before
    assert woken < WAKES, f"{PINGS} pings woke the daemons' threads {woken} times"
    for edge in edges:
        status = edge.status()
        assert status["reflex"]["mechanism"] == mode
        assert status["reflex"]["counters"]["rx_packets"] >= PINGS
        # Once a second they are brought up to date.
        wait_for("the peer's totals to count them", partial(counts_all, edge))


def counts_all(edge: Daemon) -> bool:
    return bool(edge.peers()[0]["rx_packets"] >= PINGS)


def test_the_users_commands_show_program_and_map(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    (edge, _) = started(lab, pair_lan)
    commands = re.findall(r"^(bpftool [^#\n]+)", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        shown = pair_lan[0].namespace.run("sh", "-c", command).stdout  # grep fails if it finds nothing
        assert shown.strip(), command
    named = {each["name"] for each in edge.status()["reflex"]["programs"]}
    assert named == {"omni_egress", "tc_synapse"}


@pytest.mark.parametrize("mode", MODES)
def test_streams_arrive_whole_beside_pings(lab: Lab, pair_lan: tuple[Host, Host], mode: str, seed: int) -> None:
    edges = started(lab, pair_lan, "--ebpf", mode)
    a, b = pair_lan
    captures = [
        Capture(lab, host.namespace, "eth0", f"stream-{name}", packet_filter="udp", snap=128)
        for host, name in zip(pair_lan, "ab", strict=True)
    ]
    assert stream(pair_lan, 7000, seed, 0) and stream(pair_lan, 7001, seed, 1)
    # At the sender: what a program at XDP has opened looks different to whoever listens behind it.
    sent, answered = (lanes_from(each.stop(), host) for each, host in zip(captures, (a, b), strict=True))
    assert sent[1] and answered[1], "super-frames take the bulk lane"
    assert sent[REFLEX] and answered[REFLEX], "acknowledgements take the kernel's"
    for size in (56, 512, 1352, 4000):
        flood(a, 200, size)
    for edge in edges:
        drops = edge.status()["drops"]
        assert not {"replay", "bad_tag", "lane", "source_guard", "unknown_session"} & drops.keys(), drops


@pytest.mark.parametrize("mode", MODES)
def test_a_udp_flow_of_super_frames_and_single_datagrams_stays_in_order(
    lab: Lab, pair_lan: tuple[Host, Host], mode: str
) -> None:
    """As QUIC sends: what the stack has not cut yet takes the bulk lane, and the next datagram must not overtake it."""
    (edge, _) = started(lab, pair_lan, "--ebpf", mode)
    flood(pair_lan[0], 10)  # addresses are resolved
    segment, segments, rounds = 1200, 10, 400
    sink = pair_lan[1].namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    source = pair_lan[0].namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    came: list[int] = []
    with sink, source:
        sink.bind((str(PAIR_VIPS[1]), 7100))
        sink.settimeout(10)
        source.connect(sink.getsockname())
        source.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
        for number in range(0, rounds * (segments + 1), segments + 1):
            source.send(b"".join((number + each).to_bytes(segment, "big") for each in range(segments)))
            source.send((number + segments).to_bytes(100, "big"))
            came += [int.from_bytes(sink.recv(2000), "big") for _ in range(segments + 1)]
    assert sorted(came) == list(range(rounds * (segments + 1)))
    # Not all: on a busy machine the sender may be held up for longer than a flow is remembered.
    overtaking = sum(came[at] == at + segments for at in range(0, len(came), segments + 1))
    assert overtaking < rounds / 4
    assert edge.status()["reflex"]["counters"]["reflex_pass_udp"] > rounds / 2


@pytest.mark.parametrize("other", [("--ebpf", "off"), ("--engine", "reference")], ids=["native", "reference"])
def test_an_edge_without_the_lane_is_met_on_the_others(
    lab: Lab, pair_lan: tuple[Host, Host], other: Sequence[str], seed: int
) -> None:
    pair = Pair(lab, pair_lan)
    pair.start_a("--vip", str(PAIR_VIPS[0])).wait_ready()
    pair.start_b("--vip", str(PAIR_VIPS[1]), *other).wait_ready()
    for edge in (pair.a, pair.b):
        edge.wait_for_peer()
    wait_for("the exchange of capabilities", lambda: pair.a.peers()[0]["lanes"])
    flood(pair_lan[0], 300)
    assert stream(pair_lan, 7000, seed, 0) and stream(pair_lan, 7001, seed, 1)
    assert REFLEX not in pair.a.peers()[0]["lanes"]
    assert "rx_packets" not in pair.a.status()["reflex"]["counters"]


@pytest.mark.parametrize("mode", MODES)
def test_an_underlay_of_ipv6_alone_carries_it(lab: Lab, pair_lan: tuple[Host, Host], mode: str, seed: int) -> None:
    for host in pair_lan:
        host.namespace.ip("address", "del", f"{host.address}/24", "dev", "eth0")
    edges = [Daemon(lab, host.namespace, name) for host, name in zip(pair_lan, "ab", strict=True)]
    keys = [edge.init() for edge in edges]
    for number, edge in enumerate(edges):
        peer = ("--peer", keys[1 - number], "--endpoint", f"[{pair_lan[1 - number].address6}]:51820")
        edge.launch(*peer, "--vip", str(PAIR_VIPS[number]), "--ebpf", mode).wait_ready()
    wait_for("the kernel's lane", lambda: all(has_lane(edge) for edge in edges))
    flood(pair_lan[0], 1000)
    assert stream(pair_lan, 7000, seed, 0) and stream(pair_lan, 7001, seed, 1)
    assert edges[0].status()["reflex"]["counters"]["rx_packets"] >= 1000


@pytest.mark.parametrize("mode", MODES)
def test_a_tap_as_underlay_that_duplicates_and_damages(lab: Lab, mode: str, seed: int) -> None:
    a, b = lab.namespace("a"), lab.namespace("b")
    start_link(lab, (a, "eth0"), (b, "eth0"), LinkSpec(duplicate=0.2, corrupt=0.02), seed)
    hosts = address_pair(a, b)
    edges = started(lab, hosts, "--ebpf", mode)
    # About 14 of them are damaged inside the seal: the chance that none is, in one direction, is below 10^-5.
    done = a.run("ping", "-q", "-c", "1200", "-i", "0.002", str(PAIR_VIPS[1]), check=False, seconds=60.0).stdout
    assert "duplicates" not in done and int(done.split(" received")[0].split()[-1]) > 1000, done
    assert stream(hosts, 7000, seed, 0)
    drops = [edge.status()["reflex"]["counters"] for edge in edges]
    assert all(each.get("drop_replay", 0) > 10 and each.get("drop_bad_tag", 0) > 0 for each in drops), drops


def test_a_cluster_behind_nats_has_it_too(lab: Lab, two_nats: TwoNats) -> None:
    _, first, second = start_cluster(lab, two_nats)
    wait_for("the kernel's lane", lambda: has_lane(first) and has_lane(second), 30.0)
    assert ping(two_nats.edge_a.namespace, str(PAIR_VIPS[1]), 10).loss == 0
    assert first.status()["reflex"]["counters"]["rx_packets"] >= 8


def test_a_new_address_is_noticed_although_only_the_kernel_sees_packets(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    _, second = started(lab, pair_lan)
    host = pair_lan[0].namespace
    host.ip_batch(f"address del {pair_lan[0].address}/24 dev eth0", "address add 10.77.0.9/24 dev eth0")
    result = ping(host, str(PAIR_VIPS[1]), 15)
    assert result.loss < 0.5, result
    wait_for(
        "the new endpoint", lambda: second.peers()[0]["endpoint"] == "10.77.0.9:51820" and second.peers()[0]["proven"]
    )
    flood(pair_lan[0], 500)


# ---------------------------------------------------------------- life cycle


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_of_it_outlives_the_daemon(
    lab: Lab, pair_lan: tuple[Host, Host], mode: str, number: signal.Signals
) -> None:
    before = pair_lan[0].namespace.run("tc", "qdisc", "show").stdout, pair_lan[0].namespace.ip("-br", "link")
    edge, other = started(lab, pair_lan, "--ebpf", mode)
    objects = KernelObjects.of(edge.process.pid)
    assert {"omni_egress", "tc_synapse", "xdp_synapse"} <= objects.program_names()
    edge.process.signal(number)
    edge.process.wait(10)
    assert poll_until(lambda: not objects.alive(), 10.0), objects.alive()
    assert before == (
        pair_lan[0].namespace.run("tc", "qdisc", "show").stdout,
        pair_lan[0].namespace.ip("-br", "link"),
    )
    assert other.status()["reflex"]["mechanism"] == mode


def test_it_starts_again_and_finds_its_peer(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    pair = Pair(lab, pair_lan)
    vips = [("--vip", str(each)) for each in PAIR_VIPS]
    pair.start_a(*vips[0]).wait_ready()
    pair.start_b(*vips[1]).wait_ready()
    wait_for("the kernel's lane", lambda: has_lane(pair.a) and has_lane(pair.b))
    for end in (pair.b.process.kill, pair.b.process.stop):
        end()
        pair.start_b(*vips[1]).wait_ready()
        wait_for("the kernel's lane again", lambda: has_lane(pair.b))
        wait_for("pings", lambda: ping(pair_lan[0].namespace, str(PAIR_VIPS[1]), 1).loss == 0, 20.0)
        flood(pair_lan[0], 300)


def test_two_daemons_of_one_host_have_a_lane_each(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    started(lab, pair_lan)
    edges = [Daemon(lab, host.namespace, name) for host, name in zip(pair_lan, ("more-a", "more-b"), strict=True)]
    keys = [edge.init() for edge in edges]
    for number, edge in enumerate(edges):
        peer = ("--peer", keys[1 - number], "--endpoint", f"{pair_lan[1 - number].address}:51821")
        edge.launch(*peer, "--port", "51821", "--dev", "omni1", "--vip", f"10.209.0.{number + 1}/24").wait_ready()
    wait_for("the second pair's lane", lambda: all(has_lane(edge) for edge in edges))
    assert ping(pair_lan[0].namespace, "10.209.0.2", 5).loss == 0
    flood(pair_lan[0], 300)
    assert edges[0].status()["reflex"]["counters"]["rx_packets"] >= 5
    edges[1].process.kill()
    flood(pair_lan[0], 300)


def test_a_reload_leaves_the_lane_as_it_is(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    file = lab.directory / "one.toml"
    file.write_text("[security]\nmax_sessions_per_ip = 10\n")
    pair = Pair(lab, pair_lan)
    pair.start_a("--vip", str(PAIR_VIPS[0]), "--config", str(file)).wait_ready()
    pair.start_b("--vip", str(PAIR_VIPS[1])).wait_ready()
    wait_for("the kernel's lane", lambda: has_lane(pair.a) and has_lane(pair.b))
    flood(pair_lan[0], 100)  # addresses are resolved
    before, sessions = KernelObjects.of(pair.a.process.pid), session_ids(pair.a)
    argv = ["ping", "-n", "-c", "1000", "-w", "60", "-i", "0.002", str(PAIR_VIPS[1])]
    pinging = lab.start(pair_lan[0].namespace, "ping", argv)
    for number in (3, 4, 5):
        file.write_text(f"[security]\nmax_sessions_per_ip = {number}\n")
        assert pair.a.ask("reload")["applied"] == ["max_sessions_per_ip"]
    file.write_text("")
    pair.a.process.signal(signal.SIGHUP)
    assert pinging.wait(70.0) == 0
    assert_answered(pinging.output(), 1000)
    wait_for("the signal's reload", lambda: pair.a.process.output().count('"applied": ["max_sessions_per_ip"]') == 4)
    assert KernelObjects.of(pair.a.process.pid) == before, "the same programs, maps and links"
    assert session_ids(pair.a) & sessions
    rx_packets = pair.a.status()["reflex"]["counters"]["rx_packets"]
    flood(pair_lan[0], 300)
    assert pair.a.status()["reflex"]["counters"]["rx_packets"] >= rx_packets + 300


def session_ids(edge: Daemon) -> set[object]:
    return {each["id"] for peer in edge.peers() for each in peer["sessions"]}


def test_a_namespace_whose_name_is_gone_goes_with_the_daemon(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    """Who made it takes it away while the daemon runs in it: the kernel keeps it until the daemon ends."""
    edge, other = started(lab, pair_lan)
    objects = KernelObjects.of(edge.process.pid)
    run_command(["ip", "netns", "del", pair_lan[0].namespace.name])
    assert ping(pair_lan[1].namespace, str(PAIR_VIPS[0]), 5).loss == 0
    edge.process.signal(signal.SIGKILL)
    edge.process.wait(10)
    assert poll_until(lambda: not objects.alive(), 10.0), objects.alive()
    # The other end of its wire goes with the namespace.
    wait_for("it is gone", lambda: "eth0" not in str(other.status()["reflex"]["interfaces"]))
    assert other.status()["reflex"]["mechanism"] == "tc" and "Traceback" not in other.process.output()


def test_the_overlay_is_deleted_under_it(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    edge, _ = started(lab, pair_lan)
    objects = KernelObjects.of(edge.process.pid)
    pair_lan[0].namespace.ip("link", "del", "omni0")
    assert edge.process.wait(10) == 1
    assert "was deleted" in edge.process.tail()
    assert poll_until(lambda: not objects.alive(), 10.0), objects.alive()


def test_an_underlay_that_comes_back_is_covered_again(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    edge, _ = started(lab, pair_lan)
    a, b = (host.namespace for host in pair_lan)
    a.ip("link", "del", "eth0")
    wait_for("it is gone", lambda: "eth0" not in str(edge.status()["reflex"]["interfaces"]))
    a.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.name)
    for host in pair_lan:
        host.namespace.ip_batch(f"address add {host.address}/24 dev eth0", "link set eth0 up")
    wait_for("it is covered", lambda: "eth0" in str(edge.status()["reflex"]["interfaces"]))
    wait_for("pings", lambda: ping(a, str(PAIR_VIPS[1]), 1).loss == 0, 60.0)
    flood(pair_lan[0], 300)


# ---------------------------------------------------------------- where it cannot be


def test_without_privileges_the_reason_is_told(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    plain = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all"]
    edges = start_pair(lab, pair_lan, prefix=plain)
    for edge in edges:
        edge.wait_for_peer()
    reflex = edges[0].status()["reflex"]
    assert reflex["mechanism"] == "off" and "CAP_BPF" in reflex["because"]
    assert "single frames take the userspace lane" in edges[0].process.output()
    flood(pair_lan[0], 100)

    refused = Daemon(lab, pair_lan[0].namespace, "refused")
    refused.launch("--ebpf", "tc", "--dev", "omni1", "--port", "51830", prefix=plain)
    assert refused.process.wait(10) == 1
    assert "--ebpf tc: " in refused.process.tail() and "CAP_BPF" in refused.process.tail()
    assert "omni1" not in pair_lan[0].namespace.ip("-br", "link")


def test_a_foreign_xdp_program_is_left_alone(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    first = Daemon(lab, pair_lan[0].namespace, "first").launch("--ebpf", "xdp").wait_ready()
    assert {"name": "eth0", "mechanism": "xdp"} in first.status()["reflex"]["interfaces"]
    more = ("--dev", "omni1", "--port", "51821")
    second = Daemon(lab, pair_lan[0].namespace, "second").launch(*more).wait_ready()
    reflex = second.status()["reflex"]
    assert {"name": "eth0", "mechanism": "tc"} in reflex["interfaces"] and "another XDP program" in reflex["because"]
    second.process.stop()
    third = Daemon(lab, pair_lan[0].namespace, "third").launch("--ebpf", "xdp", *more)
    assert third.process.wait(10) == 1 and "another XDP program" in third.process.tail()
