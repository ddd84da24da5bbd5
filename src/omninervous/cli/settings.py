"""Every setting of `omni-daemon`, once: flags, `OMNI_*` variables, keys of the configuration file, its example and its
JSON Schema are made from this list. A flag beats a variable, a variable beats the file.

| setting       | flag            | variable             | in the file                       |
|---------------|-----------------|----------------------|-----------------------------------|
| `psk_file`    | `--psk-file`    | `OMNI_PSK_FILE`      | `psk_file` in its section         |
| of a `--peer` | behind `--peer` | one peer only        | `[[peer]]`, once for each peer    |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from omninervous.core.identity import parse_peer
from omninervous.core.secret import check_cluster_name, check_secret
from omninervous.core.vip import parse_vip
from omninervous.errors import UserError
from omninervous.ganglion.config import DEFAULT_DEVICE, DEFAULT_MTU, DEFAULT_SESSIONS_PER_IP
from omninervous.ganglion.engines import AEADS, ENGINES
from omninervous.ganglion.options import (
    DEFAULT_PORT,
    EBPF,
    MAX_QUEUES,
    MAX_SESSIONS_PER_IP,
    MTU_MAX,
    MTU_MIN,
    PORT_MAPPING,
    is_number,
    parse_allowed_ips,
    parse_device,
    parse_endpoint,
    parse_label,
    parse_listen,
    parse_nucleus,
    read_psk_file,
    read_secret_file,
)
from omninervous.hostos.state import state_path
from omninervous.wire.keytext import decode_key

__all__ = ["PANELS", "PEER_SETTINGS", "SECTIONS", "SETTINGS", "Kind", "Setting", "Value", "text_of"]

Value = str | int | bool | tuple[str, ...]
"""A setting's value, by its kind."""


class Kind(Enum):
    """What a value is."""

    TEXT = "a string"
    NUMBER = "a number"
    SWITCH = "true or false"
    LIST = "a string or a list of strings"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set."""

    section: str
    """Table of the configuration file."""
    key: str
    help: str
    metavar: str = ""
    kind: Kind = Kind.TEXT
    default: Value | None = None
    """What holds when it is not set; None: something that `help` says."""
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int] = (0, 0)
    """Of a number."""
    check: Callable[[str], object] | None = None
    """UserError if this text cannot be a value (or one of a list)."""
    panel: str = ""
    """Where `--help` shows it."""
    name: str = ""
    """Of the flag and the variable, where it is not the key."""
    edge_only: bool = False
    live: bool = False
    """A reload applies it without dropping a session."""
    secret: bool = False
    """Its value is shown to nobody."""
    example: str | None = None
    """TOML of a value that config.example.toml sets; without, the line stays a comment."""

    @property
    def option(self) -> str:
        """`psk_file`: its name in Python."""
        return self.name or self.key

    @property
    def flag(self) -> str:
        return f"--{self.option.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"OMNI_{self.option.upper()}"

    @property
    def path(self) -> str:
        """`network.cluster`"""
        return f"{self.section}.{self.key}"

    @property
    def allowed(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is Kind.NUMBER:
            return f"a number from {self.bounds[0]} to {self.bounds[1]}"
        return str(self.kind.value)

    def problem(self, value: Value) -> str | None:
        """Why the value cannot be used, with what is allowed; None if it can. Looks into the files that it names."""
        for text in value if isinstance(value, tuple) else (text_of(value),):
            if self.choices and text not in self.choices:
                return f"{text!r} is unknown: give {self.allowed}"
            if self.kind is Kind.NUMBER and not is_number(text, *self.bounds):
                return f"{text!r} is out of range: give {self.allowed}"
            try:
                if self.check is not None:
                    self.check(text)
            except UserError as error:
                # The sentences begin with the flag; here the value came by another way.
                sentence: str = str(error).removeprefix(self.flag).lstrip(": ")
                return sentence
        return None


def text_of(value: Value) -> str:
    """A value as the command line would have it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _check_nucleus(text: str) -> None:
    _, key = parse_nucleus(text)
    if key is not None:
        decode_key(key)


PANELS = (
    *("What to run", "A cluster", "Peers without a Nucleus", "The overlay interface", "The network below"),
    "Operation",
)
"""Parts of `--help`, in their order."""
_WHAT, _CLUSTER, _PEERS, _OVERLAY, _BELOW, _OPERATION = PANELS

