"""Reads a configuration file: every value checked, every fault found, each with its line."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from omninervous.cli.settings import PEER_SETTINGS, SECTIONS, SETTINGS, Kind, Setting, Value
from omninervous.errors import UserError
from omninervous.ganglion.config import PeerOptions

__all__ = ["PEER_TABLE", "ConfigFile", "Fault", "near", "read_config"]

PEER_TABLE = "peer"
FILE_LIMIT = 1 << 20
_INTEGER_BITS = 64
"""TOML 1.0: larger integers are an error."""
_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*([A-Za-z0-9_."'-]+)\s*=""")
_TOML_PLACE = re.compile(r" \(at line (\d+), column \d+\)$")
Lines = dict[tuple[str, int, str], int]
"""(table, number of the table of that name, key or empty) -> line."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the file that cannot be used."""

    line: int
    """From 1; 0: the file as a whole."""
    key: str
    value: str
    """As in the file; `***` for a secret."""
    text: str
    """What is wrong, and what is allowed."""
    suggestion: str = ""
    """A key or value that was probably meant."""

    def sentence(self, path: Path) -> str:
        """`fleet.toml:3: daemon.prot = 5: there is no such key; did you mean port?`"""
        place = f"{path}:{self.line}" if self.line else str(path)
        what = f" {self.key}{' = ' + self.value if self.value else ''}:" if self.key else ""
        hint = f"; did you mean {self.suggestion}?" if self.suggestion else ""
        return f"{place}:{what} {self.text}{hint}"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file sets. Values in `faults` are left out."""

    path: Path
    values: Mapping[str, Value] = field(default_factory=dict, repr=False)
    """By `Setting.option`."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of each of `values`, and of the first `peer`."""
    peers: tuple[PeerOptions, ...] = ()
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    def require_sound(self) -> ConfigFile:
        """UserError with the first fault, and how to see the others."""
        if self.faults:
            more = len(self.faults) - 1
            rest = f" (and {more} more: omni config check {self.path})" if more else ""
            raise UserError(f"{self.faults[0].sentence(self.path)}{rest}")
        return self


def read_config(path: Path) -> ConfigFile:
    """Read and check. UserError only if the file cannot be read; what is wrong in it is in `faults`."""
    text, mode = _read(path)
    try:
        document = msgspec.toml.decode(text)
    except (ValueError, RecursionError) as error:  # ValueError: msgspec's own, and a number of thousands of digits
        reason = str(error)
        place = _TOML_PLACE.search(reason)
        return ConfigFile(path, faults=(Fault(int(place[1]) if place else 0, "", "", f"not TOML: {reason}"),))
    reader = _Reader(document, _locate(text))
    reader.read()
    note = f"{path} holds the secret and can be read by others: chmod 600 it"
    open_secret = mode & 0o077 and "secret" in reader.values
    return ConfigFile(
        path,
        reader.values,
        reader.value_lines,
        tuple(reader.peers),
        tuple(sorted(reader.faults, key=lambda fault: fault.line)),
        (note,) if open_secret else (),
    )


