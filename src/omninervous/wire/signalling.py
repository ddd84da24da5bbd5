"""Signalling between an edge and a Nucleus, control types 0x40-0x47 (fields: `wire.tlv`; tables: `docs/PROTOCOL.md`).

    edge -> Nucleus   REGISTER  HEARTBEAT  QUERY_PEER  LEAVE
    Nucleus -> edge   REGISTER_ACK  HEARTBEAT_ACK  PEER_INFO  PROBE

Each is the plaintext of a transport message in the session between the two. It fits MAX_SIGNALLING bytes: with header
and tag a datagram of 1232 bytes, which the smallest MTU of IPv6 (1280 bytes) carries whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from omninervous.errors import DecodeError
from omninervous.wire import signalling_fields as fields
from omninervous.wire.address import Endpoint, decode_endpoint
from omninervous.wire.control import decode_versions
from omninervous.wire.signalling_fields import CLUSTER_NAME_MAX_SIZE, CURSOR_SIZE, MAX_CANDIDATES, SignallingType
from omninervous.wire.signalling_messages import (
    ENTRY_FIELD_OVERHEAD,
    MAX_SIGNALLING,
    MAX_SIGNALLING_DATAGRAM,
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
    SignallingMessage,
    exactly_one,
)
from omninervous.wire.tlv import Field, Values, decode_text, split_control

__all__ = [
    "CLUSTER_NAME_MAX_SIZE",
    "CURSOR_SIZE",
    "ENTRY_FIELD_OVERHEAD",
    "MAX_CANDIDATES",
    "MAX_SIGNALLING",
    "MAX_SIGNALLING_DATAGRAM",
    "Heartbeat",
    "HeartbeatAck",
    "HeartbeatStatus",
    "Leave",
    "PeerEntry",
    "PeerInfo",
    "PeerStatus",
    "Probe",
    "QueryPeer",
    "Register",
    "RegisterAck",
    "RegisterStatus",
    "SignallingMessage",
    "SignallingType",
    "cluster_name_problem",
    "decode_peer_entry",
    "decode_signalling",
]

E = TypeVar("E", bound=IntEnum)


def cluster_name_problem(name: str) -> str | None:
    """Why this cannot be a cluster's name, None when it can: 1..63 bytes of UTF-8, nothing invisible."""
    # Names are printed by Nuclei that do not know the cluster: no control, format or surrogate characters (category C).
    if any(unicodedata.category(char)[0] == "C" for char in name):
        return "it holds a control character"
    if not 1 <= len(name.encode()) <= CLUSTER_NAME_MAX_SIZE:
        return f"it has {len(name.encode())} bytes, not 1 to {CLUSTER_NAME_MAX_SIZE}"
    return "it begins or ends with a space" if name != name.strip() else None


def decode_signalling(payload: bytes) -> SignallingMessage | None:
    """The message in a plaintext of kind CONTROL; None for a type that is no signalling message of this version."""
    if len(payload) > MAX_SIGNALLING:
        raise DecodeError(f"signalling message of {len(payload)} bytes")
    kind, body = split_control(payload)
    decode = _DECODERS.get(kind)
    return None if decode is None else decode(body)


def decode_peer_entry(data: bytes) -> PeerEntry:
    """The entry in exactly these bytes, or DecodeError. The membership in it is not verified."""
    values = fields.PEER_ENTRY.decode(data)
    return PeerEntry(
        membership=values.one(fields.ENTRY_MEMBERSHIP),
        reflexive=_endpoint(values, fields.ENTRY_REFLEXIVE),
        candidates=_endpoints(values, fields.ENTRY_CANDIDATE),
    )


def _decode_register(body: bytes) -> Register:
    values = fields.REGISTER.decode(body)
    cluster = decode_text(values.one(fields.CLUSTER), "cluster name")
    problem = cluster_name_problem(cluster)
    if problem is not None:
        raise DecodeError(f"cluster name: {problem}")
    return Register(
        request=values.unsigned(fields.REQUEST),
        cluster=cluster,
        cluster_public=values.one(fields.CLUSTER_PUBLIC),
        membership=values.one(fields.MEMBERSHIP),
        boot_id=values.one(fields.BOOT_ID),
        versions=decode_versions(values.one(fields.VERSIONS)),
        candidates=_endpoints(values, fields.REGISTER_CANDIDATE),
    )


def _decode_register_ack(body: bytes) -> RegisterAck:
    values = fields.REGISTER_ACK.decode(body)
    return RegisterAck(
        request=values.unsigned(fields.REQUEST),
        status=_enum(RegisterStatus, values.unsigned(fields.RA_STATUS)),
        epoch=values.unsigned(fields.RA_EPOCH),
        version=values.unsigned(fields.RA_VERSION),
        observed=_endpoint(values, fields.RA_OBSERVED),
        peers=tuple(map(decode_peer_entry, values.all(fields.RA_PEER))),
        cursor=values.maybe(fields.RA_CURSOR),
        holder=_entry(values, fields.RA_HOLDER),
        other_keys=values.unsigned(fields.RA_OTHER_KEYS),
    )


