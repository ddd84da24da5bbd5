"""The link process between two real machines does what its model says."""

from __future__ import annotations

import json

from omninervous.lab.evidence import parse_ping
from omninervous.lab.link import Blackout, LinkModel, LinkSpec, start_link
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process, poll_until
from omninervous.lab.topology import Internet
from tests.netns.edges import ping

SEED = 7


def joined(lab: Lab, spec: LinkSpec) -> tuple[Namespace, Namespace, Process]:
    """Two machines on the link, 10.78.0.1 and 10.78.0.2, that know each other's MAC: only our frames pass."""
    a, b = lab.namespace("a"), lab.namespace("b")
    link = start_link(lab, (a, "eth0"), (b, "eth0"), spec, SEED)
    for number, here in enumerate((a, b), start=1):
        here.sysctl({"net.ipv6.conf.eth0.disable_ipv6": 1})
        here.ip_batch(
            f"link set eth0 address 02:00:00:00:00:0{number} up",
            f"address add 10.78.0.{number}/24 dev eth0",
            f"neighbour add 10.78.0.{3 - number} lladdr 02:00:00:00:00:0{3 - number} dev eth0",
        )
    return a, b, link


def test_the_frames_that_arrive_are_those_that_the_seed_lets_through(lab: Lab) -> None:
    spec = LinkSpec(loss=0.2, duplicate=0.1, corrupt=0.1, delay=0.002)
    a, b, link = joined(lab, spec)
    received: list[bytes] = []
    with a.udp_socket("10.78.0.1", 7000) as sender, b.udp_socket("10.78.0.2", 7000) as receiver:
        receiver.settimeout(0.3)
        sent = [number.to_bytes(4, "big") + bytes(60) for number in range(300)]
        for payload in sent:
            sender.sendto(payload, ("10.78.0.2", 7000))
        try:
            while True:
                received.append(receiver.recv(2048))
        except TimeoutError:
            pass
    model = LinkModel(spec, SEED, 0)
    fates = [model.handle_frame(0, 106) for _ in sent]
    expected = sum(len(fate) for fate in fates)
    assert len(received) == expected
    intact = {
        payload for payload, fate in zip(sent, fates, strict=True) if any(delivery.flip is None for delivery in fate)
    }
    assert set(received) & set(sent) == intact
    link.stop()
    counts = json.loads(link.output().splitlines()[-1])
    assert counts["a_to_b"]["delivered"] == expected
    assert counts["b_to_a"]["frames"] == 0


def test_delay_is_added_both_ways(lab: Lab) -> None:
    a, _, _ = joined(lab, LinkSpec(delay=0.02))
    result = parse_ping(a.run("ping", "-c", "5", "-i", "0.1", "10.78.0.2").stdout)
    assert result.loss == 0 and result.minimum >= 40


def test_nothing_passes_in_a_blackout_and_all_does_after_it(lab: Lab) -> None:
    a, b, link = joined(lab, LinkSpec(blackouts=(Blackout(0.0, 0.5),)))
    with a.udp_socket("10.78.0.1", 7000) as sender, b.udp_socket("10.78.0.2", 7000) as receiver:
        receiver.settimeout(0.1)
        sender.sendto(b"into the dark", ("10.78.0.2", 7000))

        def passes() -> bytes | None:
            sender.sendto(b"light", ("10.78.0.2", 7000))
            try:
                return receiver.recv(100)
            except TimeoutError:
                return None

        assert poll_until(passes, 5.0) == b"light"
    link.stop()
    assert json.loads(link.output().splitlines()[-1])["a_to_b"]["blacked_out"] >= 1


def test_a_link_that_ends_takes_its_interfaces_away(lab: Lab) -> None:
    a, _, link = joined(lab, LinkSpec())
    assert link.stop() == 0
    assert "eth0" not in a.ip("-br", "link")


def test_only_what_passes_between_the_halves_of_an_internet_passes_its_bad_link(lab: Lab) -> None:
    internet = Internet(lab, ipv6=True, halves=True)
    near, neighbour = internet.public_host("near"), internet.public_host("neighbour")
    internet.build_in(far=True)
    far = internet.public_host("far")
    for address in (str(far.address), str(far.address6)):
        assert ping(near.namespace, address).received == 3
    internet.impair(LinkSpec(delay=0.5), SEED)
    for address in (str(far.address), str(far.address6)):
        assert ping(near.namespace, address).minimum >= 1000.0
    assert ping(near.namespace, str(neighbour.address)).minimum < 1000.0
