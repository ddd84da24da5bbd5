"""Every fault of a configuration file is found at once, with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omninervous.cli.config_file import Fault, read_config
from omninervous.cli.omni import omni
from omninervous.cli.run import run
from omninervous.core.identity import Identity
from omninervous.errors import UserError
from omninervous.wire.keytext import encode_key

KEY = encode_key(Identity.from_seed(bytes(range(32))).public)

WRONG = """\
port = 5
[daemon]
prot = 51820
port = 99999
mode = "nuclues"
verbose = 1

[network]
nucleus = ["host:0", "ok"]
vip = '''
10.200.0'''
mtu = true

[securty]
[security]
secret = "short"
max_sessions_per_ip = "10"
secert = "a secret under a wrong name"
[[peer]]
endpoint = "192.0.2.1"
[[peer]]
key = "abc"
allowed_ips = "10.0.0.0/8"
"""


def faults_of(text: str, tmp_path: Path) -> tuple[Fault, ...]:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    return read_config(file).faults


def test_every_fault_is_found_with_line_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    found = {(each.line, each.key): each for each in faults_of(WRONG, tmp_path)}
    assert list(found) == [
        (1, "port"),
        (3, "daemon.prot"),
        (4, "daemon.port"),
        (5, "daemon.mode"),
        (6, "daemon.verbose"),
        (9, "network.nucleus"),
        (10, "network.vip"),
        (12, "network.mtu"),
        (14, "[securty]"),
        (16, "security.secret"),
        (17, "security.max_sessions_per_ip"),
        (18, "security.secert"),
        (19, "peer"),
        (20, "peer.endpoint"),
        (22, "peer.key"),
    ]
    assert found[3, "daemon.prot"].suggestion == "port" and found[3, "daemon.prot"].value == "51820"
    assert found[5, "daemon.mode"].suggestion == "nucleus" and "one of edge, nucleus" in found[5, "daemon.mode"].text
    assert "1 to 65535" in found[4, "daemon.port"].text and found[4, "daemon.port"].value == "99999"
    assert "true or false" in found[6, "daemon.verbose"].text
    assert found[14, "[securty]"].suggestion == "security"
    assert "[daemon]" in found[1, "port"].text


def test_no_secret_is_shown(tmp_path: Path) -> None:
    shown = "\n".join(each.sentence(tmp_path) for each in faults_of(WRONG, tmp_path))
    assert "short" not in shown and "a secret under" not in shown and "***" in shown
    assert "quoted" not in str(faults_of('secret = "quoted, in no table"\n', tmp_path))


def test_what_is_no_toml_has_its_line(tmp_path: Path) -> None:
    (fault,) = faults_of("[daemon]\nport =\n", tmp_path)
    assert fault.line == 2 and "not TOML" in fault.text


def test_lines_are_right_for_dotted_keys_and_inline_tables(tmp_path: Path) -> None:
    dotted, inline = faults_of("daemon.port = 0\nnetwork = { mtu = 5 }\n", tmp_path)
    assert (dotted.line, dotted.key, inline.line, inline.key) == (1, "daemon.port", 2, "network.mtu")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[daemon]\nmode = "nucleus"\n[network]\ncluster = "c"\n', "only an edge has this"),
        (f'[security]\nsecret = "{"s" * 20}"\nsecret_file = "/dev/null"\n', "at least 16"),
        ("peer = 5\n", "write [[peer]]"),
        ("daemon = 5\n", "write [daemon]"),
        ("[nosuch]\n", "there is no such table"),
        ("[network]\nnucleus = [5]\n", "a string or a list of strings"),
    ],
)
def test_what_does_not_fit_is_a_fault(text: str, says: str, tmp_path: Path) -> None:
    assert any(says in each.text for each in faults_of(text, tmp_path))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    with pytest.raises(UserError, match=r"--config .*none.toml: No such file"):
        read_config(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        read_config(file)
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(UserError, match="larger than"):
        read_config(file)


def test_the_command_says_all_of_it_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(WRONG)
    assert run(omni, "omni", ["config", "check", str(file)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(read_config(file).faults) and all(line.startswith(f"{file}:") for line in lines)
    assert run(omni, "omni", ["config", "check", str(file), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False and answer["faults"][1]["suggestion"] == "port" and answer["faults"][1]["line"] == 3


def test_what_only_the_whole_shows_is_a_fault_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text('[network]\nnucleus = "host"\n')
    assert run(omni, "omni", ["config", "check", str(file)]) == 2
    assert "--nucleus needs --cluster" in capsys.readouterr().out
    file.write_text(f'[[peer]]\nkey = "{KEY}"\nendpoint = "192.0.2.1:51820"\n')
    assert run(omni, "omni", ["config", "check", str(file)]) == 0
    assert "all is well" in capsys.readouterr().out


def test_a_variable_that_looks_mistyped_is_a_fault_of_the_check_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[daemon]\nport = 1\n")
    monkeypatch.setenv("OMNI_SERVICE_HOST", "theirs")
    assert run(omni, "omni", ["config", "check", str(file)]) == 0, "like none of ours"
    assert capsys.readouterr().out.startswith("note: OMNI_SERVICE_HOST in the environment is no setting")
    monkeypatch.setenv("OMNI_SECERT", "theirs")
    assert run(omni, "omni", ["config", "check", str(file)]) == 2
    told = capsys.readouterr().out
    assert told.startswith("OMNI_SECERT in the environment is no setting") and "did you mean OMNI_SECRET?" in told
    assert run(omni, "omni", ["config", "check", str(file), "--json"]) == 2
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["key"], fault["suggestion"], fault["line"]) == ("OMNI_SECERT", "OMNI_SECRET", 0)
    file.write_text("[daemon]\nprot = 1\n")
    assert run(omni, "omni", ["config", "check", str(file), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert [each["key"] for each in answer["faults"]] == ["daemon.prot", "OMNI_SECERT"] and len(answer["notes"]) == 1
    assert "theirs" not in told + str(answer)
    assert run(omni, "omni", ["config", "show", "--config", "/dev/null"]) == 0, "a daemon would start"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"[daemon]\nport = {'9' * 5000}\n", id="digits"),
        pytest.param(f"[daemon]\nport = 0x{'f' * 5000}\n", id="hexadecimal"),
        pytest.param(f"[daemon]\nodd = 0x{'f' * 5000}\n", id="unknown"),
        pytest.param(f"x = {'[' * 100_000}\n", id="lists"),
        pytest.param(f"x = {'{a=' * 3000}\n", id="tables"),
        pytest.param(f"[daemon]\n{'.'.join('a' * 4000)} = 1\n", id="dots"),
        pytest.param('[security]\nsecret_file = "a\\u0000b"\n', id="nul in a file name"),
        pytest.param('[daemon]\nstate_dir = "a\\u0000b"\n', id="nul in a directory"),
    ],
)
def test_what_python_cannot_convert_is_a_fault_as_any_other(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    (fault,) = read_config(file).faults
    assert len(fault.sentence(file)) < 400 and read_config(file).values == {}


def test_variables_are_checked_with_a_file_and_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omninervous.cli.config.default_config_path", lambda: tmp_path / "none.toml")
    monkeypatch.setattr("omninervous.cli.layers.default_config_path", lambda: tmp_path / "none.toml")
    assert run(omni, "omni", ["config", "check"]) == 0
    assert capsys.readouterr().out == f"no {tmp_path / 'none.toml'}; environment: all is well\n"
    monkeypatch.setenv("OMNI_PORT", "abc")
    file = tmp_path / "fleet.toml"
    file.write_text("[daemon]\nport = 1\n")
    for words in ([], [str(file)]):
        assert run(omni, "omni", ["config", "check", *words]) == 2
        assert "OMNI_PORT: 'abc' is out of range" in capsys.readouterr().out
    monkeypatch.delenv("OMNI_PORT")
    monkeypatch.setenv("OMNI_SECERT", "theirs")
    assert run(omni, "omni", ["config", "check", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["file"] is None and [each["key"] for each in answer["faults"]] == ["OMNI_SECERT"]
