"""wireguard-go on a machine of the lab: an independent implementation to talk to, and to measure against."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from omninervous.errors import SystemFailure
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process, poll_until, run_command

__all__ = ["DEVICE", "WireGuardGo", "WireGuardPeer", "find_wireguard_go", "generate_psk"]

DEVICE = "wg0"
_START_SECONDS = 10.0
_PRIVATE_RUN = 'mount -t tmpfs tmpfs /run && mkdir /run/wireguard && exec "$0" -f "$1"'
"""wireguard-go keeps its control socket under /run, by interface name: each machine gets a /run of its own."""


@dataclass(frozen=True, slots=True)
class WireGuardPeer:
    """A peer as `wg set` takes it."""

    public_key: str
    allowed_ips: str
    endpoint: str | None = None
    psk: str | None = None
    keepalive: int = 0


class WireGuardGo:
    """A running wireguard-go with an interface `wg0`."""

    def __init__(self, lab: Lab, where: Namespace, name: str, address: str, port: int, mtu: int = 1420) -> None:
        self.where = where
        self.port = port
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _PRIVATE_RUN, find_wireguard_go(), DEVICE]
        self.process: Process = lab.start(where, name, argv, {"LOG_LEVEL": "error"})
        if not poll_until(lambda: self._wg("show", DEVICE, check=False), _START_SECONDS):
            raise SystemFailure(f"wireguard-go did not start: {self.process.tail()}")
        self._private_key = run_command(["wg", "genkey"]).stdout
        self.public_key = run_command(["wg", "pubkey"], text_in=self._private_key).stdout.strip()
        self._wg("set", DEVICE, "listen-port", str(port), "private-key", "/dev/stdin", text_in=self._private_key)
        where.ip_batch(f"address add {address} dev {DEVICE}", f"link set {DEVICE} mtu {mtu} up")

    def set_peer(self, peer: WireGuardPeer) -> None:
        """Add or change a peer."""
        arguments = ["peer", peer.public_key, "allowed-ips", peer.allowed_ips]
        if peer.endpoint is not None:
            arguments += ["endpoint", peer.endpoint]
        if peer.keepalive:
            arguments += ["persistent-keepalive", str(peer.keepalive)]
        if peer.psk is not None:
            arguments += ["preshared-key", "/dev/stdin"]
        self._wg("set", DEVICE, *arguments, text_in=peer.psk)

    def set_peers(self, peers: Iterable[tuple[str, str]]) -> None:
        """Add many that will call: public key and allowed addresses of each."""
        several = [("peer", key, "allowed-ips", allowed) for key, allowed in peers]
        self._wg("set", DEVICE, *chain.from_iterable(several))

    def listen(self, port: int) -> None:
        """Move to another UDP port."""
        self._wg("set", DEVICE, "listen-port", str(port))
        self.port = port

    def expire_sessions(self) -> None:
        """Make its next packet start a new handshake, while the peer still holds the old session.

        wireguard-go expires its key pairs when its private key changes; changing it back changes nothing else.
        """
        for key in (run_command(["wg", "genkey"]).stdout, self._private_key):
            self._wg("set", DEVICE, "private-key", "/dev/stdin", text_in=key)

    def endpoint_of(self, public_key: str) -> str:
        """Where it sends to for that peer; `(none)` if it does not know."""
        return self._column("endpoints", public_key)

    def handshake_of(self, public_key: str) -> int:
        """When the last handshake with that peer was, in seconds since 1970; 0 if never."""
        return int(self._column("latest-handshakes", public_key) or 0)

    def _column(self, what: str, public_key: str) -> str:
        for line in self._wg("show", DEVICE, what).splitlines():
            key, _, value = line.partition("\t")
            if key == public_key:
                return value
        return ""

    def _wg(self, *arguments: str, check: bool = True, text_in: str | None = None) -> str:
        where: Sequence[str] = ("nsenter", f"--target={self.process.pid}", "--mount", "--net", "--")
        return run_command([*where, "wg", *arguments], check=check, text_in=text_in).stdout


def find_wireguard_go() -> str:
    """The newest wireguard-go: the one that `make setup` built, else on PATH. SystemFailure with the remedy."""
    built = [parent / ".tools" / "bin" / "wireguard" for parent in (Path.cwd(), *Path(sys.prefix).parents)]
    found = next((str(path) for path in built if os.access(path, os.X_OK)), None)
    found = found or shutil.which("wireguard-go") or shutil.which("wireguard")
    if found is None:
        raise SystemFailure(
            "wireguard-go was not found: `make setup` builds it, or `go install golang.zx2c4.com/wireguard@latest`"
        )
    return found


def generate_psk() -> str:
    """A fresh pre-shared key, as `wg genpsk` prints it."""
    return run_command(["wg", "genpsk"]).stdout
