"""What the machines of one Node share: configuration, keys, randomness, and the queues for what they put out.

Commands and events leave the Node; signals stay inside: they are how a machine says what another machine must act on.
Each is a frozen object in a list that is drained after every input, so no machine calls back into another.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from omninervous.core.clock import Entropy
from omninervous.core.dataplane import Command, PeerId
from omninervous.core.events import NodeConfig, NodeEvent, Problem, ProblemSolved
from omninervous.core.identity import Identity
from omninervous.core.natview import to_name
from omninervous.core.noise import StaticKeys
from omninervous.core.pathkind import Network
from omninervous.core.staging import Staging
from omninervous.core.tai64n import Tai64nClock
from omninervous.core.timers import Timers
from omninervous.core.trials import Trials
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim

__all__ = [
    "AddressGranted",
    "AddressProven",
    "AddressTaken",
    "AskAgain",
    "ClaimSeen",
    "CloneFound",
    "Context",
    "Forgotten",
    "MemberChanged",
    "MembershipSeen",
    "OutsideSeen",
    "PathMoved",
    "PeerAvailable",
    "PeerLost",
    "PunchWanted",
    "QueryAnswered",
    "QueryWanted",
    "Signal",
    "TimerKey",
]

TimerKey = tuple[str, bytes | str]
"""(machine, which one): `("peer", key)`, `("handshake", key)`, `("view", name)`, ..."""


# ---------------------------------------------------------------- signals


@dataclass(frozen=True, slots=True)
class QueryWanted:
    """A peer machine needs its peer's endpoints, and a push to the other side."""

    peer: PeerId
    ask_to_initiate: bool


@dataclass(frozen=True, slots=True)
class MembershipSeen:
    """A member's CAPS carried this membership (not verified yet)."""

    peer: PeerId
    membership: bytes


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """The CAPS of a configured pair: its identity is proven, this is the address it uses."""

    peer: PeerId
    identity: bytes
    claim: VipClaim | None


@dataclass(frozen=True, slots=True)
class PeerAvailable:
    """A session can be used (also when it replaces another)."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PathMoved:
    """The peer's datagrams go to another address, which is proven."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class AddressProven:
    """A Nucleus has asked us to prove that we are at a new address, and our answer is on its way."""

    view: str


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The last session of a peer is gone, or an attempt to connect was given up."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """No data for an hour: the peer's state can go."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class AddressGranted:
    """A Nucleus registered us: the address is ours."""

    view: str


@dataclass(frozen=True, slots=True)
class AddressTaken:
    """A Nucleus says, and shows the membership, that somebody else has our address."""

    view: str
    holder: bytes
    """Ed25519 key."""


@dataclass(frozen=True, slots=True)
class CloneFound:
    """A Nucleus says that this identity runs somewhere else, and that we are the one to stop."""

    view: str


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member came into a Nucleus's view, changed, or left it."""

    view: str
    key: PeerId
    live: bool
    forgotten: bool = False
    """It left only because the Nucleus began anew, and it may not have registered there yet."""


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    """A PEER_INFO for a question of ours; its entry, if any, is in the roster."""

    request: int
    key: PeerId | None


@dataclass(frozen=True, slots=True)
class PunchWanted:
    """A PEER_INFO pushed to us: this member wants to reach us."""

    key: PeerId
    endpoints: tuple[Endpoint, ...]
    ask_initiate: bool


@dataclass(frozen=True, slots=True)
class AskAgain:
    """A Nucleus forgot that we asked for these members."""

    keys: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class OutsideSeen:
    """`Context.outside` has changed."""


Signal = (
    QueryWanted
    | MembershipSeen
    | ClaimSeen
    | PeerAvailable
    | PathMoved
    | AddressProven
    | PeerLost
    | Forgotten
    | AddressGranted
    | AddressTaken
    | CloneFound
    | MemberChanged
    | QueryAnswered
    | PunchWanted
    | AskAgain
    | OutsideSeen
)


# ---------------------------------------------------------------- context

