"""Every decoder of control, signalling, membership and HELLO bytes: arbitrary bytes give an object or DecodeError, what
an encoder writes comes back, and what is accepted has one canonical form."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.identity import parse_peer
from omninervous.core.membership import verify
from omninervous.core.secret import check_cluster_name
from omninervous.core.vip import claim_problem, parse_vip
from omninervous.errors import DecodeError, RemoteError, UserError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import Caps, CapsAck, Close, CloseReason, PathChallenge, PathResponse, Versions
from omninervous.wire.hello import Hello, HelloReply
from omninervous.wire.keytext import decode_key, encode_key
from omninervous.wire.membership import MembershipBody, SignedMembership, VipClaim
from omninervous.wire.signalling import (
    MAX_CANDIDATES,
    Heartbeat,
    HeartbeatAck,
    HeartbeatStatus,
    Leave,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    Probe,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    cluster_name_problem,
)
from omninervous.wire.tlv import CONTROL_KIND
from tests.wire_examples import DECODERS, EXAMPLES, Decoder, Message

# What these accept, they give back byte for byte; the others skip unknown fields and take any order.
EXACT = {"membership", "vip_claim", "hello", "hello_reply"}


def size(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


def unsigned(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, 256**count - 1)


keys, tokens, boot_ids, cursors = size(32), size(8), size(16), st.none() | size(32)
hosts = st.builds(str, st.ip_addresses())
endpoints = st.builds(Endpoint, hosts, st.integers(1, 65535))
candidates = st.lists(endpoints, max_size=MAX_CANDIDATES).map(tuple)
versions = st.tuples(st.integers(1, 255), st.integers(1, 255)).map(lambda pair: Versions(min(pair), max(pair)))
claims = st.builds(
    VipClaim,
    st.ip_addresses(v=4).map(lambda ip: IPv4Address(int(ip))),
    st.integers(0, 32),
    st.none() | st.integers(0, 0xFFFE),
)
names = st.none() | st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
bodies = st.builds(MembershipBody, keys, unsigned(8), unsigned(8), unsigned(8), claims, names)
memberships = st.builds(
    lambda body, one, two: SignedMembership(body, body.encode(), one, two), bodies, size(64), size(64)
)
raw_memberships = memberships.map(SignedMembership.encode)
entries = st.builds(PeerEntry, raw_memberships, st.none() | endpoints, candidates)
few_entries = st.lists(st.builds(PeerEntry, raw_memberships, st.none() | endpoints), max_size=2).map(tuple)
clusters = st.text(min_size=1, max_size=20).filter(lambda name: cluster_name_problem(name) is None)
addresses = st.builds(IPv4Address, unsigned(4)) | st.builds(IPv6Address, unsigned(16))
queries = (
    st.builds(QueryPeer, unsigned(4), address=addresses, punch=st.booleans(), ask_initiate=st.booleans())
    | st.builds(QueryPeer, unsigned(4), mac=size(6), punch=st.booleans(), ask_initiate=st.booleans())
    | st.builds(QueryPeer, unsigned(4), key=keys, punch=st.booleans(), ask_initiate=st.booleans())
)
found = st.builds(PeerInfo, unsigned(4), st.just(PeerStatus.FOUND), entries, st.booleans(), st.booleans())
STRATEGIES: dict[str, st.SearchStrategy[Message]] = {
    "control": st.builds(
        Caps,
        versions=versions,
        boot_id=boot_ids,
        payload_kinds=unsigned(4),
        aeads=unsigned(1),
        lanes=unsigned(2),
        mtu=unsigned(2),
        token=tokens,
        membership=st.none() | raw_memberships,
        vip=st.none() | claims,
        identity=st.none() | keys,
    )
    | st.builds(CapsAck, tokens)
    | st.builds(PathChallenge, tokens, st.booleans(), st.integers(0, 9299))
    | st.builds(PathResponse, tokens, st.none() | endpoints)
    | st.builds(Close, st.sampled_from(CloseReason)),
    "signalling": st.builds(Register, unsigned(4), clusters, keys, raw_memberships, boot_ids, versions, candidates)
    | st.builds(
        RegisterAck,
        request=unsigned(4),
        status=st.sampled_from(RegisterStatus),
        epoch=unsigned(8),
        version=unsigned(8),
        observed=st.none() | endpoints,
        peers=few_entries,
        cursor=cursors,
        holder=st.none() | entries,
        other_keys=unsigned(2),
    )
    | st.builds(Heartbeat, unsigned(4), unsigned(8), unsigned(8), cursors, candidates, st.none() | tokens)
    | st.builds(
        HeartbeatAck,
        request=unsigned(4),
        epoch=unsigned(8),
        from_version=unsigned(8),
        version=unsigned(8),
        status=st.sampled_from(HeartbeatStatus),
        observed=st.none() | endpoints,
        joined=few_entries,
        left=st.lists(keys, max_size=5).map(tuple),
        more=st.booleans(),
        cursor=cursors,
        holder=st.none() | entries,
        snapshot=st.booleans(),
    )
    | queries
    | found
    | st.builds(PeerInfo, unsigned(4), st.just(PeerStatus.NOT_FOUND))
    | st.builds(Leave, unsigned(4))
    | st.builds(Probe, tokens),
    "membership": memberships,
    "peer_entry": entries,
    "vip_claim": claims,
    "hello": st.builds(Hello, boot_ids),
    "hello_reply": st.builds(HelloReply, boot_ids, keys, versions),
}
GARBAGE = st.binary(max_size=200) | st.builds(
    lambda kind, rest: bytes((CONTROL_KIND, kind)) + rest,
    st.sampled_from([*range(1, 6), *range(0x40, 0x48)]),
    st.binary(),
)


def check_canonical(name: str, decode: Decoder, data: bytes) -> None:
    """What is accepted has a form that stays as it is."""
    try:
        message = decode(data)
    except DecodeError:
        return
    if message is not None:
        form = message.encode()
        assert decode(form) == message
        assert form == data or name not in EXACT


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_what_is_encoded_comes_back(name: str, data: st.DataObject) -> None:
    message = data.draw(STRATEGIES[name])
    assert DECODERS[name](message.encode()) == message


@pytest.mark.parametrize("name", DECODERS)
@given(data=GARBAGE)
def test_arbitrary_bytes_give_an_object_or_decode_error(name: str, data: bytes) -> None:
    check_canonical(name, DECODERS[name], data)


@given(st.sampled_from(EXAMPLES), st.data())
def test_damaged_messages_give_an_object_or_decode_error(example: tuple[Decoder, Message], data: st.DataObject) -> None:
    valid = example[1].encode()
    start = data.draw(st.integers(0, len(valid)))
    stop = data.draw(st.integers(start, min(len(valid), start + 8)))
    damaged = valid[:start] + data.draw(st.binary(max_size=8)) + valid[stop:]
    for name, decode in DECODERS.items():
        check_canonical(name, decode, damaged)


@given(memberships, keys, st.floats(0, 1e11))
def test_a_membership_that_nobody_signed_is_a_remote_error(membership: Message, cluster: bytes, now: float) -> None:
    with pytest.raises(RemoteError):
        verify(membership.encode(), cluster, now)


@given(keys)
def test_every_key_has_one_text(key: bytes) -> None:
    assert decode_key(encode_key(key)) == key


@given(st.text(max_size=60) | st.text(alphabet="0123456789abcdefABCDEFGHJKLMNPQRSTUVWXYZ+/=", min_size=43, max_size=51))
def test_arbitrary_text_is_taken_or_bad_input(text: str) -> None:
    for parse in (decode_key, parse_peer, check_cluster_name):
        try:
            parse(text)
        except UserError:
            continue
    try:
        claim = parse_vip(text)
    except UserError:
        return
    assert claim_problem(claim.address, claim.prefix) is None
