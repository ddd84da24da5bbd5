"""An edge in a virtual machine with another kernel, beside a machine of the lab.

    ours: omni0 10.200.0.1 | a: eth0 (TAP) 10.77.0.1 ------- 10.77.0.2 eth0 :VM | omni0 10.200.0.2 :guest

The guest gets this very installation, file by file, at the same paths: Python, the locked runtime packages, the source,
the native module.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import omninervous
from omninervous.lab.daemons import PAIR_VIPS, Daemon, find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process
from omninervous.lab.topology import Host
from omninervous.lab.vm import GuestKernel, build_initramfs, qemu_command

__all__ = ["EdgeGuest", "machine_beside_edge"]

PORT = 51820
MEMORY_MIB = 1024
BOOT_SECONDS = 600.0
"""Of an emulated processor, on a machine that may be busy; alone it takes a minute or two."""
ADDRESS, GUEST_ADDRESS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
_REPOSITORY = Path(__file__).resolve().parents[2]
_MODULES = ("virtio_pci", "virtio_net", "ipv6", "tun", "sch_ingress", "cls_bpf")
_NOT_FOR_RUNNING = re.compile(r"/(test|tests|idlelib|tkinter|ensurepip|lib2to3|turtledemo|config-[^/]*)(/|$)")

_SCRIPT = """
mount -t bpf none /sys/fs/bpf 2>/dev/null
ip address add %(address)s/24 dev eth0 && ip link set eth0 up || exit 3
omni="%(omni)s --state-dir %(state)s"
echo guest begins
%(daemon)s --state-dir %(state)s --log-format json --peer '%(peer)s' --endpoint %(endpoint)s --vip %(vip)s &
until $omni status --json >/tmp/status 2>/dev/null; do sleep 1; done
echo "guest ready $(uname -r)"
for second in $(seq 600); do
    sleep 2
    $omni status --json | tr -d '\\n' | sed 's/^/status /'; echo
    $omni peers --json | tr -d '\\n' | sed 's/^/peers /'; echo
done
"""


def machine_beside_edge(lab: Lab) -> Host:
    """A machine whose eth0 is the TAP that the guest will be behind."""
    namespace = lab.namespace("a")
    namespace.ip_batch("tuntap add eth0 mode tap", f"address add {ADDRESS}/24 dev eth0", "link set eth0 up")
    return Host(namespace, "eth0", ADDRESS)


class EdgeGuest:
    """A virtual machine that runs omni-daemon."""

    def __init__(self, lab: Lab, kernel: Path) -> None:
        self._lab = lab
        self._kernel = GuestKernel.find(kernel)
        self._identity = Daemon(lab, lab.namespace("identity"), "guest")
        self.key = self._identity.init()
        self._process: Process | None = None

    def boot(self, beside: Host, peer: str) -> None:
        """Start it; returns when its daemon answers."""
        script = _SCRIPT % {
            "address": GUEST_ADDRESS,
            "omni": find_command("omni"),
            "daemon": find_command("omni-daemon"),
            "state": self._identity.state_dir,
            "peer": peer,
            "endpoint": f"{beside.address}:{PORT}",
            "vip": PAIR_VIPS[1],
        }
        image = self._lab.directory / "edge.cpio"
        files = [*_installation(), *self._identity.state_dir.iterdir()]
        build_initramfs(self._kernel, image, _MODULES, [sys.executable], script, files)
        argv = qemu_command(self._kernel, image, beside.interface, "02:00:00:00:00:02", memory_mib=MEMORY_MIB)
        self._process = self._lab.start(beside.namespace, "guest", argv)
        self._process.wait_for_output("guest ready", BOOT_SECONDS)

    def said(self, what: str) -> dict[str, Any]:
        """Its newest `status` or `peers`; empty before the first."""
        assert self._process is not None
        found = re.findall(rf"^{what} (\{{.*\}})\s*$", self._process.output(), re.MULTILINE)
        return dict(json.loads(found[-1])) if found else {}


def _installation() -> Iterator[Path]:
    """Every file that the daemon needs to run, as it is here."""
    base = Path(sys.base_prefix)
    standard = base / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield Path(sys.prefix) / "pyvenv.cfg"
    yield from (each for each in (Path(sys.prefix) / "bin").glob("python*"))
    yield from (Path(find_command(name)) for name in ("omni", "omni-daemon"))
    yield from base.glob("bin/python3*")
    yield from (
        each for each in standard.rglob("*") if _runs(each.relative_to(base)) and "site-packages" not in each.parts
    )
    names = re.findall(
        r"^([A-Za-z0-9._-]+)==", (_REPOSITORY / "requirements" / "runtime.txt").read_text(), re.MULTILINE
    )
    for name in [*names, "omninervous"]:
        for file in importlib.metadata.files(name) or ():
            yield Path(str(file.locate()))
    yield from (Path(sys.prefix) / "lib").glob("python*/site-packages/omninervous.pth")
    yield from (each for each in Path(omninervous.__file__).parent.rglob("*") if _runs(each))


def _runs(path: Path) -> bool:
    return not _NOT_FOR_RUNNING.search(f"/{path}")
