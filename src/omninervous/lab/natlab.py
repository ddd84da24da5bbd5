"""`omni lab nat`: every pair of sites, real daemons, compared with the oracle (`natsites.py`).

One internet, one Nucleus, two machines per site, one cluster. First a STUN-like probe checks every NAT against its
definition. Then all pairs try at once: every machine has a UDP socket on its VIP, and sends to the others until their
echoes are back. Nothing but a direct path carries frames, so an echo is the proof of one.
"""

from __future__ import annotations

import json
import secrets
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omninervous.errors import SystemFailure, UserError
from omninervous.lab.daemons import Daemon
from omninervous.lab.echo import Echoes
from omninervous.lab.evidence import percentile
from omninervous.lab.link import Blackout, LinkSpec
from omninervous.lab.namespaces import Lab, clean_leftovers, require_privileges
from omninervous.lab.natbuild import Machine, NatNetwork
from omninervous.lab.natsites import SITES, Family, Outcome, Site, judge
from omninervous.lab.process import poll_until
from omninervous.lab.report import Progress

__all__ = [
    "Meeting",
    "NatLabOptions",
    "NatLabReport",
    "meetings_of",
    "run",
    "start",
    "wait_until_joined",
]

_NUCLEUS_PORT = 51820
_JOIN_SECONDS = 40.0
_FULL = {
    "as it is": None,
    "lossy": LinkSpec(loss=0.2),
    "slow": LinkSpec(delay=0.08, jitter=0.04, reorder=0.1, reorder_by=0.06),
    "damaging": LinkSpec(duplicate=0.2, corrupt=0.1),
    "narrow": LinkSpec(rate=5e6, queue=64 * 1024),
    "all at once": LinkSpec(
        loss=0.05,
        loss_burst=3.0,
        delay=0.05,
        jitter=0.02,
        reorder=0.05,
        reorder_by=0.03,
        duplicate=0.05,
        corrupt=0.02,
        rate=10e6,
        blackouts=(Blackout(10.0, 2.0, 20.0),),
    ),
}
"""The internets of `--full`, one run each: what the cable between their halves does. The first one is used alone
without `--full`."""


@dataclass(frozen=True, slots=True)
class NatLabOptions:
    """What the operator asked for."""

    sites: tuple[str, ...] = ()
    """Names of `natsites.SITES`; empty: all."""
    seconds: float = 15.0
    """How long pairs that are still apart go on trying after everybody has joined."""
    engine: str = "auto"
    """`--engine` of the edges."""
    full: bool = False
    """Not on a good internet only, but on every one of `_FULL`."""
    seed: int | None = None
    """What bad links do follows from it; None: another one each time."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """What became of one pair."""

    a: str
    b: str
    oracle: Outcome
    reason: str
    """Why the oracle says so."""
    observed: bool
    seconds: float | None
    """From the moment when both had joined to the first echo; None if there was none."""
    path: str
    """Where A's daemon sends B's datagrams; empty if it has no path."""
    internet: str
    """What it was like (`_FULL`)."""

    @property
    def ok(self) -> bool:
        return self.oracle is Outcome.MAY_BE or (self.oracle is Outcome.DIRECT) == self.observed


@dataclass(frozen=True, slots=True)
class NatLabReport:
    """All pairs of all repeats."""

    pairs: tuple[Meeting, ...]
    seconds: float
    seed: int

    @property
    def ok(self) -> bool:
        return all(pair.ok for pair in self.pairs)

    @property
    def times(self) -> tuple[float, float] | None:
        """Median and 99th percentile of the seconds to direct, over all pairs that had to meet and did."""
        certain = [pair for pair in self.pairs if pair.oracle is not Outcome.MAY_BE]
        known = sorted(pair.seconds for pair in certain if pair.seconds is not None)
        if not known:
            return None
        return statistics.median(known), percentile(known, 99)

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints: `observed` is `direct` or `none`; `oracle` may be `may be`."""
        listed = [
            {
                "a": pair.a,
                "b": pair.b,
                "oracle": pair.oracle.value,
                "reason": pair.reason,
                "observed": (Outcome.DIRECT if pair.observed else Outcome.NONE).value,
                "seconds": None if pair.seconds is None else round(pair.seconds, 3),
                "path": pair.path,
                "internet": pair.internet,
                "ok": pair.ok,
            }
            for pair in self.pairs
        ]
        times = self.times
        to_direct = {"median": round(times[0], 3), "p99": round(times[1], 3)} if times is not None else None
        return {
            "pairs": listed,
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "seconds_to_direct": to_direct,
            "seed": self.seed,
        }


def run(options: NatLabOptions, progress: Progress) -> NatLabReport:
    """Build, check the NATs, let all pairs meet, take everything away; with `full` again on every bad internet.
    SystemFailure if the laboratory itself is wrong."""
    sites = _chosen(options.sites)
    require_privileges()
    clean_leftovers()
    began = time.monotonic()
    pairs: list[Meeting] = []
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    for name in _FULL if options.full else list(_FULL)[:1]:
        if options.full:
            progress.step(f"the internet: {name} (seed {seed})")
        with Lab() as lab:
            pairs.extend(_one_run(lab, sites, options, name, seed, progress))
    return NatLabReport(tuple(pairs), time.monotonic() - began, seed)


def _chosen(names: Sequence[str]) -> tuple[Site, ...]:
    known = {site.name: site for site in SITES}
    for name in names:
        if name not in known:
            raise UserError(f"--sites {name}: there is no such site; choose from {', '.join(known)}")
    return tuple(site for site in SITES if not names or site.name in names)


