"""Every NAT kind of the lab behaves as its definition says, seen from outside by a STUN-like probe."""

from __future__ import annotations

import socket

import pytest

from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatKind, NatPolicy
from omninervous.lab.natprobe import CLIENT_PORT, observe
from omninervous.lab.topology import Internet


@pytest.mark.parametrize("kind", NatKind, ids=lambda kind: kind.value)
def test_a_kind_is_what_its_definition_says(lab: Lab, kind: NatKind) -> None:
    internet = Internet(lab)
    servers = [internet.public_host(f"server-{number}") for number in range(3)]
    nat = internet.nat("nat", kind)
    client = internet.edge("client", nat)
    nat.configure(NatPolicy(kind, client.address))
    seen = observe(client, servers[0], servers[1], servers[2])
    assert seen.behaviour == kind.behaviour, seen
    if kind.behaviour.same_mapping:
        assert set(seen.mapped) == {(str(nat.wan), CLIENT_PORT)}, "the port is preserved"


@pytest.mark.parametrize("open_input", [False, True], ids=["input dropped", "input open"])
def test_an_early_datagram_from_outside_moves_the_mapping_only_of_a_box_without_firewall(
    lab: Lab, open_input: bool
) -> None:
    """The race of hole punching: B's first datagram reaches A's NAT before A's first one to B leaves."""
    internet = Internet(lab)
    server = internet.public_host("server")
    nat = internet.nat("nat")
    client = internet.edge("client", nat)
    nat.configure(NatPolicy(NatKind.PORT_RESTRICTED, open_input=open_input))
    with (
        server.namespace.udp_socket(str(server.address), 3478) as outside,
        client.namespace.udp_socket(str(client.address), CLIENT_PORT) as inside,
    ):
        outside.settimeout(1)
        outside.sendto(b"early", (str(nat.wan), CLIENT_PORT))
        # With the port open the box's own kernel answers `port unreachable`.
        for _ in range(2):
            inside.sendto(b"punch", (str(server.address), 3478))
            source = _source(outside)
            if source is not None:
                break
    assert source is not None
    assert (source == (str(nat.wan), CLIENT_PORT)) is not open_input


def test_a_second_client_on_the_same_port_is_mapped_per_destination(lab: Lab) -> None:
    """Why a masquerade is a cone for one client only: a tuple that another client holds means another port."""
    internet = Internet(lab)
    servers = [internet.public_host("server-1"), internet.public_host("server-2")]
    nat = internet.nat("nat")
    clients = [internet.edge("client-1", nat), internet.edge("client-2", nat)]
    nat.configure(NatPolicy(NatKind.PORT_RESTRICTED))
    first, second = (each.namespace.udp_socket(str(each.address), CLIENT_PORT) for each in clients)
    outside = [each.namespace.udp_socket(str(each.address), 3478) for each in servers]
    try:
        for each in outside:
            each.settimeout(1)
        first.sendto(b"first", outside[0].getsockname())
        assert _source(outside[0]) == (str(nat.wan), CLIENT_PORT)
        mapped = []
        for each in reversed(outside):  # the destination that the first client did not take comes first
            second.sendto(b"second", each.getsockname())
            mapped.append(_source(each))
    finally:
        for each in (first, second, *outside):
            each.close()
    assert mapped[0] == (str(nat.wan), CLIENT_PORT) != mapped[1]


def test_a_nat_behind_a_nat_lets_its_client_out(lab: Lab) -> None:
    internet = Internet(lab)
    servers = [internet.public_host(f"server-{number}") for number in range(3)]
    outer = internet.nat("carrier")
    inner = internet.nat("home", behind=outer)
    client = internet.edge("client", inner)
    outer.configure(NatPolicy(NatKind.PORT_RESTRICTED))
    inner.configure(NatPolicy(NatKind.PORT_RESTRICTED))
    seen = observe(client, servers[0], servers[1], servers[2])
    assert seen.behaviour == NatKind.PORT_RESTRICTED.behaviour
    assert seen.mapped[0] == (str(outer.wan), CLIENT_PORT)


def _source(receiver: socket.socket) -> tuple[str, int] | None:
    try:
        _, source = receiver.recvfrom(100)
    except (TimeoutError, ConnectionRefusedError):
        return None
    return str(source[0]), int(source[1])
