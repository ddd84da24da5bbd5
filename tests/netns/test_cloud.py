"""`omni cloud` against three machines with a real sshd each: what works, what does not, and what is left in the end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from omninervous.lab.cloud_hosts import parse_probe
from omninervous.lab.cloud_install import Release
from omninervous.lab.cloud_scripts import PROBE
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process, run_command
from tests.conftest import REPOSITORY
from tests.netns.clouds import Cloud
from tests.netns.edges import wait_for

pytestmark = pytest.mark.timeout(600)

PATIENCE = 180.0
ROWS = [
    *("Machine nucleus", "Machine node-a", "Machine node-b", "Installation", "Bare ping", "Bare iperf3"),
    *("Nucleus Rendezvous", "Edge A Registration", "Edge B Registration", "Noise_IK Handshake"),
    *("Direct P2P Channel", "Tunnel ping", "Tunnel iperf3", "Teardown"),
]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of this tree, made once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    directory = shared / "dist"
    with (shared / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "SHA256SUMS").exists():
            environment = {**os.environ, "DIST": str(directory)}
            command = [str(REPOSITORY / "scripts/wheel.sh"), "--this-machine"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
            assert done.returncode == 0, done.stderr
            # The operator's machine of these tests has no way to the package index: unpacked here, it is found there.
            Release.open(directory).unpacked(parse_probe(run_command(["sh", "-s"], text_in=PROBE).stdout))
    return directory


@pytest.fixture
def cloud(lab: Lab, dist: Path) -> Cloud:
    return Cloud(lab, dist)


def run(cloud: Cloud, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command on the operator's machine."""
    words = ["env", *(f"{name}={value}" for name, value in environment.items()), *command]
    return run_command(cloud.operator.namespace.command(*words), check=False, seconds=PATIENCE)


def rows_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.stdout, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["rows"]}


