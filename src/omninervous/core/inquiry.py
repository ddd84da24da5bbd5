"""Asking the Nuclei, and what waits for their answers: frames with unknown addresses, initiations with unknown keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omninervous.core.admission import Admission, Held
from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import DeliverFrames, PeerId
from omninervous.core.discovery import Answer, Ask, Discovery, Stage
from omninervous.core.noise import IncomingInitiation
from omninervous.core.own import OwnAddress
from omninervous.core.peer import Peer
from omninervous.core.queries import Queries, Target
from omninervous.core.roster import Roster
from omninervous.core.view import View
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint

__all__ = ["Inquiry"]


class Inquiry:
    """Queries, discovery and admission of one Node."""

    def __init__(
        self,
        ctx: Context,
        roster: Roster,
        own: OwnAddress,
        views: Sequence[View],
        peer_of: Callable[[Now, PeerId], Peer | None],
    ) -> None:
        """`peer_of` gives the machine of a known peer."""
        self._ctx = ctx
        self._views = views
        self._peer_of = peer_of
        self._queries = Queries(ctx)
        self._discovery = Discovery(ctx, roster, own)
        self._admission = Admission(ctx)

    @property
    def possible(self) -> bool:
        """Whether any Nucleus can be asked."""
        return any(view.registered for view in self._views)

    def ask(self, now: Now, target: Target, *, punch: bool = False, ask_initiate: bool = False) -> bool:
        """Ask who a target is. False: nobody knew it a moment ago."""
        asked = self._queries.ask(now, target, punch=punch, ask_initiate=ask_initiate)
        self.send(now)
        return asked

    def hold(self, now: Now, incoming: IncomingInitiation, source: Endpoint, data: bytes) -> None:
        """An initiation from an unknown key: keep it and ask. RemoteError if there is nobody to ask."""
        if not self.possible:
            raise RemoteError("unknown_initiator")
        self._admission.hold(now, incoming, source, data)
        if not self.ask(now, Target(key=incoming.remote_static)):
            self._admission.take(incoming.remote_static)
            raise RemoteError("unknown_initiator")

    def handle_frame(self, now: Now, frame: bytes) -> None:
        """A frame that the engine has no way for. RemoteError when there is none."""
        match self._discovery.handle_frame(frame):
            case Answer(key, reply):
                peer = self._peer_of(now, key)
                if peer is not None:
                    self._ctx.commands.append(DeliverFrames((reply,)))
                    if not peer.up:
                        peer.connect(now)
            case Stage(key, waiting):
                peer = self._peer_of(now, key)
                if peer is not None:
                    peer.stage(now, waiting)
            case Ask(target):
                if not self.possible or not self.ask(now, target):
                    raise RemoteError("unresolved")
                self._discovery.wait(target, frame)

    def handle_answer(self, now: Now, request: int, key: PeerId | None) -> Held | None:
        """A PEER_INFO; whom it names is in the roster. Frames go their way; an initiation that waited is returned."""
        target = self._queries.handle_answer(now, request, found=key is not None)
        self.settle()
        if target is None or key is None:
            return None
        held = self._admission.take(key)
        for frame in self._discovery.settle(target):
            try:
                self.handle_frame(now, frame)
            except RemoteError as error:
                self._ctx.drop(error.reason)
        return held

    def send(self, now: Now) -> None:
        """Send the questions that are due, and give up those that nobody answers."""
        for target, punch, ask_initiate in self._queries.due(now):
            sent = False
            for view in self._views:
                request = view.query(target, punch=punch, ask_initiate=ask_initiate)
                if request is not None:
                    self._queries.sent(target, request, view.config.name)
                    sent = True
            if not sent:
                self._queries.nobody_to_ask(now, target)
        self._doubt(now)
        self.settle()

    def _doubt(self, now: Now) -> None:
        silent, self._queries.unanswered = self._queries.unanswered, []
        for view in self._views:
            if view.config.name in silent:
                view.doubt(now)

    def settle(self) -> None:
        """Drop what waited for targets that nobody knows."""
        failed, self._queries.failed = self._queries.failed, []
        for target in failed:
            for _ in self._discovery.settle(target):
                self._ctx.drop("unresolved")
            if target.key is not None and self._admission.take(target.key) is not None:
                self._ctx.drop("unknown_initiator")

    def handle_admission_timeout(self, now: Now) -> None:
        """Drop the initiations that waited too long."""
        self._admission.handle_timeout(now)
