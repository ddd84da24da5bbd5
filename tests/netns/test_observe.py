"""`omni events` tells what happened, `omni bundle` holds all that helps and no secret."""

from __future__ import annotations

import base64
import json
import os
import tarfile
from pathlib import Path

import pytest

from omninervous.core.identity import Identity
from omninervous.core.secret import derive_cluster
from omninervous.hostos.state import StateDir
from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import SECRET, Pair, ping, vip, wait_for


@pytest.fixture
def pair(lab: Lab, pair_lan: tuple[Host, Host]) -> Pair:
    return Pair(lab, pair_lan)


def test_events_tell_of_handshakes_paths_and_refusals(pair: Pair, lab: Lab) -> None:
    pair.start()
    a, b = (host.namespace for host in pair.hosts)
    omni = [find_command("omni"), "--state-dir", str(pair.a.state_dir)]
    follow = lab.start(a, "follow", [*omni, "events", "--follow", "--json"])
    follow.wait_for_output('"event": "peer_up"', 20.0)

    b.ip_batch("address del 10.77.0.2/24 dev eth0", "address add 10.77.0.99/24 dev eth0")
    assert ping(b, vip(pair.a), 10).received >= 1
    follow.wait_for_output('"event": "path_changed"', 20.0)

    stranger = Daemon(lab, b, "stranger")
    stranger.init()
    stranger.launch("--peer", pair.key_a, "--endpoint", "10.77.0.1:51820", "--dev", "omni1", "--port", "7000")
    follow.wait_for_output('"reason": "unknown_initiator"', 30.0)

    pair.b.process.stop()
    follow.wait_for_output('"event": "peer_down"', 20.0)
    told = [json.loads(line) for line in follow.output().splitlines()]
    assert [each["number"] for each in told] == sorted({each["number"] for each in told})
    moved = next(each for each in told if each["event"] == "path_changed")
    assert moved["endpoint"].startswith("10.77.0.99:") and moved["before"].startswith("10.77.0.2:") and moved["cause"]
    refused = next(each for each in told if each["event"] == "refused")
    assert refused["cause"] and refused["level"] == "warning"
    assert "10.77" not in json.dumps(refused), "nobody unproven gets an address into it"

    for_people = a.run(*omni, "events").stdout
    assert "path_changed" in for_people and "\x1b" not in for_people


def test_a_nucleus_tells_totals(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    nucleus = Daemon(lab, pair_lan[0].namespace, "nucleus").launch("--mode", "nucleus", "--port", "51821").wait_ready()
    edge = Daemon(lab, pair_lan[1].namespace, "edge")
    edge.launch("--nucleus", "10.77.0.1:51821", "--cluster", "c", environment={"OMNI_SECRET": SECRET}).wait_ready()
    wait_for("the registration", lambda: '"registered"' in json.dumps(nucleus.peek("events")))


def test_a_bundle_holds_what_helps_and_no_secret(lab: Lab, pair_lan: tuple[Host, Host], tmp_path: Path) -> None:
    psk = os.urandom(32)
    psk_file, config, target = tmp_path / "psk", tmp_path / "edge.toml", tmp_path / "bundle.tar.gz"
    psk_file.write_text(base64.b64encode(psk).decode())
    other = Daemon(lab, pair_lan[1].namespace, "other").init()
    config.write_text(
        f'[network]\nnucleus = "10.77.0.2:51821"\ncluster = "c"\n[security]\nsecret = "{SECRET}"\n'
        f'[[peer]]\nkey = "{other}"\nendpoint = "10.77.0.2:51820"\npsk_file = "{psk_file}"\n'
    )
    config.chmod(0o600)
    edge = Daemon(lab, pair_lan[0].namespace, "edge").launch("--config", str(config)).wait_ready()
    command = [find_command("omni"), "--state-dir", str(edge.state_dir), "bundle", "--config", str(config), str(target)]
    done = edge.where.run(*command, seconds=90.0)
    assert done.stdout.strip() == str(target) and target.stat().st_mode & 0o777 == 0o600

    with tarfile.open(target) as archive:
        files = {Path(each.name).name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
    wanted = {"status.json", "peers.json", "events.json", "doctor.json", "config.json", "versions.json", "nftables.txt"}
    assert wanted <= files.keys()
    assert json.loads(files["status.json"])["mode"] == "edge" and b"omni0" in files["ip-link.txt"]
    assert b"***" in files["config.json"] and json.loads(files["doctor.json"])

    seed = StateDir(edge.state_dir).load_seed()
    assert seed is not None
    keys = derive_cluster("c", SECRET)
    everything = b"\n".join(files.values())
    for secret in (seed, Identity.from_seed(seed).x25519_private, SECRET.encode(), psk, keys.psk, keys.signing_seed):
        for spelling in spellings(secret):
            assert spelling not in everything, f"{spelling[:6]!r}... of a secret is in the bundle"

    again = edge.where.run(*command, check=False)
    assert again.returncode == 2 and "is there already" in again.stderr


def spellings(secret: bytes) -> set[bytes]:
    """A secret as it could be written down; a list of its own, so that the command's cannot hide a gap."""
    text = {
        secret.hex(),
        secret.hex().upper(),
        secret.hex(":"),
        secret.hex(" "),
        str(list(secret))[1:-1],
        repr(secret)[2:-1],
    }
    encoded = {base64.b64encode(secret), base64.urlsafe_b64encode(secret), base64.b32encode(secret)}
    encoded |= {base64.b85encode(secret), base64.a85encode(secret)}
    encoded = {each.rstrip(b"=") for each in encoded}
    for before in (1, 2):
        encoded.add(base64.b64encode(bytes(before) + secret)[4:-4])
    escaped = {json.dumps(secret.decode("latin-1"))[1:-1].encode(), "".join(f"%{byte:02x}" for byte in secret).encode()}
    return {secret, secret[::-1], *encoded, *escaped, *(each.encode() for each in text)}
