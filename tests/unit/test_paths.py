from __future__ import annotations

from omninervous.core.context import Context
from omninervous.core.dataplane import Command, Link, SendControl, SetEndpoint
from omninervous.core.paths import CHALLENGE_SIZE, Path
from omninervous.wire.control import PathChallenge, decode_control
from tests.nodes import X, Y, Z, at, commands, context

PEER = b"p" * 32


def tokens(taken: list[SendControl]) -> list[bytes]:
    found = [decode_control(command.payload) for command in taken]
    return [message.token for message in found if isinstance(message, PathChallenge)]


def proven(link: Link = Link.ETHERNET) -> tuple[Context, Path]:
    ctx = context()
    path = Path(ctx, PEER, link)
    path.handle_handshake(at(1.0), 7, X, 92, (X,))
    assert commands(ctx, SetEndpoint) == [SetEndpoint(PEER, X, None)] and path.proven
    return ctx, path


def test_an_answer_from_the_only_address_asked_is_a_proof() -> None:
    ctx, _ = proven()
    assert ctx.endpoints == {X: PEER}


def test_an_answer_from_one_of_many_addresses_is_none() -> None:
    ctx = context()
    path = Path(ctx, PEER, Link.ETHERNET)
    path.handle_handshake(at(1.0), 7, X, 92, (X, Y))
    taken: list[Command] = ctx.commands
    challenge, endpoint = taken
    assert isinstance(challenge, SendControl) and challenge.endpoint == X
    assert isinstance(endpoint, SetEndpoint) and endpoint.budget is not None
    assert CHALLENGE_SIZE + CHALLENGE_SIZE + endpoint.budget == 3 * 92, "one challenge sent, one kept back"
    (token,) = tokens([challenge])
    assert not path.handle_response(bytes(8)) and not path.proven
    assert path.handle_response(token) and path.proven


def test_a_new_address_is_challenged_while_data_stays_on_the_proven_one() -> None:
    ctx, path = proven()
    path.handle_source(at(2.0), 7, Y, 100)
    (challenge,) = commands(ctx, SendControl)
    assert challenge.endpoint == Y and path.endpoint == X
    assert path.handle_response(tokens([challenge])[0])
    assert commands(ctx, SetEndpoint) == [SetEndpoint(PEER, Y, None)] and ctx.endpoints == {Y: PEER}


def test_challenges_never_exceed_three_times_what_came() -> None:
    ctx, path = proven()
    path.handle_source(at(2.0), 7, Y, 32)
    sent = len(commands(ctx, SendControl))
    for step in range(200):
        path.handle_timeout(at(2.0 + step / 10))
    sent += len(commands(ctx, SendControl))
    assert sent * CHALLENGE_SIZE <= 3 * 32 and path.deadline() is None, "forgotten after five seconds"


def test_challenges_are_bounded() -> None:
    ctx, path = proven()
    for number in range(50):
        path.handle_source(at(2.0), 7, Z._replace(port=1000 + number), 100)
    assert len(path._challenges) == 4
    (first, *_), last = tokens(taken := commands(ctx, SendControl)), taken[-1]
    assert not path.handle_response(first) and path.handle_response(tokens([last])[0])


def test_stock_peers_follow_wireguards_rule() -> None:
    ctx, path = proven(Link.IP)
    path.handle_source(at(2.0), 7, Y, 32)
    assert commands(ctx, SetEndpoint) == [SetEndpoint(PEER, Y, None)] and path.endpoint == Y


def test_forgetting_frees_the_endpoint() -> None:
    ctx, path = proven()
    path.forget()
    assert ctx.endpoints == {} and path.endpoint is None
