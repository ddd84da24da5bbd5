"""A flag beats the environment, the environment beats the file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from omninervous.cli.layers import Layers, foreign, gather
from omninervous.cli.omni import omni
from omninervous.cli.run import run
from omninervous.cli.settings import PEER_SETTINGS, SETTINGS
from omninervous.core.identity import Identity
from omninervous.errors import UserError
from omninervous.ganglion.config import PeerOptions, check_edge_options
from omninervous.wire.keytext import encode_key
from tests.conftest import REPOSITORY

KEY = encode_key(Identity.from_seed(bytes(range(32))).public)
SECRET = "a secret of sixteen or more"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(
        f'[daemon]\nport = 1001\nname = "file"\n[network]\ncluster = "file"\nmtu = 1400\n'
        f'[security]\nsecret = "{SECRET} file"\n[[peer]]\nkey = "{KEY}"\n'
    )
    return path


ENVIRON = {"OMNI_PORT": "1002", "OMNI_CLUSTER": "environment", "OMNI_NO_EBPF": "1"}


def test_each_layer_beats_the_one_below(file: Path) -> None:
    layers = gather({"port": 1003}, (), str(file), ENVIRON)
    shown = {name: (layers.value(name), layers.origin(name)) for name in ("port", "cluster", "name", "dev", "no_ebpf")}
    assert shown == {
        "port": (1003, "--port"),
        "cluster": ("environment", "OMNI_CLUSTER"),
        "name": ("file", f"{file}:3"),
        "dev": ("omni0", "default"),
        "no_ebpf": (True, "OMNI_NO_EBPF"),
    }
    config = check_edge_options(layers.edge_options())
    assert (config.port, config.cluster, config.name, config.mtu) == (1003, "environment", "file", 1400)


def test_peers_of_a_higher_layer_replace_those_below(file: Path) -> None:
    assert gather({}, (), str(file), {}).peers == (PeerOptions(KEY),)
    environ = {"OMNI_PEER": KEY, "OMNI_ENDPOINT": "192.0.2.1:7", "OMNI_ALLOWED_IPS": "10.0.0.0/8, fd00::/64"}
    (peer,) = gather({}, (), str(file), environ).peers
    assert peer == PeerOptions(KEY, "192.0.2.1:7", None, ("10.0.0.0/8", "fd00::/64"))
    given = (PeerOptions("flag"),)
    assert gather({}, given, str(file), environ).peers == given


def secret_of(layers: Layers) -> str | None:
    return check_edge_options(layers.edge_options()).secret


def test_a_secret_replaces_a_secret_file_below_and_the_other_way_round(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "secret"
    other.write_text(f"{SECRET} beside")
    assert secret_of(gather({}, (), str(file), {})) == f"{SECRET} file"
    assert secret_of(gather({}, (), str(file), {"OMNI_SECRET": f"{SECRET} environment"})) == f"{SECRET} environment"
    assert secret_of(gather({"secret_file": str(other)}, (), str(file), {"OMNI_SECRET": "x"})) == f"{SECRET} beside"
    assert secret_of(gather({}, (), str(file), {"OMNI_SECRET_FILE": str(other)})) == f"{SECRET} beside"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"OMNI_PORT": "x"}, "OMNI_PORT: 'x' is out of range: give a number from 1 to 65535"),
        ({"OMNI_NO_EBPF": "maybe"}, "OMNI_NO_EBPF 'maybe' is neither yes nor no"),
        ({"OMNI_NUCLEUS": "a,b:0"}, "OMNI_NUCLEUS: b:0"),
        ({"OMNI_ENDPOINT": "192.0.2.1:7"}, "OMNI_ENDPOINT belongs to a peer"),
        ({"OMNI_CONFIG": "/nonexistent"}, "--config /nonexistent"),
        ({"OMNI_CONFIG": ""}, "--config is empty"),
    ],
)
def test_a_bad_variable_is_refused_by_name(environ: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        gather({}, (), None, environ)


def test_a_variable_of_somebody_else_is_noted_without_its_value() -> None:
    # What Kubernetes sets for a service named omni; all but OMNI_PORT, which is ours.
    environ = {"OMNI_SERVICE_HOST": "192.0.2.7", "OMNI_PORT_51820_UDP_ADDR": "192.0.2.7", "OMNI_SERVICE_PORT": "5"}
    notes = gather({}, (), None, environ).notes
    assert [note.split()[0] for note in notes] == sorted(environ) and "192.0.2.7" not in str(notes)
    assert "did you mean" not in str(notes)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OMNI_CONFG", "OMNI_CONFIG"),
        ("OMNI_VPI", "OMNI_VIP"),
        ("OMNI_NODE", "OMNI_MODE"),
    ],
)
def test_a_variable_that_is_like_one_of_ours_is_noted_with_what_was_probably_meant(name: str, meant: str) -> None:
    (note,) = gather({}, (), None, {name: "a value"}).notes
    assert note.startswith(f"{name} in the environment is no setting") and f"did you mean {meant}?" in note
    assert "a value" not in note


@pytest.mark.parametrize("name", ["OMNI_SECERT", "OMNI_SECRET_FIEL"])
def test_a_secret_that_would_be_lost_stops_the_start(name: str) -> None:
    with pytest.raises(
        UserError, match=f"{name} in the environment is no setting: did you mean OMNI_SECRET.*open to"
    ) as it:
        gather({}, (), None, {name: "a value of more than sixteen"}).require_no_lost_secret()
    assert "a value" not in str(it.value)
    layers = gather({}, (), None, {name: "a value", "OMNI_SECRET": "a secret of sixteen characters"})
    layers.require_no_lost_secret()
    assert name in layers.notes[0]


def test_every_setting_has_a_variable_that_is_known() -> None:
    for each in (*SETTINGS, *PEER_SETTINGS):
        assert not foreign({each.variable: "x"})


def test_the_containers_set_variables_that_exist() -> None:
    for name in ("Dockerfile", "compose.yaml"):
        found = re.findall(r"\bOMNI_[A-Z]\w+", (REPOSITORY / "contrib/containers" / name).read_text())
        assert found and not foreign(dict.fromkeys(found, ""))


def test_an_unsound_file_is_refused_with_its_first_fault(file: Path) -> None:
    file.write_text("[daemon]\nport = 0\nprot = 1\n")
    with pytest.raises(UserError, match=rf"{file}:2: daemon.port = 0: .*and 1 more: omni config check"):
        gather({}, (), str(file), {})


def test_a_secret_that_others_can_read_is_noted(file: Path) -> None:
    assert "chmod 600" in gather({}, (), str(file), {}).notes[0]
    file.chmod(0o600)
    assert gather({}, (), str(file), {}).notes == ()


def test_show_says_what_holds_and_why_and_hides_the_secret(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(omni, "omni", ["config", "show", "--config", str(file), "--json"]) == 0
    text = capsys.readouterr().out
    rows = {row["key"]: row for row in json.loads(text)["settings"]}
    assert (rows["daemon.port"]["value"], rows["daemon.port"]["origin"]) == (1001, f"{file}:2")
    assert rows["security.secret"]["value"] == "***" and rows["synapse.aead"]["origin"] == "default"
    assert run(omni, "omni", ["config", "show", "--config", str(file)]) == 0
    assert SECRET not in text + capsys.readouterr().out


def test_what_changed_is_named(file: Path) -> None:
    before = gather({}, (), str(file), {})
    file.write_text('[daemon]\nport = 1001\nverbose = true\n[network]\ncluster = "other"\n')
    assert gather({}, (), str(file), {}).changed(before) == [
        *("name", "verbose", "cluster", "mtu", "secret", "peer"),
    ]
