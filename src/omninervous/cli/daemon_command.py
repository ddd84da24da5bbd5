"""The options of `omni-daemon`, and what it does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import rich_click as click
from click.core import ParameterSource

import omninervous
from omninervous.cli.layers import Layers, gather
from omninervous.cli.peer_options import PeerCommand, peers_in_order
from omninervous.cli.settings import PANELS, PEER_SETTINGS, SETTINGS, Kind, Setting, Value
from omninervous.core.identity import Identity
from omninervous.errors import UserError
from omninervous.ganglion.config import EdgeConfig, PeerOptions, check_edge_options
from omninervous.ganglion.options import parse_device, parse_listen, parse_port, parse_sessions
from omninervous.hostos import logs
from omninervous.hostos.reload import Reloaded, Reread
from omninervous.hostos.state import CONFIG_VARIABLE, StateDir, state_path
from omninervous.wire.keytext import encode_key

__all__ = ["edge_config", "omni_daemon"]

C = TypeVar("C")

EXAMPLES = """Examples

  Make this machine's identity and print it:
    omni-daemon --init
  Run a Nucleus (needs no root):
    omni-daemon --mode nucleus --port 51820
  Join a cluster, with an address of your choice:
    omni-daemon --nucleus 1.2.3.4:51820 --cluster mynetwork \\
      --secret "YourSecretAtLeast16Chars" --vip 10.200.0.1
  Join with the address that follows from the identity:
    omni-daemon --nucleus nucleus.omni.io --cluster ai-robot-fleet
  Two machines without a Nucleus:
    omni-daemon --peer <PUBKEY_B> --endpoint <IP_B>:51820
  Choose the network card, stay in userspace:
    omni-daemon --iface eth0 --port 51820 --no-ebpf
  Everything from a file (omni config example prints one):
    omni-daemon --config /etc/omninervous/config.toml
"""


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every setting as an option, in the order of the list."""
    panels: dict[str, list[str]] = {panel: [] for panel in PANELS}
    panels[PANELS[0]] = ["--init", "--help", "--version"]
    panels[PANELS[-1]] = ["--config"]
    for each in (*SETTINGS, *PEER_SETTINGS):
        panels[each.panel].append(each.flag)
    for panel in reversed(panels):
        command = click.option_panel(panel, options=panels[panel])(command)
    for each in reversed((*SETTINGS, *PEER_SETTINGS)):
        command = _option(each)(command)
    return command


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    names = [setting.flag, *(["-v"] if setting.option == "verbose" else [])]
    default = "" if setting.default in (None, False) else f" [default: {setting.default}]"
    text = setting.help + default
    if setting.kind is Kind.SWITCH:
        return click.option(*names, is_flag=True, default=None, help=text)
    kind = click.Choice(setting.choices) if setting.choices else None
    many = setting.kind is Kind.LIST or setting in PEER_SETTINGS
    return click.option(*names, type=kind, multiple=many, metavar=setting.metavar or None, help=text)


@click.command(
    cls=PeerCommand,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)
@click.option("--init", is_flag=True, help="Make this machine's identity if there is none, print it, and end.")
@click.option(
    "--config",
    metavar="FILE",
    help=f"Read settings from this file; flags and OMNI_* variables beat it. [default: {CONFIG_VARIABLE}, else "
    "/etc/omninervous/config.toml for root, if it is there]",
)
@_with_settings
@click.version_option(omninervous.__version__, "--version", message="omni-daemon %(version)s")
@click.pass_context
def omni_daemon(ctx: click.Context, /, init: bool, config: str | None, **values: Any) -> int:  # noqa: ANN401
    """One encrypted Ethernet segment for all your machines, wherever they are.

    Runs an edge (the default): the interface omni0 appears, and the others of the cluster are on it.
    """
    given = CommandLine(_flags(ctx, values), peers_in_order(ctx, values), config)
    layers = given.layers()
    if init:
        return _init(layers)
    return _run_nucleus(given, layers) if layers.value("mode") == "nucleus" else _run_edge(given, layers)


def _flags(ctx: click.Context, values: Mapping[str, Any]) -> dict[str, Value]:
    given = (each for each in SETTINGS if ctx.get_parameter_source(each.option) is ParameterSource.COMMANDLINE)
    return {each.option: values[each.option] for each in given}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What was given, from which everything is read again at a reload."""

    flags: Mapping[str, Value]
    peers: tuple[PeerOptions, ...]
    config: str | None

    def layers(self) -> Layers:
        """All layers as they are now."""
        return gather(self.flags, self.peers, self.config)


def _init(layers: Layers) -> int:
    identity = Identity.from_seed(StateDir(state_path(layers.text("state_dir"))).create_seed())
    click.echo(f"Your Public Identity: {encode_key(identity.public)}")
    return 0


def edge_config(layers: Layers) -> EdgeConfig:
    """The checked configuration of an edge. UserError names what does not fit."""
    layers.require_no_lost_secret()
    config = check_edge_options(layers.edge_options())
    return replace(config, notes=(*layers.notes, *config.notes))


def _run_edge(given: CommandLine, layers: Layers) -> int:
    config = edge_config(layers)
    logs.configure(config.log_format, verbose=config.verbose)

    from omninervous.ganglion.daemon import run_edge

    return run_edge(config, _rereader(given, layers, edge_config))


def _run_nucleus(given: CommandLine, layers: Layers) -> int:
    for each in (*SETTINGS, *PEER_SETTINGS):
        if each.edge_only and (each.option in given.flags or (each.option == "peer" and given.peers)):
            raise UserError(f"{each.flag} is for edges: leave it out with --mode nucleus")

    from omninervous.core.nucleus_handshakes import HandshakeLimits
    from omninervous.core.rendezvous import RendezvousConfig
    from omninervous.nucleus.server import NucleusConfig, run_nucleus

    def config_of(layers: Layers) -> NucleusConfig:
        port, iface, metrics = layers.text("port"), layers.text("iface"), layers.text("metrics")
        return NucleusConfig(
            state_dir=state_path(layers.text("state_dir")),
            port=layers.value("port") if port is None else parse_port(port),
            iface=None if iface is None else parse_device(iface, "--iface"),
            limits=RendezvousConfig(HandshakeLimits(per_source=parse_sessions(layers.text("max_sessions_per_ip")))),
            metrics=None if metrics is None else parse_listen(metrics),
            log_format=layers.value("log_format"),
            verbose=layers.value("verbose"),
            notes=layers.notes,
        )

    config = config_of(layers)
    logs.configure(config.log_format, verbose=config.verbose)
    return run_nucleus(config, _rereader(given, layers, config_of))


def _rereader(given: CommandLine, started: Layers, config_of: Callable[[Layers], C]) -> Reread[C]:
    """Reads everything again; tells what changed since the last time, and what of it needs a new start."""
    last = started

    def reread() -> Reloaded[C]:
        nonlocal last
        layers = given.layers()
        config = config_of(layers)
        live = {each.option for each in (*SETTINGS, *PEER_SETTINGS) if each.live}
        applied = tuple(name for name in layers.changed(last) if name in live)
        restart = tuple(name for name in layers.changed(started) if name not in live)
        last = layers
        return Reloaded(config, applied, restart)

    return reread
