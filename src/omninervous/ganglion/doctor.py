"""`omni doctor`: what is wrong on this machine, and what to do about it. It looks and asks; it changes nothing.

With a daemon its own status is the best witness; what a daemon cannot know (why nobody answers) is asked from here.
Without one the host is examined for what keeps a daemon from starting, and the Nuclei of the settings are asked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omninervous.errors import OmniError, UserError
from omninervous.ganglion import netlink, preflight
from omninervous.ganglion.config import EdgeConfig
from omninervous.ganglion.netlink import OVERLAY_ALIAS, Interface
from omninervous.ganglion.options import parse_endpoint
from omninervous.ganglion.resolve import resolve
from omninervous.ganglion.tap import TUN_DEVICE, tap_holder
from omninervous.hostos.probe import Answer, answers_ping, ask_nucleus, try_to_send
from omninervous.hostos.process import CAP_NET_ADMIN, has_capability
from omninervous.hostos.udp import bind_udp
from omninervous.wire.address import Endpoint

__all__ = ["Finding", "examine"]

State = Literal["ok", "warning", "fault"]

_ENCLOSURE = 80
"""Bytes that a frame grows by around it, at most (IPv6, UDP, transport header and tag, Ethernet header, kind)."""
_BY_CODE = {
    "secret_mismatch": "secret",
    "psk_mismatch": "secret",
    "cloned": "identity",
    "cloned_peer": "identity",
    "wrong_nucleus_key": "identity",
    "mtu_differs": "mtu",
    "mtu_changed": "mtu",
    "path_mtu": "underlay",
    "clock_differs": "clock",
    "vip_conflict": "address",
    "vip_in_use_here": "address",
    "name_unresolved": "nucleus",
    "no_nucleus": "nucleus",
    "version": "version",
    "small_udp_buffers": "buffers",
}
"""Which line a daemon's problem belongs to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    check: str
    """`tun`, `port`, `clock`, ..."""
    state: State
    text: str
    remedy: str = ""


