from __future__ import annotations

from omninervous.core.admission import ADMISSIONS_PER_SECOND, SLOTS, Admission
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, Initiator
from omninervous.core.tai64n import Tai64nClock
from omninervous.errors import RemoteError
from tests.nodes import X, Y, at, context, entropy, identity

OWN = identity("own")


def initiation(name: str, wall: float = 1.0) -> tuple[IncomingInitiation, bytes]:
    stamp = Tai64nClock(None).next(wall)
    sender = identity(name)
    data = Initiator.create(sender.x25519_private, OWN.x25519_public, ZERO_PSK, stamp, 1, entropy(name)).message
    return IncomingInitiation.open(OWN.x25519_private, data), data


def test_the_newest_initiation_of_a_key_waits_five_seconds_from_the_first() -> None:
    ctx = context()
    admission = Admission(ctx)
    for seconds, source in ((1.0, X), (4.0, Y)):
        incoming, data = initiation("a", wall=seconds)
        admission.hold(at(seconds), incoming, source, data)
    late, old = initiation("a", wall=0.5)
    admission.hold(at(4.5), late, X, old)
    assert ctx.timers.next() == 6.0
    held = admission.take(identity("a").x25519_public)
    assert held is not None and held.source == Y and len(admission) == 0 and ctx.timers.next() is None


def test_what_waits_too_long_is_dropped_and_counted() -> None:
    ctx = context()
    admission = Admission(ctx)
    incoming, data = initiation("a")
    admission.hold(at(1.0), incoming, X, data)
    admission.handle_timeout(at(5.9))
    assert len(admission) == 1
    admission.handle_timeout(at(6.0))
    assert len(admission) == 0 and ctx.drops == {"unknown_initiator": 1}


def test_slots_are_bounded_the_oldest_goes() -> None:
    ctx = context()
    admission = Admission(ctx)
    for number in range(SLOTS + 1):
        incoming, data = initiation(f"stranger {number}")
        admission.hold(at(1.0 + number), incoming, X, data)
    assert len(admission) == SLOTS and ctx.drops == {"admission_full": 1}
    assert admission.take(identity("stranger 0").x25519_public) is None


def test_a_flood_of_strangers_is_asked_about_slowly() -> None:
    ctx = context()
    admission = Admission(ctx)
    held = refused = 0
    for number in range(300):
        incoming, data = initiation(f"stranger {number}")
        now = at(1.0 + number / 100)
        try:
            admission.hold(now, incoming, X, data)
            admission.hold(now, incoming, X, data)  # a copy costs nothing
            held += 1
        except RemoteError as error:
            assert error.reason == "admission_rate"
            refused += 1
    assert held == SLOTS + 3 * ADMISSIONS_PER_SECOND - 1 and refused == 300 - held
