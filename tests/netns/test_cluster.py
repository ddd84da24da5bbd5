"""A cluster on one wire: a Nucleus, edges that register, find each other by address, and disagree."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatKind
from omninervous.lab.topology import Host, Internet
from tests.netns.edges import SECRET, behind, ping, ula, vip, wait_for

FLOATING = "198.51.100.200"


@dataclass
class Cluster:
    """A Nucleus that runs, and hosts for edges beside it."""

    lab: Lab
    nucleus_host: Host
    nucleus: Daemon
    hosts: list[Host]

    def edge(self, number: int, name: str = "") -> Daemon:
        """A daemon on edge host `number`, not started."""
        return Daemon(self.lab, self.hosts[number].namespace, name or f"edge{number}")

    def join(self, number: int, *more: str, secret: str = SECRET, name: str = "") -> Daemon:
        """The user's command on edge host `number`; it answers when this returns."""
        arguments = ("--nucleus", f"{self.nucleus_host.address}:51820", "--cluster", "fleet", *more)
        return self.edge(number, name).launch(*arguments, environment={"OMNI_SECRET": secret}).wait_ready()

    def ping(self, number: int, address: str) -> bool:
        """Whether nothing is lost."""
        return ping(self.hosts[number].namespace, address).loss == 0


@pytest.fixture
def cluster(lab: Lab) -> Cluster:
    internet = Internet(lab)
    nucleus_host = internet.public_host("nucleus")
    nucleus = Daemon(lab, nucleus_host.namespace, "nucleus").launch("--mode", "nucleus", "--port", "51820")
    return Cluster(lab, nucleus_host, nucleus.wait_ready(), [internet.public_host(f"edge{n}") for n in range(3)])


def registered(edge: Daemon) -> bool:
    return all(each["registered"] for each in edge.status()["nuclei"])


def has_problem(edge: Daemon, code: str) -> str:
    """The text of a problem, empty if there is none of that code."""
    return next((each["text"] for each in edge.status()["problems"] if each["code"] == code), "")


def test_edges_register_find_each_other_and_talk_directly(cluster: Cluster) -> None:
    one, two = cluster.join(0, "--vip", "10.200.0.1"), cluster.join(1)
    one.wait_for_peer(), two.wait_for_peer()
    assert registered(one) and registered(two)
    status = cluster.nucleus.status()
    assert status["mode"] == "nucleus" and status["registry"] == {"clusters": 1, "edges": 2}
    derived = wait_for("a derived address", lambda: two.status()["vip"])
    assert derived["source"] == "derived" and vip(one) == "10.200.0.1"
    for number, other in ((0, two), (1, one)):
        assert cluster.ping(number, vip(other)) and cluster.ping(number, ula(other))
    assert one.peers()[0]["endpoint"] == f"{cluster.hosts[1].address}:51820"
    assert one.peers()[0]["kind"] == "member" and len(one.ask("fdb")["fdb"]) == 1


def test_an_edge_that_leaves_is_gone_and_one_that_comes_back_is_back(cluster: Cluster) -> None:
    one, two = cluster.join(0), cluster.join(1)
    one.wait_for_peer()
    there = vip(two)
    assert two.process.stop() == 0
    wait_for("the registry without it", lambda: cluster.nucleus.status()["registry"]["edges"] == 1)
    wait_for("the other edge hears of it", lambda: not any(p["state"] == "up" for p in one.peers()))
    two = cluster.join(1)
    wait_for("the same address again", lambda: two.status()["vip"] and vip(two) == there)
    one.wait_for_peer()
    assert cluster.ping(0, there)


def test_the_cluster_goes_on_without_its_nucleus_and_members_come_back_to_it(cluster: Cluster) -> None:
    one, two = cluster.join(0), cluster.join(1)
    one.wait_for_peer(), two.wait_for_peer()
    there = vip(two)
    cluster.nucleus.process.kill()
    assert cluster.ping(0, there)
    one.process.stop()
    again = cluster.join(0)
    wait_for("the address of the last run", lambda: again.status()["vip"])
    again.wait_for_peer()
    assert cluster.ping(0, there)
    cluster.nucleus.launch("--mode", "nucleus").wait_ready()
    wait_for("both registered anew", lambda: cluster.nucleus.status()["registry"]["edges"] == 2, 60.0)


def test_a_wrong_secret_is_said_at_the_edge_and_kept_out(cluster: Cluster) -> None:
    one = cluster.join(0)
    wait_for("registration", lambda: registered(one))
    other = cluster.join(1, secret="another secret of sixteen and more")
    text = wait_for("the problem", lambda: has_problem(other, "secret_mismatch"))
    assert "another secret" in text
    assert "secret_mismatch" in other.process.output() and SECRET not in other.process.output()
    assert one.peers() == [] and other.peers() == []


