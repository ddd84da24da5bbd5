"""Questions to the Nuclei: who has this VIP, MAC, or key? One open question per target, asked of every Nucleus.

A question is asked again after 1, 2 and 4 seconds. "Not found" from all, or silence, ends it; the target is then not
asked for again for two seconds, however many frames want it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import PeerId

__all__ = ["Queries", "Target"]

ASK_AGAIN_AFTER = (1.0, 2.0, 4.0)
MAX_OPEN = 256
NEGATIVE_SECONDS = 2.0
MAX_NEGATIVE = 1024


class Target(NamedTuple):
    """What is asked for: exactly one is set."""

    address: IPv4Address | IPv6Address | None = None
    mac: bytes | None = None
    key: PeerId | None = None


@dataclass(slots=True)
class _Open:
    punch: bool
    ask_initiate: bool
    next_at: float
    tries: int = 0
    requests: dict[int, str] = field(default_factory=dict)
    """Unanswered ones of the newest try -> the Nucleus asked."""


class Queries:
    """Open questions. The Node sends what `due` gives and reports the request numbers back with `sent`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._open: OrderedDict[Target, _Open] = OrderedDict()
        self._by_request: dict[int, Target] = {}
        self._negative: OrderedDict[Target, float] = OrderedDict()
        self.failed: list[Target] = []
        """Targets that nobody knows; whoever drains this forgets what waited for them."""
        self.unanswered: list[str] = []
        """Nuclei that let a question pass without an answer; whoever drains this doubts them."""

    def __contains__(self, target: Target) -> bool:
        return target in self._open

    def ask(self, now: Now, target: Target, *, punch: bool = False, ask_initiate: bool = False) -> bool:
        """Open a question, or add to the open one. False: the answer was "nobody" a moment ago."""
        found = self._open.get(target)
        if found is not None:
            if (punch and not found.punch) or (ask_initiate and not found.ask_initiate):
                found.next_at = now.boot
            found.punch |= punch
            found.ask_initiate |= ask_initiate
        else:
            if self._negative.get(target, now.boot) > now.boot and not ask_initiate:
                return False
            self._open[target] = _Open(punch, ask_initiate, now.boot)
            if len(self._open) > MAX_OPEN:
                self._fail(now, next(iter(self._open)))
        self._arm()
        return True

    def due(self, now: Now) -> list[tuple[Target, bool, bool]]:
        """(target, punch, ask to initiate) of the questions to be sent now. Those that were asked often enough fail."""
        sending = []
        for target, question in list(self._open.items()):
            if now.boot < question.next_at:
                continue
            if question.tries > len(ASK_AGAIN_AFTER):
                self._fail(now, target)
                continue
            question.next_at = now.boot + ASK_AGAIN_AFTER[min(question.tries, len(ASK_AGAIN_AFTER) - 1)]
            question.tries += 1
            self.unanswered += question.requests.values()
            self._close_requests(question)
            sending.append((target, question.punch, question.ask_initiate))
        self._arm()
        return sending

    def sent(self, target: Target, request: int, view: str) -> None:
        """The question went out to a Nucleus under this number."""
        question = self._open.get(target)
        if question is not None:
            question.requests[request] = view
            self._by_request[request] = target

    def nobody_to_ask(self, now: Now, target: Target) -> None:
        """No Nucleus is up."""
        if target in self._open:
            self._fail(now, target)
            self._arm()

    def handle_answer(self, now: Now, request: int, *, found: bool) -> Target | None:
        """A PEER_INFO; the target if this settles the question with "found"."""
        target = self._by_request.pop(request, None)
        question = self._open.get(target) if target is not None else None
        if target is None or question is None:
            return None
        question.requests.pop(request, None)
        if found:
            self._close_requests(question)
            del self._open[target]
        elif not question.requests:
            self._fail(now, target)
        self._arm()
        return target if found else None

    def _fail(self, now: Now, target: Target) -> None:
        self._close_requests(self._open.pop(target))
        self._negative.pop(target, None)
        self._negative[target] = now.boot + NEGATIVE_SECONDS
        if len(self._negative) > MAX_NEGATIVE:
            self._negative.popitem(last=False)
        self.failed.append(target)

    def _close_requests(self, question: _Open) -> None:
        for request in question.requests:
            self._by_request.pop(request, None)
        question.requests.clear()

    def _arm(self) -> None:
        deadline = min((question.next_at for question in self._open.values()), default=None)
        self._ctx.timers.set(("queries", ""), deadline)
