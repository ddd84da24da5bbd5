"""Where each setting comes from: a flag beats a variable of the environment, a variable beats the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omninervous.cli.config_file import ConfigFile, near, read_config
from omninervous.cli.settings import PEER_SETTINGS, SETTINGS, Kind, Setting, Value, text_of
from omninervous.errors import UserError
from omninervous.ganglion.config import SECRET_VARIABLE, EdgeOptions, PeerOptions
from omninervous.hostos.state import CONFIG_VARIABLE, default_config_path

__all__ = ["NO_SETTING", "Foreign", "Given", "Layers", "foreign", "gather"]

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_SECRETS = ("secret", "secret_file")
_RIVALS = (_SECRETS, ("ebpf", "no_ebpf"))
"""Settings that say the same in two ways."""
_PREFIX = "OMNI_"
_NAMES = tuple(
    variable.removeprefix(_PREFIX)
    for variable in (CONFIG_VARIABLE, *(each.variable for each in (*SETTINGS, *PEER_SETTINGS)))
)
"""Of our variables, without the prefix that all have."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody set."""

    value: Value = field(repr=False)
    origin: str
    """`--port`, `OMNI_PORT`, `fleet.toml:3`"""


NO_SETTING = "in the environment is no setting"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A variable that begins like ours and is no setting. Its value is shown to nobody."""

    name: str
    meant: str
    """The variable that it is like; empty if there is none."""

    @property
    def sentence(self) -> str:
        """For the log."""
        hint = f": did you mean {self.meant}?" if self.meant else ""
        return f"{self.name} {NO_SETTING}, and ignored{hint}"


@dataclass(frozen=True, slots=True)
class Layers:
    """The settings in force, by `Setting.option`; what is not in it has its default."""

    values: Mapping[str, Given]
    peers: tuple[PeerOptions, ...]
    peers_origin: str
    file: ConfigFile | None
    foreign: tuple[Foreign, ...] = ()

    def value(self, option: str) -> Any:  # noqa: ANN401
        """What holds: the given value, or the default."""
        if option in self.values:
            return self.values[option].value
        return next(each.default for each in SETTINGS if each.option == option)

    def text(self, option: str) -> str | None:
        """The given value as the command line has it; None if none was."""
        given = self.values.get(option)
        return None if given is None else text_of(given.value)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the log."""
        of_file = () if self.file is None else self.file.notes
        return (*of_file, *(each.sentence for each in self.foreign))

    def edge_options(self) -> EdgeOptions:
        """For `check_edge_options`, which checks what does not fit together."""
        own = {"nuclei", "peers", "no_ebpf", "verbose", "log_format", "secret_origin"}
        texts = {each.name: self.text(each.name) for each in fields(EdgeOptions) if each.name not in own}
        return EdgeOptions(
            nuclei=self.value("nucleus") or (),
            peers=self.peers,
            no_ebpf=self.value("no_ebpf"),
            verbose=self.value("verbose"),
            log_format=self.value("log_format"),
            secret_origin=self.origin("secret"),
            **texts,
        )

    def origin(self, option: str) -> str:
        """Who set it: `--port`, `OMNI_PORT` or `fleet.toml:3`; `default` if nobody did."""
        given = self.values.get(option)
        return "default" if given is None else given.origin

    def require_no_lost_secret(self) -> None:
        """UserError if there is no secret, and a variable that seems to mean one: the cluster would be open to
        everybody."""
        if any(option in self.values for option in _SECRETS):
            return
        names = [each.variable for each in SETTINGS if each.option in _SECRETS]
        for each in self.foreign:
            if each.meant in names:
                raise UserError(
                    f"{each.name} {NO_SETTING}: did you mean {each.meant}? Without a secret the "
                    "cluster would be open to everybody: rename the variable, or unset it"
                )

    def changed(self, earlier: Layers) -> list[str]:
        """Settings whose value is not what it was; `peer` stands for all peers."""
        differ = [each.option for each in SETTINGS if self.value(each.option) != earlier.value(each.option)]
        return [*differ, "peer"] if self.peers != earlier.peers else differ