def _decode_heartbeat(body: bytes) -> Heartbeat:
    values = fields.HEARTBEAT.decode(body)
    return Heartbeat(
        request=values.unsigned(fields.REQUEST),
        epoch=values.unsigned(fields.EPOCH),
        version=values.unsigned(fields.H_VERSION),
        cursor=values.maybe(fields.H_CURSOR),
        candidates=_endpoints(values, fields.H_CANDIDATE),
        token=values.maybe(fields.H_TOKEN),
        probe_at=_endpoint(values, fields.H_PROBE_AT),
    )


def _decode_heartbeat_ack(body: bytes) -> HeartbeatAck:
    values = fields.HEARTBEAT_ACK.decode(body)
    return HeartbeatAck(
        request=values.unsigned(fields.REQUEST),
        epoch=values.unsigned(fields.EPOCH),
        from_version=values.unsigned(fields.HA_FROM),
        version=values.unsigned(fields.HA_VERSION),
        status=_enum(HeartbeatStatus, values.unsigned(fields.HA_STATUS)),
        observed=_endpoint(values, fields.HA_OBSERVED),
        joined=tuple(map(decode_peer_entry, values.all(fields.HA_JOINED))),
        left=values.all(fields.HA_LEFT),
        more=values.flag(fields.HA_MORE),
        cursor=values.maybe(fields.HA_CURSOR),
        holder=_entry(values, fields.HA_HOLDER),
        snapshot=values.flag(fields.HA_SNAPSHOT),
        probed=values.flag(fields.HA_PROBED),
    )


def _decode_query_peer(body: bytes) -> QueryPeer:
    values = fields.QUERY_PEER.decode(body)
    address, mac, key = values.maybe(fields.Q_ADDRESS), values.maybe(fields.Q_MAC), values.maybe(fields.Q_KEY)
    if not exactly_one(address, mac, key):
        raise DecodeError("QUERY_PEER without exactly one of address, mac, key")
    flags = values.unsigned(fields.Q_FLAGS)
    return QueryPeer(
        request=values.unsigned(fields.REQUEST),
        address=None if address is None else _ip_address(address),
        mac=mac,
        key=key,
        punch=bool(flags & fields.FLAG_PUNCH),
        ask_initiate=bool(flags & fields.FLAG_ASK_INITIATE),
    )


def _decode_peer_info(body: bytes) -> PeerInfo:
    values = fields.PEER_INFO.decode(body)
    status, entry = _enum(PeerStatus, values.unsigned(fields.P_STATUS)), _entry(values, fields.P_ENTRY)
    if (status == PeerStatus.FOUND) != (entry is not None):
        raise DecodeError(f"PEER_INFO with status {status.name} and {'no' if entry is None else 'an'} entry")
    flags = values.unsigned(fields.P_FLAGS)
    return PeerInfo(
        values.unsigned(fields.REQUEST),
        status,
        entry,
        bool(flags & fields.FLAG_PUNCH),
        bool(flags & fields.FLAG_ASK_INITIATE),
    )


def _decode_leave(body: bytes) -> Leave:
    return Leave(fields.LEAVE.decode(body).unsigned(fields.REQUEST))


def _decode_probe(body: bytes) -> Probe:
    return Probe(fields.PROBE.decode(body).one(fields.TOKEN))


_DECODERS: dict[int, Callable[[bytes], SignallingMessage]] = {
    SignallingType.REGISTER: _decode_register,
    SignallingType.REGISTER_ACK: _decode_register_ack,
    SignallingType.HEARTBEAT: _decode_heartbeat,
    SignallingType.HEARTBEAT_ACK: _decode_heartbeat_ack,
    SignallingType.QUERY_PEER: _decode_query_peer,
    SignallingType.PEER_INFO: _decode_peer_info,
    SignallingType.LEAVE: _decode_leave,
    SignallingType.PROBE: _decode_probe,
}


def _enum(kind: type[E], number: int) -> E:
    try:
        return kind(number)
    except ValueError as error:
        raise DecodeError(f"{kind.__name__} {number}") from error


def _endpoint(values: Values, field: Field) -> Endpoint | None:
    data = values.maybe(field)
    return None if data is None else decode_endpoint(data)


def _endpoints(values: Values, field: Field) -> tuple[Endpoint, ...]:
    return tuple(map(decode_endpoint, values.all(field)))


def _entry(values: Values, field: Field) -> PeerEntry | None:
    data = values.maybe(field)
    return None if data is None else decode_peer_entry(data)


def _ip_address(data: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(data) if len(data) == min(fields.ADDRESS_SIZES) else IPv6Address(data)
