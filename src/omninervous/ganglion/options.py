"""Text from the operator to values: addresses, names, key files. Each error names the option and its remedy."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from omninervous.errors import UserError
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import NAME_MAX_SIZE

__all__ = [
    "DEFAULT_PORT",
    "DEFAULT_SESSIONS_PER_IP",
    "EBPF",
    "MAX_QUEUES",
    "MAX_SESSIONS_PER_IP",
    "MTU_MAX",
    "MTU_MIN",
    "PORT_MAPPING",
    "HostPort",
    "is_number",
    "parse_allowed_ips",
    "parse_device",
    "parse_endpoint",
    "parse_label",
    "parse_listen",
    "parse_mtu",
    "parse_nucleus",
    "parse_port",
    "parse_queues",
    "parse_sessions",
    "read_psk_file",
    "read_secret_file",
]

DEFAULT_PORT = 51820
EBPF = ("auto", "xdp", "tc", "off")
"""What `--ebpf` may say: how the kernel's lane receives, or that there is none."""
PORT_MAPPING = ("auto", "off")
"""What `--port-mapping` may say: whether a default gateway is asked for an open port."""
MTU_MIN = 1280
"""Below it Linux takes IPv6 off an interface (RFC 8200 section 5), and with it the ULA."""
MTU_MAX = 9216
MAX_QUEUES = 6
"""As many bulk lanes as there are (docs/PROTOCOL.md, lanes)."""
DEFAULT_SESSIONS_PER_IP = 10
MAX_SESSIONS_PER_IP = 10_000
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)
"""IFNAMSIZ allows 15 bytes; fewer characters than the kernel takes, so that every tool copes with the name."""
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_NAME_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_SECRET_FILE_LIMIT = 4096
_DIGITS = 20
PSK_SIZE = 32


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a Nucleus or a peer is, as the operator said it: a DNS name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def literal(self) -> Endpoint | None:
        """The endpoint if the host is an address; None if it is a name."""
        try:
            return Endpoint(str(ip_address(self.host)), self.port)
        except ValueError:
            return None


def is_number(text: str, low: int, high: int) -> bool:
    """Whether the text is a decimal number from `low` (not negative) to `high`."""
    # Python refuses to convert thousands of digits, with a ValueError.
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS and low <= int(text) <= high


# ---------------------------------------------------------------- host and port


