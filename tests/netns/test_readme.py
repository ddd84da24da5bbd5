"""Every command in the README is run as it stands there, so that it cannot drift from what the programs do.

What stands in angle brackets is filled in; names that all the world shares (namespaces, folders in /tmp) get this run's
own. A command that this file does not know how to run fails `test_every_command_is_run_by_some_test`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from omninervous.core.identity import Identity
from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process, run_command
from omninervous.lab.topology import Host
from omninervous.wire.keytext import encode_wireguard_key
from tests.conftest import REPOSITORY
from tests.netns.edges import wait_for

README = (REPOSITORY / "README.md").read_text()
PROGRAMS = ("omni", "omni-daemon", "make")

RUN_ELSEWHERE = {
    "make autotest": "tests/netns/test_autotest.py",
    "make test": "tests/netns/test_readme.py",
    "make setup": "tests/netns/test_readme.py",
    "make help": "tests/netns/test_readme.py",
    "omni autotest": "tests/netns/test_autotest.py",
    "omni bench": "tests/netns/test_bench.py",
    "omni cloud": "tests/netns/test_cloud.py",
    "make wheel": "tests/soak/test_release.py",
    "make images": "tests/soak/test_containers.py",
    "python3 -m venv": "tests/soak/test_release.py",
    "/opt/omninervous/bin/pip": "tests/soak/test_release.py",
    "/opt/omninervous/bin/omni-daemon": "tests/netns/test_cluster.py",
    "bpftool": "tests/netns/test_reflex_daemon.py",
}
"""The beginning of a command, and who runs it; of make's targets, that there are such is looked at here."""


def section(title: str) -> str:
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(text: str) -> list[list[str]]:
    """Lines of each fenced block, without comments."""
    found = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [[re.sub(r"\s+#\s.*", "", line) for line in block.splitlines() if line.strip()] for block in found]


def table_commands() -> list[str]:
    return re.findall(r"^\|[^|]+\| `([^`]+)` \|$", section("Using it"), re.MULTILINE)


def inline_commands() -> list[str]:
    """Commands in running text, as far as they are ours."""
    quoted = re.findall(r"(?<![`|] )`([a-z-]+(?: [^`]+)?)`", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S))
    ours = [each for each in quoted if each.split()[0] in PROGRAMS and " " in each]
    return list(dict.fromkeys(each for each in ours if each not in table_commands()))


def elsewhere(command: str) -> str | None:
    return next((test for start, test in RUN_ELSEWHERE.items() if f"{command} ".startswith(f"{start} ")), None)


def test_every_command_is_run_by_some_test() -> None:
    walked = {line for block in blocks(section("Five minutes, two shells")) for line in block}
    for block in blocks(README):
        for line in block:
            assert line in walked or elsewhere(line), f"nothing runs {line!r}: teach this file to"
    for command in inline_commands():
        known = elsewhere(command) or command in INLINE or command in table_commands()
        assert known, f"nothing runs {command!r}: teach this file to"
    assert all((REPOSITORY / test).is_file() for test in RUN_ELSEWHERE.values())
    assert len(table_commands()) >= 10


@pytest.mark.parametrize("target", [each.split()[1] for each in RUN_ELSEWHERE if each.startswith("make ")])
def test_make_has_the_target(target: str) -> None:
    assert subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


# ---------------------------------------------------------------- five minutes, two shells


class Walk:
    """The section's blocks, run one after the other in shells of their own."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._names = {
            **{f"/tmp/{name}": str(lab.directory / name) for name in ("robot-a", "robot-b", "nucleus")},
            **{name: lab.run.name(name) for name in ("robot-a", "robot-b")},
        }
        self.path = ""
        self.filled: dict[str, str] = {}
        self.daemons: list[Process] = []

    def text(self, line: str) -> str:
        """The line with this run's names and values."""
        for written, meant in {**self.filled, **self._names}.items():
            line = re.sub(rf"(?<![\w/-]){re.escape(written)}(?![\w-])", meant, line)
        assert not re.search(r"<[A-Z]\w+>", line), line
        return line

    def run(self, line: str) -> CompletedProcess[str]:
        """To its end, which is a good one."""
        done = run_command(["bash", "-euc", f"cd {REPOSITORY}; {self.path}\n{self.text(line)}"], seconds=60.0)
        return done

    def start(self, line: str) -> None:
        """A daemon in a shell of its own, or behind an &, until it answers."""
        command = self.text(line).removesuffix("&")
        script = f"cd {REPOSITORY}; {self.path}\nexec {command}"
        self.daemons.append(self._lab.start(None, f"shell-{len(self.daemons)}", ["bash", "-c", script]))
        state = shlex.split(command)[shlex.split(command).index("--state-dir") + 1]
        wait_for(f"an answer from {state}", lambda: self.status(state), 60.0)

    def status(self, state: str) -> dict[str, object]:
        try:
            done = run_command(["bash", "-c", f"cd {REPOSITORY}; {self.path}\nomni --state-dir {state} status --json"])
        except Exception:
            return {}
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    def vip(self, robot: str) -> str:
        """Once it has one and a peer is up."""
        state = self._names[f"/tmp/{robot}"]
        found = wait_for(f"a peer of {robot}", lambda: (it := self.status(state)).get("sessions_active") and it, 60.0)
        return str(found["vip"]["address"])

    def end_daemons(self) -> None:
        """Ctrl-C."""
        for process in reversed(self.daemons):
            process.signal(2)
        for process in reversed(self.daemons):
            assert process.wait(20.0) == 0
        self.daemons.clear()


