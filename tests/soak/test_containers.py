"""The container images, built on a Debian base that debootstrap makes, and run by podman on the lab's machines."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import parse_ping
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import run_command
from omninervous.lab.topology import Host
from tests.conftest import REPOSITORY
from tests.netns.edges import SECRET, ping, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

MINUTES = 900.0
BASE = "localhost/debian:bookworm-slim"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
COMPOSE = REPOSITORY / "contrib/containers/compose.yaml"


class Podman:
    """podman with a storage of its own: no image and no container of this machine is touched."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        storage = f'driver = "overlay"\ngraphroot = "{directory}/storage"\nrunroot = "{directory}/run"\n'
        (directory / "storage.conf").write_text(f"[storage]\n{storage}")
        engine = f'runtime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\ntmp_dir = "{directory}/tmp"\n'
        limits = 'default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]\n'
        networks = f'network_config_dir = "{directory}/networks"\n'
        (directory / "networks").mkdir()
        (directory / "run.conf").write_text(f"[containers]\n{limits}[engine]\n{engine}[network]\n{networks}")
        # Where this machine reaches its package index through authorities of its own, pip in a build needs them too.
        (directory / "pip.conf").write_text("[global]\ncert = /etc/host-ca.crt\n")
        mounts = [f"{directory}/pip.conf:/etc/pip.conf:ro", f"{AUTHORITIES}:/etc/host-ca.crt:ro"]
        building = f'netns = "host"\nvolumes = {json.dumps(mounts)}\n{limits}'
        (directory / "build.conf").write_text(f"[containers]\n{building}[engine]\n{engine}")

    def settings(self, kind: str = "run") -> tuple[str, ...]:
        """Before podman, or what calls podman, it makes that keep to this storage. `kind`: `run` or `build`."""
        place = self._directory
        return ("env", f"CONTAINERS_CONF={place}/{kind}.conf", f"CONTAINERS_STORAGE_CONF={place}/storage.conf")

    def __call__(self, *arguments: str, check: bool = True) -> str:
        return run_command([*self.settings(), "podman", *arguments], check=check, seconds=MINUTES).stdout

    def run(self, name: str, where: Host, image: str, options: tuple[str, ...], *arguments: str) -> None:
        """A container on a machine of the lab."""
        network = f"ns:{where.namespace.path}"
        self("run", "--detach", "--name", name, "--network", network, *options, image, *arguments)

    def omni(self, name: str, command: str) -> dict[str, Any]:
        """`omni COMMAND --json` in a container; empty as long as it does not answer."""
        text = self("exec", name, "omni", command, "--json", check=False)
        answer: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        return answer


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Generator[Podman, None, None]:
    """Both images, built from this tree as the user builds them, on a base of our own."""
    directory = tmp_path_factory.mktemp("podman")
    made = Podman(directory)
    try:
        base = directory / "base"
        run_command(["debootstrap", "--variant=minbase", "bookworm", str(base)], seconds=MINUTES)
        run_command(["tar", "-C", str(base), "-c", "-f", f"{base}.tar", "."], seconds=MINUTES)
        made("import", "--quiet", f"{base}.tar", BASE)
        script = str(REPOSITORY / "scripts/build_local_docker.sh")
        run_command([*made.settings("build"), "ENGINE=podman", f"BASE={BASE}", script], seconds=MINUTES)
        yield made
    finally:
        made("system", "reset", "--force", check=False)


def test_an_edge_in_a_container_joins_a_nucleus_in_another(
    lab: Lab, podman: Podman, pair_lan: tuple[Host, Host]
) -> None:
    """A third edge, on the Nucleus's machine but in no container, is who the container talks to."""
    here, there = pair_lan
    secret = lab.directory / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    place = f"{here.address}:51821"
    joined = ("--nucleus", place, "--cluster", "containers")
    try:
        podman.run("nucleus", here, "omninervous-nucleus", (), "--mode", "nucleus", "--port", "51821")
        wait_for("the Nucleus", lambda: podman.omni("nucleus", "status"), 60.0)
        assert podman("exec", "nucleus", "id", "-u").strip() != "0"
        rights = ("--cap-add", "NET_ADMIN", "--device", "/dev/net/tun", "--volume", f"{secret}:/run/secret:ro")
        podman.run("edge", there, "omninervous-edge", rights, *joined, "--secret-file", "/run/secret")
        outside = Daemon(lab, here.namespace, "outside").launch(*joined, "--secret-file", str(secret)).wait_ready(60.0)
        vip = wait_for("an address", lambda: (podman.omni("edge", "status").get("vip") or {}).get("address"), 60.0)
        wait_for("an answer to ping", lambda: ping(here.namespace, vip).received, 60.0)
        assert outside.wait_for_peer(60.0)
        for name in ("nucleus", "edge"):
            podman("healthcheck", "run", name)
            podman("stop", "--time", "20", name)
            assert podman("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
    finally:
        for name in ("edge", "nucleus"):
            print(podman("logs", name, check=False))
        podman("rm", "--force", "--all", "--volumes", check=False)


def test_the_compose_file_makes_a_cluster(lab: Lab, podman: Podman) -> None:
    machine = lab.namespace("machine")  # the engine's bridge and its rules stay in there
    folder = lab.directory / "compose"
    folder.mkdir()
    (folder / "compose.yaml").write_bytes(COMPOSE.read_bytes())
    (folder / "secret").write_text(f"{SECRET}\n")
    (folder / "secret").chmod(0o600)

    def compose(*words: str) -> str:
        command = ("podman-compose", "--file", str(folder / "compose.yaml"), *words)
        return machine.run(*podman.settings(), *command, seconds=300.0).stdout

    def up() -> dict[str, Any] | None:
        peers = podman.omni("compose_edge-a_1", "peers").get("peers", [])
        return next((each for each in peers if each["state"] == "up"), None)

    try:
        compose("up", "--detach")
        peer = wait_for("a session between the edges", up, 120.0)
        assert peer["name"] == "edge-b" and podman.omni("compose_nucleus_1", "status")["registry"]["edges"] == 2
        assert "lane" in compose("exec", "-T", "edge-a", "omni", "ping", "edge-b")
        pid = podman("inspect", "--format", "{{.State.Pid}}", "compose_edge-a_1").strip()
        ping_it = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ping", "-n", "-c", "3", "-i", "0.2", peer["vip"]]
        assert parse_ping(run_command(ping_it).stdout).received == 3
        for name in ("nucleus", "edge-a", "edge-b"):
            podman("healthcheck", "run", f"compose_{name}_1")
    finally:
        for name in ("edge-a", "edge-b", "nucleus"):
            print(podman("logs", f"compose_{name}_1", check=False))
        compose("down", "--volumes")
    assert not podman("ps", "--all", "--quiet").strip() and not podman("volume", "ls", "--quiet").strip()
