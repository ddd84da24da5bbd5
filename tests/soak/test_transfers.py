"""Real transfers, checked by sha256: TCP's checksums travel as metadata, so nothing else would notice a wrong byte.

::

    a eth0 ===== seeded loss, duplicates, other order, flipped bits ===== eth0 b        eight TCP streams through omni0

A gigabyte crosses a clean wire, and another one a bad wire, in writes of every size.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_pair
from omninervous.lab.link import LinkSpec, start_link
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host, address_pair

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

STREAMS = 8
BYTES = 1 << 30
SIZES = (1, 7, 100, 536, 1326, 1448, 4096, 9000, 65_483, 200_000)
"""Bytes of one write: less than a segment, exactly one, a super-frame's worth, more."""
IMPATIENCE = 300.0
BAD = LinkSpec(loss=0.001, delay=0.0005, reorder=0.001, reorder_by=0.001, duplicate=0.002, corrupt=0.002)


def one_stream(hosts: tuple[Host, Host], number: int, seed: int, size: int) -> tuple[bytes, bytes]:
    """Send so many bytes by writes of many sizes; sha256 of what was sent and of what arrived."""
    dice = random.Random(f"{seed} {number}")
    way = number % 2
    address = (str(PAIR_VIPS[1 - way]), 7000 + number)
    listener = hosts[1 - way].namespace.call(lambda: socket.create_server(address))
    client = hosts[way].namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    sent, arrived = hashlib.sha256(), hashlib.sha256()
    with listener, client, ThreadPoolExecutor(1) as pool:
        client.settimeout(IMPATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, number % 4 < 2)
        client.connect(address)
        server, _ = listener.accept()

        def send() -> None:
            block, left = dice.randbytes(4 << 20), size
            while left:
                # Small writes are rare, or they alone would take the time.
                length = min(left, dice.choice(SIZES if dice.randrange(8) == 0 else SIZES[-3:]))
                start = dice.randrange(len(block) - length)
                piece = memoryview(block)[start : start + length]
                client.sendall(piece)
                sent.update(piece)
                left -= length
            client.shutdown(socket.SHUT_WR)

        sending = pool.submit(send)
        with server:
            server.settimeout(IMPATIENCE)
            while piece := server.recv(1 << 18):
                arrived.update(piece)
        sending.result()
    return sent.digest(), arrived.digest()


def transfer(hosts: tuple[Host, Host], seed: int, size: int) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(one_stream, hosts, number, seed, size // STREAMS) for number in range(STREAMS)]
        for number, each in enumerate(streams):
            sent, arrived = each.result()
            assert sent == arrived, f"stream {number}: other bytes arrived than were sent"
    print(f"seed {seed}: {size >> 20} MiB in {time.monotonic() - begun:.1f} s")


def drops(edges: tuple[Daemon, Daemon]) -> dict[str, int]:
    total: dict[str, int] = {}
    for edge in edges:
        for reason, number in edge.status()["drops"].items():
            total[reason] = total.get(reason, 0) + number
    print(total)
    return total


@pytest.mark.parametrize(("queues", "aead"), [("1", "auto"), ("2", "chacha")])
def test_a_gigabyte_over_a_clean_wire(lab: Lab, pair_lan: tuple[Host, Host], seed: int, queues: str, aead: str) -> None:
    edges = start_pair(lab, pair_lan, "--queues", queues, "--aead", aead)
    for edge in edges:
        edge.wait_for_peer()
    transfer(pair_lan, seed, BYTES)
    assert not {"bad_tag", "replay", "bad_payload", "vnet_header", "lane"} & drops(edges).keys()


def test_a_gigabyte_over_a_bad_wire(lab: Lab, seed: int) -> None:
    a, b = lab.namespace("a"), lab.namespace("b")
    link = start_link(lab, (a, "eth0"), (b, "eth0"), BAD, seed)
    hosts = address_pair(a, b)
    edges = start_pair(lab, hosts)
    for edge in edges:
        edge.wait_for_peer(30)
    transfer(hosts, seed, BYTES)
    total = drops(edges)
    assert total.get("bad_tag") and total.get("replay"), "damage and duplicates did come, and went no further"
    link.stop()
    counts = json.loads(link.output().splitlines()[-1])
    assert all(each[what] for each in counts.values() for what in ("lost", "reordered", "duplicated", "corrupted"))
