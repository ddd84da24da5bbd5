"""The options of `omni-daemon`, and what it does with them."""

from __future__ import annotations

from typing import Literal

import msgspec
import rich_click as click

import omninervous
from omninervous.cli.peer_options import PeerCommand, peers_in_order
from omninervous.core.identity import Identity
from omninervous.errors import UserError
from omninervous.ganglion.config import EdgeOptions, check_edge_options
from omninervous.ganglion.options import DEFAULT_PORT, parse_device, parse_port
from omninervous.hostos import logs
from omninervous.hostos.state import StateDir, state_path
from omninervous.wire.keytext import encode_key

__all__ = ["omni_daemon"]

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
"""

_EDGE_ONLY = (
    *("nucleus", "cluster", "secret", "secret_file", "vip", "peer", "endpoint", "psk_file"),
    *("allowed_ips", "ebpf", "no_ebpf", "engine", "queues", "aead", "dev", "name", "mtu"),
)


@click.command(
    cls=PeerCommand,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
)
@click.option("--init", is_flag=True, help="Make this machine's identity if there is none, print it, and end.")
@click.option("--mode", type=click.Choice(["edge", "nucleus"]), default="edge", show_default=True, help="What to run.")
@click.option("--name", metavar="LABEL", help="What the cluster calls this machine. [default: the host name]")
@click.option(
    "--nucleus",
    multiple=True,
    metavar="HOST[:PORT][#KEY]",
    help="Rendezvous server; more than one may be given. Its key is remembered on first use, or given here.",
)
@click.option("--cluster", metavar="NAME", help="The cluster to join.")
@click.option("--secret", metavar="TEXT", help="The cluster's secret, at least 16 characters. Prefer --secret-file.")
@click.option("--secret-file", metavar="FILE", help="File that holds the secret. Else OMNI_SECRET is used, if set.")
@click.option("--peer", multiple=True, metavar="KEY", help="A machine to meet without a Nucleus; can be repeated.")
@click.option(
    "--endpoint", multiple=True, metavar="HOST:PORT", help="Where the --peer before it is. Without: it calls us."
)
@click.option(
    "--psk-file", multiple=True, metavar="FILE", help="Pre-shared key of the --peer before it, as `wg genpsk` makes it."
)
@click.option(
    "--allowed-ips",
    multiple=True,
    metavar="NET[,NET]",
    help="Addresses of the --peer before it, if that is a stock WireGuard peer (a base64 key).",
)
@click.option("--vip", metavar="ADDR[/LEN]", help="Virtual address, by default /13. [default: from the identity]")
@click.option("--dev", metavar="NAME", help="Name of the overlay interface. [default: omni0]")
@click.option("--mtu", metavar="BYTES", help="Its MTU, the same in a whole cluster. [default: 1380]")
@click.option("--port", metavar="PORT", help=f"UDP port. [default: {DEFAULT_PORT}]")
@click.option("--iface", metavar="NIC", help="Use this network card only. [default: what the routes say]")
@click.option(
    "--ebpf",
    metavar="HOW",
    help="Where the kernel's lane receives: xdp, tc, off; auto is what suits the card. [default: auto]",
)
@click.option("--no-ebpf", is_flag=True, help="Stay in userspace: the same as --ebpf off.")
@click.option("--engine", metavar="NAME", help="Data plane: auto, native or reference. [default: auto]")
@click.option("--queues", metavar="N", help="Queues of the native engine for TCP streams, 1 to 6. [default: 1]")
@click.option("--aead", metavar="NAME", help="Seal frames with: auto, aes or chacha. [default: auto, the faster one]")
@click.option("--state-dir", metavar="DIR", help="Identity and memory. [default: /var/lib/omninervous for root]")
@click.option("--verbose", "-v", is_flag=True, help="Log more; tracebacks of internal errors.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "human", "json"]),
    default="auto",
    show_default=True,
    help="auto: for people on a terminal, JSON lines otherwise.",
)
@click.version_option(omninervous.__version__, "--version", message="omni-daemon %(version)s")
@click.option_panel("What to run", options=["--init", "--mode", "--help", "--version"])
@click.option_panel("A cluster", options=["--nucleus", "--cluster", "--secret", "--secret-file", "--name"])
@click.option_panel("Peers without a Nucleus", options=["--peer", "--endpoint", "--psk-file", "--allowed-ips"])
@click.option_panel("The overlay interface", options=["--vip", "--dev", "--mtu"])
@click.option_panel(
    "The network below", options=["--port", "--iface", "--ebpf", "--no-ebpf", "--engine", "--queues", "--aead"]
)
@click.option_panel("Operation", options=["--state-dir", "--verbose", "--log-format"])
@click.pass_context
def omni_daemon(ctx: click.Context, /, **values: object) -> int:
    """One encrypted Ethernet segment for all your machines, wherever they are.

    Runs an edge (the default): the interface omni0 appears, and the others of the cluster are on it.
    """
    given = msgspec.convert(values, Given)
    if given.init:
        return _init(given)
    return _run_nucleus(given) if given.mode == "nucleus" else _run_edge(ctx, given)


class Given(msgspec.Struct, frozen=True):
    """The options as click gives them."""

    init: bool
    mode: Literal["edge", "nucleus"]
    name: str | None
    nucleus: tuple[str, ...]
    cluster: str | None
    secret: str | None
    secret_file: str | None
    peer: tuple[str, ...]
    endpoint: tuple[str, ...]
    psk_file: tuple[str, ...]
    allowed_ips: tuple[str, ...]
    vip: str | None
    dev: str | None
    mtu: str | None
    port: str | None
    iface: str | None
    ebpf: str | None
    no_ebpf: bool
    engine: str | None
    queues: str | None
    aead: str | None
    state_dir: str | None
    verbose: bool
    log_format: logs.LogFormat


def _init(given: Given) -> int:
    identity = Identity.from_seed(StateDir(state_path(given.state_dir)).create_seed())
    click.echo(f"Your Public Identity: {encode_key(identity.public)}")
    return 0


def _run_edge(ctx: click.Context, given: Given) -> int:
    of_peers = {
        "peer": given.peer,
        "endpoint": given.endpoint,
        "psk_file": given.psk_file,
        "allowed_ips": given.allowed_ips,
    }
    options = EdgeOptions(
        port=given.port,
        nuclei=given.nucleus,
        cluster=given.cluster,
        secret=given.secret,
        secret_file=given.secret_file,
        vip=given.vip,
        peers=peers_in_order(ctx, of_peers),
        iface=given.iface,
        ebpf=given.ebpf,
        no_ebpf=given.no_ebpf,
        engine=given.engine,
        queues=given.queues,
        aead=given.aead,
        dev=given.dev,
        state_dir=given.state_dir,
        name=given.name,
        mtu=given.mtu,
    )
    config = check_edge_options(options)
    logs.configure(given.log_format, verbose=given.verbose)

    from omninervous.ganglion.daemon import run_edge

    return run_edge(config)


def _run_nucleus(given: Given) -> int:
    for name in _EDGE_ONLY:
        if getattr(given, name) not in (None, (), False):
            raise UserError(f"--{name.replace('_', '-')} is for edges: leave it out with --mode nucleus")
    port = DEFAULT_PORT if given.port is None else parse_port(given.port)
    iface = None if given.iface is None else parse_device(given.iface, "--iface")
    state_dir = state_path(given.state_dir)
    logs.configure(given.log_format, verbose=given.verbose)

    from omninervous.nucleus.server import NucleusConfig, run_nucleus

    return run_nucleus(NucleusConfig(state_dir=state_dir, port=port, iface=iface))