def examine(config: EdgeConfig, status: Mapping[str, Any] | None, peers: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """All lines. `status` and `peers`: the running daemon's, None and nothing if there is none; `config` is what a
    daemon would be started with."""
    present = netlink.interfaces()
    if status is None:
        remedy = "start omni-daemon (its first line says what keeps it from starting, if anything does)"
        daemon = Finding("daemon", "fault", f"no daemon runs with state directory {config.state_dir}", remedy)
        host = (*_privileges(), *_kernel(None), *_port(config), *_leftover(config, present))
        return [daemon, *host, *_named_nuclei(config)]
    daemon = Finding("daemon", "ok", f"{status['mode']} runs (version {status['version']}, pid {status['pid']})")
    port = Finding("port", "ok", f"UDP port {status['port']} is the daemon's")
    if status["mode"] == "nucleus":
        return [daemon, port]
    return [
        daemon,
        *_privileges(daemon_pid=status["pid"]),
        *_kernel(status),
        port,
        Finding("interface", "ok", f"{status['interface']['name']} is the daemon's"),
        *_told(status),
        *_underlay(status, present),
        *_nuclei(status),
        *_peers(status, peers),
    ]


# ---------------------------------------------------------------- this host


def _privileges(daemon_pid: int | None = None) -> Iterator[Finding]:
    if daemon_pid is not None:
        yield Finding("privileges", "ok", "the daemon has what it needs")
    elif has_capability(CAP_NET_ADMIN):
        yield Finding("privileges", "ok", "CAP_NET_ADMIN")
    else:
        text = "CAP_NET_ADMIN is missing, without it no interface can be made"
        yield Finding("privileges", "fault", text, "run it as root, or by its systemd unit")
    if os.path.exists(TUN_DEVICE):
        yield Finding("tun", "ok", TUN_DEVICE)
    else:
        remedy = f"modprobe tun, or give it to the container (--device={TUN_DEVICE})"
        yield Finding("tun", "fault", f"there is no {TUN_DEVICE}", remedy)


def _kernel(status: Mapping[str, Any] | None) -> Iterator[Finding]:
    reason = _steering_error() if status is None else status["queues"]["reason"]
    remedy = "run it as root or with CAP_BPF; without BPF everything works, with higher latency beside fast streams"
    if status is not None and status["engine"] != "native":
        yield Finding("bpf", "ok", f"the {status['engine']} engine uses none")
    elif reason:
        yield Finding("bpf", "fault", reason, remedy)
    else:
        yield Finding("bpf", "ok", "programs can be loaded")


def _steering_error() -> str | None:
    from omninervous._native import steering_error

    return steering_error()


def _port(config: EdgeConfig) -> Iterator[Finding]:
    try:
        bind_udp(config.port, config.iface).close()
    except OmniError as error:
        text, _, remedy = str(error).partition(": ")
        yield Finding("port", "fault", text, remedy or "choose another with --port")
    else:
        yield Finding("port", "ok", f"UDP port {config.port} is free")


def _leftover(config: EdgeConfig, present: Sequence[Interface]) -> Iterator[Finding]:
    found = next((each for each in present if each.name == config.device), None)
    if found is None:
        yield Finding("interface", "ok", f"no {config.device} is in the way")
    elif found.alias == OVERLAY_ALIAS and found.kind == "tun":
        holder = tap_holder(found.name)
        if holder:
            remedy = f"end {holder}, or name its --state-dir"
            yield Finding("interface", "fault", f"{found.name} belongs to {holder}, which does not answer here", remedy)
        else:
            remedy = f"ip link del {found.name} (the next omni-daemon does it, too)"
            yield Finding("interface", "fault", f"{found.name} is left over from a daemon that is gone", remedy)
    else:
        try:
            preflight.check_device_free(config, present)
        except UserError as error:
            text, _, remedy = str(error).partition(": ")
            yield Finding("interface", "fault", text, remedy)


# ---------------------------------------------------------------- what the daemon says


def _told(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Its problems, each on its line, and a good word for the lines without one."""
    lines: set[str] = set()
    for problem in status.get("problems", []):
        line = _BY_CODE.get(problem["code"], "daemon")
        if line == "nucleus":
            continue  # `_nuclei` finds out why
        lines.add(line)
        text, _, remedy = problem["text"].rpartition(": ")
        yield Finding(line, "fault", text or problem["text"], remedy if text else "see omni status")
    for sentence in status.get("missing", []):
        yield Finding("configuration", "fault", sentence, "omni config show says what holds, and why")
    good = {
        "secret": "no sign of another secret",
        "identity": "no sign of a second machine with an identity in use",
        "mtu": f"{status['interface']['name']} has MTU {status['interface']['mtu']}, and no peer another",
        "clock": "no peer has another time",
        "address": "the address is ours alone",
    }
    for line, text in good.items():
        if line not in lines:
            yield Finding(line, "ok", text)


def _underlay(status: Mapping[str, Any], present: Sequence[Interface]) -> Iterator[Finding]:
    overlay, wanted = status["interface"]["name"], status["interface"]["mtu"] + _ENCLOSURE
    narrow = [each for each in present if each.default_route and each.mtu < wanted and each.name != overlay]
    for each in narrow:
        text = f"{each.name} has MTU {each.mtu}: frames of full size cross it in two pieces"
        remedy = f"give all machines of the cluster --mtu {max(1280, each.mtu - _ENCLOSURE)}"
        yield Finding("underlay", "warning", text, remedy)
    if not narrow:
        yield Finding("underlay", "ok", "frames of full size fit the network below")


# ---------------------------------------------------------------- the others


def _nuclei(status: Mapping[str, Any]) -> Iterator[Finding]:
    for nucleus in status.get("nuclei", []):
        name = nucleus["name"]
        if nucleus["registered"]:
            yield Finding("nucleus", "ok", f"registered at {name}")
            continue
        yield _unregistered(name, *_ask(name), nucleus["hint"])


def _named_nuclei(config: EdgeConfig) -> Iterator[Finding]:
    """Without a daemon: whether each Nucleus of the settings answers a HELLO, as it answers every stranger."""
    for each in config.nuclei:
        name = str(each.place)
        endpoint, answer = _ask(name)
        if answer is Answer.HEARD:
            yield Finding("nucleus", "ok", f"{name} answers at {endpoint}")
        else:
            yield _unregistered(name, endpoint, answer, "")


def _ask(name: str) -> tuple[Endpoint | None, Answer]:
    """The first address that answers, else the first of all with what became of the question; None: there is none."""
    answers = []
    for endpoint in asyncio.run(resolve(parse_endpoint(name), ipv6=True)):
        answers.append((endpoint, ask_nucleus(endpoint)))
        if answers[-1][1] is Answer.HEARD:
            return answers[-1]
    return answers[0] if answers else (None, Answer.SILENCE)


def _unregistered(name: str, endpoint: Endpoint | None, answer: Answer, hint: str) -> Finding:
    if endpoint is None:
        return Finding("nucleus", "fault", f"{name} has no address", "check the name and this machine's DNS")
    return _unreachable("nucleus", f"Nucleus {name}", endpoint, answer, hint)


def _peers(status: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    up = sum(peer["state"] == "up" for peer in peers)
    named = {each["wireguard_public_key"]: each["endpoint"] for each in status["named_peers"]}
    for peer in peers:
        place = peer["endpoint"] or named.get(peer["wireguard_public_key"])
        wanted = peer["kind"] != "member" or peer["state"] == "connecting"
        if peer["state"] == "up" or not wanted or place is None:
            continue
        name = peer["name"] or (peer["identity"] or peer["wireguard_public_key"])[:8]
        for endpoint in asyncio.run(resolve(parse_endpoint(place), ipv6=True))[:1]:
            yield _unreachable("peer", f"peer {name}", endpoint, try_to_send(endpoint), "")
    if up:
        yield Finding("peers", "ok", f"{up} up")
    elif peers:
        yield Finding("peers", "fault", "none is up", "see the lines above; on the other machine run omni doctor, too")
    else:
        yield Finding("peers", "ok", "none is known yet")


def _unreachable(check: str, who: str, endpoint: Endpoint, answer: Answer, hint: str) -> Finding:
    """Why somebody does not answer."""
    match answer:
        case Answer.HEARD:
            text = f"{who} answers at {endpoint}, but we are not registered{f': {hint}' if hint else ''}"
            return Finding(check, "fault", text, "see omni events; is the time of both machines right?")
        case Answer.FORBIDDEN:
            text = f"UDP is blocked: a firewall of this machine refuses datagrams to {who} ({endpoint})"
            return Finding("udp", "fault", text, f"allow UDP to port {endpoint.port} (nft list ruleset shows the rule)")
        case Answer.REFUSED:
            text = f"{who} is off: {endpoint.host} says that nobody listens on UDP port {endpoint.port}"
            return Finding(check, "fault", text, "start it, or correct the port")
        case Answer.NO_ROUTE:
            text = f"{who} cannot be reached: there is no route to {endpoint.host}"
            return Finding(check, "fault", text, "check this machine's network: ip route get " + endpoint.host)
        case Answer.SILENCE:
            return _silent(check, who, endpoint)


def _silent(check: str, who: str, endpoint: Endpoint) -> Finding:
    pinged = answers_ping(endpoint.host)
    if pinged:
        text = f"UDP is blocked or {who} is off: {endpoint.host} answers ping, UDP port {endpoint.port} does not answer"
        remedy = f"let UDP port {endpoint.port} through the firewalls of both sides; is the daemon there running?"
        return Finding("udp", "fault", text, remedy)
    reach = "does not answer ping either" if pinged is False else "was not asked by ping"
    text = f"{who} cannot be reached at {endpoint}: no answer by UDP, and {endpoint.host} {reach}"
    return Finding(check, "fault", text, "check that machine, the address, and the network between")
