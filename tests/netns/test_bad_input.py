"""Bad input: one clear sentence that names it, exit status 2, and nothing half-made."""

from __future__ import annotations

import os
from collections.abc import Generator
from subprocess import CompletedProcess

import pytest

from omninervous.core.identity import Identity
from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.scene import machine_state
from omninervous.lab.topology import Host
from omninervous.lab.topology import pair_lan as make_pair_lan
from omninervous.wire.keytext import encode_key, encode_wireguard_key
from tests.netns.edges import SECRET, wait_for

OTHER = Identity.from_seed(bytes(range(32)))
KEY = encode_key(OTHER.public)
MISTYPED = KEY[:10] + ("x" if KEY[10] != "x" else "y") + KEY[11:]
WIREGUARD = encode_wireguard_key(OTHER.x25519_public)


class Machine:
    """A machine on which omni-daemon is called wrongly."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.namespace: Namespace = host.namespace
        self.state_dir = lab.directory / "state"

    def call(self, *words: str, prefix: tuple[str, ...] = ()) -> CompletedProcess[str]:
        return self.namespace.run(
            *prefix, find_command("omni-daemon"), "--state-dir", str(self.state_dir), *words, check=False
        )

    def refuses(self, *words: str, naming: str, prefix: tuple[str, ...] = ()) -> None:
        """Exit status 2, one sentence with `naming` in it, and machine and state directory as they were."""
        before, files = machine_state(self.namespace), self._files()
        done = self.call(*words, prefix=prefix)
        assert done.returncode == 2, done.stderr
        assert done.stdout == "" and done.stderr.startswith("omni-daemon: ") and done.stderr.count("\n") == 1
        assert naming in done.stderr
        assert "Traceback" not in done.stderr and SECRET not in done.stderr
        assert machine_state(self.namespace) == before
        assert self._files() == files

    def _files(self) -> dict[str, bytes] | None:
        if not self.state_dir.is_dir():
            return None
        return {path.name: path.read_bytes() for path in self.state_dir.iterdir() if path.is_file()}


@pytest.fixture
def machine(lab: Lab, pair_lan: tuple[Host, Host]) -> Machine:
    return Machine(lab, pair_lan[0])


@pytest.fixture(scope="module")
def untouched() -> Generator[Machine, None, None]:
    """One machine for all calls that change nothing: that they do not is what is tested."""
    with Lab() as lab:
        yield Machine(lab, make_pair_lan(lab)[0])


CLUSTER = ("--nucleus", "192.0.2.1", "--cluster", "fleet")


@pytest.mark.parametrize(
    ("words", "naming"),
    [
        (("--nosuch",), "--nosuch"),
        (("extra",), "extra"),
        (("--mode", "router"), "--mode"),
        (("--port", "99999"), "--port"),
        (("--port", "eth0"), "--port"),
        (("--nucleus", "192.0.2.1"), "--cluster"),
        (("--nucleus", "192.0.2", "--cluster", "fleet"), "--nucleus 192.0.2"),
        (("--nucleus", "host:0", "--cluster", "fleet"), "--nucleus host:0"),
        (("--nucleus", f"host#{MISTYPED}", "--cluster", "fleet"), "mistyped"),
        (("--nucleus", "192.0.2.1", "--cluster", ""), "--cluster"),
        ((*CLUSTER, "--secret", "short"), "--secret"),
        ((*CLUSTER, "--secret-file", "/nonexistent"), "--secret-file"),
        ((*CLUSTER, "--secret", SECRET, "--secret", SECRET), "--secret is given twice"),
        (("--secret", SECRET), "--cluster"),
        (("--vip", "10.200.0"), "--vip"),
        (("--vip", "10.200.0.1/64"), "--vip"),
        (("--vip", "224.0.0.5"), "--vip"),
        (("--vip", "10.207.255.255"), "--vip"),
        (("--vip", "10.77.0.1/24"), "eth0"),
        (("--peer", "abc", "--endpoint", "192.0.2.1:51820"), "--peer"),
        (("--peer", MISTYPED, "--endpoint", "192.0.2.1:51820"), "mistyped"),
        (("--peer", KEY, "--endpoint", "192.0.2.1"), "port is missing"),
        (("--peer", KEY, "--allowed-ips", "10.0.0.0/8"), "--allowed-ips"),
        (("--peer", WIREGUARD), "--allowed-ips"),
        (("--peer", KEY, "--psk-file", "/dev/null"), "--psk-file"),
        (("--endpoint", "192.0.2.1:51820"), "--peer"),
        (("--iface", "nosuch0"), "--iface nosuch0"),
        (("--iface", "eth0", "--dev", "eth0"), "--dev"),
        (("--dev", "eth0"), "eth0 exists already"),
        (("--dev", "a/b"), "--dev"),
        (("--mtu", "100"), "--mtu"),
        (("--engine", "warp"), "--engine"),
        (("--name", "a b"), "--name"),
        (("--mode", "nucleus", "--vip", "10.200.0.1"), "--vip"),
        (("--mode", "nucleus", "--port", "0"), "--port"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_bad_option_is_refused(untouched: Machine, words: tuple[str, ...], naming: str) -> None:
    untouched.refuses(*words, naming=naming)


def test_a_short_secret_in_the_environment_is_refused(untouched: Machine) -> None:
    untouched.refuses(*CLUSTER, naming="OMNI_SECRET", prefix=("env", "OMNI_SECRET=short"))


def test_a_port_in_use_is_refused_with_its_holder(untouched: Machine) -> None:
    with untouched.namespace.udp_socket(port=51820):
        untouched.refuses(naming=f"pid {os.getpid()}")


def test_a_port_in_use_stops_a_nucleus_too(untouched: Machine) -> None:
    with untouched.namespace.udp_socket(port=51820):
        untouched.refuses("--mode", "nucleus", naming="--port")


def test_an_interface_that_is_down_is_refused(machine: Machine) -> None:
    machine.namespace.ip("link", "set", "eth0", "down")
    machine.refuses("--iface", "eth0", naming="--iface eth0")


def test_a_foreign_interface_of_our_name_is_left_alone(machine: Machine) -> None:
    machine.namespace.ip("tuntap", "add", "omni0", "mode", "tap")
    machine.refuses(naming="--dev")


def test_without_the_privilege_it_says_which(untouched: Machine) -> None:
    untouched.refuses(naming="CAP_NET_ADMIN", prefix=("setpriv", "--bounding-set=-net_admin"))


def test_without_a_tun_device_it_says_so(untouched: Machine) -> None:
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    untouched.refuses(naming="/dev/net/tun", prefix=("unshare", "--mount", "sh", "-c", hide, "sh"))


def test_a_key_file_that_others_can_read_is_refused(machine: Machine) -> None:
    machine.call("--init")
    key = machine.state_dir / "identity.key"
    key.chmod(0o644)
    machine.refuses(naming=f"chmod 600 {key}")
    machine.refuses("--init", naming=f"chmod 600 {key}")
    machine.refuses("--mode", "nucleus", naming=f"chmod 600 {key}")


def test_a_damaged_key_file_is_refused(machine: Machine) -> None:
    machine.call("--init")
    (machine.state_dir / "identity.key").write_text("nonsense")
    machine.refuses(naming="damaged")


def test_our_own_key_as_a_peer_is_refused(machine: Machine) -> None:
    own = machine.call("--init").stdout.split()[-1]
    machine.refuses("--peer", own, "--endpoint", "192.0.2.1:51820", naming="--peer is this machine's own key")


def test_a_state_directory_that_is_a_file_is_refused(machine: Machine) -> None:
    machine.state_dir.write_text("")
    machine.refuses(naming="not a directory")


def test_a_second_daemon_on_one_state_directory_is_refused_with_the_pid_of_the_first(
    lab: Lab, machine: Machine, pair_lan: tuple[Host, Host]
) -> None:
    first = Daemon(lab, pair_lan[0].namespace, "state").launch()
    first.wait_ready()
    assert first.state_dir == machine.state_dir
    wait_for("a VIP", lambda: first.status()["vip"])
    machine.refuses("--port", "7000", "--dev", "omni1", naming=f"pid {first.process.pid}")
    assert first.status()["mode"] == "edge", "the first one runs on"


def test_an_interface_in_use_by_another_daemon_is_refused(
    lab: Lab, machine: Machine, pair_lan: tuple[Host, Host]
) -> None:
    first = Daemon(lab, pair_lan[0].namespace, "first").launch().wait_ready()
    machine.refuses("--port", "7000", naming=f"omni-daemon (pid {first.process.pid})")
    assert "omni0" in machine.namespace.ip("link")
