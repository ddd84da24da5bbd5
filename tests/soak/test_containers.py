"""The container images, built on a Debian base that debootstrap makes, and run by podman on the lab's machines."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import run_command
from omninervous.lab.topology import Host
from tests.conftest import REPOSITORY
from tests.netns.edges import SECRET, ping, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

MINUTES = 900.0
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:4096")


class Podman:
    """podman with a storage of its own: no image and no container of this machine is touched."""

    def __init__(self, directory: Path) -> None:
        self._options = [
            *("--root", str(directory / "storage"), "--runroot", str(directory / "run"), "--runtime", "runc"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
        ]

    def __call__(self, *arguments: str, check: bool = True) -> str:
        return run_command(["podman", *self._options, *arguments], check=check, seconds=MINUTES).stdout

    def run(self, name: str, where: Host, image: str, options: tuple[str, ...], *arguments: str) -> None:
        """A container on a machine of the lab."""
        network = f"ns:{where.namespace.path}"
        self("run", "--detach", "--name", name, "--network", network, *LIMITS, *options, image, *arguments)

    def omni(self, name: str, command: str) -> dict[str, Any]:
        """`omni COMMAND --json` in a container; empty as long as it does not answer."""
        text = self("exec", name, "omni", command, "--json", check=False)
        answer: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        return answer


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Generator[Podman, None, None]:
    """Both images, built from this tree."""
    directory = tmp_path_factory.mktemp("podman")
    made = Podman(directory)
    try:
        base = directory / "base"
        run_command(["debootstrap", "--variant=minbase", "bookworm", str(base)], seconds=MINUTES)
        run_command(["sh", "-c", f"tar -C {base} -c . >{base}.tar"], seconds=MINUTES)
        made("import", "--quiet", f"{base}.tar", "localhost/debian:bookworm-slim")
        build(made, directory)
        yield made
    finally:
        made("system", "reset", "--force", check=False)


def build(podman: Podman, directory: Path) -> None:
    environment = {**os.environ, "DIST": str(directory / "dist")}
    wheel = [str(REPOSITORY / "scripts/wheel.sh"), "--this-machine"]
    subprocess.run(wheel, env=environment, check=True, timeout=MINUTES)
    run_command(["cp", "-r", str(REPOSITORY / "contrib"), str(directory / "contrib")])
    # Where this machine reaches its package index through authorities of its own, pip in the build needs them too.
    (directory / "pip.conf").write_text("[global]\ncert = /etc/host-ca.crt\n")
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    volumes = ("--volume", f"{directory}/pip.conf:/etc/pip.conf:ro", "--volume", f"{authorities}:/etc/host-ca.crt:ro")
    for target in ("nucleus", "edge"):
        podman(
            *("build", "--quiet", "--network", "host", "--format", "docker", "--target", target, *volumes),
            *("--ulimit", "nofile=1024:4096", "--build-arg", "BASE=localhost/debian:bookworm-slim"),
            *("--tag", f"omninervous-{target}", "--file", "contrib/containers/Dockerfile", str(directory)),
        )


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
        podman("rm", "--force", "--all", check=False)
