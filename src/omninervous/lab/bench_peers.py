"""Who takes part in `omni bench`: each contestant between two machines of its own, set up as its manual says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from itertools import chain
from pathlib import Path

from omninervous.errors import SystemFailure
from omninervous.lab.bench_crowd import Crowd
from omninervous.lab.bench_rows import JUMBO, Scene, Track
from omninervous.lab.daemons import PAIR_VIPS, start_pair
from omninervous.lab.namespaces import Lab
from omninervous.lab.null_cipher import null_cipher_package
from omninervous.lab.process import run_command
from omninervous.lab.topology import Host, pair_lan
from omninervous.lab.wireguard import WireGuardGo, WireGuardPeer
from omninervous.wire.address import Endpoint

__all__ = ["BASELINE", "DEFAULT_PEERS", "PEERS"]

BASELINE = "wireguard-go"
DEFAULT_PEERS = (
    *("raw", "omninervous", "omninervous-xdp", "omninervous-userspace", "omninervous-chacha"),
    BASELINE,
)
_PORT = 51820
_OURS_JUMBO, _WIREGUARD_JUMBO = 8900, 8920
"""MTU of the tunnel on an underlay of 9000; both leave room for the outer headers over IPv6."""

Contestant = Callable[[Lab, Scene, str], Track]
"""Lab, scene, engine of our edges. Who cannot have a crowd has a track without one."""


def _hosts(lab: Lab, name: str, scene: Scene) -> tuple[Host, Host]:
    tag = f"{name}{'-' if scene.name else ''}{scene.name}"
    return pair_lan(lab, mtu=scene.mtu, roles=(f"{tag}-a", f"{tag}-b"))


def _raw(lab: Lab, scene: Scene, _engine: str) -> Track:
    a, b = _hosts(lab, "raw", scene)
    return Track(lab, a.namespace, b.namespace, b.address)


def _omninervous(
    name: str, options: tuple[str, ...], lab: Lab, scene: Scene, engine: str, prefix: tuple[str, ...] = ()
) -> Track:
    a, b = _hosts(lab, name, scene)
    inner = ("--mtu", str(_OURS_JUMBO)) if scene is JUMBO else ()
    crowd = Crowd(scene.crowd) if scene.crowd else None
    beside = _crowd_options(crowd) if crowd else ()
    ends = start_pair(lab, (a, b), "--engine", engine, *options, *inner, second=beside, prefix=prefix)
    processes = tuple(each.process for each in ends)
    key = ends[1].peek("status")["wireguard_public_key"]
    return Track(lab, a.namespace, b.namespace, PAIR_VIPS[1], processes, _listens(b), crowd, key)


def _crowd_options(crowd: Crowd) -> tuple[str, ...]:
    peers = (("--peer", key, "--allowed-ips", inner) for key, inner in crowd.members())
    return ("--max-sessions-per-ip", "10000", *chain.from_iterable(peers))


def _without_cipher(lab: Lab, scene: Scene, engine: str) -> Track:
    prefix = ("env", f"PYTHONPATH={null_cipher_package(lab.directory, f'{scene.name}{scene.mtu}')}")
    return _omninervous("omni-null", ("--ebpf", "off"), lab, scene, engine, prefix)


def _wireguard_go(lab: Lab, scene: Scene, _engine: str) -> Track:
    a, b = _hosts(lab, "wg", scene)
    inner = {"mtu": _WIREGUARD_JUMBO} if scene is JUMBO else {}
    ends = [
        WireGuardGo(lab, host.namespace, host.namespace.role, f"10.9.0.{number}/24", _PORT, **inner)
        for number, host in enumerate((a, b), start=1)
    ]
    ends[0].set_peer(WireGuardPeer(ends[1].public_key, "10.9.0.2/32", f"{b.address}:{_PORT}"))
    ends[1].set_peer(WireGuardPeer(ends[0].public_key, "10.9.0.1/32", f"{a.address}:{_PORT}"))
    crowd = Crowd(scene.crowd) if scene.crowd else None
    if crowd:
        ends[1].set_peers(crowd.members())
    processes = tuple(each.process for each in ends)
    vip = IPv4Address("10.9.0.2")
    return Track(lab, a.namespace, b.namespace, vip, processes, _listens(b), crowd, ends[1].public_key)


def _listens(host: Host) -> Endpoint:
    return Endpoint(str(host.address), _PORT)


# ---------------------------------------------------------------- Debian's


def _command(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise SystemFailure(f"{name} was not found: apt-get install --no-install-recommends {package}, or leave it out")
    return found


def _folders(lab: Lab, hosts: tuple[Host, Host]) -> list[Path]:
    made = [lab.directory / host.namespace.role for host in hosts]
    for each in made:
        each.mkdir()
    return made


def _tinc(lab: Lab, scene: Scene, _engine: str) -> Track:
    """tinc 1.0 as a switch, its usual ciphers."""
    tincd = _command("tincd", "tinc")
    hosts = _hosts(lab, "tinc", scene)
    folders = _folders(lab, hosts)
    for number, (host, folder) in enumerate(zip(hosts, folders, strict=True)):
        (folder / "hosts").mkdir()
        other = f"ConnectTo = n{1 - number}\n" if number == 0 else ""
        (folder / "tinc.conf").write_text(
            f"Name = n{number}\nMode = switch\nInterface = vpn0\nDeviceType = tap\n{other}"
        )
        (folder / "hosts" / f"n{number}").write_text(f"Address = {host.address}\nPort = {_PORT}\n")
        up = folder / "tinc-up"
        up.write_text(f"#!/bin/sh\nip link set vpn0 up\nip address add 10.9.0.{number + 1}/24 dev vpn0\n")
        up.chmod(0o755)
        run_command([tincd, "-c", str(folder), "-K2048"], text_in="\n\n")
    for number in range(2):
        shutil.copy(folders[number] / "hosts" / f"n{number}", folders[1 - number] / "hosts")
    processes = []
    for host, folder in zip(hosts, folders, strict=True):
        argv = [tincd, "-c", str(folder), "-D", f"--pidfile={folder}/pid", f"--logfile={folder}/log"]
        processes.append(lab.start(host.namespace, host.namespace.role, argv))
    return Track(lab, hosts[0].namespace, hosts[1].namespace, IPv4Address("10.9.0.2"), tuple(processes))


def _fastd(lab: Lab, scene: Scene, _engine: str) -> Track:
    """fastd in TAP mode with its recommended method."""
    fastd = _command("fastd", "fastd")
    hosts = _hosts(lab, "fastd", scene)
    folders = _folders(lab, hosts)
    secrets = [run_command([fastd, "--machine-readable", "--generate-key"]).stdout.strip() for _ in hosts]
    publics = [
        run_command(
            [fastd, "--machine-readable", "--show-key", "--config", "-"], text_in=f'secret "{each}";\n'
        ).stdout.strip()
        for each in secrets
    ]
    processes = []
    for number, (host, folder) in enumerate(zip(hosts, folders, strict=True)):
        other = hosts[1 - number]
        up = f"ip link set vpn0 up; ip address add 10.9.0.{number + 1}/24 dev vpn0"
        (folder / "fastd.conf").write_text(
            f'mode tap;\ninterface "vpn0";\nmtu {scene.mtu - 94};\nmethod "salsa2012+umac";\n'
            f"bind {host.address}:{_PORT};\n"
            f'secret "{secrets[number]}";\non up "{up}";\n'
            f'peer "other" {{ key "{publics[1 - number]}"; remote {other.address}:{_PORT}; }}\n'
        )
        processes.append(
            lab.start(host.namespace, host.namespace.role, [fastd, "--config", str(folder / "fastd.conf")])
        )
    return Track(lab, hosts[0].namespace, hosts[1].namespace, IPv4Address("10.9.0.2"), tuple(processes))


def _nebula(lab: Lab, scene: Scene, _engine: str) -> Track:
    """nebula with AES, one side a lighthouse."""
    nebula, cert = _command("nebula", "nebula"), _command("nebula-cert", "nebula")
    hosts = _hosts(lab, "nebula", scene)
    folders = _folders(lab, hosts)
    ca = folders[0]
    run_command([cert, "ca", "-name", "bench", "-out-crt", str(ca / "ca.crt"), "-out-key", str(ca / "ca.key")])
    processes = []
    for number, (host, folder) in enumerate(zip(hosts, folders, strict=True)):
        inner = f"10.9.0.{number + 1}"
        signer = ("-ca-crt", str(ca / "ca.crt"), "-ca-key", str(ca / "ca.key"))
        into = ("-out-crt", str(folder / "n.crt"), "-out-key", str(folder / "n.key"))
        run_command([cert, "sign", "-name", f"n{number}", "-ip", f"{inner}/24", *signer, *into])
        anybody = [{"port": "any", "proto": "any", "host": "any"}]
        # JSON is YAML.
        config = {
            "pki": {"ca": str(ca / "ca.crt"), "cert": str(folder / "n.crt"), "key": str(folder / "n.key")},
            "static_host_map": {"10.9.0.1": [f"{hosts[0].address}:{_PORT}"]},
            "lighthouse": {"am_lighthouse": number == 0, "hosts": [] if number == 0 else ["10.9.0.1"]},
            "listen": {"host": str(host.address), "port": _PORT},
            "cipher": "aes",
            "tun": {"dev": "vpn0", "mtu": scene.mtu - 200},
            "firewall": {"outbound": anybody, "inbound": anybody},
            "logging": {"level": "warning"},
        }
        (folder / "config.yml").write_text(json.dumps(config))
        argv = [nebula, "-config", str(folder / "config.yml")]
        processes.append(lab.start(host.namespace, host.namespace.role, argv))
    return Track(lab, hosts[0].namespace, hosts[1].namespace, IPv4Address("10.9.0.2"), tuple(processes))


PEERS: dict[str, Contestant] = {
    "raw": _raw,
    "omninervous": partial(_omninervous, "omni", ()),
    "omninervous-xdp": partial(_omninervous, "omni-xdp", ("--ebpf", "xdp")),
    "omninervous-userspace": partial(_omninervous, "omni-user", ("--ebpf", "off")),
    "omninervous-null": _without_cipher,
    "omninervous-chacha": partial(_omninervous, "omni-chacha", ("--ebpf", "off", "--aead", "chacha")),
    BASELINE: _wireguard_go,
    "fastd": _fastd,
    "nebula": _nebula,
    "tinc": _tinc,
}