def test_a_nucleus_with_another_key_than_the_pinned_one_is_not_talked_to(cluster: Cluster) -> None:
    one = cluster.join(0)
    wait_for("registration", lambda: registered(one))
    one.process.stop()
    cluster.nucleus.process.stop()
    (cluster.nucleus.state_dir / "identity.key").unlink()
    cluster.nucleus.launch("--mode", "nucleus").wait_ready()
    one = cluster.join(0)
    text = wait_for("the problem", lambda: has_problem(one, "wrong_nucleus_key"))
    assert "#KEY" in text
    assert cluster.nucleus.status()["registry"]["edges"] == 0
    one.process.stop()
    new_key = cluster.nucleus.status()["identity"]
    place = f"{cluster.nucleus_host.address}#{new_key}"
    one.launch("--nucleus", place, "--cluster", "fleet", environment={"OMNI_SECRET": SECRET}).wait_ready()
    wait_for("registration with the new key", lambda: registered(one))


def test_a_nucleus_key_on_the_command_line_is_checked(cluster: Cluster) -> None:
    place = f"{cluster.nucleus_host.address}:51820"
    right, wrong = cluster.nucleus.status()["identity"], cluster.edge(2).init()
    good = cluster.edge(0).launch("--nucleus", f"{place}#{right}", "--cluster", "open").wait_ready()
    bad = cluster.edge(1).launch("--nucleus", f"{place}#{wrong}", "--cluster", "open").wait_ready()
    wait_for("registration", lambda: registered(good))
    assert "--nucleus" in wait_for("the problem", lambda: has_problem(bad, "wrong_nucleus_key"))
    assert not registered(bad)


def test_an_address_that_somebody_holds_is_refused_and_its_holder_named(cluster: Cluster) -> None:
    one = cluster.join(0, "--vip", "10.200.0.1")
    wait_for("registration", lambda: registered(one))
    two = cluster.join(1, "--vip", "10.200.0.1")
    text = wait_for("the problem", lambda: has_problem(two, "vip_conflict"))
    assert one.status()["identity"] in text and "10.200.0.1" in text
    assert two.status()["vip"] is None
    assert "10.200.0.1" not in cluster.hosts[1].namespace.ip("-br", "address", "show", "omni0")


def test_an_explicit_address_displaces_a_derived_one(cluster: Cluster) -> None:
    one = cluster.join(0)
    wanted = wait_for("a derived address", lambda: one.status()["vip"])["address"]
    two = cluster.join(1, "--vip", wanted)
    wait_for("the explicit claim", lambda: two.status()["vip"])
    moved = wait_for("another derivation", lambda: (one.status()["vip"] or {}).get("derivation"))
    assert moved == 1
    two.wait_for_peer()
    wait_for("a ping to the new address", lambda: cluster.ping(1, vip(one)))
    assert wanted not in cluster.hosts[0].namespace.ip("-br", "address", "show", "omni0")


def test_a_cloned_identity_is_said_and_the_first_machine_goes_on(cluster: Cluster) -> None:
    one = cluster.join(0)
    wait_for("registration", lambda: registered(one))
    clone = cluster.edge(1, "clone")
    clone.state_dir.mkdir(mode=0o700)
    copy = clone.state_dir / "identity.key"
    copy.touch(0o600)
    copy.write_bytes((one.state_dir / "identity.key").read_bytes())
    second = cluster.join(1, name="clone")
    text = wait_for("the problem", lambda: has_problem(second, "cloned"))
    assert "--init" in text and second.status()["vip"] is None
    assert registered(one) and one.status()["vip"] is not None and one.status()["problems"] == []


def test_all_pairs_of_a_cluster_reach_each_other_and_nobody_else_answers(cluster: Cluster) -> None:
    edges = [cluster.join(number, "--vip", f"10.200.0.{number + 1}") for number in range(3)]
    for edge in edges:
        edge.wait_for_peer(count=2)
    for number in range(3):
        for other in range(3):
            if number != other:
                assert cluster.ping(number, f"10.200.0.{other + 1}")
    unused = ping(cluster.hosts[0].namespace, "10.200.0.99", 1)
    assert unused.received == 0


def test_a_nucleus_answers_from_the_address_that_was_asked(lab: Lab) -> None:
    """One that floats between servers: an edge's NAT lets in nobody else, and the server's routes prefer another."""
    internet = Internet(lab)
    server = internet.public_host("nucleus")
    server.namespace.ip("address", "add", f"{FLOATING}/32", "dev", server.interface)
    Daemon(lab, server.namespace, "nucleus").launch("--mode", "nucleus", "--port", "51820").wait_ready()
    edges = []
    for number, nucleus in enumerate((FLOATING, server.address)):
        _, host = behind(internet, f"edge{number}", NatKind.PORT_RESTRICTED)
        edge = Daemon(lab, host.namespace, f"edge{number}")
        arguments = ("--nucleus", f"{nucleus}:51820", "--cluster", "fleet", "--name", f"edge{number}")
        edges.append(edge.launch(*arguments, environment={"OMNI_SECRET": SECRET}).wait_ready())
    wait_for("registrations", lambda: all(map(registered, edges)))
    for edge in edges:
        edge.wait_for_peer()
