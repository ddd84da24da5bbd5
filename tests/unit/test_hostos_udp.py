"""UDP sockets of the underlay, on loopback."""

from __future__ import annotations

import os
import socket

import pytest

from omninervous.errors import UserError
from omninervous.hostos.udp import bind_udp, bind_udp_queues, port_holder


def test_both_families_share_one_port() -> None:
    sockets = bind_udp(0)
    try:
        assert {each.getsockname()[1] for each in sockets} == {sockets.port}
        assert sockets.v6 is not None
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.sendto(b"x", ("127.0.0.1", sockets.port))
        sockets.v4.setblocking(True)
        sockets.v4.settimeout(5)
        assert sockets.v4.recv(10) == b"x", "the IPv6 socket must not take IPv4 datagrams"
    finally:
        sockets.close()


def test_datagrams_carry_dont_fragment_whatever_icmp_says() -> None:
    probe = 3  # <linux/in.h>: IP_PMTUDISC_PROBE
    sockets = bind_udp(0)
    try:
        assert sockets.v6 is not None
        assert sockets.v4.getsockopt(socket.IPPROTO_IP, 10) == probe  # IP_MTU_DISCOVER
        assert sockets.v6.getsockopt(socket.IPPROTO_IPV6, 23) == probe  # IPV6_MTU_DISCOVER
    finally:
        sockets.close()


def test_a_taken_port_names_its_holder_and_the_remedy() -> None:
    sockets = bind_udp(0)
    try:
        with pytest.raises(UserError, match=rf"port {sockets.port} is in use by .*pid {os.getpid()}.*--port"):
            bind_udp(sockets.port)
    finally:
        sockets.close()
    assert port_holder(sockets.port) is None


def test_a_port_taken_in_one_family_only_is_taken() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 0))
        port = other.getsockname()[1]
        with pytest.raises(UserError, match="is in use"):
            bind_udp(port)
        again = bind_udp_v4_free(port)
    assert again, "the IPv4 socket must have been closed"


def bind_udp_v4_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", port))
        return True


def test_an_unknown_device_is_the_operators_error() -> None:
    with pytest.raises(UserError, match="--iface nosuch0: there is no such interface"):
        bind_udp(0, "nosuch0")


def test_queues_share_a_port_that_nobody_else_gets() -> None:
    queues = bind_udp_queues(0, None, 3)
    try:
        assert len(queues.queues) == 3
        assert {each.getsockname()[1] for each_queue in queues.queues for each in each_queue} == {queues.port}
        for count in (1, 3):
            with pytest.raises(UserError, match=rf"port {queues.port} is in use by .*--port"):
                bind_udp_queues(queues.port, None, count)
    finally:
        queues.close()
    bind_udp_queues(queues.port, None, 2).close()


def test_little_room_for_bursts_is_told_with_the_remedy() -> None:
    queues = bind_udp_queues(0, None, 2)
    try:
        before = queues.buffer_note
        queues.queues[1].v4.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        assert "64 KiB" in queues.buffer_note and "net.core.rmem_max" in queues.buffer_note
        assert before != queues.buffer_note
    finally:
        queues.close()


def test_two_that_start_at_once_do_not_share_a_port() -> None:
    """The moment between the first look at a port and the shared sockets on it."""
    port = bind_udp_v4_free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"\0omninervous udp {port} ")
        with pytest.raises(UserError, match=f"port {port} is in use"):
            bind_udp_queues(port, None, 2)
    bind_udp_queues(port, None, 2).close()


def bind_udp_v4_free_port() -> int:
    sockets = bind_udp(0)
    sockets.close()
    return sockets.port
