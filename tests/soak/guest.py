"""The Linux kernel's own WireGuard, in a virtual machine beside a machine of the lab.

    ours: omni0 10.9.0.1 | a: eth0 (TAP) 10.77.0.1 ------- 10.77.0.2 eth0 :VM | wg0 10.9.0.2 :theirs

The guest does what its script says. `step` lets it go on at `next_step`; what it sees it writes to its serial line,
once a second this:

    wg <our endpoint> <second of the latest handshake> <bytes received> <bytes sent>
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process, poll_until, run_command
from omninervous.lab.topology import Host
from omninervous.lab.vm import GuestKernel, build_initramfs, qemu_command

__all__ = ["IPERF_PORTS", "OURS", "PORT", "THEIRS", "Guest", "Sighting", "machine_beside_guest"]

OURS, THEIRS = "10.9.0.1", "10.9.0.2"
PORT = 51820
IPERF_PORTS = (5201, 5202)
"""The guest serves one run at each."""
_ADDRESS, _GUEST_ADDRESS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
_STEP_PORT = 7000
_BOOT_SECONDS = 90.0
_MODULES = ("virtio_pci", "virtio_net", "wireguard")
_PROGRAMS = ("wg", "iperf3")

_SCRIPT = """
next_step() { nc -l -p %(step)d </dev/null >/dev/null; }
peer() { wg show wg0 "$1" | cut -f2-; }
ip address add %(address)s/24 dev eth0 && ip link set eth0 up || exit 3
ip link add wg0 type wireguard || exit 4
echo '%(private)s' >/tmp/key; echo '%(psk)s' >/run/psk
wg set wg0 listen-port %(port)d private-key /tmp/key peer '%(ours)s' allowed-ips %(our_vip)s/32 %(more)s || exit 5
ip address add %(vip)s/24 dev wg0 && ip link set wg0 mtu 1420 up || exit 6
for port in %(iperf_ports)s; do iperf3 -s -1 -p $port >/dev/null & done
(while sleep 1; do echo "wg $(peer endpoints) $(peer latest-handshakes) $(peer transfer)"; done) &
echo guest ready
%(steps)s
"""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One look at the guest's peer, which is us."""

    endpoint: str
    handshake: int
    """Second of the latest handshake since 1970, by the guest's clock; 0 if there was none."""
    received: int
    sent: int


def machine_beside_guest(lab: Lab) -> Host:
    """A machine whose eth0 is the TAP that the guest will be behind."""
    namespace = lab.namespace("a")
    namespace.ip_batch("tuntap add eth0 mode tap", f"address add {_ADDRESS}/24 dev eth0", "link set eth0 up")
    return Host(namespace, "eth0", _ADDRESS)


class Guest:
    """A virtual machine with a WireGuard interface."""

    endpoint = f"{_GUEST_ADDRESS}:{PORT}"

    def __init__(self, lab: Lab, kernel: Path) -> None:
        self._lab = lab
        self._kernel = GuestKernel.find(kernel)
        self._private = run_command(["wg", "genkey"]).stdout.strip()
        self.public_key = run_command(["wg", "pubkey"], text_in=self._private).stdout.strip()
        self._process: Process | None = None

    def boot(self, beside: Host, our_key: str, *, knows_us: bool, psk: str | None, steps: str) -> None:
        """Start it; returns when its interface is up. `knows_us`: it has our endpoint, and so may begin."""
        more = [f"endpoint {beside.address}:{PORT}"] * knows_us + ["preshared-key /run/psk"] * bool(psk)
        script = _SCRIPT % {
            "step": _STEP_PORT,
            "address": _GUEST_ADDRESS,
            "private": self._private,
            "psk": (psk or "").strip(),
            "port": PORT,
            "ours": our_key,
            "our_vip": OURS,
            "vip": THEIRS,
            "more": " ".join(more),
            "iperf_ports": " ".join(map(str, IPERF_PORTS)),
            "steps": steps,
        }
        image = self._lab.directory / "guest.cpio"
        build_initramfs(self._kernel, image, _MODULES, _PROGRAMS, script)
        argv = qemu_command(self._kernel, image, beside.interface, "02:00:00:00:00:02")
        self._process = self._lab.start(beside.namespace, "guest", argv)
        self._process.wait_for_output("guest ready", _BOOT_SECONDS)
        self._beside = beside

    def step(self) -> None:
        """Let the script go on at its `next_step`."""

        def knock() -> bool:
            try:
                self._beside.namespace.call(
                    lambda: socket.create_connection((str(_GUEST_ADDRESS), _STEP_PORT), 2.0).close()
                )
            except OSError:
                return False
            return True

        assert poll_until(knock, 10.0), "the guest does not wait for a step"

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Wait until it has said so."""
        assert self._process is not None
        self._process.wait_for_output(text, seconds)

    def finish(self) -> None:
        """Its script has ended well, and it has powered off."""
        assert self._process is not None
        assert self._process.wait(20.0) == 0
        assert re.search(r"^exit 0\s*$", self._process.output(), re.MULTILINE), self._process.tail()

    def losses(self) -> list[int]:
        """Percentages that its pings ended with, in order."""
        assert self._process is not None
        return [int(share) for share in re.findall(r"(\d+)% packet loss", self._process.output())]

    def sightings(self) -> list[Sighting]:
        """All looks at us so far."""
        assert self._process is not None
        lines = re.findall(r"^wg (\S+) (\d+) (\d+)\s(\d+)\s*$", self._process.output(), re.MULTILINE)
        return [Sighting(where, int(when), int(received), int(sent)) for where, when, received, sent in lines]

    def handshakes(self) -> list[int]:
        """Seconds of the handshakes that it has seen, in order."""
        return list(dict.fromkeys(each.handshake for each in self.sightings() if each.handshake))