def parse_port(text: str, option: str = "--port") -> int:
    """A UDP port, 1..65535."""
    if not is_number(text, 1, (1 << 16) - 1):
        raise UserError(f"{option} {text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def parse_endpoint(text: str) -> HostPort:
    """`HOST:PORT`, `ADDR:PORT` or `[ADDR6]:PORT`; the port is a must."""
    return _parse_host_port(text, "--endpoint", None)


def parse_nucleus(text: str) -> tuple[HostPort, str | None]:
    """`HOST[:PORT][#KEY]`: where it is, and the text of its key if given."""
    place, mark, key = text.partition("#")
    if mark and not key:
        raise UserError(f"--nucleus {text}: no key follows the #; give HOST[:PORT][#KEY]")
    return _parse_host_port(place, "--nucleus", DEFAULT_PORT), key or None


def parse_listen(text: str) -> Endpoint:
    """`ADDR:PORT` or `[ADDR6]:PORT` to listen at; also an unspecified address, for all."""
    host, port = _split_host_port(text, "--metrics")
    if port is None:
        raise UserError(f"--metrics {text}: the port is missing, write for example 127.0.0.1:9751")
    try:
        address = ip_address(host)
    except ValueError:
        raise UserError(f"--metrics {text}: {host!r} is no address, write for example 127.0.0.1:9751") from None
    return Endpoint(str(address), parse_port(port, f"--metrics {text}: port"))


def _parse_host_port(text: str, option: str, default_port: int | None) -> HostPort:
    host, port = _split_host_port(text, option)
    if port is None:
        if default_port is None:
            raise UserError(f"{option} {text}: the port is missing, write {_with_port(host)}")
        number = default_port
    else:
        number = parse_port(port, f"{option} {text}: port")
    return HostPort(_check_host(host, text, option), number)


def _split_host_port(text: str, option: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UserError(f"{option} {text}: write an IPv6 address as [ADDRESS]:PORT")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None  # a bare IPv6 address
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _with_port(host: str) -> str:
    return f"[{host}]:{DEFAULT_PORT}" if ":" in host else f"{host}:{DEFAULT_PORT}"


def _check_host(host: str, text: str, option: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return _check_name(host, text, option)
    if address.version == 6 and (address.is_link_local or "%" in host):
        raise UserError(f"{option} {text}: a link-local address is not enough, give a global or unique local one")
    if not _is_unicast(address):
        raise UserError(f"{option} {text}: {address} is not the address of one machine")
    return str(address)


def _check_name(host: str, text: str, option: str) -> str:
    labels = host.removesuffix(".").split(".")
    digits_only = labels[-1].isdecimal()  # RFC 1123 section 2.1: then it was meant as an address
    if len(host) > 253 or digits_only or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise UserError(f"{option} {text}: {host!r} is neither a host name nor an IP address")
    return host.lower()


def _is_unicast(address: IPv4Address | IPv6Address) -> bool:
    reserved_v4 = isinstance(address, IPv4Address) and (int(address) >> 28 == 0xF or int(address) >> 24 == 0)
    return not (address.is_multicast or address.is_unspecified or reserved_v4)


# ---------------------------------------------------------------- overlay


def parse_allowed_ips(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """`NET[,NET...]`, as `wg` writes them; an address alone is a network of one."""
    networks: list[IPv4Network | IPv6Network] = []
    for item in (part.strip() for part in text.split(",")):
        try:
            networks.append(ip_network(item, strict=False))
        except ValueError:
            raise UserError(
                f"--allowed-ips {text}: {item!r} is not a network, write for example 10.9.0.2/32,fd00::/64"
            ) from None
    return tuple(networks)


def parse_device(text: str, option: str) -> str:
    """The name of a network interface."""
    if not _DEVICE_NAME.fullmatch(text) or text in (".", ".."):
        raise UserError(f"{option} {text!r} cannot name an interface: 1 to 15 letters, digits, '_', '-' and '.'")
    return text


def parse_mtu(text: str) -> int:
    """MTU of omni0 in bytes; the same in a whole cluster."""
    if not is_number(text, MTU_MIN, MTU_MAX):
        raise UserError(f"--mtu {text!r} is out of range: give {MTU_MIN} to {MTU_MAX} bytes, the same on all machines")
    return int(text)


def parse_queues(text: str) -> int:
    """Bulk queues of the native engine."""
    if not is_number(text, 1, MAX_QUEUES):
        raise UserError(f"--queues {text!r} is out of range: give 1 to {MAX_QUEUES}")
    return int(text)


def parse_sessions(text: str | None) -> int:
    """New sessions of one address and second."""
    if text is None:
        return DEFAULT_SESSIONS_PER_IP
    if not is_number(text, 1, MAX_SESSIONS_PER_IP):
        raise UserError(f"--max-sessions-per-ip {text!r} is out of range: give 1 to {MAX_SESSIONS_PER_IP}")
    return int(text)


def parse_label(text: str) -> str:
    """The name that peers see: one host name label; empty means none."""
    if text and not _NAME_LABEL.fullmatch(text):
        raise UserError(
            f"--name {text!r} is not a host name label: 1 to {NAME_MAX_SIZE} letters and digits, with '-' inside"
        )
    return text


# ---------------------------------------------------------------- files


def read_secret_file(path: str) -> str:
    """The first line of the file, without its line break."""
    text = _read_text(path, "--secret-file")
    first, _, rest = text.partition("\n")
    if rest.strip():
        raise UserError(f"--secret-file {path} has more than one line: put the secret alone into it")
    return first.removesuffix("\r")


def read_psk_file(path: str) -> bytes:
    """The pre-shared key in base64, as `wg genpsk` writes it; 32 bytes."""
    text = _read_text(path, "--psk-file").strip()
    try:
        psk = base64.b64decode(text, validate=True)
    except binascii.Error:
        psk = b""
    if len(psk) != PSK_SIZE:
        raise UserError(
            f"--psk-file {path} holds no pre-shared key: make one with `wg genpsk` (44 characters of base64)"
        )
    return psk


def _read_text(path: str, option: str) -> str:
    if not path or "\0" in path:
        raise UserError(f"{option} {path!r} is no file name: name a file")
    try:
        with Path(path).open("rb") as file:
            data = file.read(_SECRET_FILE_LIMIT + 1)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error
    if len(data) > _SECRET_FILE_LIMIT:
        raise UserError(f"{option} {path} is larger than {_SECRET_FILE_LIMIT} bytes: is it the right file?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UserError(f"{option} {path} is not text in UTF-8: is it the right file?") from None
