"""Other forms of the list of settings: the example file and the JSON Schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from omninervous.cli.config_file import PEER_TABLE
from omninervous.cli.settings import PEER_SETTINGS, SECTIONS, SETTINGS, Kind, Setting

__all__ = ["example_file", "json_schema"]

_HEAD = """\
# Settings of omni-daemon: /etc/omninervous/config.toml, or the file of --config. A flag beats a variable of the
# environment (OMNI_PORT, ...), a variable beats this file. `omni config check` finds every fault in it, `omni config
# show` says what holds and why. Lines that begin with #key show the default, or a value as it might be.
"""
_SAMPLES = {
    "name": "robot-7",
    "state_dir": "/var/lib/omninervous",
    "metrics": "127.0.0.1:9751",
    "vip": "10.200.0.1",
    "iface": "eth0",
    "secret": "at least sixteen characters",
    "secret_file": "/etc/omninervous/secret",
    "peer": "the key that omni-daemon --init printed on the other machine",
    "endpoint": "192.0.2.7:51820",
    "psk_file": "/etc/omninervous/psk",
    "allowed_ips": "10.9.0.2/32",
}
"""Values for the comments, where there is no default."""


def example_file() -> str:
    """`config.example.toml`."""
    parts = [_HEAD]
    for section in SECTIONS:
        parts.append(f"\n[{section}]\n" + _lines(each for each in SETTINGS if each.section == section))
    parts.append(
        f"\n# Machines to meet without a Nucleus, one table for each.\n#[[{PEER_TABLE}]]\n{_lines(PEER_SETTINGS)}"
    )
    return "".join(parts)


def _lines(settings: Iterable[Setting]) -> str:
    return "".join(_line(each) for each in settings)


def _line(setting: Setting) -> str:
    # The flag is what the help of a peer's options speaks of.
    text = f"{setting.help} {setting.flag}, {setting.variable}"
    if setting.choices or setting.kind is Kind.NUMBER:
        text += f"; {setting.allowed}"
    comment = textwrap.fill(text, 118, initial_indent="# ", subsequent_indent="# ")
    if setting.example is not None:
        return f"{comment}\n{setting.key} = {setting.example}\n"
    value = setting.default if setting.default is not None else _SAMPLES[setting.option]
    return f"{comment}\n#{setting.key} = {json.dumps(value)}\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file."""
    tables: dict[str, Any] = {
        section: _table([each for each in SETTINGS if each.section == section]) for section in SECTIONS
    }
    peer = {**_table(PEER_SETTINGS), "required": ["key"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of omni-daemon",
        "type": "object",
        "properties": {**tables, PEER_TABLE: {"type": "array", "items": peer}},
        "additionalProperties": False,
    }


def _table(settings: Iterable[Setting]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {each.key: _property(each) for each in settings},
        "additionalProperties": False,
    }


def _property(setting: Setting) -> dict[str, Any]:
    described: dict[str, Any] = {"description": f"{setting.help} ({setting.flag}, {setting.variable})"}
    if setting.default is not None:
        described["default"] = setting.default
    match setting.kind:
        case Kind.NUMBER:
            return {**described, "type": "integer", "minimum": setting.bounds[0], "maximum": setting.bounds[1]}
        case Kind.SWITCH:
            return {**described, "type": "boolean"}
        case Kind.LIST:
            text = {"type": "string"}
            return {**described, "anyOf": [text, {"type": "array", "items": text}]}
        case Kind.TEXT if setting.choices:
            return {**described, "enum": list(setting.choices)}
        case Kind.TEXT:
            return {**described, "type": "string"}
