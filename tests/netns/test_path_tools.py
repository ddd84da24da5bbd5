"""`omni ping`, `omni why` and `omni netcheck` against running daemons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import run_command
from omninervous.lab.topology import TwoNats
from tests.netns.edges import SECRET, vip, wait_for


def ask(daemon: Daemon, *words: str, status: int = 0) -> Any:
    """The last JSON object that a command prints."""
    command = [find_command("omni"), "--state-dir", str(daemon.state_dir), *words, "--json"]
    done = run_command(command, check=False, seconds=60.0)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout if done.stdout.startswith("{\n") else done.stdout.splitlines()[-1])


@pytest.fixture
def edges(lab: Lab, two_nats: TwoNats) -> tuple[Daemon, Daemon]:
    Daemon(lab, two_nats.nucleus.namespace, "nucleus").launch("--mode", "nucleus", "--port", "51820").wait_ready()
    made = []
    for host, name in ((two_nats.edge_a, "robot-a"), (two_nats.edge_b, "robot-b")):
        edge = Daemon(lab, host.namespace, name)
        arguments = ("--nucleus", f"{two_nats.nucleus.address}:51820", "--cluster", "fleet", "--name", name)
        made.append(edge.launch(*arguments, environment={"OMNI_SECRET": SECRET}).wait_ready())
    return made[0], made[1]


def test_a_peer_is_pinged_by_name_and_address_and_explained(edges: tuple[Daemon, Daemon], two_nats: TwoNats) -> None:
    a, b = edges
    a.wait_for_peer()
    address = wait_for("an address", lambda: b.status()["vip"] and vip(b))
    for who in ("robot-b", address):
        answer = ask(a, "ping", who, "--count", "20", "--interval", "0.1", "--until-direct")
        assert answer["ok"] and answer["path"]["kind"] == "nat" and answer["path"]["rtt_ms"] > 0
        assert answer["path"]["endpoint"].startswith(str(two_nats.nat_b.wan))
    found = ask(a, "why", "robot-b")
    assert "direct path" in found["cause"] and not found["remedy"] and found["vip"] == address
    assert any(each["answers"] and each["challenges"] for each in found["tried"])
    seen = ask(a, "netcheck")
    (nucleus,) = seen["nuclei"]
    assert nucleus["registered"] and nucleus["rtt_ms"] > 0 and nucleus["observed"].startswith(str(two_nats.nat_a.wan))
    assert seen["ipv4"]["mapping"] == "endpoint-independent", "the Nucleus and B see the same port"
    for command in (("ping", "robot-b", "-c", "1"), ("why", "robot-b"), ("netcheck",)):
        text = run_command([find_command("omni"), "--state-dir", str(a.state_dir), *command]).stdout
        assert str(two_nats.nat_b.wan) in text and "Traceback" not in text


def test_a_peer_that_is_gone_is_said_to_be(edges: tuple[Daemon, Daemon]) -> None:
    a, b = edges
    a.wait_for_peer()
    b.process.kill()
    assert ask(a, "ping", "robot-b", "-c", "3", "-i", "0.1", status=1)["ok"] is False
    found = wait_for("a cause", lambda: (answer := ask(a, "why", "robot-b"))["remedy"] and answer)
    assert "nothing came back" in found["cause"] and "netcheck" in found["remedy"]


def test_nobody_by_that_name(edges: tuple[Daemon, Daemon]) -> None:
    for command in ("ping", "why"):
        argv = [find_command("omni"), "--state-dir", str(edges[0].state_dir), command, "nobody"]
        done = run_command(argv, check=False)
        assert done.returncode and "nobody" in done.stderr and "Traceback" not in done.stderr