@pytest.fixture
def walk(lab: Lab) -> Generator[Walk, None, None]:
    made = Walk(lab)
    yield made
    for process in made.daemons:
        process.kill()
    for name in ("robot-a", "robot-b"):
        run_command(["ip", "netns", "del", made.text(name)], check=False)


def test_five_minutes_two_shells(walk: Walk) -> None:
    text = section("Five minutes, two shells")
    prepare, pair, look, cluster = blocks(text)
    assert prepare[0].startswith("export PATH=")
    walk.path = prepare[0]
    printed = [walk.run(line).stdout for line in prepare[1:]]
    keys = [found[1] for each in printed if (found := re.search(r"Your Public Identity: (\S+)", each))]
    walk.filled = {"<PUBKEY_A>": keys[0], "<PUBKEY_B>": keys[1]}

    for line in pair:
        walk.start(line)
    walk.filled["<VIP_B>"] = walk.vip("robot-b")
    walk.vip("robot-a")
    shown = [walk.run(line).stdout for line in look]
    assert "omni0" in shown[0] and "lan" in shown[1] and " 0% packet loss" in shown[2]
    walk.end_daemons()

    for line in cluster[:-1]:
        walk.start(line)
    assert (walk.vip("robot-a"), walk.vip("robot-b")) == ("10.200.0.1", "10.200.0.2")
    assert " 0% packet loss" in walk.run(cluster[-1]).stdout
    walk.end_daemons()
    (remove,) = re.findall(r"`(ip netns del [^`]+)`", text)
    walk.run(remove)
    assert walk.text("robot-a") not in run_command(["ip", "netns", "list"]).stdout


# ---------------------------------------------------------------- using it

Check = Callable[["Desk"], object]


class Desk:
    """A machine at 1.2.3.5 whose user types what the README says; 1.2.3.4 is the rest of the world."""

    def __init__(self, lab: Lab, hosts: tuple[Host, Host]) -> None:
        self.lab = lab
        self.here, self.there = (host.namespace for host in hosts)
        for namespace, address in ((self.here, "1.2.3.5"), (self.there, "1.2.3.4")):
            namespace.ip("address", "add", f"{address}/24", "dev", "eth0")
        self.other = Daemon(lab, self.there, "other")
        self.mine = Daemon(lab, self.here, "mine")
        self.nucleus = Daemon(lab, self.there, "nucleus")
        stock = encode_wireguard_key(Identity.from_seed(bytes(range(32))).x25519_public)
        self.filled = {"<PUBKEY_B>": self.other.init(), "<IP_B>": "1.2.3.4", "<WireGuard key>": stock}
        hosts_file = lab.directory / "hosts"
        hosts_file.write_text("1.2.3.4 nucleus.omni.io\n127.0.0.1 localhost\n")
        self._shell = ["unshare", "--mount", "bash", "-c"]
        self._prepare = (
            f"mount --bind {hosts_file} /etc/hosts; cd {REPOSITORY}; export PATH={REPOSITORY}/.venv/bin:$PATH"
        )

    def text(self, command: str) -> str:
        for written, meant in self.filled.items():
            command = command.replace(written, meant)
        return command

    def environment(self, daemon: Daemon) -> Mapping[str, str]:
        return {"OMNI_STATE_DIR": str(daemon.state_dir), "OMNI_CONFIG": str(REPOSITORY / "config.example.toml")}

    def type(self, command: str, seconds: float = 60.0) -> CompletedProcess[str]:
        """To its end."""
        words = ["env", *(f"{key}={value}" for key, value in self.environment(self.mine).items())]
        script = f"{self._prepare}; {self.text(command)}"
        return self.here.run(*words, *self._shell, script, seconds=seconds)

    @contextlib.contextmanager
    def running(self, command: str, daemon: Daemon) -> Generator[None, None, None]:
        """A daemon, until the end of the block."""
        environment = {"OMNI_STATE_DIR": str(daemon.state_dir)}
        process = self.lab.start(
            daemon.where,
            f"{daemon.name}-{abs(hash(command)) % 10000}",
            [*self._shell, f"{self._prepare}; exec {self.text(command)}"],
            environment,
        )
        try:
            wait_for(f"an answer after {command}", lambda: daemon.peek("status"), 60.0)
            yield
        finally:
            assert process.stop(30.0) == 0, process.tail()


