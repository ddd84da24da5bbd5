"""Every kind of NAT, and ten minutes of accidents to them from a seed. Then every pair that can talk talks again.

The accidents happen in the network and at the Nucleus; the edges only live through them, so that their memory and
their descriptors at the end tell whether anything leaks.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

import pytest

from omninervous.lab.cut import cut, mend
from omninervous.lab.daemons import Daemon
from omninervous.lab.echo import Echoes
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.nat import NatKind
from omninervous.lab.natbuild import NatNetwork
from omninervous.lab.natlab import meetings_of, start, wait_until_joined
from omninervous.lab.natsites import SITES, Outcome, judge
from omninervous.lab.process import poll_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

TROUBLE_SECONDS = float(os.environ.get("SOAK_CHAOS_SECONDS", "600"))
HEALED_WITHIN = 90.0
"""Seconds: a registration that was lost is renewed within a heartbeat and an attempt at most (docs/PROTOCOL.md)."""
RSS_GROWTH = 32 << 20
SPARE = 100
"""From this host number on, the addresses of every network are free."""
CONES = (NatKind.FULL_CONE, NatKind.ADDRESS_RESTRICTED)
BAD_END = re.compile(r"Traceback|internal error|panicked|has stopped:")


class Trouble:
    """What happens to the network, and how it is mended."""

    def __init__(self, lab: Lab, network: NatNetwork, nucleus: Daemon, seed: int) -> None:
        self._lab, self._network, self._nucleus = lab, network, nucleus
        self._random = random.Random(seed)
        self._repairs: list[tuple[float, Callable[[], object]]] = []
        self._dark: set[str] = set()
        # A rule of the others' boxes names an address of theirs. A box that hairpins does so for the ports that its
        # clients have; after a move Linux gives them others as long as flows of the old address are remembered.
        self._movable = [
            each for each in network.machines if not set(each.site.nats[:1]) & set(CONES) and not each.site.hairpin
        ]
        self._renumberable = [
            box for box, site in network.sites_of_boxes if box.kind is not NatKind.SEQUENTIAL and not site.hairpin
        ]
        self._spare = SPARE
        self.happened: dict[str, int] = {}

    def run(self, seconds: float) -> None:
        began = time.monotonic()
        kinds = [self._forget, self._cut, self._cut_edge, self._kill_nucleus, self._black_out]
        kinds += [self._move, self._renumber]
        while (now := time.monotonic() - began) < seconds:
            kind = self._random.choice(kinds)
            kind(now)
            name = kind.__name__.lstrip("_")
            self.happened[name] = self.happened.get(name, 0) + 1
            pause = self._random.uniform(0.5, 5.0)
            time.sleep(pause)
            self._mend(time.monotonic() - began)
        self._mend(float("inf"))

    def _mend(self, now: float) -> None:
        due = [repair for at, repair in self._repairs if at <= now]
        self._repairs = [(at, repair) for at, repair in self._repairs if at > now]
        for repair in due:
            repair()

    def _forget(self, _now: float) -> None:
        """A NAT is switched off and on: all its mappings are gone."""
        self._random.choice(self._network.boxes).namespace.run("conntrack", "-F")

    def _cut(self, now: float) -> None:
        self._down(now, self._random.choice(self._network.boxes).namespace, "wan0")

    def _cut_edge(self, now: float) -> None:
        self._down(now, self._random.choice(self._network.machines).host.namespace, "eth0")

    def _black_out(self, now: float) -> None:
        self._down(now, self._network.nucleus.namespace, "eth0")

    def _down(self, now: float, where: Namespace, interface: str) -> None:
        """A cable is pulled, and put in again: a link without carrier keeps its addresses, and loses no route."""
        if where.name in self._dark:
            return
        self._dark.add(where.name)
        cut(where, interface)

        def repair() -> None:
            mend(where)
            self._dark.discard(where.name)

        self._repairs.append((now + self._random.uniform(0.5, 25.0), repair))

    def _move(self, _now: float) -> None:
        """A machine gets another address, of each version that it has."""
        machine = self._random.choice(self._movable)
        self._readdress(machine.host.namespace, machine.host.interface)

    def _renumber(self, _now: float) -> None:
        """A whole site gets another public address; its router forgets what it knew."""
        box = self._random.choice(self._renumberable)
        self._readdress(box.namespace, "wan0", versions=(4,))
        box.namespace.run("conntrack", "-F")

    def _readdress(self, where: Namespace, interface: str, versions: tuple[int, ...] = (4, 6)) -> None:
        self._spare += 1
        for version in versions:
            family = f"-{version}"
            for old in addresses(where, interface, family):
                (route,) = json.loads(where.run("ip", "-j", family, "route", "show", "default").stdout)
                where.ip("address", "delete", str(old), "dev", interface)
                new = f"{old.network[self._spare]}/{old.network.prefixlen}"
                where.ip("address", "add", new, "dev", interface, *(("nodad",) if version == 6 else ()))
                where.ip(family, "route", "replace", "default", "via", route["gateway"], "dev", interface)

    def _kill_nucleus(self, _now: float) -> None:
        self._nucleus.process.kill()
        self._nucleus.launch("--mode", "nucleus", "--port", "51820").wait_ready()


def addresses(where: Namespace, interface: str, family: str) -> list[IPv4Interface | IPv6Interface]:
    """An interface's global addresses; `family` is -4 or -6."""
    links = json.loads(where.run("ip", "-j", family, "address", "show", "dev", interface, "scope", "global").stdout)
    # What does not match may stand there as an empty object.
    infos = [each for link in links for each in link.get("addr_info", ()) if each]
    return [ip_interface(f"{each['local']}/{each['prefixlen']}") for each in infos]


