"""UPnP answers that must not be followed, and ways out that are not asked."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, ip_network

import pytest

from omninervous.errors import DecodeError
from omninervous.ganglion import igd
from omninervous.ganglion.addresses import MAX_CANDIDATES, Underlay, with_mapped
from omninervous.ganglion.gateway import Way
from omninervous.ganglion.portmapper import ways_of
from omninervous.wire.address import Endpoint

GATEWAY = IPv4Address("192.168.1.1")


def answer(location: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nST: x\r\nLocation: {location}\r\n\r\n".encode()


def test_a_description_on_the_gateway_is_taken() -> None:
    assert igd.location_of(answer("http://192.168.1.1:5000/root.xml"), GATEWAY) == "http://192.168.1.1:5000/root.xml"


@pytest.mark.parametrize(
    "location",
    ["http://192.168.1.7/x", "http://router.example/x", "file:///etc/passwd", "", "http://192.168.1.1:99999/x"],
)
def test_nothing_else_is(location: str) -> None:
    with pytest.raises(DecodeError):
        igd.location_of(answer(location), GATEWAY)


def serve(page: bytes) -> igd.Control:
    """What `find_control` makes of a page that a server on the loopback gives."""

    async def talk() -> igd.Control:
        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + page)
            writer.close()

        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        async with server:
            return await igd.find_control(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/root.xml")

    return asyncio.run(talk())


def description(control: str) -> bytes:
    service = "urn:schemas-upnp-org:service:WANIPConnection:1"
    return (
        '<root xmlns="urn:schemas-upnp-org:device-1-0"><service>'
        f"<serviceType>{service}</serviceType><controlURL>{control}</controlURL></service></root>"
    ).encode()


def test_the_control_address_is_read() -> None:
    control = serve(description("/ctl"))
    assert (control.host, control.path) == ("127.0.0.1", "/ctl")
    assert igd.Control.from_token(control.token) == control


@pytest.mark.parametrize(
    "page",
    [
        description("http://192.0.2.1/ctl"),
        b"<root/>",
        b"no XML",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"<a>" + b"x" * (1 << 17) + b"</a>",
    ],
)
def test_a_bad_description_is_refused(page: bytes) -> None:
    with pytest.raises(DecodeError):
        serve(page)


def test_only_a_gateway_that_we_are_behind_is_asked() -> None:
    def underlay(address: str, network: str, gateway: str) -> Underlay:
        return Underlay((Endpoint(address, 51820),), (ip_network(network),), (("eth0", (gateway,)),))

    home = underlay("192.168.1.2", "192.168.1.0/24", "192.168.1.1")
    assert ways_of(home) == (Way("eth0", GATEWAY, IPv4Address("192.168.1.2")),)
    assert ways_of(underlay("198.51.100.7", "198.51.100.0/24", "198.51.100.1")) == (), "a public address"
    assert ways_of(underlay("192.168.1.2", "192.168.1.0/24", "192.168.9.1")) == (), "not on our network"
    assert ways_of(underlay("fd00::2", "fd00::/64", "fd00::1")) == ()


def test_a_mapping_is_announced_beside_any_number_of_addresses() -> None:
    many = [Endpoint(f"10.0.0.{number}", 51820) for number in range(1, MAX_CANDIDATES + 1)]
    mapping = Endpoint("198.20.0.1", 51820)
    assert with_mapped(many[:1], [mapping]) == (mapping, many[0])
    assert with_mapped(many, [mapping]) == (mapping, *many[:-1])
    assert with_mapped(many, [many[0]]) == tuple(many)