def registered(desk: Desk) -> None:
    with desk.running("omni-daemon --mode nucleus --port 51820", desk.nucleus):
        wait_for(
            "the registration", lambda: any(each["registered"] for each in desk.mine.peek("status")["nuclei"]), 60.0
        )


def met(desk: Desk) -> None:
    own = desk.mine.init()
    with desk.running(f"omni-daemon --peer {own}", desk.other):
        desk.mine.wait_for_peer(30.0)


def stock_peer(desk: Desk) -> None:
    (peer,) = desk.mine.peek("peers")["peers"]
    assert peer["kind"] == "wireguard"


def scraped(desk: Desk) -> None:
    assert "127.0.0.1:9751" in desk.here.run("ss", "-Htln").stdout


RUNS: dict[str, Check] = {
    "--nucleus": registered,
    "--peer <PUBKEY_B>": met,
    "--peer <WireGuard key>": stock_peer,
    "--iface eth0": lambda desk: desk.mine.peek("status")["port"] == 51820,
    "--config": lambda desk: desk.mine.peek("status")["cluster"] == "ai-robot-fleet",
    "--metrics": scraped,
}
"""A daemon of the table by its first option, and what must be true while it runs."""


@pytest.mark.parametrize("command", [each for each in table_commands() if not elsewhere(each)])
def test_what_was_asked_for_works(lab: Lab, pair_lan: tuple[Host, Host], command: str) -> None:
    desk = Desk(lab, pair_lan)
    if command in ("omni-daemon --init", "omni-daemon --help"):
        assert ("Your Public Identity: " if "init" in command else "--max-sessions-per-ip") in desk.type(command).stdout
        return
    if "--mode nucleus" in command:
        with desk.running(command, desk.nucleus):
            assert desk.nucleus.status()["mode"] == "nucleus" and desk.nucleus.status()["port"] == 51820
        return
    (check,) = (check for option, check in RUNS.items() if option in command)
    with desk.running(command, desk.mine):
        assert check(desk) is not False


INLINE = {
    "omni status": "omni0",
    "omni peers": "up",
    "omni fdb": "MAC",
    "omni identity": "WireGuard key",
    "omni config check": "all is well",
    "omni config show": "network.cluster",
    "omni reload": "applied: nothing",
    "omni doctor": "clock",
    "omni events --follow": "peer_up",
    "omni bundle": ".tar.gz",
    "omni why <PUBKEY_B>": "direct path",
    "omni ping <PUBKEY_B>": "lane",
    "omni netcheck": "own addresses",
    "omni pcap --peer <PUBKEY_B> --seconds 3 | tshark -r -": "ICMP",
}
"""Commands in running text, and a word that they print beside a running pair."""


def test_commands_in_running_text_work(lab: Lab, pair_lan: tuple[Host, Host], tmp_path: Path) -> None:
    desk = Desk(lab, pair_lan)
    with desk.running("omni-daemon --peer <PUBKEY_B> --endpoint <IP_B>:51820", desk.mine):
        own = desk.mine.init()
        with desk.running(f"omni-daemon --peer {own}", desk.other):
            desk.mine.wait_for_peer(30.0)
            address = wait_for("its address, which comes after the session", lambda: desk.mine.peers()[0]["vip"])
            for command in inline_commands():
                if elsewhere(command) or command.startswith("omni-daemon"):
                    continue
                # What only an end from outside ends, ends after a while.
                line = f"timeout --preserve-status -s INT 5 {command}" if "--follow" in command else command
                if "pcap" in command:
                    line = f"ping -i 0.2 -w 10 {address} >/dev/null & {line}; kill $!"
                done = desk.type(f"cd {tmp_path} && (set +e; {line}; test $? -lt 128 -o $? -eq 130)")
                assert INLINE[command] in done.stdout, (command, done.stdout)
    assert os.listdir(tmp_path), "the bundle"