def _read(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            data, mode = file.read(FILE_LIMIT + 1), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    if len(data) > FILE_LIMIT:
        raise UserError(f"--config {path} is larger than {FILE_LIMIT >> 10} KiB: is it the right file?")
    try:
        return data.decode(), mode
    except UnicodeDecodeError:
        raise UserError(f"--config {path} is not text in UTF-8: is it the right file?") from None


class _Reader:
    """Walks through one document."""

    def __init__(self, document: Mapping[str, Any], lines: Lines) -> None:
        self._document = document
        self._lines = lines
        self.values: dict[str, Value] = {}
        self.value_lines: dict[str, int] = {}
        self.peers: list[PeerOptions] = []
        self.faults: list[Fault] = []

    def read(self) -> None:
        """Fill the attributes."""
        for name, content in self._document.items():
            if name == PEER_TABLE:
                self._read_peers(content)
            elif name not in SECTIONS:
                self._unknown_section(name, content)
            elif not isinstance(content, dict):
                self._fault((name, 0, ""), name, content, f"this is a table: write [{name}] and its keys below")
            else:
                settings = [each for each in SETTINGS if each.section == name]
                self.values.update(self._read_table(name, 0, content, settings, self.value_lines))
        self._check_together()

    def _read_peers(self, content: object) -> None:
        if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
            text = f"peers are tables: write [[{PEER_TABLE}]] for each, and its keys below"
            return self._fault((PEER_TABLE, 0, ""), PEER_TABLE, content, text)
        for number, table in enumerate(content):
            values = self._read_table(PEER_TABLE, number, table, PEER_SETTINGS, {})
            if "key" not in table:
                self._fault((PEER_TABLE, number, ""), PEER_TABLE, None, "the key of the peer is missing: key = ...")
            if "peer" in values:
                self.value_lines.setdefault("peer", self._lines.get((PEER_TABLE, number, ""), 0))
                key = str(values.pop("peer"))
                self.peers.append(PeerOptions(key, **values))  # type: ignore[arg-type]
        return None

    def _read_table(
        self, name: str, number: int, table: Mapping[str, Any], settings: Sequence[Setting], lines: dict[str, int]
    ) -> dict[str, Value]:
        values: dict[str, Value] = {}
        known = {each.key: each for each in settings}
        for key, raw in table.items():
            setting = known.get(key)
            if setting is None:
                text = f"there is no such key: [{name}] has {', '.join(known)}"
                meant = near(key, known)
                hide = meant in known and known[meant].secret
                self._fault((name, number, key), f"{name}.{key}", raw, text, meant, secret=hide)
                continue
            value = _convert(setting, raw)
            if value is None:
                text = f"of the wrong type: give {setting.allowed}"
                self._fault((name, number, key), setting.path, raw, text, secret=setting.secret)
                continue
            problem = setting.problem(value)
            if problem is not None:
                meant = near(raw, setting.choices) if isinstance(raw, str) else ""
                self._fault((name, number, key), setting.path, raw, problem, meant, secret=setting.secret)
                continue
            values[setting.option] = value
            lines[setting.option] = self._line((name, number, key))
        return values

    def _check_together(self) -> None:
        """What does not fit together inside one file."""
        if {"secret", "secret_file"} <= self.values.keys():
            self._fault(("security", 0, "secret"), "security.secret", None, "keep secret or secret_file, not both")
        for each in SETTINGS:
            if self.values.get("mode") == "nucleus" and each.edge_only and each.option in self.values:
                text = 'only an edge has this: leave it out with mode = "nucleus"'
                self._fault((each.section, 0, each.key), each.path, None, text)

    def _unknown_section(self, name: str, content: object) -> None:
        if isinstance(content, dict):
            text = f"there is no such table: there are {', '.join((*SECTIONS, f'[{PEER_TABLE}]'))}"
            return self._fault((name, 0, ""), f"[{name}]", None, text, near(name, (*SECTIONS, PEER_TABLE)))
        meant = next((each for each in SETTINGS if each.key == name), None)
        text = f"a key must stand in a table{'' if meant is None else f': this one in [{meant.section}]'}"
        return self._fault(("", 0, name), name, content, text, secret=meant is None or meant.secret)

    def _fault(
        self,
        place: tuple[str, int, str],
        key: str,
        raw: object,
        text: str,
        suggestion: str = "",
        *,
        secret: bool = False,
    ) -> None:
        value = "" if raw is None else "***" if secret else _shown(raw)
        self.faults.append(Fault(self._line(place), key, value, text, suggestion))

    def _line(self, place: tuple[str, int, str]) -> int:
        return self._lines.get(place) or self._lines.get((*place[:2], "")) or 0


def _shown(raw: object) -> str:
    """A value of the file, for a sentence."""
    try:
        return json.dumps(raw, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):  # a number of thousands of digits, tables in tables without end
        return "..."


def _convert(setting: Setting, raw: object) -> Value | None:
    """The value in the form of its kind; None if it is of another type."""
    match setting.kind:
        case Kind.NUMBER:
            number = isinstance(raw, int) and not isinstance(raw, bool) and raw.bit_length() < _INTEGER_BITS
            return raw if number and isinstance(raw, int) else None
        case Kind.SWITCH:
            return raw if isinstance(raw, bool) else None
        case Kind.LIST:
            items = [raw] if isinstance(raw, str) else raw
            strings = isinstance(items, list) and all(isinstance(each, str) for each in items)
            return tuple(items) if strings and isinstance(items, list) else None
        case Kind.TEXT:
            return raw if isinstance(raw, str) else None


def near(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """What was probably meant; empty if nothing is like it."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), "")


def _locate(text: str) -> Lines:
    """Where tables and keys stand. The document is TOML already; what looks like a key inside of a multi-line string
    can mislead about a line, about nothing else."""
    lines: Lines = {}
    seen: dict[str, int] = {}
    table = ("", 0)
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            name = header[1].strip("\"'")
            table = (name, seen.get(name, 0))
            seen[name] = table[1] + 1
            lines.setdefault((*table, ""), number)
        elif found := _KEY.match(line):
            parts = [part.strip("\"'") for part in found[1].split(".")]
            if table[0] or len(parts) == 1:
                lines.setdefault((*table, parts[0]), number)
            else:  # `daemon.port = 1` above the first table
                lines.setdefault((parts[0], 0, parts[1]), number)
            if not table[0]:
                lines.setdefault((parts[0], 0, ""), number)
    return lines
