"""Which option belongs to which --peer."""

from __future__ import annotations

import pytest
import rich_click as click

from omninervous.cli.peer_options import PeerCommand, peers_in_order
from omninervous.errors import UserError
from omninervous.ganglion.config import PeerOptions


def parse(*words: str) -> tuple[PeerOptions, ...]:
    found: list[tuple[PeerOptions, ...]] = []

    @click.command(cls=PeerCommand)
    @click.option("--peer", multiple=True)
    @click.option("--endpoint", multiple=True)
    @click.option("--psk-file", multiple=True)
    @click.option("--allowed-ips", multiple=True)
    @click.option("--port")
    @click.pass_context
    def command(ctx: click.Context, /, port: str | None, **given: tuple[str, ...]) -> None:
        found.append(peers_in_order(ctx, given))

    command.main(list(words), standalone_mode=False)
    return found[0]


def test_no_peer_is_no_peer() -> None:
    assert parse("--port", "5") == ()


@pytest.mark.parametrize("words", [("--peer", "A", "--endpoint", "E"), ("--endpoint", "E", "--port", "1", "--peer=A")])
def test_with_one_peer_the_order_does_not_matter(words: tuple[str, ...]) -> None:
    assert parse(*words) == (PeerOptions("A", "E"),)


def test_options_belong_to_the_peer_before_them() -> None:
    words = [
        "--peer",
        "A",
        "--psk-file",
        "P",
        "--peer",
        "B",
        "--endpoint",
        "E",
        "--allowed-ips",
        "1",
        "--allowed-ips",
        "2",
        "--peer",
        "C",
    ]
    assert parse(*words) == (PeerOptions("A", None, "P"), PeerOptions("B", "E", None, ("1", "2")), PeerOptions("C"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--endpoint E", "belongs to a peer"),
        ("--endpoint E --peer A --peer B", "before the first --peer"),
        ("--peer A --endpoint E --endpoint F", "--endpoint is given twice"),
        ("--psk-file P --peer A --psk-file Q", "--psk-file is given twice"),
        ("--port 1 --port 2", "--port is given twice"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(words: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(*words.split())
