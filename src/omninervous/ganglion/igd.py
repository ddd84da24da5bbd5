"""UPnP-IGD (WANIPConnection:1 and :2, WANPPPConnection:1): a port mapping by SSDP, a description, and SOAP.

The search goes to the gateway alone (UPnP Device Architecture 1.1 section 1.3.2 allows that), and all that follows to
its address: a host of the LAN cannot make us talk to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint

__all__ = ["SSDP_PORT", "Control", "add", "delete", "find_control", "location_of", "search_for"]

SSDP_PORT = 1900
_SERVICES = tuple(
    f"urn:schemas-upnp-org:service:{name}" for name in ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1")
)
_PATIENCE = 3.0
"""Seconds for one HTTP exchange."""
_LONGEST_PAGE = 64 << 10
_ONLY_PERMANENT, _CONFLICT = "725", "718"
"""WANIPConnection:1 section 2.4.16: the gateway knows no lease times; somebody else has the outside port."""
_PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class Control:
    """Where a gateway's mappings are made."""

    host: str
    port: int
    path: str
    service: str

    @property
    def token(self) -> bytes:
        return "\n".join((self.host, str(self.port), self.path, self.service)).encode()

    @classmethod
    def from_token(cls, token: bytes) -> Control:
        host, port, path, service = token.decode().split("\n")
        return cls(host, int(port), path, service)


def search_for(gateway: IPv4Address) -> bytes:
    """The SSDP request."""
    lines = (
        *("M-SEARCH * HTTP/1.1", f"HOST: {gateway}:{SSDP_PORT}", 'MAN: "ssdp:discover"', "MX: 1"),
        "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def location_of(data: bytes, gateway: IPv4Address) -> str:
    """Where the description is. DecodeError if this is no answer, or if it leads anywhere but to the gateway."""
    head, *lines = data.decode("latin-1").split("\r\n")
    if not head.startswith("HTTP/1.1 200"):
        raise DecodeError("not an answer to M-SEARCH")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return _on_gateway(headers.get("location", ""), str(gateway))


async def find_control(location: str) -> Control:
    """Read the description."""
    host = _host_port(location)[0]
    tree = _parse(await _http(location, b"", {}))
    for wanted in _SERVICES:
        for service in tree.iter("{urn:schemas-upnp-org:device-1-0}service"):
            found = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in service}
            if found.get("serviceType") == wanted:
                url = _on_gateway(urljoin(location, found.get("controlURL", "")), host)
                return Control(*_host_port(url), urlsplit(url).path, wanted)
    raise DecodeError("the gateway's description has no WAN connection")


async def add(control: Control, client: IPv4Address, port: int, wanted: int, lifetime: int) -> tuple[Endpoint, int]:
    """Map an outside port, `wanted` if it is free, to UDP `port` of the client; for so many seconds (0: for ever)."""
    answer = await _soap(control, "GetExternalIPAddress", {})
    try:
        address = IPv4Address((answer.findtext(".//NewExternalIPAddress") or "").strip())
    except AddressValueError:
        raise DecodeError("the gateway names no outside address") from None
    for _ in range(_PORT_TRIES):
        arguments = {
            "NewRemoteHost": "",
            "NewExternalPort": str(wanted),
            "NewProtocol": "UDP",
            "NewInternalPort": str(port),
            "NewInternalClient": str(client),
            "NewEnabled": "1",
            "NewPortMappingDescription": "OmniNervous",
            "NewLeaseDuration": str(lifetime),
        }
        try:
            await _soap(control, "AddPortMapping", arguments)
        except RemoteError as error:
            if _ONLY_PERMANENT in str(error) and lifetime:
                lifetime = 0
            elif _CONFLICT in str(error):
                wanted = 49152 + secrets.randbelow(16384)
            else:
                raise
        else:
            return Endpoint(str(address), wanted), lifetime
    raise RemoteError("port_mapping_refused", "no outside port is free")


async def delete(control: Control, outside: int) -> None:
    """Remove the mapping of an outside port."""
    arguments = {"NewRemoteHost": "", "NewExternalPort": str(outside), "NewProtocol": "UDP"}
    await _soap(control, "DeletePortMapping", arguments)


async def _soap(control: Control, action: str, arguments: dict[str, str]) -> ElementTree.Element:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{control.service}">{inner}</u:{action}></s:Body></s:Envelope>'
    )
    headers = {"SOAPAction": f'"{control.service}#{action}"', "Content-Type": 'text/xml; charset="utf-8"'}
    answer = _parse(await _http(f"http://{control.host}:{control.port}{control.path}", body.encode(), headers))
    code = answer.findtext(".//{urn:schemas-upnp-org:control-1-0}errorCode")
    if code is not None:
        raise RemoteError("port_mapping_refused", f"UPnP error {code.strip()[:8]}")
    return answer


async def _http(url: str, body: bytes, more: dict[str, str]) -> bytes:
    """The page: HTTP/1.0, so that it ends with the connection. SOAP's refusals come as status 500 with a page, too."""
    host, port = _host_port(url)
    headers = {"Host": f"{host}:{port}", "Connection": "close", **more}
    if body:
        headers["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with asyncio.timeout(_PATIENCE):
        reader, writer = await asyncio.open_connection(host, port, limit=_LONGEST_PAGE)
        try:
            verb, path = "POST" if body else "GET", urlsplit(url).path or "/"
            writer.write(f"{verb} {path} HTTP/1.0\r\n{head}\r\n".encode() + body)
            answer = bytearray()
            while (part := await reader.read(4096)) and len(answer) <= _LONGEST_PAGE:
                answer += part
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    if len(answer) > _LONGEST_PAGE:
        raise DecodeError("the gateway's page is too long")
    return bytes(answer.partition(b"\r\n\r\n")[2])


def _parse(page: bytes) -> ElementTree.Element:
    """XML without declarations of its own: an entity could grow without bound."""
    if b"<!" in page:
        raise DecodeError("the gateway's page declares entities")
    try:
        return ElementTree.fromstring(page)
    except ElementTree.ParseError as error:
        raise DecodeError(f"the gateway's page is no XML: {error}") from None


def _on_gateway(url: str, gateway: str) -> str:
    if urlsplit(url).scheme != "http" or _host_port(url)[0] != gateway:
        raise DecodeError("UPnP leads to somebody else than the gateway")
    return url


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        return parts.hostname or "", parts.port or 80
    except ValueError:
        raise DecodeError("no address in a URL of the gateway") from None
