"""Which handshake messages the reflex lane's programs let through to the core, one packet at a time."""

from __future__ import annotations

import random
import struct
import time

import pytest

from omninervous._native import Reflex
from omninervous.core.cookies import COOKIE_LIFETIME, CookieChecker, MacGenerator, with_macs
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import decode_cookie_reply
from tests.netns.reflex_packets import OTHER_ID, OUR_KEY, TCX_DROP, TCX_NEXT, THEIR_ID, THERE, packet

THERE6 = Endpoint("2001:db8::1", 51820)
EMPTY_INITIATION = b"\x01\0\0\0" + bytes(144)
XDP_PASS = 2
TOTAL_RATE = 1000
"""bpf/receive.h"""


def passed(lane: Reflex, datagram: bytes, times: int = 1) -> int:
    """How often the programs let it through."""
    return [lane.test_run("tc_synapse", datagram)[0] for _ in range(times)].count(TCX_NEXT)


def forged(source: Endpoint = THERE) -> bytes:
    """What anybody can make who knows our public key."""
    return packet(with_macs(OUR_KEY, EMPTY_INITIATION, None), source=source)


def rate_limited(lane: Reflex) -> int:
    return dict(lane.counters())["drop_rate_limited"]


def test_the_rate_of_initiations_is_what_it_was_set_to(lane: Reflex) -> None:
    for rate in (7, 400):
        lane.limit(rate)
        began = time.monotonic()
        verdicts = [lane.test_run("tc_synapse", forged())[0] for _ in range(600)]
        passed = verdicts.count(TCX_NEXT)
        assert rate <= passed <= rate * (2 + time.monotonic() - began) and verdicts.count(TCX_DROP) == 600 - passed
        assert rate_limited(lane) >= len(verdicts) - passed
        time.sleep(1.1)


def test_behind_xdp_nobody_is_judged_or_charged_twice(lane: Reflex) -> None:
    lane.limit(7)
    datagram = forged()
    verdicts = [lane.test_run("xdp_synapse", datagram)[0] for _ in range(3)]
    assert verdicts == [XDP_PASS] * 3
    before = lane.counters()
    for each in (datagram, packet(b"\x09" + bytes(60)), packet(b"")):
        assert [lane.test_run("tc_opened", each)[0] for _ in range(50)] == [TCX_NEXT] * 50
    assert lane.counters() == before
    assert [lane.test_run("xdp_synapse", datagram)[0] for _ in range(3)] == [XDP_PASS] * 3, "the budget is as it was"


def test_the_rate_is_for_strangers(lane: Reflex) -> None:
    """Whoever forges initiations from a member's address locks no member out."""
    lane.limit(1)
    lane.set_peer(THEIR_ID, None, [], 1500)

    def passed() -> int:
        return [lane.test_run("tc_synapse", forged())[0] for _ in range(50)].count(TCX_NEXT)

    lane.set_endpoint(THEIR_ID, ("192.0.2.1", 51821), True)
    assert passed() < 50, "another port is another machine"
    lane.set_endpoint(THEIR_ID, ("192.0.2.1", 51820), True)
    assert passed() == 50
    lane.set_peer(OTHER_ID, None, [], 1500)
    lane.set_endpoint(OTHER_ID, ("192.0.2.1", 51820), True)
    lane.set_endpoint(THEIR_ID, ("192.0.2.9", 51820), True)
    assert passed() == 50, "the other one is still there"
    lane.remove_peer(OTHER_ID)
    assert passed() < 50


def test_known_endpoints_share_a_budget(lane: Reflex) -> None:
    """Whoever knows our key and the address of a peer cannot fill the core's queue."""
    for number, peer in enumerate((THEIR_ID, OTHER_ID)):
        lane.set_peer(peer, None, [], 1500)
        lane.set_endpoint(peer, (THERE.host, THERE.port + number), True)
    began = time.monotonic()
    through = sum(passed(lane, forged(THERE._replace(port=THERE.port + number)), 2000) for number in (0, 1))
    assert TOTAL_RATE <= through <= TOTAL_RATE * (2 + time.monotonic() - began)
    assert rate_limited(lane) == 4000 - through


def test_all_strangers_together_have_a_budget(lane: Reflex) -> None:
    """Addresses cost a spoofer nothing; that many strangers must not use up what known endpoints have."""
    began = time.monotonic()
    through = sum(passed(lane, forged(Endpoint(f"192.0.{n >> 8}.{n & 255}", 7))) for n in range(4000))
    assert TOTAL_RATE <= through <= TOTAL_RATE * (2 + time.monotonic() - began)
    lane.set_peer(THEIR_ID, None, [], 1500)
    lane.set_endpoint(THEIR_ID, THERE, True)
    assert passed(lane, forged()) == 1


@pytest.mark.parametrize("source", [THERE, THERE6], ids=["ipv4", "ipv6"])
def test_a_cookie_has_a_budget_of_its_own(lane: Reflex, seed: int, source: Endpoint) -> None:
    dice = random.Random(seed)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    checker, sender = CookieChecker(OUR_KEY, dice.randbytes), MacGenerator(OUR_KEY)
    sender.handle_reply(now, decode_cookie_reply(checker.reply(now, sender.sign(now, EMPTY_INITIATION), source)))
    message = sender.sign(now, b"\x01\0\0\0" + dice.randbytes(144))
    assert checker.valid_mac2(now, source, message)
    asking = packet(message, source=source)
    lane.limit(5)  # 20 more take three seconds
    assert checker.secret is not None
    secret, until = checker.secret
    assert until == now + COOKIE_LIFETIME
    passed(lane, forged(source), 20)
    assert passed(lane, asking, 20) < 20, "nobody has told the programs of a cookie yet"
    lane.trust_cookies(secret, until)
    assert passed(lane, forged(source), 20) < 20
    assert passed(lane, asking, 5) == 5
    assert passed(lane, asking, 20) < 20, "that has a limit, too"
    time.sleep(1.1)  # every budget is full again
    for wrong in (
        packet(message, source=source._replace(port=51821)),
        packet(message[:-1] + bytes([message[-1] ^ 1]), source=source),
    ):
        passed(lane, wrong, 20)
        assert passed(lane, wrong, 20) < 20, "no cookie of ours for there"
    assert passed(lane, asking, 5) == 5, "what had none has used up nothing"
    time.sleep(1.1)
    lane.trust_cookies(secret, now)
    passed(lane, forged(source), 20)
    assert passed(lane, asking, 20) < 20, "a cookie has an end"


def test_a_response_is_let_in_when_it_is_awaited(lane: Reflex) -> None:
    def response(index: int) -> bytes:
        return packet(with_macs(OUR_KEY, struct.pack("<III", 2, 5, index) + bytes(80), None))

    assert lane.test_run("tc_synapse", response(9))[0] == TCX_DROP
    assert dict(lane.counters())["drop_unknown_handshake"] == 1
    lane.note_datagram(THERE, with_macs(OUR_KEY, struct.pack("<II", 1, 9) + bytes(140), None))
    assert passed(lane, response(9)) == 1
    assert passed(lane, response(10)) == 0