def rules_of(where: Namespace) -> str:
    """Without counters, and without what rules have put into sets."""
    return where.run("nft", "-s", "-t", "list", "ruleset").stdout


def open_files(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def resident(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10


def test_every_pair_that_can_talk_talks_again(lab: Lab, seed: int) -> None:
    print(f"seed {seed}")
    network = NatNetwork(lab, SITES)
    network.check()
    with Echoes([(each.host.namespace, each.vip) for each in network.machines]) as echoes:
        nucleus, daemons = start(lab, network, "auto")
        numbers = {machine: number for number, machine in enumerate(network.machines)}
        pairs = meetings_of(network.machines)
        can = [(numbers[a], numbers[b]) for a, b in pairs if judge(a.site, b.site).outcome is Outcome.DIRECT]
        cannot = [(numbers[a], numbers[b]) for a, b in pairs if judge(a.site, b.site).outcome is Outcome.NONE]
        wait_until_joined(network.machines, daemons)
        echoes.call(can)
        assert poll_until(lambda: all(map(echoes.at, can)), 60.0, 0.2)
        rules = [rules_of(box.namespace) for box in network.boxes]
        files, sizes = [open_files(each) for each in daemons], [resident(each) for each in daemons]

        trouble = Trouble(lab, network, nucleus, seed)
        trouble.run(TROUBLE_SECONDS)
        print(f"accidents: {trouble.happened}")

        echoes.call([*can, *cannot])
        poll_until(lambda: all(map(echoes.at, can)), HEALED_WITHIN, 0.2)
        name = [machine.name for machine in network.machines]
        apart = [f"{name[a]} - {name[b]}" for a, b in can if not echoes.at((a, b))]
        assert not apart, f"within {HEALED_WITHIN:.0f} s these did not meet again: {', '.join(apart)}"
        assert not [f"{name[a]} - {name[b]}" for a, b in cannot if echoes.at((a, b))]
        for daemon, before, size in zip(daemons, files, sizes, strict=True):
            assert open_files(daemon) <= before + 2, f"{daemon.name} has more open files than before"
            assert resident(daemon) - size < RSS_GROWTH, f"{daemon.name} grew"
        assert [rules_of(box.namespace) for box in network.boxes] == rules
    for log in sorted(lab.logs.glob("*.log")):
        text = log.read_text(errors="replace")
        assert not BAD_END.search(text), f"{log.stem}: {text[-2000:]}"