VIEWS_KEPT = 32


class Context:
    """Shared by the machines of one Node."""

    def __init__(self, config: NodeConfig, identity: Identity, entropy: Entropy) -> None:
        self.config: Final = config
        self.peers = config.peers
        """Those that the user names; a reload may change them."""
        self.lanes = config.lanes
        """What we can receive on beside lane 0; another underlay may change it."""
        self.identity: Final = identity
        self.entropy: Final = entropy
        self.keys: Final = StaticKeys(identity.x25519_private)
        self.timestamps: Final = Tai64nClock(config.timestamp_mark)
        self.timers: Final[Timers[TimerKey]] = Timers()
        self.staging: Final = Staging()
        self.commands: list[Command] = []
        self.events: list[NodeEvent] = []
        self.signals: list[Signal] = []
        self.counters: dict[str, int] = {}
        self.drops: dict[str, int] = {}
        self.problems: dict[tuple[str, str], Problem] = {}
        self.endpoints: dict[Endpoint, PeerId] = {}
        """Current endpoint of every peer that has one: what "a known endpoint" means."""
        self.trials: Final = Trials()
        self.seen_as: OrderedDict[Endpoint, Endpoint] = OrderedDict()
        """Who told us where our datagrams come from -> what it saw."""
        self._viewers: dict[Endpoint, PeerId] = {}
        """And which peer that was: each has one voice for an IP version, from however many addresses it answers."""
        self.outside: tuple[Endpoint, ...] = ()
        """Outside addresses of ours to name to all, beside those that the Nuclei see."""
        self.counting = False
        """They are two of a count (`natview.count_of`)."""
        self.networks: tuple[Network, ...] = ()
        """The networks that our interfaces are on."""
        self.nuclei: dict[PeerId, str] = {}
        """X25519 keys of the Nuclei in use, with the name that each goes by."""
        self._requests = 0

    def next_request(self) -> int:
        """A number for a request to a Nucleus, never 0."""
        self._requests = self._requests % 0xFFFFFFFF + 1
        return self._requests

    def note_view(self, peer: PeerId, who: Endpoint, what: Endpoint) -> None:
        """A peer at `who` says that our datagrams come from `what`."""
        self.seen_as.pop(who, None)
        self.seen_as[who], self._viewers[who] = what, peer
        if len(self.seen_as) > VIEWS_KEPT:
            del self._viewers[self.seen_as.popitem(last=False)[0]]
        newest = {(self._viewers[by], ":" in seen.host): seen for by, seen in self.seen_as.items()}
        by_nuclei = [seen for (by, _), seen in newest.items() if by in self.nuclei]
        outside, self.counting = to_name(tuple(newest.values()), by_nuclei)
        if outside != self.outside:
            self.outside = outside
            self.signals.append(OutsideSeen())

    def forget_views(self) -> None:
        """Our network is another one: what others saw does not hold any more."""
        self.seen_as.clear()
        self._viewers.clear()
        self.outside, self.counting = (), False

    def count(self, name: str) -> None:
        """Add one to a control-plane total."""
        self.counters[name] = self.counters.get(name, 0) + 1

    def drop(self, reason: str) -> None:
        """Count a message that was dropped."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def jitter(self, limit: float) -> float:
        """A random number of seconds, 0 <= it < limit."""
        return limit * int.from_bytes(self.entropy(2), "big") / 65536

    def problem(self, code: str, text: str, subject: str = "") -> bool:
        """Tell the operator, once for as long as it lasts. True if it is news."""
        found = Problem(code, text, subject)
        if self.problems.get((code, subject)) == found:
            return False
        self.problems[code, subject] = found
        self.events.append(found)
        return True

    def solved(self, code: str, subject: str | None = None) -> None:
        """Take a problem back; without a subject, all of this kind."""
        for known_code, known_subject in list(self.problems):
            if known_code == code and subject in (None, known_subject):
                del self.problems[code, known_subject]
                self.events.append(ProblemSolved(code, known_subject))