def gather(
    flags: Mapping[str, Value],
    flag_peers: tuple[PeerOptions, ...] = (),
    config: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Layers:
    """All layers, checked one by one. `config`: the file of --config. UserError names the first bad value."""
    values: dict[str, Given] = {}
    file = _file(config, environ)
    peers: tuple[PeerOptions, ...] = ()
    peers_origin = ""
    if file is not None:
        file.require_sound()
        peers, peers_origin = file.peers, f"{file.path}:{file.lines.get('peer', 0)}"
        for option, value in file.values.items():
            values[option] = Given(value, f"{file.path}:{file.lines[option]}")
    _lay(values, _environment(environ))
    if (peer := _environment_peer(environ)) is not None:
        peers, peers_origin = (peer,), PEER_SETTINGS[0].variable
    _lay(values, {each.option: Given(flags[each.option], each.flag) for each in SETTINGS if each.option in flags})
    if flag_peers:
        peers, peers_origin = flag_peers, PEER_SETTINGS[0].flag
    return Layers(values, peers, peers_origin, file, foreign(environ))


def foreign(environ: Mapping[str, str] = os.environ) -> tuple[Foreign, ...]:
    """Variables OMNI_* that mean nothing to us. They keep no daemon from starting: somebody else's software may have
    that name (OMNI_NODE), and the host of a container adds variables for a service so called (OMNI_SERVICE_HOST)."""
    strange = sorted(each for each in environ if each.startswith(_PREFIX) and each.removeprefix(_PREFIX) not in _NAMES)
    meant = {each: near(each.removeprefix(_PREFIX), _NAMES) for each in strange}
    return tuple(Foreign(each, meant[each] and _PREFIX + meant[each]) for each in strange)


def _lay(values: dict[str, Given], upper: Mapping[str, Given]) -> None:
    """Lay a layer over the lower ones. Where two settings say the same, one of them replaces both."""
    for rivals in _RIVALS:
        if any(option in upper for option in rivals):
            for option in rivals:
                values.pop(option, None)
    values.update(upper)


def _file(config: str | None, environ: Mapping[str, str]) -> ConfigFile | None:
    named = config if config is not None else environ.get(CONFIG_VARIABLE)
    if named is not None:
        if not named:
            raise UserError("--config is empty: name a file")
        return read_config(Path(named))
    default = default_config_path()
    return read_config(default) if default.exists() else None


def _environment(environ: Mapping[str, str]) -> dict[str, Given]:
    return {
        each.option: Given(_from_text(each, environ[each.variable]), each.variable)
        for each in SETTINGS
        if each.variable in environ
    }


def _environment_peer(environ: Mapping[str, str]) -> PeerOptions | None:
    values = {each.key: _from_text(each, environ[each.variable]) for each in PEER_SETTINGS if each.variable in environ}
    if not values:
        return None
    if "key" not in values:
        given = next(each.variable for each in PEER_SETTINGS if each.key in values)
        raise UserError(f"{given} belongs to a peer: set {PEER_SETTINGS[0].variable} to its key, too")
    return PeerOptions(**values)  # type: ignore[arg-type]


def _from_text(setting: Setting, text: str) -> Value:
    value: Value = text
    if setting.kind is Kind.SWITCH:
        if text.lower() not in (*_YES, *_NO):
            raise UserError(f"{setting.variable} {text!r} is neither yes nor no: give 1 or 0")
        return text.lower() in _YES
    if setting.variable == SECRET_VARIABLE:
        return text  # whether it is used at all, `check_edge_options` decides and says
    if setting.kind is Kind.LIST:
        value = tuple(item.strip() for item in text.split(",") if item.strip())
    problem = setting.problem(value)
    if problem is not None:
        raise UserError(f"{setting.variable}: {problem}")
    return int(text) if setting.kind is Kind.NUMBER else value
