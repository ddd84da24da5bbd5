"""A support archive: what somebody far away needs to see, and no secret. Addresses and public keys are in it.

Nothing is copied from the state directory. What goes in is searched for every secret that this machine has before the
file gets its name: a bug must not publish a key.
"""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import omninervous
from omninervous.cli.config import described_settings
from omninervous.cli.diagnose import diagnose
from omninervous.cli.layers import gather
from omninervous.core.identity import Identity
from omninervous.core.secret import derive_cluster
from omninervous.errors import OmniError, SystemFailure, UserError
from omninervous.ganglion.options import read_psk_file, read_secret_file
from omninervous.hostos.control import request
from omninervous.hostos.state import StateDir

__all__ = ["default_name", "spellings", "write_bundle"]

_COMMANDS = {
    "ip-link": ("ip", "-d", "-s", "link"),
    "ip-address": ("ip", "address"),
    "ip-route": ("ip", "route", "show", "table", "all"),
    "ip-neighbours": ("ip", "neighbour"),
    "sockets": ("ss", "-uanp"),
    "nftables": ("nft", "list", "ruleset"),
    "qdiscs": ("tc", "-s", "qdisc"),
    "kernel": ("uname", "-a"),
}
_QUESTIONS = ("status", "peers", "events")
_SECONDS = 10.0


def default_name() -> Path:
    """In the working directory, by host and time."""
    host = "".join(char for char in socket.gethostname() if char.isalnum() or char == "-")
    return Path(f"omni-bundle-{host}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")


def write_bundle(target: Path, state_dir: Path, config: str | None) -> None:
    """Write the archive, 0600. UserError if the file is there already."""
    if target.exists():
        raise UserError(f"{target} is there already: name another file, or remove it")
    members = dict(_members(state_dir, config))
    for name, data in members.items():
        if any(spelling in data for secret in _secrets(state_dir, config) for spelling in spellings(secret)):
            raise SystemFailure(f"{name} would hold a secret, so no archive was written: please report this")
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, data in members.items():
                entry = tarfile.TarInfo(f"{target.name.removesuffix('.tar.gz')}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error


def _members(state_dir: Path, config: str | None) -> Iterator[tuple[str, bytes]]:
    yield "versions.json", _json(_versions())
    for question in _QUESTIONS:
        try:
            more = {"limit": 1024} if question == "events" else {}
            yield f"{question}.json", _json(request(state_dir, question, **more))
        except OmniError as error:
            yield f"{question}.txt", f"{error}\n".encode()
    try:
        yield "config.json", _json(described_settings(gather({}, (), config)))
    except OmniError as error:
        yield "config.txt", f"{error}\n".encode()
    yield "doctor.json", _json([asdict(each) for each in diagnose(state_dir, config)])
    for name, command in _COMMANDS.items():
        yield f"{name}.txt", _output(command)


def _versions() -> dict[str, Any]:
    names = ("cryptography", "msgspec", "prometheus-client", "pynacl", "pyroute2", "structlog", "uvloop")
    return {
        "omninervous": omninervous.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "packages": {name: metadata.version(name) for name in names},
    }


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _output(command: tuple[str, ...]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"$ {' '.join(command)}\n{error}\n".encode()
    return f"$ {' '.join(command)}\n".encode() + done.stdout + done.stderr


# ---------------------------------------------------------------- secrets


def _secrets(state_dir: Path, config: str | None) -> Iterator[bytes]:
    """Every secret that this machine keeps, as far as it can be read."""
    try:
        seed = StateDir(state_dir).load_seed()
        if seed is not None:
            yield seed
            yield Identity.from_seed(seed).x25519_private
        layers = gather({}, (), config)
        secret, file = layers.text("secret"), layers.text("secret_file")
        if secret is None and file is not None:
            secret = read_secret_file(file)
        if secret is not None:
            yield secret.encode()
            if (cluster := layers.text("cluster")) is not None:
                keys = derive_cluster(cluster, secret)
                yield from (keys.psk, keys.signing_seed)
        for peer in layers.peers:
            if peer.psk_file is not None:
                yield read_psk_file(peer.psk_file)
    except OmniError:
        return


def spellings(secret: bytes) -> set[bytes]:
    """The secret as it is, in hex, and in base64 and base32, also from the middle of something longer."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), secret.hex(":").encode()}
    for before in range(3):
        # Whole groups of three bytes are the same letters wherever they begin; the ends mix with their neighbours.
        padded = bytes(before) + secret
        whole = padded[3 if before else 0 : len(padded) // 3 * 3]
        found |= {base64.b64encode(whole), base64.urlsafe_b64encode(whole)}
    found.add(base64.b32encode(secret).rstrip(b"="))
    found.add(base64.b85encode(secret))
    found.add(json.dumps(secret.decode("latin-1")).strip('"').encode())
    return {each for each in found if len(each) >= 8}
