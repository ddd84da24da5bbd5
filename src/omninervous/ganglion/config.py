"""The configuration of an edge: from the operator's words to checked values, before anything is touched."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from omninervous.core.identity import parse_peer
from omninervous.core.secret import check_cluster_name, check_secret
from omninervous.core.vip import parse_vip
from omninervous.errors import UserError
from omninervous.ganglion.engines import AEADS, ENGINES
from omninervous.ganglion.options import (
    DEFAULT_PORT,
    DEFAULT_SESSIONS_PER_IP,
    EBPF,
    PORT_MAPPING,
    HostPort,
    parse_allowed_ips,
    parse_device,
    parse_endpoint,
    parse_label,
    parse_listen,
    parse_mtu,
    parse_nucleus,
    parse_port,
    parse_queues,
    parse_sessions,
    read_psk_file,
    read_secret_file,
)
from omninervous.hostos.logs import LogFormat
from omninervous.hostos.state import state_path
from omninervous.wire.address import Endpoint
from omninervous.wire.keytext import decode_key
from omninervous.wire.membership import VipClaim

__all__ = [
    "DEFAULT_DEVICE",
    "DEFAULT_MTU",
    "DEFAULT_SESSIONS_PER_IP",
    "SECRET_VARIABLE",
    "EdgeConfig",
    "EdgeOptions",
    "NucleusPlace",
    "PeerOptions",
    "PeerPlace",
    "check_edge_options",
]

DEFAULT_DEVICE = "omni0"
DEFAULT_MTU = 1380
SECRET_VARIABLE = "OMNI_SECRET"


# ---------------------------------------------------------------- the operator's words


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """One `--peer` and the options that belong to it, as text."""

    key: str
    endpoint: str | None = None
    psk_file: str | None = None
    allowed_ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    """The options of an edge as text; None: not given."""

    port: str | None = None
    nuclei: tuple[str, ...] = ()
    cluster: str | None = None
    secret: str | None = field(default=None, repr=False)
    secret_origin: str = "--secret"
    """Who said it: `--secret`, SECRET_VARIABLE, or a file and its line."""
    secret_file: str | None = None
    vip: str | None = None
    peers: tuple[PeerOptions, ...] = ()
    iface: str | None = None
    port_mapping: str | None = None
    ebpf: str | None = None
    no_ebpf: bool = False
    engine: str | None = None
    queues: str | None = None
    aead: str | None = None
    dev: str | None = None
    state_dir: str | None = None
    name: str | None = None
    mtu: str | None = None
    max_sessions_per_ip: str | None = None
    metrics: str | None = None
    log_format: LogFormat = "auto"
    verbose: bool = False


# ---------------------------------------------------------------- checked values


@dataclass(frozen=True, slots=True)
class NucleusPlace:
    """A Nucleus that the operator named."""

    place: HostPort
    key: bytes | None
    """Its Ed25519 key, if the operator gave it."""


@dataclass(frozen=True, slots=True)
class PeerPlace:
    """A peer that the operator named."""

    x25519: bytes
    ed25519: bytes | None
    """None: a stock WireGuard peer."""
    endpoint: HostPort | None
    """None: it must call us."""
    psk: bytes = field(default=bytes(32), repr=False)
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """What an edge daemon is to do. Every value is well-formed; what the host says to it is for `preflight`."""

    state_dir: Path
    port: int = DEFAULT_PORT
    device: str = DEFAULT_DEVICE
    iface: str | None = None
    port_mapping: bool = True
    """Whether a default gateway is asked for an open port."""
    engine: str = "auto"
    queues: int = 1
    """Bulk queues of the native engine."""
    aead: str = "auto"
    ebpf: str = "auto"
    """How the reflex lane receives."""
    mtu: int = DEFAULT_MTU
    name: str = ""
    nuclei: tuple[NucleusPlace, ...] = ()
    cluster: str | None = None
    secret: str | None = field(default=None, repr=False)
    claim: VipClaim | None = None
    peers: tuple[PeerPlace, ...] = ()
    sessions_per_ip: int = DEFAULT_SESSIONS_PER_IP
    """New sessions of one address and second that are answered."""
    metrics: Endpoint | None = None
    """Where metrics are served; None: nowhere."""
    log_format: LogFormat = "auto"
    verbose: bool = False
    notes: tuple[str, ...] = ()
    """Sentences for the log: nothing is wrong, but the operator should know."""


def check_edge_options(options: EdgeOptions) -> EdgeConfig:
    """Check every option; UserError names the first bad one. Reads the files named, changes nothing."""
    notes: list[str] = []
    cluster = None if options.cluster is None else check_cluster_name(options.cluster)
    nuclei = _check_nuclei(options.nuclei)
    if nuclei and cluster is None:
        raise UserError("--nucleus needs --cluster NAME: a Nucleus knows many clusters")
    engine = _one_of("--engine", options.engine or "auto", ENGINES)
    aead = _one_of("--aead", options.aead or "auto", AEADS)
    mapping = _one_of("--port-mapping", options.port_mapping or "auto", PORT_MAPPING)
    return EdgeConfig(
        state_dir=state_path(options.state_dir),
        port=DEFAULT_PORT if options.port is None else parse_port(options.port),
        device=DEFAULT_DEVICE if options.dev is None else parse_device(options.dev, "--dev"),
        iface=None if options.iface is None else parse_device(options.iface, "--iface"),
        port_mapping=mapping == "auto",
        engine=engine,
        aead=aead,
        ebpf=_check_ebpf(options, engine),
        queues=1 if options.queues is None else parse_queues(options.queues),
        mtu=DEFAULT_MTU if options.mtu is None else parse_mtu(options.mtu),
        name=_host_label() if options.name is None else parse_label(options.name),
        nuclei=nuclei,
        cluster=cluster,
        secret=_check_secret(options, cluster, notes),
        claim=None if options.vip is None else parse_vip(options.vip),
        peers=_check_peers(options.peers),
        sessions_per_ip=parse_sessions(options.max_sessions_per_ip),
        metrics=None if options.metrics is None else parse_listen(options.metrics),
        log_format=options.log_format,
        verbose=options.verbose,
        notes=tuple(notes),
    )


def _one_of(flag: str, value: str, choices: Collection[str]) -> str:
    if value not in choices:
        raise UserError(f"{flag} {value!r} is unknown: give one of {', '.join(choices)}")
    return value


def _check_ebpf(options: EdgeOptions, engine: str) -> str:
    """`auto`, or what was asked for."""
    wanted = _one_of("--ebpf", options.ebpf or ("off" if options.no_ebpf else "auto"), EBPF)
    if options.no_ebpf and wanted != "off":
        raise UserError(f"--no-ebpf and --ebpf {wanted} exclude each other: leave one out")
    if engine == "reference" and wanted in ("xdp", "tc"):
        raise UserError(f"--ebpf {wanted} needs the native engine: leave out --engine reference, or --ebpf")
    return wanted


def _check_nuclei(texts: tuple[str, ...]) -> tuple[NucleusPlace, ...]:
    nuclei: list[NucleusPlace] = []
    for text in texts:
        place, key = parse_nucleus(text)
        if any(place == other.place for other in nuclei):
            raise UserError(f"--nucleus {place} is given twice: leave one out")
        try:
            nuclei.append(NucleusPlace(place, None if key is None else decode_key(key)))
        except UserError as error:
            raise UserError(f"--nucleus {place}: {error}") from error
    return tuple(nuclei)


def _check_secret(options: EdgeOptions, cluster: str | None, notes: list[str]) -> str | None:
    """The secret, or what is in the secret file; None: an open cluster, or none."""
    if options.secret is not None and options.secret_file is not None:
        raise UserError("--secret and --secret-file exclude each other: keep --secret-file")
    if options.secret is not None:
        option, secret = options.secret_origin, options.secret
        if option == "--secret":
            notes.append("--secret is to be seen in the shell's history and, for a moment, in ps: prefer --secret-file")
        if option == SECRET_VARIABLE and cluster is None:
            notes.append(f"{SECRET_VARIABLE} is set but not used: there is no --cluster")
            return None
    elif options.secret_file is not None:
        option, secret = "--secret-file", read_secret_file(options.secret_file)
        if Path(options.secret_file).stat().st_mode & 0o077:
            notes.append(f"--secret-file {options.secret_file} can be read by others: chmod 600 it")
    else:
        if cluster is not None:
            notes.append(
                f"cluster {cluster} has no secret: everybody who knows its name can join (see docs/SECURITY.md)"
            )
        return None
    if cluster is None:
        raise UserError(f"{option} needs --cluster NAME (the secret of a --peer pair is its --psk-file)")
    try:
        check_secret(secret)
    except UserError as error:
        raise UserError(f"{option}: {error}") from error
    return secret


def _check_peers(options: tuple[PeerOptions, ...]) -> tuple[PeerPlace, ...]:
    peers: list[PeerPlace] = []
    for each in options:
        peer = _check_peer(each)
        if any(peer.x25519 == other.x25519 for other in peers):
            raise UserError(f"--peer {each.key} is given twice: leave one out")
        peers.append(peer)
    return tuple(peers)


def _check_peer(options: PeerOptions) -> PeerPlace:
    try:
        key = parse_peer(options.key)
    except UserError as error:
        raise UserError(f"--peer: {error}") from error
    if key.ed25519 is not None and options.allowed_ips:
        raise UserError(
            "--allowed-ips is for stock WireGuard peers (a base64 key): leave it out, the addresses of an OmniNervous "
            "peer follow from its identity"
        )
    if key.ed25519 is None and not options.allowed_ips:
        raise UserError(f"--peer {options.key} is a WireGuard key and needs --allowed-ips, for example 10.9.0.2/32")
    return PeerPlace(
        x25519=key.x25519,
        ed25519=key.ed25519,
        endpoint=None if options.endpoint is None else parse_endpoint(options.endpoint),
        psk=bytes(32) if options.psk_file is None else read_psk_file(options.psk_file),
        allowed_ips=tuple(network for text in options.allowed_ips for network in parse_allowed_ips(text)),
    )


def _host_label() -> str:
    """The host's own name as a label; empty if it does not make one."""
    try:
        return parse_label(socket.gethostname().partition(".")[0])
    except UserError:
        return ""