def _one_run(
    lab: Lab, sites: tuple[Site, ...], options: NatLabOptions, internet: str, seed: int, progress: Progress
) -> list[Meeting]:
    began = time.monotonic()
    network = NatNetwork(lab, sites)
    progress.step(f"{len(network.machines)} machines behind {len(network.boxes)} boxes ({_since(began)})")
    began = time.monotonic()
    network.check()
    progress.step(f"every NAT is what its definition says ({_since(began)})")
    spec = _FULL[internet]
    if spec is not None:
        network.impair(spec, seed)
    began = time.monotonic()
    with Echoes([(each.host.namespace, each.vip) for each in network.machines]) as echoes:
        _, daemons = start(lab, network, options.engine)
        pairs = meetings_of(network.machines)
        echoes.call([(network.machines.index(a), network.machines.index(b)) for a, b in pairs])
        joined = wait_until_joined(network.machines, daemons)
        progress.step(f"all daemons run, and those that can have joined ({_since(began)})")
        _wait_for_echoes(echoes, pairs, network.machines, options.seconds)
        meetings = [_meeting(network.machines, a, b, echoes, joined, daemons, internet) for a, b in pairs]
    progress.step(f"{sum(each.ok for each in meetings)} of {len(meetings)} pairs are as the oracle says")
    return meetings


def meetings_of(machines: Sequence[Machine]) -> list[tuple[Machine, Machine]]:
    """The first machine of each site with the second one of each, itself and all that follow."""
    firsts = [each for each in machines if each.instance == 0]
    seconds = [each for each in machines if each.instance == 1]
    return [(a, b) for number, a in enumerate(firsts) for b in seconds[number:]]


# ---------------------------------------------------------------- daemons


def start(lab: Lab, network: NatNetwork, engine: str) -> tuple[Daemon, list[Daemon]]:
    """The Nucleus, which answers, and an edge on every machine; those may still be busy joining."""
    nucleus = Daemon(lab, network.nucleus.namespace, "nucleus").launch(
        "--mode", "nucleus", "--port", str(_NUCLEUS_PORT)
    )
    nucleus.wait_ready()
    secret = lab.directory / "secret"
    secret.write_text("only for this laboratory\n")
    secret.chmod(0o600)
    daemons = []
    for machine in network.machines:
        address = network.nucleus.address if machine.site.ipv4 else f"[{network.nucleus.address6}]"
        daemon = Daemon(lab, machine.host.namespace, machine.name)
        daemons.append(daemon)
        daemon.launch(
            *("--nucleus", f"{address}:{_NUCLEUS_PORT}", "--cluster", "lab", "--secret-file", str(secret)),
            *("--vip", str(machine.vip), "--port", str(machine.port), "--name", machine.name, "--engine", engine),
            *("--log-format", "json"),
        )
    return nucleus, daemons


def wait_until_joined(machines: Sequence[Machine], daemons: Sequence[Daemon]) -> list[float]:
    """When each machine registered, on the wall clock; infinity for those that cannot."""
    joined = [float("inf")] * len(machines)

    def all_joined() -> bool:
        for number, (machine, daemon) in enumerate(zip(machines, daemons, strict=True)):
            if joined[number] == float("inf") and _can_join(machine.site):
                joined[number] = _registered_at(daemon)
        return all(at < float("inf") or not _can_join(m.site) for at, m in zip(joined, machines, strict=True))

    if not poll_until(all_joined, _JOIN_SECONDS, 0.25):
        late = [m.name for at, m in zip(joined, machines, strict=True) if at == float("inf") and _can_join(m.site)]
        tail = daemons[[m.name for m in machines].index(late[0])].process.tail()
        raise SystemFailure(f"not registered within {_JOIN_SECONDS:.0f} s: {', '.join(late)}; {late[0]} says: {tail}")
    return joined


def _can_join(site: Site) -> bool:
    return site.behaviour.passes or site.ipv6 is not Family.NONE


def _registered_at(daemon: Daemon) -> float:
    """The time of the first `nucleus_up` in the daemon's log; infinity if there is none yet."""
    for line in daemon.process.log.read_text(errors="replace").splitlines():
        if '"nucleus_up"' in line:
            return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
    return float("inf")


# ---------------------------------------------------------------- meetings


def _wait_for_echoes(
    echoes: Echoes, pairs: Sequence[tuple[Machine, Machine]], machines: Sequence[Machine], seconds: float
) -> None:
    """Until all that the oracle calls direct are there, and at least half of the time for those that must not be."""
    expected = [
        (machines.index(a), machines.index(b)) for a, b in pairs if judge(a.site, b.site).outcome is Outcome.DIRECT
    ]
    deadline = time.monotonic() + seconds
    poll_until(lambda: time.monotonic() > deadline - seconds / 2 and all(map(echoes.at, expected)), seconds, 0.1)


def _meeting(
    machines: Sequence[Machine],
    a: Machine,
    b: Machine,
    echoes: Echoes,
    joined: Sequence[float],
    daemons: Sequence[Daemon],
    internet: str,
) -> Meeting:
    first, second = machines.index(a), machines.index(b)
    verdict, at = judge(a.site, b.site), echoes.at((first, second))
    seconds = None if at is None else max(0.0, at - max(joined[first], joined[second]))
    known = daemons[first].peek("peers").get("peers", [])
    peer = next((each for each in known if each["vip"] == str(b.vip)), None)
    path = str(peer["endpoint"]) if at is not None and peer is not None else ""
    return Meeting(a.site.name, b.site.name, verdict.outcome, verdict.reason, at is not None, seconds, path, internet)


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"
