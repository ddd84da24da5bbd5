"""Junk arrives as what it claims to be."""

from __future__ import annotations

import random
import socket

import pytest

from omninervous.lab.junk import KINDS, main
from omninervous.wire.transport import decode_header


@pytest.mark.parametrize(
    ("kind", "size", "types"),
    [
        ("transport", 128, {4}),
        ("initiation", 148, {1}),
        ("noise", 128, set(range(7, 256))),
    ],
)
def test_every_kind_is_what_it_is_called(
    kind: str, size: int, types: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        host, port = sink.getsockname()
        assert main([host, str(port), kind, "1000", "0.1"]) == 0
        first = sink.recv(2000)
    assert len(first) == size and first[0] in types
    assert int(capsys.readouterr().out) >= 64
    assert kind in KINDS


def test_a_session_that_was_seen_on_the_wire_can_be_named() -> None:
    datagram = KINDS["transport"](random.Random(1), 0x01020304)
    assert decode_header(datagram).receiver_index == 0x01020304
