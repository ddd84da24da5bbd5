"""The configuration of an edge: what fits together and what does not."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from omninervous.core.identity import Identity
from omninervous.errors import UserError
from omninervous.ganglion.config import EdgeConfig, EdgeOptions, PeerOptions, check_edge_options
from omninervous.ganglion.options import HostPort
from omninervous.wire.keytext import encode_key, encode_wireguard_key

OTHER = Identity.from_seed(bytes(range(32)))
KEY = encode_key(OTHER.public)
WIREGUARD = encode_wireguard_key(OTHER.x25519_public)
SECRET = "a secret of sixteen or more"


def check(**options: object) -> EdgeConfig:
    return check_edge_options(EdgeOptions(**options))  # type: ignore[arg-type]


def test_nothing_given_is_an_edge_with_defaults() -> None:
    config = check()
    assert (config.port, config.device, config.mtu, config.engine) == (51820, "omni0", 1380, "auto")
    assert (config.nuclei, config.peers, config.cluster, config.claim, config.iface) == ((), (), None, None, None)


def test_the_users_cluster_command() -> None:
    config = check(nuclei=("1.2.3.4:51820",), cluster="mynetwork", secret=SECRET, vip="10.200.0.1")
    assert config.nuclei[0].place == HostPort("1.2.3.4", 51820) and config.nuclei[0].key is None
    assert config.claim is not None and config.claim.address == IPv4Address("10.200.0.1") and config.claim.explicit
    assert config.claim.prefix == 13 and config.secret == SECRET


def test_the_users_pair_command() -> None:
    config = check(peers=(PeerOptions(KEY, "192.0.2.7:51820"),))
    (peer,) = config.peers
    assert (peer.ed25519, peer.x25519, peer.psk) == (OTHER.public, OTHER.x25519_public, bytes(32))
    assert peer.endpoint == HostPort("192.0.2.7", 51820)


def test_a_stock_wireguard_peer_is_known_by_its_key() -> None:
    (peer,) = check(peers=(PeerOptions(WIREGUARD, None, None, ("10.9.0.2/32",)),)).peers
    assert peer.ed25519 is None and peer.x25519 == OTHER.x25519_public
    assert [str(each) for each in peer.allowed_ips] == ["10.9.0.2/32"]


def test_no_secret_shows_in_a_repr(tmp_path: Path) -> None:
    assert SECRET not in repr(check(cluster="c", secret=SECRET))
    assert SECRET not in repr(EdgeOptions(secret=SECRET))


def test_a_pinned_nucleus_key_is_decoded() -> None:
    config = check(nuclei=(f"host#{KEY}",), cluster="c")
    assert config.nuclei[0].key == OTHER.public


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"nuclei": ("host",)}, "--nucleus needs --cluster"),
        ({"nuclei": ("host", "HOST:51820"), "cluster": "c"}, "--nucleus host:51820 is given twice"),
        ({"nuclei": ("host#abc",), "cluster": "c"}, "--nucleus host:51820"),
        ({"cluster": ""}, "--cluster"),
        ({"cluster": "c", "secret": "short"}, "--secret: .*at least 16"),
        ({"cluster": "c", "secret": ""}, "--secret"),
        ({"secret": SECRET}, "--secret needs --cluster"),
        ({"cluster": "c", "secret": SECRET, "secret_file": "x"}, "exclude each other"),
        ({"vip": "10.200.0.0"}, "--vip"),
        ({"vip": ""}, "--vip"),
        ({"engine": "fast"}, "--engine"),
        ({"aead": "rot13"}, "--aead 'rot13' is unknown: give one of auto, aes, chacha"),
        ({"queues": "0"}, "--queues '0' is out of range: give 1 to 6"),
        ({"queues": "7"}, "--queues"),
        ({"max_sessions_per_ip": "0"}, "--max-sessions-per-ip '0' is out of range: give 1 to 10000"),
        ({"metrics": "9751"}, "--metrics 9751: the port is missing"),
        ({"metrics": "localhost:9751"}, "--metrics localhost:9751: 'localhost' is no address"),
        ({"state_dir": ""}, "--state-dir"),
        ({"peers": (PeerOptions("abc"),)}, "--peer"),
        ({"peers": (PeerOptions(KEY), PeerOptions(KEY))}, "given twice"),
        ({"peers": (PeerOptions(KEY), PeerOptions(WIREGUARD, allowed_ips=("10.0.0.0/8",)))}, "given twice"),
        ({"peers": (PeerOptions(KEY, allowed_ips=("10.0.0.0/8",)),)}, "--allowed-ips is for stock WireGuard"),
        ({"peers": (PeerOptions(WIREGUARD),)}, "needs --allowed-ips"),
        ({"peers": (PeerOptions(KEY, "host"),)}, "--endpoint host: the port is missing"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options: dict[str, object], names: str) -> None:
    with pytest.raises(UserError, match=names):
        check(**options)


def test_a_mistyped_key_is_called_mistyped() -> None:
    typo = KEY[:20] + ("2" if KEY[20] != "2" else "3") + KEY[21:]
    with pytest.raises(UserError, match=r"--peer.*mistyped"):
        check(peers=(PeerOptions(typo),))


def test_the_secret_comes_from_its_option_or_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET} from the file\n")
    file.chmod(0o600)
    given = check(cluster="c", secret=SECRET)
    from_file = check(cluster="c", secret_file=str(file))
    from_environment = check(cluster="c", secret=SECRET, secret_origin="OMNI_SECRET")
    assert given.secret == SECRET and any("--secret-file" in note for note in given.notes)
    assert from_file.secret == f"{SECRET} from the file" and from_file.notes == ()
    assert from_environment.secret == SECRET and from_environment.notes == ()


def test_a_short_secret_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("short")
    with pytest.raises(UserError, match="--secret-file: .*16"):
        check(cluster="c", secret_file=str(file))
    with pytest.raises(UserError, match="OMNI_SECRET: .*16"):
        check(cluster="c", secret="short", secret_origin="OMNI_SECRET")


def test_what_the_operator_should_know_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    assert any("chmod 600" in note for note in check(cluster="c", secret_file=str(file)).notes)
    assert any("no secret" in note for note in check(cluster="c").notes)
    unused = check(secret=SECRET, secret_origin="OMNI_SECRET")
    assert unused.secret is None and any("OMNI_SECRET" in note for note in unused.notes)
    assert all(SECRET not in note for note in unused.notes)


def test_no_ebpf_is_ebpf_off() -> None:
    given: tuple[dict[str, object], ...] = ({}, {"no_ebpf": True}, {"ebpf": "tc"}, {"ebpf": "off", "no_ebpf": True})
    assert [check(**each).ebpf for each in given] == ["auto", "off", "tc", "off"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ebpf": "uprobe"}, "--ebpf 'uprobe' is unknown: give one of auto, xdp, tc, off"),
        ({"ebpf": "xdp", "no_ebpf": True}, "exclude each other"),
        ({"ebpf": "auto", "no_ebpf": True}, "exclude each other"),
        ({"ebpf": "tc", "engine": "reference"}, "needs the native engine"),
    ],
)
def test_an_impossible_wish_for_ebpf_is_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check(**given)
