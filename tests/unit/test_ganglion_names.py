"""Names that the operator gave, looked up while the daemon runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from omninervous.core.events import NodeSnapshot
from omninervous.ganglion.config import EdgeConfig, PeerPlace
from omninervous.ganglion.names import Names, Target
from omninervous.ganglion.options import HostPort
from omninervous.wire.address import Endpoint

NOTHING_UP = NodeSnapshot(None, (), (), (), (), 0, 0, 0, {}, {})
ONE, TWO = (PeerPlace(bytes([number]) * 32, None, HostPort("localhost", number)) for number in (1, 2))
LITERAL = PeerPlace(bytes(32), None, HostPort("127.0.0.1", 3))


def test_names_follow_the_peers_and_late_answers_reach_nobody() -> None:
    resolved: list[tuple[Target, tuple[Endpoint, ...]]] = []

    async def scenario() -> None:
        arrived = asyncio.Event()

        def take(target: Target, endpoints: tuple[Endpoint, ...]) -> None:
            resolved.append((target, endpoints))
            arrived.set()

        names = Names(EdgeConfig(Path(), peers=(ONE, LITERAL)), ipv6=False, resolved=take)
        names.tick(1.0, NOTHING_UP)
        names.follow((TWO, LITERAL))
        names.tick(1.0, NOTHING_UP)
        await asyncio.wait_for(arrived.wait(), 20.0)
        # The first look-up may still be under way: its answer has nobody to go to.
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(scenario())
    assert resolved == [(TWO.x25519, (Endpoint("127.0.0.1", 2),))]
