"""Answers leave from the address that was written to, on loopback, where 127.0.0.0/8 is all ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from omninervous.hostos import answering
from omninervous.hostos.answering import Answering
from omninervous.hostos.udp import UdpSockets, bind_udp
from omninervous.wire.address import Endpoint

SECOND, THIRD = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def sockets() -> Iterator[UdpSockets]:
    with closing(bind_udp(0)) as made:
        for each in made:
            each.settimeout(10.0)
        yield made


def client(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(10.0)
    made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    return made


def answered_from(made: Answering, sockets: UdpSockets, asking: socket.socket, host: str) -> str:
    """Write to one of its addresses; where its answer comes from."""
    udp = sockets.v6 if ":" in host else sockets.v4
    assert udp is not None
    asking.sendto(b"question", (host, sockets.port))
    data, source = made.receive(udp, 100)
    assert data == b"question" and source == asking.getsockname()[:2]
    return pushed_from(made, asking)


def pushed_from(made: Answering, asking: socket.socket) -> str:
    name = asking.getsockname()
    assert made.send(b"answer", Endpoint(name[0], name[1]))
    data, address = asking.recvfrom(100)
    assert data == b"answer"
    return str(address[0])


def test_each_is_answered_from_where_it_wrote_to(sockets: UdpSockets) -> None:
    made = Answering(sockets)
    with client() as one, client() as two, client() as new, client(socket.AF_INET6) as six:
        for _ in range(2):
            assert answered_from(made, sockets, one, SECOND) == SECOND
            assert answered_from(made, sockets, two, THIRD) == THIRD
            assert answered_from(made, sockets, six, "::1") == "::1"
        assert pushed_from(made, one) == SECOND and pushed_from(made, two) == THIRD, "also without a question"
        assert pushed_from(made, new) == SECOND, "what most wrote to"
        assert answered_from(made, sockets, two, SECOND) == SECOND, "the newest counts"


def test_an_address_that_is_gone_is_replaced(sockets: UdpSockets) -> None:
    made = Answering(sockets)
    gone = (socket.IPPROTO_IP, answering._IP_PKTINFO, bytes(4) + socket.inet_aton("192.0.2.9") + bytes(4))
    with client() as one:
        to = Endpoint(*one.getsockname())
        made._usual[socket.AF_INET] = made._others[to] = gone
        assert pushed_from(made, one) == "127.0.0.1"
        assert pushed_from(made, one) == "127.0.0.1"
        assert not made._usual and not made._others
        assert answered_from(made, sockets, one, SECOND) == SECOND


def test_what_is_remembered_is_bounded(sockets: UdpSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "REMEMBERED", 2)
    made = Answering(sockets)
    with client() as first, client() as one, client() as two, client() as three:
        answered_from(made, sockets, first, SECOND)
        for each in (one, two, one, three):
            assert answered_from(made, sockets, each, THIRD) == THIRD
        assert len(made._others) == 2 and pushed_from(made, one) == THIRD and pushed_from(made, two) == SECOND
