"""Machines with several addresses, and machines that move: which path is taken, and for how long there is none."""

from __future__ import annotations

import pytest

from omninervous.core.dataplane import Link
from omninervous.core.pathkind import PathKind
from omninervous.wire.address import Endpoint
from tests.sim.simnet import PORT, Edge, Nat, Weather, World
from tests.sim.test_cluster import Clusternet

A_HOST, B1, B2 = "192.0.2.11", "192.0.2.21", "192.0.2.22"
EVERY = 0.02


class Stream:
    """Numbered frames from one edge to another, 50 a second."""

    def __init__(self, sender: Edge, receiver: Edge) -> None:
        self.sender, self.receiver = sender, receiver
        self.sent = 0
        self.heard_at: dict[int, float] = {}

    def send(self) -> None:
        self.sender.send_to(self.receiver, f"frame {self.sent:06}")
        self.sent += 1

    def listen(self) -> None:
        for frame in self.receiver.frames:
            if b"frame " in frame:
                number = int(frame[frame.index(b"frame ") + 6 :][:6])
                self.heard_at.setdefault(number, self.receiver.world.boot)
        self.receiver.frames.clear()

    @property
    def lost(self) -> int:
        return self.sent - len(self.heard_at)

    def outage(self, since: float) -> float:
        """From that second to the first frame that arrives later."""
        return min((at for at in self.heard_at.values() if at > since), default=float("inf")) - since


def flow(seconds: float, *streams: Stream) -> None:
    world = streams[0].sender.world
    end = world.boot + seconds
    while world.boot < end:
        for stream in streams:
            stream.send()
        world.run(EVERY)
        for stream in streams:
            stream.listen()


def delay(world: World, a: str, b: str, seconds: float | None) -> None:
    """Latency between two hosts, both ways; None cuts them."""
    world.ways[a, b] = world.ways[b, a] = seconds


def two_homed(latency: float = 0.05) -> tuple[Clusternet, Edge, Edge]:
    """A with one address; B with two, the first of which is further away."""
    net = Clusternet()
    delay(net.world, A_HOST, B1, latency)
    a, b = net.public("a", A_HOST), net.public("b", B1, B2)
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    return net, a, b


def endpoint(edge: Edge, other: Edge) -> str:
    status = edge.peer(other)
    assert status is not None and status.path is not None
    return status.path.endpoint.host


def test_data_moves_to_the_faster_path_without_loss_and_stays_there() -> None:
    net, a, b = two_homed()
    there, back = Stream(a, b), Stream(b, a)
    flow(20.0, there, back)
    status = a.peer(b)
    assert endpoint(a, b) == B2 and status is not None and status.path is not None
    (other,) = status.alternatives
    assert status.path.kind == PathKind.DIRECT.value and status.path.rtt == pytest.approx(0.06), "B answers from B1"
    assert other.endpoint.host == B1 and other.rtt == pytest.approx(0.1)
    roamed = a.snapshot().counters.get("roamed", 0)
    flow(60.0, there, back)
    net.run(1.0)
    there.listen()
    back.listen()
    assert there.lost == back.lost == 0
    assert a.snapshot().counters.get("roamed", 0) == roamed, "B sends from its first address: no reason to go back"


def test_a_dead_path_gives_way_to_the_other_within_three_seconds() -> None:
    net, a, b = two_homed()
    there, back = Stream(a, b), Stream(b, a)
    flow(20.0, there, back)
    b.leaves_from[A_HOST] = Endpoint(B2, PORT)
    flow(10.0, there, back)
    cut_at = net.world.boot
    delay(net.world, A_HOST, B2, None)
    b.leaves_from.clear()
    flow(5.0, there, back)
    assert endpoint(a, b) == B1
    assert there.outage(cut_at + EVERY) <= 3.0 and back.outage(cut_at + EVERY) <= 3.0


@pytest.mark.parametrize("backward", [False, True])
def test_a_path_that_is_dead_in_one_direction_is_noticed(backward: bool) -> None:
    net, a, b = two_homed()
    there, back = Stream(a, b), Stream(b, a)
    flow(20.0, there, back)
    cut_at = net.world.boot
    net.world.ways[(B2, A_HOST) if backward else (A_HOST, B2)] = None
    flow(5.0, there, back)
    assert there.outage(cut_at + EVERY) <= 3.0 and back.outage(cut_at + EVERY) <= 3.0


