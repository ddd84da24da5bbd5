from __future__ import annotations

from collections.abc import Sequence

from omninervous.core.context import Context
from omninervous.core.dataplane import Command, Link, SendControl, SetEndpoint
from omninervous.core.events import PathMeasured
from omninervous.core.pathkind import PathKind
from omninervous.core.paths import CHALLENGE_SIZE, MAX_ROUTES, Paths
from omninervous.wire.address import Endpoint
from omninervous.wire.control import PathChallenge, decode_control
from tests.nodes import X, Y, Z, at, commands, context

PEER = b"p" * 32
LAN = Endpoint("192.168.1.2", 51820)
SIXTH = Endpoint("2001:db8::2", 51820)


def challenges(taken: Sequence[Command]) -> list[tuple[Endpoint, PathChallenge]]:
    found = [(each.endpoint, decode_control(each.payload)) for each in taken if isinstance(each, SendControl)]
    return [(target, message) for target, message in found if target is not None and isinstance(message, PathChallenge)]


def tokens(taken: Sequence[Command]) -> list[bytes]:
    return [message.token for _, message in challenges(taken)]


def proven(link: Link = Link.ETHERNET) -> tuple[Context, Paths]:
    ctx = context()
    paths = Paths(ctx, PEER, link)
    paths.handle_handshake(at(1.0), 7, X, 92, (X,))
    assert commands(ctx, SetEndpoint) == [SetEndpoint(PEER, X, None)] and paths.proven
    return ctx, paths


class Trial:
    """Paths whose challenges are answered after the round-trip time of their target; None: never."""

    def __init__(self, **rtts: float | None) -> None:
        names = {"x": X, "y": Y, "lan": LAN, "six": SIXTH}
        self.rtts = {names[name]: rtt for name, rtt in rtts.items()}
        self.ctx, self.paths = proven()
        self.paths.name(tuple(self.rtts))
        self.now = 1.0
        self.moves: list[Endpoint] = []
        self.sent = 0
        self.lost: float | None = None
        self._answers: list[tuple[float, bytes]] = []
        self.paths.search(at(1.0), 7)
        self.drain()

    def run(self, until: float, *, measure: bool = False) -> None:
        """Go on in steps of 5 ms."""
        while self.now < until:
            self.now = round(self.now + 0.005, 3)
            if measure and self.now == int(self.now):
                self.paths.measure(at(self.now), 7)
            for when, token in [each for each in self._answers if each[0] <= self.now]:
                self._answers.remove((when, token))
                self.paths.handle_response(at(self.now), 7, token)
            if self.paths.handle_timeout(at(self.now), 7) and self.lost is None:
                self.lost = self.now
            self.drain()

    def drain(self) -> None:
        taken, self.ctx.commands = self.ctx.commands, []
        self.moves += [each.endpoint for each in taken if isinstance(each, SetEndpoint)]
        for target, message in challenges(taken):
            self.sent += 1
            rtt = self.rtts.get(target)
            if rtt is not None:
                self._answers.append((self.now + rtt, message.token))


def test_an_answer_from_the_only_address_asked_is_a_proof() -> None:
    ctx, _ = proven()
    assert ctx.endpoints == {X: PEER}


def test_an_answer_from_one_of_many_addresses_is_none() -> None:
    ctx = context()
    paths = Paths(ctx, PEER, Link.ETHERNET)
    paths.handle_handshake(at(1.0), 7, X, 92, (X, Y))
    taken: list[Command] = ctx.commands
    challenge, endpoint = taken
    assert isinstance(challenge, SendControl) and challenge.endpoint == X
    assert isinstance(endpoint, SetEndpoint) and endpoint.budget is not None
    assert 3 * 92 - 2 * CHALLENGE_SIZE <= endpoint.budget <= 3 * 92 - len(challenge.payload) - 32, "one is kept back"
    (token,) = tokens([challenge])
    assert not paths.handle_response(at(1.1), 7, bytes(8)) and not paths.proven
    assert paths.handle_response(at(1.1), 7, token) and paths.proven
    assert not paths.handle_response(at(1.2), 7, token), "a token counts once"


def test_a_peer_that_moves_is_challenged_while_data_stays_on_the_proven_address() -> None:
    ctx, paths = proven()
    paths.handle_source(at(2.0), 7, Y, 100)
    ((target, challenge),) = challenges(ctx.commands)
    assert target == Y and paths.endpoint == X and not challenge.in_use
    assert paths.handle_response(at(2.1), 7, challenge.token)
    assert commands(ctx, SetEndpoint) == [SetEndpoint(PEER, Y, None)] and ctx.endpoints == {Y: PEER}


def test_a_peer_is_followed_at_once_to_an_address_that_answered_of_late() -> None:
    trial = Trial(x=0.01, y=0.01)
    trial.run(1.5)
    trial.paths.handle_source(at(2.0), 7, Y, 100)
    trial.drain()
    assert trial.moves == [Y]


def test_round_trips_of_the_address_in_use_are_told_with_its_kind() -> None:
    trial = Trial(x=0.050, y=0.010)
    trial.run(10.0, measure=True)
    told = [each for each in trial.ctx.events if isinstance(each, PathMeasured)]
    assert trial.moves == [Y] and {each.kind for each in told} == {PathKind.DIRECT}
    times = [round(each.seconds, 3) for each in told]
    assert times == sorted(times, reverse=True) and set(times) == {0.05, 0.01}, "X's until Y is taken, then Y's"


def test_a_peer_that_always_sends_from_elsewhere_does_not_pull_us_back() -> None:
    trial = Trial(x=0.050, y=0.010)
    trial.run(10.0, measure=True)
    assert trial.moves == [Y], "the faster one"
    for _ in range(50):
        trial.paths.handle_source(at(trial.now), 7, X, 100)
        trial.run(trial.now + 1.0, measure=True)
    assert trial.moves == [Y]


