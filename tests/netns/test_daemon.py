"""One edge daemon and its machine: what it makes, what it leaves, what it hides."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import poll_until
from omninervous.lab.scene import machine_state
from omninervous.lab.topology import Host
from omninervous.wire.frame import eui64_link_local
from tests.netns.edges import SECRET, Pair, vip, wait_for


@pytest.fixture
def host(pair_lan: tuple[Host, Host]) -> Host:
    return pair_lan[0]


@pytest.fixture
def edge(lab: Lab, host: Host) -> Daemon:
    return Daemon(lab, host.namespace, "edge")


def links(machine: Namespace) -> set[str]:
    return {line.split()[0].partition("@")[0] for line in machine.ip("-br", "link").splitlines()}


def test_an_interface_and_a_port_alone_run_and_say_what_is_missing(edge: Daemon, host: Host) -> None:
    edge.launch("--iface", "eth0", "--port", "51820").wait_ready()
    status = edge.status()
    assert status["vip"]["source"] == "derived" and status["interface"]["name"] == "omni0"
    wait_for("the address on omni0", lambda: vip(edge) in host.namespace.ip("-br", "address", "show", "omni0"))
    (missing,) = status["missing"]
    assert "--nucleus" in missing and "--cluster" in missing and "--peer" in missing
    assert status["problems"] == []


def test_the_interface_is_what_the_identity_says(edge: Daemon, host: Host) -> None:
    edge.launch("--mtu", "1400", "--dev", "fabric0").wait_ready()
    identity = edge.ask("identity")
    shown = host.namespace.ip("-d", "address", "show", "fabric0")
    assert f"link/ether {identity['mac']}" in shown and "mtu 1400" in shown and "tun type tap" in shown
    assert f"inet6 {identity['ula']}/64 scope global nodad" in shown
    link_local = eui64_link_local(bytes.fromhex(identity["mac"].replace(":", "")))
    assert f"inet6 {link_local}/64 scope link" in shown, "EUI-64: peers' guards expect it"
    wait_for("the address", lambda: f"inet {identity['vip']} " in host.namespace.ip("address", "show", "fabric0"))


def test_a_service_manager_hears_of_start_pulse_and_end(lab: Lab, edge: Daemon) -> None:
    address = str(lab.directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20.0)
        edge.launch(environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"})
        assert manager.recv(4096) == b"READY=1\nSTATUS=omni0 is up, UDP port 51820"
        assert manager.recv(4096) == manager.recv(4096) == b"WATCHDOG=1"
        assert edge.status()["interface"]["addresses"], "ready means that it answers"
        assert edge.process.stop(20.0) == 0
        heard = [manager.recv(4096)]
        while heard[-1] == b"WATCHDOG=1":
            heard.append(manager.recv(4096))
        assert heard[-1] == b"STOPPING=1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_signal_it_leaves_nothing(lab: Lab, pair_lan: tuple[Host, Host], number: int) -> None:
    pair = Pair(lab, pair_lan)
    machine = pair.hosts[0].namespace
    before = machine_state(machine)
    pair.start()
    assert any("omni0" in line for line in machine_state(machine) - before)
    pair.a.process.signal(number)
    assert pair.a.process.wait(20) == 0
    poll_until(lambda: machine_state(machine) == before, 2.0)
    assert machine_state(machine) == before
    assert "control.sock" not in os.listdir(pair.a.state_dir)
    wait_for("the other side hears of it", lambda: pair.b.peers()[0]["state"] != "up")


def test_killed_it_leaves_nothing_that_the_next_start_minds(edge: Daemon, host: Host) -> None:
    before = machine_state(host.namespace)
    edge.launch().wait_ready()
    edge.process.kill()
    poll_until(lambda: machine_state(host.namespace) == before, 2.0)
    assert machine_state(host.namespace) == before
    edge.launch().wait_ready()
    assert edge.process.stop() == 0


def test_a_leftover_interface_of_ours_is_replaced(edge: Daemon, host: Host) -> None:
    host.namespace.ip_batch("tuntap add omni0 mode tap", "link set omni0 alias omninervous mtu 1300")
    edge.launch().wait_ready()
    assert "mtu 1380" in host.namespace.ip("link", "show", "omni0")
    edge.process.stop()
    assert "omni0" not in links(host.namespace), "it is not persistent any more"


def test_only_cap_net_admin_is_needed(lab: Lab, host: Host) -> None:
    state = lab.directory / "capable"
    argv = [find_command("omni-daemon"), "--state-dir", str(state)]
    process = lab.start(
        host.namespace, "capable", ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", *argv]
    )
    process.wait_for_output('"up"', 15)
    assert "omni0" in links(host.namespace)


def test_the_nucleus_and_init_need_no_privilege_at_all(lab: Lab, host: Host) -> None:
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", find_command("omni-daemon"), "--state-dir"]
    done = host.namespace.run(*plain, str(lab.directory / "plain"), "--init")
    assert done.stdout.startswith("Your Public Identity: ") and done.stdout.count("\n") == 1
    help_text = host.namespace.run(*plain[:-1], "--help").stdout
    assert "--nucleus" in help_text


def test_a_secret_on_the_command_line_is_hidden(edge: Daemon) -> None:
    edge.launch("--cluster", "fleet", "--secret", SECRET, "--verbose").wait_ready()
    shown = Path(f"/proc/{edge.process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert SECRET not in shown and "--cluster fleet" in shown
    log = edge.process.output()
    assert SECRET not in log and "--secret-file" in log
    for file in edge.state_dir.iterdir():
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def test_the_control_socket_is_the_owners(edge: Daemon) -> None:
    edge.launch().wait_ready()
    mode = (edge.state_dir / "control.sock").stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(edge.state_dir.stat().st_mode) == 0o700


def test_without_a_daemon_omni_says_so(lab: Lab, host: Host) -> None:
    done = host.namespace.run(
        find_command("omni"), "--state-dir", str(lab.directory / "nobody"), "status", "--json", check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("omni: no daemon runs") and done.stderr.count("\n") == 1


def test_every_table_can_be_shown(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    pair = Pair(lab, pair_lan)
    pair.start()
    for command in ("status", "peers", "fdb", "identity"):
        done = pair.hosts[0].namespace.run(find_command("omni"), "--state-dir", str(pair.a.state_dir), command)
        assert done.stdout and done.stderr == "" and "\x1b" not in done.stdout
    assert pair.a.ask("fdb")["fdb"][0]["peer"] == pair.key_b


def test_new_addresses_of_the_machine_are_noticed(edge: Daemon, host: Host) -> None:
    edge.launch("--verbose").wait_ready()
    host.namespace.ip("address", "add", "10.77.0.50/24", "dev", "eth0")
    wait_for("the candidate", lambda: "10.77.0.50:51820" in edge.process.output())


def test_silent_dns_does_not_delay_its_end(edge: Daemon, host: Host) -> None:
    host.namespace.ip("route", "add", "default", "via", "10.77.0.2")  # whose machine forwards nothing, and says nothing
    patient = {"RES_OPTIONS": "timeout:30 attempts:5"}
    edge.launch("--nucleus", "nucleus.example", "--cluster", "fleet", environment=patient).wait_ready()
    assert edge.process.stop(20.0) == 0


def test_the_address_survives_a_restart_and_so_does_the_identity(edge: Daemon) -> None:
    edge.launch().wait_ready()
    first = edge.status()
    edge.process.stop()
    edge.launch().wait_ready()
    second = edge.status()
    assert (first["identity"], first["vip"]) == (second["identity"], second["vip"])


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_it_ends_when_its_interface_is_deleted(edge: Daemon, host: Host, engine: str) -> None:
    edge.launch("--engine", engine).wait_ready()
    host.namespace.ip("link", "del", "omni0")
    assert edge.process.wait(20) == 1
    assert "interface omni0 was deleted" in edge.process.output()
    edge.launch("--engine", engine).wait_ready()