def test_a_one_way_stream_notices_too() -> None:
    net, a, b = two_homed()
    there = Stream(a, b)
    flow(20.0, there)
    cut_at = net.world.boot
    delay(net.world, A_HOST, B2, None)
    flow(5.0, there)
    assert there.outage(cut_at + EVERY) <= 3.0


def test_a_machine_that_moves_is_reached_within_200_ms() -> None:
    net = Clusternet()
    a, b = net.public("a", A_HOST), net.public("b", B1)
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    there, back = Stream(a, b), Stream(b, a)
    flow(5.0, there, back)
    for step in range(5):
        moved_at = net.world.boot
        a.move(Endpoint(f"192.0.2.{100 + step}", PORT), notice=True)
        flow(3.0, there, back)
        assert there.outage(moved_at) <= 0.2 and back.outage(moved_at) <= 0.2, step


def test_a_machine_that_only_listens_is_reached_where_it_went() -> None:
    net = Clusternet()
    a, b = net.public("a", A_HOST), net.public("b", B1)
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    back = Stream(b, a)
    flow(5.0, back)
    moved_at = net.world.boot
    a.move(Endpoint("192.0.2.100", PORT), notice=True)
    flow(3.0, back)
    assert back.outage(moved_at) <= 0.2


def test_a_machine_that_moves_from_nat_to_nat_is_let_in_by_the_others_nat() -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    there, back = Stream(a, b), Stream(b, a)
    flow(5.0, there, back)
    for step in range(5):
        moved_at = net.world.boot
        a.move(Endpoint("192.168.0.1", PORT), Nat(f"203.0.113.{100 + step}"), notice=True)
        flow(5.0, there, back)
        assert there.outage(moved_at) <= 0.5 and back.outage(moved_at) <= 0.5, step


def test_a_nat_that_was_switched_off_and_on_costs_three_seconds_at_most() -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    there, back = Stream(a, b), Stream(b, a)
    flow(5.0, there, back)
    for edge in (a, b, a):
        cut_at = net.world.boot
        assert edge.nat is not None
        edge.nat.rebind()
        flow(6.0, there, back)
        assert there.outage(cut_at + EVERY) <= 3.0 and back.outage(cut_at + EVERY) <= 3.0


def test_a_nucleus_that_moves_is_found_by_its_name() -> None:
    net = Clusternet()
    a, b = net.edge("a", eager=False), net.edge("b", eager=False)
    net.run(5.0)
    net.world.detach(net.nucleus)
    net.nucleus.address = Endpoint("198.51.100.77", PORT)
    net.world.attach(net.nucleus)
    for edge in (a, b):
        edge.do(lambda node, now: node.set_nucleus_endpoints(now, net.name, (net.nucleus.address,)))
    assert net.world.run(60.0, until=lambda: all(each.snapshot().nuclei[0].registered for each in (a, b)))
    net.run(60.0)
    a.send_to(b, "hello")
    b_known = a.peer(b)
    assert b_known is None or b_known.link is Link.ETHERNET


def test_idle_links_cost_less_than_a_kilobit_and_learn_how_long_nats_wait() -> None:
    net = Clusternet()
    for number, expiry in enumerate((20.0, 60.0, 300.0)):
        net.edge(f"e{number}", nat=Nat(f"203.0.113.{number + 1}", expiry=expiry))
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    net.run(900.0)
    patient, patient_too, hasty = net.edges[2], net.edges[1], net.edges[0]
    both = [patient.peer(patient_too), patient_too.peer(patient)]
    assert any(each is not None and each.keepalive is not None and 25.0 < each.keepalive < 60.0 for each in both)
    for other in (patient, patient_too):
        ends = [hasty.peer(other), other.peer(hasty)]
        assert any(each is not None and each.keepalive is not None and each.keepalive < 20.0 for each in ends)
    bytes_before, datagrams_before = net.world.bytes, net.world.datagrams
    net.run(600.0)
    underlay = net.world.bytes - bytes_before + 28 * (net.world.datagrams - datagrams_before)
    assert underlay * 8 / 600.0 / 3 < 1000.0, "three links, their Nucleus included"
    assert net.all_connected()


def test_a_bad_link_is_not_given_up() -> None:
    net = Clusternet()
    a, b = net.public("a", A_HOST), net.public("b", B1)
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    net.world.weather = Weather(latency=0.1, jitter=0.1, loss=0.2)
    there = Stream(a, b)
    flow(120.0, there)
    assert there.lost < 0.3 * there.sent
    assert a.snapshot().counters.get("paths_lost", 0) <= 3
