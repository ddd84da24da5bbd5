"""Parts of a Node for tests that look at one of its machines alone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import TypeVar

from omninervous.core.clock import Entropy, Now
from omninervous.core.context import Context
from omninervous.core.dataplane import Command
from omninervous.core.events import NodeConfig, NodeEvent
from omninervous.core.identity import Identity
from omninervous.core.membership import issue
from omninervous.core.secret import ClusterKeys, derive_cluster
from omninervous.core.vip import derive_claim
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim

__all__ = [
    "EPOCH",
    "X",
    "Y",
    "Z",
    "at",
    "cluster",
    "commands",
    "context",
    "entropy",
    "events",
    "identity",
    "membership",
]

EPOCH = 1_800_000_000.0
X, Y, Z = (Endpoint(f"192.0.2.{number}", 51820) for number in (1, 2, 3))

C = TypeVar("C")


def at(boot: float, wall: float | None = None) -> Now:
    """An instant; the calendar clock runs along unless it is given."""
    return Now(boot, EPOCH + boot if wall is None else wall)


def entropy(seed: int | str = 0) -> Entropy:
    """Random bytes from a seed."""
    return Random(seed).randbytes


@lru_cache
def identity(name: str) -> Identity:
    """The same identity for the same name."""
    return Identity.from_seed(Random(f"identity {name}").randbytes(32))


@lru_cache
def cluster(name: str = "unit") -> ClusterKeys:
    """An open cluster: its keys cost no Argon2."""
    return derive_cluster(name, None)


def context(who: str = "own", /, **config: object) -> Context:
    """A context like a Node's; `config` sets fields of its configuration."""
    base = NodeConfig(boot_id=bytes(16), cluster=cluster())
    return Context(replace(base, **config), identity(who), entropy(f"context {who}"))  # type: ignore[arg-type]


def membership(name: str, serial: int = 1, claim: VipClaim | None = None, wall: float = EPOCH) -> bytes:
    """A membership of the cluster `unit`, valid around EPOCH."""
    who = identity(name)
    return issue(who, cluster(), claim or derive_claim(who.public, 0), name, serial, wall)


def commands(ctx: Context, kind: type[C]) -> list[C]:
    """Take the commands of one kind; the others are dropped."""
    taken: list[Command] = ctx.commands
    ctx.commands = []
    return [command for command in taken if isinstance(command, kind)]


def events(ctx: Context, kind: type[C]) -> list[C]:
    """Take the events of one kind; the others are dropped."""
    taken: list[NodeEvent] = ctx.events
    ctx.events = []
    return [event for event in taken if isinstance(event, kind)]
