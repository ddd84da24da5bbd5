"""A pair under traffic for longer than a session may live, three times over."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import parse_ping
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process
from omninervous.lab.topology import Host
from tests.netns.edges import Pair, vip, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

REKEY_AFTER, REJECT_AFTER = 120.0, 180.0
REKEYS = 3
TRAFFIC_SECONDS = REKEYS * REKEY_AFTER + 25.0
MAX_LOSS = 0.01
PING_INTERVAL = 0.05
SLACK = 3.0
MOST = 3
"""Sessions at once: both sides begin at the start, and the session that lost then lives as long as any."""


@dataclass
class Watch:
    """What one daemon says about its sessions over time."""

    daemon: Daemon
    born: dict[str, float] = field(default_factory=dict)
    """When a session was made, by its own age when it was first listed."""
    current: list[str] = field(default_factory=list)
    """Ids of the sessions that sent, in order."""
    oldest: float = 0.0
    """The greatest age that was ever listed."""
    most: int = 0
    """Sessions listed at once."""

    def look(self, now: float) -> None:
        (peer,) = self.daemon.peek("peers")["peers"]
        assert peer["state"] == "up"
        self.most = max(self.most, len(peer["sessions"]))
        for session in peer["sessions"]:
            self.born.setdefault(session["id"], now - session["age_seconds"])
            self.oldest = max(self.oldest, session["age_seconds"])
            if session["current"] and session["id"] not in self.current[-1:]:
                self.current.append(session["id"])

    def sessions(self) -> list[str]:
        """Ids, the sending one first."""
        (peer,) = self.daemon.peek("peers")["peers"]
        return [session["id"] for session in peer["sessions"]]


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_traffic_crosses_three_rekeys_and_old_keys_go(lab: Lab, pair_lan: tuple[Host, Host], engine: str) -> None:
    pair = Pair(lab, pair_lan)
    pair.start_a("--engine", engine).wait_ready()
    pair.start_b("--engine", engine).wait_ready()
    pair.a.wait_for_peer(), pair.b.wait_for_peer()
    pings = [ping_for(lab, host, vip(other)) for host, other in zip(pair.hosts, (pair.b, pair.a), strict=True)]
    watches = [Watch(pair.a), Watch(pair.b)]
    wait_for("one session that both send on", lambda: watches[0].sessions()[0] == watches[1].sessions()[0])
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < TRAFFIC_SECONDS:
        for watch in watches:
            watch.look(now)
        time.sleep(0.5)
    for each in pings:
        each.wait(30.0)
        result = parse_ping(each.output())
        print(f"{each.name}: {result}")
        assert result.sent > TRAFFIC_SECONDS / PING_INTERVAL * 0.5
        assert result.loss <= MAX_LOSS, f"{each.name}: {result}"
    assert watches[0].current == watches[1].current, "both always send on the same session"
    for watch in watches:
        print(f"{watch.daemon.name}: {watch.current}, at most {watch.most} at once, oldest {watch.oldest:.0f} s")
        assert len(set(watch.current)) == len(watch.current) == REKEYS + 1
        gaps = [watch.born[new] - watch.born[old] for old, new in itertools.pairwise(watch.current)]
        assert all(REKEY_AFTER - SLACK <= gap <= REKEY_AFTER + 2 * SLACK for gap in gaps), gaps
        assert watch.oldest <= REJECT_AFTER + SLACK and watch.most <= MOST
        assert watch.sessions()[0] == watch.current[-1] and set(watch.sessions()) <= set(watch.current[-2:])
        assert not watch.daemon.status()["problems"]


def ping_for(lab: Lab, host: Host, target: str) -> Process:
    count = int(TRAFFIC_SECONDS / PING_INTERVAL)
    argv = ["ping", "-q", "-n", "-i", str(PING_INTERVAL), "-c", str(count), "-w", str(int(TRAFFIC_SECONDS)), target]
    return lab.start(host.namespace, f"ping-{host.namespace.role}", argv)