def test_a_move_whose_challenges_are_lost_is_noticed_again() -> None:
    trial = Trial(x=0.01, y=None)
    trial.paths.handle_source(at(trial.now), 7, Y, 100)
    trial.run(4.0)
    trial.rtts[Y] = 0.01
    trial.paths.handle_source(at(trial.now), 7, Y, 100)
    trial.run(5.0)
    assert trial.moves == [Y]


def test_challenges_to_a_mere_source_never_exceed_three_times_what_came() -> None:
    ctx, paths = proven()
    paths.handle_source(at(2.0), 7, Y, 32)
    for step in range(200):
        paths.handle_timeout(at(2.0 + step / 10), 7)
    sent = challenges(commands(ctx, SendControl))
    assert 0 < sum(len(message.encode()) + 32 for _, message in sent) <= 3 * 32 and paths.deadline() is None, (
        "forgotten after its round"
    )


def test_a_challenge_is_answered_by_one_only_within_what_came() -> None:
    ctx, paths = proven()
    for _ in range(100):
        paths.handle_challenge(at(2.0), 7, Z, 45, in_use=False)
    assert len(challenges(ctx.commands)) == 1 and paths.endpoint == X, "a measurement moves nobody"


def test_a_challenge_in_use_is_a_move() -> None:
    ctx, paths = proven()
    paths.handle_challenge(at(2.0), 7, Z, 49, in_use=True)
    ((target, challenge),) = challenges(ctx.commands)
    assert target == Z and paths.handle_response(at(2.1), 7, challenge.token) and paths.endpoint == Z


def test_addresses_are_bounded_and_the_good_ones_stay() -> None:
    trial = Trial(x=0.01, y=0.01)
    trial.run(1.5)
    for number in range(50):
        trial.paths.handle_source(at(2.0), 7, Z._replace(port=1000 + number), 100)
    assert len(trial.paths._routes) == MAX_ROUTES and {X, Y} <= set(trial.paths._routes)


def test_the_fastest_address_is_taken_and_kept() -> None:
    trial = Trial(x=0.030, y=0.010, six=0.009)
    trial.run(60.0, measure=True)
    assert trial.moves == [SIXTH], "as fast as the other, and IPv6"
    assert [status.endpoint for status in trial.paths.statuses(at(trial.now))] == [SIXTH, Y, X]
    trial.rtts |= {Y: 0.0088, SIXTH: 0.0095}
    trial.run(300.0, measure=True)
    assert trial.moves == [SIXTH], "a little is no reason to move"
    trial.rtts |= {Y: 0.002}
    trial.run(400.0, measure=True)
    assert trial.moves == [SIXTH, Y]


def test_a_lan_wins_at_the_same_speed_and_loses_when_it_is_slow() -> None:
    trial = Trial(x=0.002, lan=0.0023)
    trial.run(30.0, measure=True)
    assert trial.moves == [LAN]
    trial = Trial(x=0.002, lan=0.030)
    trial.run(60.0, measure=True)
    assert trial.moves == []


def test_measuring_is_bounded() -> None:
    trial = Trial(x=0.01, y=0.01, lan=0.01, six=0.01)
    trial.run(10.0, measure=True)
    before = trial.sent
    trial.run(310.0, measure=True)
    assert trial.sent - before <= 4 * 31
    alone = Trial(x=0.01)
    alone.run(301.0, measure=True)
    assert alone.sent <= 31


def test_a_dead_path_gives_way_to_a_living_one_at_once() -> None:
    trial = Trial(x=None, y=0.020)
    trial.run(3.0)
    assert trial.moves == [Y] and trial.lost is None


def test_a_better_way_that_was_dead_for_long_is_taken_again() -> None:
    trial = Trial(x=0.050, y=0.010)
    trial.run(10.0, measure=True)
    trial.rtts[Y] = None
    trial.paths.doubt(at(trial.now), 7)
    trial.run(100.0, measure=True)
    assert trial.moves == [Y, X], "Y is dead, however fast it was"
    trial.rtts[Y] = 0.010
    trial.run(130.0, measure=True)
    assert trial.moves == [Y, X, Y], "and back"


def test_when_nothing_answers_the_path_is_lost_within_two_seconds() -> None:
    trial = Trial(x=None, y=None)
    trial.run(3.0)
    assert trial.moves == [] and trial.lost is not None and trial.lost <= 2.5
    assert trial.sent <= 3 * 8


def test_a_slow_path_is_not_taken_for_a_dead_one() -> None:
    trial = Trial(x=0.6, y=0.7)
    for second in range(1, 60):
        trial.paths.verify(at(float(second)), 7)
        trial.run(second + 1.0)
    assert trial.lost is None and trial.moves == []


def test_after_a_change_of_network_what_answers_first_is_taken() -> None:
    trial = Trial(x=0.01, y=0.05)
    trial.run(2.0)
    trial.rtts[X] = None
    trial.paths.network_changed(at(2.0), 7)
    trial.run(2.4)
    assert trial.moves == [Y]


def test_stock_peers_follow_wireguards_rule() -> None:
    ctx, paths = proven(Link.IP)
    paths.handle_source(at(2.0), 7, Y, 32)
    assert commands(ctx, SetEndpoint) == [SetEndpoint(PEER, Y, None)] and paths.endpoint == Y


def test_forgetting_frees_the_endpoint() -> None:
    ctx, paths = proven()
    paths.forget()
    assert ctx.endpoints == {} and paths.endpoint is None and paths.deadline() is None