def failed(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Rows that were tried and do not hold."""
    return [name for name, row in rows.items() if not row["ok"] and not row["evidence"].startswith("not tried")]


def leftovers(cloud: Cloud) -> list[str]:
    """What is not to be there after a run: processes, run directories, the secret."""
    runs = [str(path) for machine in cloud.machines for path in machine.directory.glob("run/*")]
    return cloud.processes() + runs


def test_three_machines_and_the_secret_stays_secret(cloud: Cloud, lab: Lab) -> None:
    secret = f"of this test alone {secrets.token_hex(8)}"  # others run beside it, and show theirs
    process = start(cloud, lab, cloud.test_command("--json", "--secret", secret))
    # The machines' processes are on this one as well: all of them, until the run is over. omni's own title hides it.
    seen: set[str] = set()
    while process.status is None:
        seen.update(line for pid, line in command_lines() if secret in line and pid != process.pid)
        time.sleep(0.01)
    assert seen == set()
    rows = {row["name"]: row for row in json.loads("{" + process.output().partition("\n{")[2])["rows"]}
    assert process.status == 0, json.dumps(rows, indent=1)
    assert list(rows) == ROWS
    assert rows["Bare iperf3"]["value"] > 0 and rows["Tunnel iperf3"]["value"] > 0
    assert "of the bare path" in rows["Tunnel iperf3"]["evidence"]
    assert rows["Edge A Registration"]["value"].startswith("10.2")
    assert leftovers(cloud) == []
    logs = "".join(Path(f"/tmp/omni-cloud-{role}.log").read_text() for role in ("nucleus", "node-a", "node-b"))
    assert '"event": "up"' in logs and secret not in logs
    assert not any(secret in path.read_text(errors="replace") for path in lab.logs.glob("*.log"))


def test_a_second_run_cleans_what_a_killed_one_left(cloud: Cloud, lab: Lab) -> None:
    process = start(cloud, lab, cloud.test_command())
    process.wait_for_output("Noise_IK Handshake", PATIENCE)
    process.kill()
    assert any("omni-daemon" in line for line in cloud.processes())
    done = run(cloud, cloud.test_command("--json"))
    rows = rows_of(done)
    assert done.returncode == 0, json.dumps(rows, indent=1)
    for role in ("nucleus", "node-a", "node-b"):
        assert "removed of an earlier run: process" in rows[f"Machine {role}"]["evidence"]
    assert leftovers(cloud) == []


def test_a_machine_that_dies_half_way_does_not_keep_the_others_from_being_stopped(cloud: Cloud, lab: Lab) -> None:
    process = start(cloud, lab, cloud.test_command("--json", "--seconds", "10"))
    process.wait_for_output("Tunnel iperf3", PATIENCE)
    nucleus, a, b = cloud.machines
    wait_for("traffic through the tunnel", lambda: any("iperf3 --client" in line for line in a.processes()))
    b.host.namespace.ip("link", "set", "eth0", "down")
    assert process.wait(PATIENCE) == 1
    said = " ".join(process.output().split())
    assert "FAIL Teardown" in said and f"node-b ({b.host.address})" in said
    assert nucleus.processes() == a.processes() == []
    # What is cut off ends by itself, and a later run would find it.
    assert any(line.startswith("timeout -k 10 3600") for line in b.processes())


@pytest.mark.soak
def test_ended_by_a_signal_it_stops_everything(cloud: Cloud, lab: Lab) -> None:
    process = start(cloud, lab, cloud.test_command("--seconds", "60"))
    process.wait_for_output("Tunnel iperf3", PATIENCE)
    process.signal(15)
    process.wait(PATIENCE)
    assert leftovers(cloud) == []


def test_a_wrong_key(cloud: Cloud) -> None:
    done = run(cloud, cloud.test_command("--json", config=cloud.configure("stranger")))
    rows = rows_of(done)
    assert done.returncode == 1
    assert failed(rows) == ["Machine nucleus", "Machine node-a", "Machine node-b"]
    said = rows["Machine node-a"]["evidence"]
    assert "Permission denied" in said and "must work without a question" in said
    assert rows["Installation"]["evidence"].startswith("not tried")


def test_a_machine_that_is_not_there(cloud: Cloud) -> None:
    nucleus, a, _ = cloud.machines
    named = ("--nucleus", nucleus.text, "--node-a", a.text, "--node-b", "198.51.100.99")
    done = run(cloud, cloud.command("test", *named, "--dist", str(cloud.dist), "--json"))
    rows = rows_of(done)
    assert done.returncode == 1
    assert failed(rows) == ["Machine node-b"]
    assert "198.51.100.99" in rows["Machine node-b"]["evidence"]
    assert leftovers(cloud) == []


def test_a_machine_without_python(cloud: Cloud, lab: Lab) -> None:
    tools = lab.directory / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "cat", "id", "uname", "rsync", "iperf3", "ping", "readlink", "mkdir", "rm"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    cloud.restart_sshd(cloud.machines[2], str(tools))
    done = run(cloud, cloud.test_command("--json"))
    rows = rows_of(done)
    assert done.returncode == 1
    assert failed(rows) == ["Machine node-b"]
    assert "there is no Python 3.11 or newer: install it" in rows["Machine node-b"]["evidence"]
    assert leftovers(cloud) == []


@pytest.fixture
def full_disk(cloud: Cloud) -> Generator[Path, None, None]:
    """A disk of 2 MB where node B's installation belongs."""
    directory = cloud.machines[2].directory
    directory.mkdir()
    run_command(["mount", "-t", "tmpfs", "-o", "size=2m", "omni-test", str(directory)])
    yield directory
    run_command(["umount", "--lazy", str(directory)])


def test_a_full_disk(cloud: Cloud, full_disk: Path) -> None:
    done = run(cloud, cloud.test_command("--json"))
    rows = rows_of(done)
    assert done.returncode == 1
    # The bare path needs a run directory only, for which there is room again.
    assert failed(rows) == ["Installation"]
    said = rows["Installation"]["evidence"]
    assert "No space left on device" in said and "node-b" in said
    assert not (full_disk / "lib").exists() and not (full_disk / "bin").exists(), "nothing half-made stays"
    assert leftovers(cloud) == []


def test_a_nucleus_that_stays_and_is_started_anew(cloud: Cloud) -> None:
    machine = cloud.machines[0]
    command = cloud.command("nucleus", "--dist", str(cloud.dist), machine.text)
    first, second = run(cloud, command), run(cloud, command)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout, "it keeps its identity"
    assert first.stdout.startswith(f"omni-daemon --nucleus '{machine.host.address}:51820#")
    daemons = [line for line in machine.processes() if "--mode nucleus" in line]
    assert len(daemons) == 1
    stopped = run(cloud, cloud.command("stop", machine.text))
    assert stopped.returncode == 0 and "ended" in stopped.stdout
    assert machine.processes() == []


def test_a_source_tree_goes_without_what_make_makes(cloud: Cloud) -> None:
    machine = cloud.machines[0]
    done = run(cloud, cloud.command("sync", "--tree", str(REPOSITORY), machine.text))
    assert done.returncode == 0, done.stderr
    copied = {path.name for path in machine.directory.iterdir()}
    assert {"Makefile", "src", "native", "scripts", "pyproject.toml"} <= copied
    assert not copied & {".venv", ".tools", ".git", "dist"} and not (machine.directory / "native/target").exists()
    assert list(machine.directory.rglob("*.so")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--node-b", "-oProxyCommand=x"), "--node-b '-oProxyCommand=x' is not a machine"),
        (("--node-b", "host; reboot"), "is not a machine: write [USER@]HOST"),
        (("--node-b", "b:/opt/$(x)"), "name a directory of its own"),
        (("--node-b", "b:/opt/../etc"), "name a directory of its own"),
        (("--node-b", "a"), "must be three machines"),
        (("--secret", "short"), "16"),
        (("--port", "0"), "is not a port"),
        (("--dist", "/nonexistent"), "run make wheel"),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(cloud: Cloud, arguments: tuple[str, ...], said: str) -> None:
    named = ("--nucleus", "n", "--node-a", "a", "--node-b", "b", "--dist", str(cloud.dist))
    done = run(cloud, cloud.command("test", *named, *arguments))
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def command_lines() -> Iterator[tuple[int, str]]:
    """Of every process that there is."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace")


def start(cloud: Cloud, lab: Lab, command: list[str]) -> Process:
    """A command on the operator's machine, followed while it runs."""
    return lab.start(cloud.operator.namespace, "omni-cloud", command)