SETTINGS: tuple[Setting, ...] = (
    Setting(
        *("daemon", "mode", "What to run."),
        choices=("edge", "nucleus"),
        default="edge",
        panel=_WHAT,
    ),
    Setting(
        *("daemon", "port", "UDP port.", "PORT", Kind.NUMBER, DEFAULT_PORT),
        bounds=(1, 65535),
        panel=_BELOW,
        example=str(DEFAULT_PORT),
    ),
    Setting(
        *("daemon", "name", "What the cluster calls this machine. [default: the host name]", "LABEL"),
        check=parse_label,
        panel=_CLUSTER,
        edge_only=True,
    ),
    Setting(
        *("daemon", "state_dir", "Identity and memory. [default: /var/lib/omninervous for root]", "DIR"),
        check=state_path,
        panel=_OPERATION,
    ),
    Setting(
        *("daemon", "metrics", "Serve Prometheus metrics at /metrics of this address. [default: off]", "ADDR:PORT"),
        check=parse_listen,
        live=True,
        panel=_OPERATION,
    ),
    Setting(
        *("daemon", "log_format", "auto: for people on a terminal, JSON lines otherwise."),
        choices=("auto", "human", "json"),
        default="auto",
        live=True,
        panel=_OPERATION,
    ),
    Setting(
        *("daemon", "verbose", "Log more; tracebacks of internal errors.", "", Kind.SWITCH, False),
        live=True,
        panel=_OPERATION,
    ),
    Setting(
        *("network", "nucleus"),
        "Rendezvous server; more than one may be given. Its key is remembered on first use, or given here.",
        *("HOST[:PORT][#KEY]", Kind.LIST),
        check=_check_nucleus,
        panel=_CLUSTER,
        edge_only=True,
        example='"nucleus.example.com"',
    ),
    Setting(
        *("network", "cluster", "The cluster to join.", "NAME"),
        check=check_cluster_name,
        panel=_CLUSTER,
        edge_only=True,
        example='"ai-robot-fleet"',
    ),
    Setting(
        *("network", "vip", "Virtual address, by default /13. [default: from the identity]", "ADDR[/LEN]"),
        check=parse_vip,
        panel=_OVERLAY,
        edge_only=True,
    ),
    Setting(
        *("network", "dev", "Name of the overlay interface.", "NAME", Kind.TEXT, DEFAULT_DEVICE),
        check=lambda text: parse_device(text, "--dev"),
        panel=_OVERLAY,
        edge_only=True,
    ),
    Setting(
        *("network", "mtu", "Its MTU, the same in a whole cluster.", "BYTES", Kind.NUMBER, DEFAULT_MTU),
        bounds=(MTU_MIN, MTU_MAX),
        panel=_OVERLAY,
        edge_only=True,
    ),
    Setting(
        *("network", "iface", "Use this network card only. [default: what the routes say]", "NIC"),
        check=lambda text: parse_device(text, "--iface"),
        panel=_BELOW,
    ),
    Setting(
        *("network", "port_mapping", "Ask the router for an open port, by PCP, NAT-PMP or UPnP."),
        choices=PORT_MAPPING,
        default="auto",
        live=True,
        panel=_BELOW,
        edge_only=True,
    ),
    Setting(
        *("security", "secret", "The cluster's secret, at least 16 characters. Prefer --secret-file.", "TEXT"),
        check=check_secret,
        panel=_CLUSTER,
        edge_only=True,
        secret=True,
    ),
    Setting(
        *("security", "secret_file", "File that holds the secret.", "FILE"),
        check=lambda path: check_secret(read_secret_file(path)),
        panel=_CLUSTER,
        edge_only=True,
    ),
    Setting(
        *("security", "max_sessions_per_ip", "New sessions of one address and second that are answered.", "N"),
        *(Kind.NUMBER, DEFAULT_SESSIONS_PER_IP),
        bounds=(1, MAX_SESSIONS_PER_IP),
        live=True,
        example=str(DEFAULT_SESSIONS_PER_IP),
        panel=_OPERATION,
    ),
    Setting(
        *("synapse", "engine", "Data plane."),
        choices=ENGINES,
        default="auto",
        panel=_BELOW,
        edge_only=True,
    ),
    Setting(
        *("synapse", "queues", "Queues of the native engine for TCP streams.", "N", Kind.NUMBER, 1),
        bounds=(1, MAX_QUEUES),
        panel=_BELOW,
        edge_only=True,
    ),
    Setting(
        *("synapse", "aead", "Seal frames with this; auto: the faster one."),
        choices=tuple(AEADS),
        default="auto",
        panel=_BELOW,
        edge_only=True,
    ),
    Setting(
        *("synapse", "ebpf", "Where the kernel's lane receives; auto is what suits the card."),
        choices=EBPF,
        default="auto",
        panel=_BELOW,
        edge_only=True,
    ),
    Setting(
        *("synapse", "no_ebpf", "Stay in userspace: the same as --ebpf off.", "", Kind.SWITCH, False),
        panel=_BELOW,
        edge_only=True,
    ),
)

PEER_SETTINGS: tuple[Setting, ...] = (
    Setting(
        *("peer", "key", "A machine to meet without a Nucleus; can be repeated.", "KEY"),
        check=parse_peer,
        live=True,
        panel=_PEERS,
        name="peer",
        edge_only=True,
    ),
    Setting(
        *("peer", "endpoint", "Where the --peer before it is. Without: it calls us.", "HOST:PORT"),
        check=parse_endpoint,
        panel=_PEERS,
        edge_only=True,
    ),
    Setting(
        *("peer", "psk_file", "Pre-shared key of the --peer before it, as `wg genpsk` makes it.", "FILE"),
        check=read_psk_file,
        panel=_PEERS,
        edge_only=True,
    ),
    Setting(
        *("peer", "allowed_ips"),
        "Addresses of the --peer before it, if that is a stock WireGuard peer (a base64 key).",
        *("NET[,NET]", Kind.LIST),
        check=parse_allowed_ips,
        panel=_PEERS,
        edge_only=True,
    ),
)

SECTIONS: tuple[str, ...] = tuple(dict.fromkeys(each.section for each in SETTINGS))
