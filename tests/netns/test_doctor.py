"""`omni doctor` names each of ten faults, with a remedy, and nothing on a healthy pair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.topology import Host
from tests.netns.edges import SECRET, Pair, ping, vip, wait_for

Findings = dict[str, list[dict[str, Any]]]


def doctor(daemon: Daemon, *words: str, prefix: Sequence[str] = ()) -> Findings:
    """The findings by state; every one that is not ok has a remedy, and the exit status says the same."""
    command = [*prefix, find_command("omni"), "--state-dir", str(daemon.state_dir), "doctor", "--json", *words]
    done = daemon.where.run(*command, check=False, seconds=60.0)
    assert done.stderr == "" and done.returncode in (0, 1), done.stderr
    answer = json.loads(done.stdout)
    by_state: Findings = {"ok": [], "warning": [], "fault": []}
    for each in answer["findings"]:
        by_state[each["state"]].append(each)
        assert each["state"] == "ok" or each["remedy"], each
    assert answer["ok"] == (by_state["fault"] == []) == (done.returncode == 0)
    return by_state


def faults(daemon: Daemon, *words: str, prefix: Sequence[str] = ()) -> dict[str, str]:
    """Check -> what it says."""
    return {each["check"]: each["text"] for each in doctor(daemon, *words, prefix=prefix)["fault"]}


@pytest.fixture
def pair(lab: Lab, pair_lan: tuple[Host, Host]) -> Pair:
    return Pair(lab, pair_lan)


def finds(daemon: Daemon, check: str, says: str, seconds: float = 20.0) -> None:
    """The fault comes up in time."""
    wait_for(f"{check}: {says}", lambda: says in faults(daemon).get(check, ""), seconds)


def start_healthy(pair: Pair) -> None:
    pair.start()
    assert ping(pair.hosts[0].namespace, vip(pair.b)).loss == 0


# ---------------------------------------------------------------- healthy


def test_nothing_is_found_on_a_healthy_pair(pair: Pair) -> None:
    start_healthy(pair)
    for daemon in (pair.a, pair.b):
        found = doctor(daemon)
        assert found["fault"] == found["warning"] == []
        assert {"daemon", "tun", "bpf", "mtu", "clock", "secret", "identity", "peers"} <= {
            each["check"] for each in found["ok"]
        }


def test_nothing_is_found_on_a_healthy_cluster(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    cluster = Cluster(lab, pair_lan)
    a, b = cluster.start("a"), cluster.start("b", host=1)
    a.wait_for_peer()
    b.wait_for_peer()
    for daemon in (cluster.nucleus, a, b):
        found = doctor(daemon)
        assert found["fault"] == found["warning"] == []


# ---------------------------------------------------------------- ten faults


def test_1_no_tun(pair: Pair) -> None:
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    found = faults(pair.a, prefix=("unshare", "--mount", "sh", "-c", hide, "sh"))
    assert "/dev/net/tun" in found["tun"]


def test_2_udp_is_blocked_by_our_own_firewall(pair: Pair) -> None:
    start_healthy(pair)
    rule = "udp dport 51820 drop"
    pair.hosts[0].namespace.nft(f"table inet f {{ chain o {{ type filter hook output priority 0\n{rule}\n}}\n}}")
    pair.b.process.kill()  # so that the pair has to find each other anew
    pair.start_b().wait_ready()
    pair.a.process.stop()
    pair.start_a().wait_ready()
    finds(pair.a, "udp", "a firewall of this machine refuses datagrams")


def test_2b_udp_is_blocked_on_the_way(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    cluster = Cluster(lab, pair_lan)
    rule = "udp dport 51821 drop"
    pair_lan[0].namespace.nft(f"table inet f {{ chain i {{ type filter hook input priority 0\n{rule}\n}}\n}}")
    finds(cluster.start("b", host=1), "udp", "answers ping, UDP port 51821 does not answer")


@pytest.mark.parametrize("how", ["peer", "kernel"])
def test_3_wrong_mtu(pair: Pair, how: str) -> None:
    if how == "peer":
        pair.start_a().wait_ready()
        pair.start_b("--mtu", "1400").wait_ready()
        finds(pair.a, "mtu", "a peer's omni0 has MTU 1400, this machine's 1380")
    else:
        start_healthy(pair)
        pair.hosts[0].namespace.ip("link", "set", "omni0", "mtu", "1300")
        finds(pair.a, "mtu", "omni0 was set to MTU 1300, not 1380")


@pytest.mark.parametrize("shift", ["+1d", "-1d"])
def test_4_a_clock_that_is_off_by_a_day(pair: Pair, shift: str) -> None:
    # Wall-clock time only: the boot-time clock of a machine with a wrong date runs as well as any.
    wrong = ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", shift)
    pair.a.launch("--peer", pair.key_b, "--endpoint", f"{pair.hosts[1].address}:51820", prefix=wrong).wait_ready()
    pair.start_b().wait_ready()
    pair.b.wait_for_peer(30.0)
    ahead = shift == "+1d"
    finds(pair.a, "clock", f"a peer's clock is 24 h {'behind' if ahead else 'ahead of'} this machine's")
    finds(pair.b, "clock", f"a peer's clock is 24 h {'ahead of' if ahead else 'behind'} this machine's")


def test_5_no_bpf(pair: Pair) -> None:
    unprivileged = ("setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon", "--inh-caps=-bpf,-sys_admin,-perfmon")
    endpoint = f"{pair.hosts[1].address}:51820"
    pair.a.launch("--peer", pair.key_b, "--endpoint", endpoint, prefix=unprivileged).wait_ready()
    assert "CAP_BPF" in faults(pair.a)["bpf"]


def test_6_a_taken_port(pair: Pair) -> None:
    with pair.hosts[0].namespace.udp_socket(port=51820):
        assert "UDP port 51820 is in use by" in faults(pair.a)["port"]


def test_7_a_wrong_secret(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    cluster = Cluster(lab, pair_lan)
    cluster.start("a")
    wait_for("registered", lambda: cluster.nucleus.status()["registry"]["edges"] == 1)
    other = cluster.start("b", secret=f"another {SECRET}", host=1)
    finds(other, "secret", "under another secret")


def test_8_a_stale_interface(pair: Pair) -> None:
    machine = pair.hosts[0].namespace
    machine.ip("tuntap", "add", "omni0", "mode", "tap")
    machine.ip("link", "set", "omni0", "alias", "omninervous")
    assert "omni0 is left over" in faults(pair.a)["interface"]
    machine.ip("link", "set", "omni0", "alias", "mine")
    assert "is not OmniNervous's" in faults(pair.a)["interface"]
    assert "omni0" in machine.ip("-br", "link"), "looking changes nothing"


def test_9_a_duplicate_identity(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    cluster = Cluster(lab, pair_lan)
    first = cluster.start("a")
    wait_for("registered", lambda: cluster.nucleus.status()["registry"]["edges"] == 1)
    copy = lab.directory / "b"
    copy.mkdir(mode=0o700)
    shutil.copy(first.state_dir / "identity.key", copy)
    finds(cluster.start("b", host=1), "identity", "this identity runs on another machine")


@pytest.mark.parametrize(
    ("place", "check", "says"),
    [
        ("10.77.0.1:51999", "nucleus", "nobody listens on UDP port 51999"),
        ("10.77.0.77:51821", "nucleus", "10.77.0.77 does not answer ping either"),
        ("192.0.2.1:51821", "nucleus", "there is no route to 192.0.2.1"),
        ("nosuch.invalid:51821", "nucleus", "has no address"),
    ],
)
def test_10_an_unreachable_nucleus(lab: Lab, pair_lan: tuple[Host, Host], place: str, check: str, says: str) -> None:
    edge = Daemon(lab, pair_lan[1].namespace, "b").launch("--nucleus", place, "--cluster", "c", "--secret", SECRET)
    finds(edge.wait_ready(), check, says)


def test_without_a_daemon_the_nuclei_of_the_settings_are_asked(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    cluster = Cluster(lab, pair_lan)
    edge, file = Daemon(lab, pair_lan[1].namespace, "b"), lab.directory / "b.toml"
    place = f"{pair_lan[0].address}:51821"
    file.write_text(f'[network]\nnucleus = "{place}"\ncluster = "fleet"\n')
    found = doctor(edge, "--config", str(file))
    assert [each["check"] for each in found["fault"]] == ["daemon"]
    assert f"{place} answers at {place}" in [each["text"] for each in found["ok"]]
    cluster.nucleus.process.stop()
    assert "nobody listens on UDP port 51821" in faults(edge, "--config", str(file))["nucleus"]


# ---------------------------------------------------------------- beside them


def test_an_unsound_configuration_is_a_fault(pair: Pair, lab: Lab) -> None:
    file = lab.directory / "bad.toml"
    file.write_text("[daemon]\nprot = 1\n")
    assert "daemon.prot" in faults(pair.a, "--config", str(file))["configuration"]


def test_people_read_a_table(pair: Pair) -> None:
    start_healthy(pair)
    done = pair.hosts[0].namespace.run(find_command("omni"), "--state-dir", str(pair.a.state_dir), "doctor")
    assert "clock" in done.stdout and "no peer has another time" in done.stdout and "\x1b" not in done.stdout


class Cluster:
    """A Nucleus beside edge A; edges with a secret."""

    def __init__(self, lab: Lab, hosts: tuple[Host, Host]) -> None:
        self._lab = lab
        self._hosts = hosts
        self.nucleus = Daemon(lab, self._where(0), "nucleus").launch("--mode", "nucleus", "--port", "51821")
        self.nucleus.wait_ready()

    def start(self, name: str, *, secret: str = SECRET, host: int = 0) -> Daemon:
        """An edge, running."""
        edge = Daemon(self._lab, self._where(host), name)
        place = f"{self._hosts[0].address}:51821"
        return edge.launch("--nucleus", place, "--cluster", "fleet", environment={"OMNI_SECRET": secret}).wait_ready()

    def _where(self, host: int) -> Namespace:
        return self._hosts[host].namespace
