"""The one list of settings, and everything that is made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rich_click as click

import omninervous
from omninervous.cli.config_file import read_config
from omninervous.cli.config_forms import example_file, json_schema
from omninervous.cli.daemon_command import omni_daemon
from omninervous.cli.settings import PEER_SETTINGS, SECTIONS, SETTINGS, Kind, Setting

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY = (*SETTINGS, *PEER_SETTINGS)


def test_every_setting_is_a_flag_and_every_flag_a_setting() -> None:
    beside = {"--init", "--config", "--version", "--help"}
    flags = {option.opts[0] for option in omni_daemon.params if isinstance(option, click.Option)}
    assert flags | {"--help"} == {each.flag for each in EVERY} | beside


def test_names_are_unique() -> None:
    for names in ([each.option for each in EVERY], [each.variable for each in EVERY], [each.path for each in EVERY]):
        assert len(set(names)) == len(names)


def test_the_users_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    file.write_text(
        '[daemon]\nport = 51820\n\n[network]\nnucleus = "nucleus.example.com"\ncluster = "ai-robot-fleet"\n\n'
        "[security]\nmax_sessions_per_ip = 10\n"
    )
    found = read_config(file)
    assert found.faults == ()
    assert found.values == {
        "port": 51820,
        "nucleus": ("nucleus.example.com",),
        "cluster": "ai-robot-fleet",
        "max_sessions_per_ip": 10,
    }


def test_the_example_is_what_the_list_makes_and_loads() -> None:
    committed = REPOSITORY / "config.example.toml"
    assert committed.read_text() == example_file(), "write it anew: omni config example > config.example.toml"
    found = read_config(committed)
    assert found.faults == () and found.values["port"] == 51820


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.path)
def test_each_commented_line_of_the_example_loads_too(setting: Setting, tmp_path: Path) -> None:
    if setting.option in ("secret_file",):  # names a file that is not here
        return
    (line,) = [
        line.removeprefix("#")
        for line in example_file().splitlines()
        if line.removeprefix("#").startswith(f"{setting.key} = ")
    ]
    file = tmp_path / "one.toml"
    file.write_text(f"[{setting.section}]\n{line}\n")
    found = read_config(file)
    assert found.faults == () and setting.option in found.values


def test_the_schema_in_the_package_is_what_the_list_makes() -> None:
    shipped = Path(omninervous.__file__).parent / "config.schema.json"
    assert json.loads(shipped.read_text()) == json_schema(), "write it anew: omni config schema > (that file)"


def test_the_schema_names_every_setting() -> None:
    tables = json_schema()["properties"]
    assert set(tables) == {*SECTIONS, "peer"}
    for each in SETTINGS:
        described = tables[each.section]["properties"][each.key]
        assert each.flag in described["description"]
        assert (each.kind is Kind.NUMBER) == (described.get("type") == "integer")
