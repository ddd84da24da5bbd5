"""The fields of the signalling messages, as data: `wire.signalling` packs and parses by them, and `docs/PROTOCOL.md`
is checked against them."""

from __future__ import annotations

from enum import IntEnum

from omninervous.wire.address import ENDPOINT4_SIZE, ENDPOINT6_SIZE
from omninervous.wire.control import BOOT_ID_SIZE, TOKEN_SIZE, VERSIONS_SIZE
from omninervous.wire.membership import MEMBERSHIP_MAX_SIZE, MEMBERSHIP_MIN_SIZE
from omninervous.wire.tlv import FIELD_HEADER_SIZE, Field, Layout

__all__ = [
    "ADDRESS_SIZES",
    "BOOT_ID",
    "CLUSTER",
    "CLUSTER_NAME_MAX_SIZE",
    "CLUSTER_PUBLIC",
    "CURSOR_SIZE",
    "ENTRY_CANDIDATE",
    "ENTRY_MEMBERSHIP",
    "ENTRY_REFLEXIVE",
    "EPOCH",
    "FLAG_ASK_INITIATE",
    "FLAG_PUNCH",
    "HA_CURSOR",
    "HA_FROM",
    "HA_HOLDER",
    "HA_JOINED",
    "HA_LEFT",
    "HA_MORE",
    "HA_OBSERVED",
    "HA_PROBED",
    "HA_SNAPSHOT",
    "HA_STATUS",
    "HA_VERSION",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "H_CANDIDATE",
    "H_CURSOR",
    "H_PROBE_AT",
    "H_TOKEN",
    "H_VERSION",
    "KEY_SIZE",
    "LEAVE",
    "MAC_SIZE",
    "MAX_CANDIDATES",
    "MEMBERSHIP",
    "PEER_ENTRY",
    "PEER_INFO",
    "PROBE",
    "P_ENTRY",
    "P_FLAGS",
    "P_STATUS",
    "QUERY_PEER",
    "Q_ADDRESS",
    "Q_FLAGS",
    "Q_KEY",
    "Q_MAC",
    "RA_CURSOR",
    "RA_EPOCH",
    "RA_HOLDER",
    "RA_OBSERVED",
    "RA_OTHER_KEYS",
    "RA_PEER",
    "RA_STATUS",
    "RA_VERSION",
    "REGISTER",
    "REGISTER_ACK",
    "REGISTER_CANDIDATE",
    "REQUEST",
    "SIGNALLING_LAYOUTS",
    "TOKEN",
    "VERSIONS",
    "SignallingType",
]

CLUSTER_NAME_MAX_SIZE = 63
CURSOR_SIZE = 32
MAX_CANDIDATES = 8
ADDRESS_SIZES = (4, 16)
MAC_SIZE = 6
KEY_SIZE = 32
FLAG_PUNCH = 1
FLAG_ASK_INITIATE = 2

_ENDPOINT_SIZES = (ENDPOINT4_SIZE, ENDPOINT6_SIZE)
_MEMBERSHIP_SIZES = range(MEMBERSHIP_MIN_SIZE, MEMBERSHIP_MAX_SIZE + 1)
_ENTRY_SIZES = range(
    FIELD_HEADER_SIZE + MEMBERSHIP_MIN_SIZE,
    FIELD_HEADER_SIZE + MEMBERSHIP_MAX_SIZE + (1 + MAX_CANDIDATES) * (FIELD_HEADER_SIZE + ENDPOINT6_SIZE) + 1,
)


class SignallingType(IntEnum):
    """Second plaintext byte of a signalling message."""

    REGISTER = 0x40
    REGISTER_ACK = 0x41
    HEARTBEAT = 0x42
    HEARTBEAT_ACK = 0x43
    QUERY_PEER = 0x44
    PEER_INFO = 0x45
    LEAVE = 0x46
    PROBE = 0x47


ENTRY_MEMBERSHIP = Field(1, "membership", _MEMBERSHIP_SIZES, required=True)
ENTRY_REFLEXIVE = Field(2, "reflexive endpoint", _ENDPOINT_SIZES)
ENTRY_CANDIDATE = Field.repeated(3, "candidate", _ENDPOINT_SIZES, most=MAX_CANDIDATES)
PEER_ENTRY = Layout("PEER ENTRY", (ENTRY_MEMBERSHIP, ENTRY_REFLEXIVE, ENTRY_CANDIDATE))

REQUEST = Field(1, "request", 4, required=True)

CLUSTER = Field(2, "cluster", range(1, CLUSTER_NAME_MAX_SIZE + 1), required=True)
CLUSTER_PUBLIC = Field(3, "cluster public key", KEY_SIZE, required=True)
MEMBERSHIP = Field(4, "membership", _MEMBERSHIP_SIZES, required=True)
BOOT_ID = Field(5, "boot id", BOOT_ID_SIZE, required=True)
REGISTER_CANDIDATE = Field.repeated(6, "candidate", _ENDPOINT_SIZES, most=MAX_CANDIDATES)
VERSIONS = Field(7, "versions", VERSIONS_SIZE, required=True)
REGISTER = Layout(
    "REGISTER",
    (REQUEST, CLUSTER, CLUSTER_PUBLIC, MEMBERSHIP, BOOT_ID, REGISTER_CANDIDATE, VERSIONS),
    SignallingType.REGISTER,
)

RA_STATUS = Field(2, "status", 1, required=True)
RA_EPOCH = Field(3, "epoch", 8)
RA_VERSION = Field(4, "version", 8)
RA_OBSERVED = Field(5, "observed endpoint", _ENDPOINT_SIZES)
RA_PEER = Field.repeated(6, "peer entry", _ENTRY_SIZES)
RA_CURSOR = Field(7, "cursor", CURSOR_SIZE)
RA_HOLDER = Field(8, "holder entry", _ENTRY_SIZES)
RA_OTHER_KEYS = Field(9, "other keys", 2)
REGISTER_ACK = Layout(
    "REGISTER_ACK",
    (REQUEST, RA_STATUS, RA_EPOCH, RA_VERSION, RA_OBSERVED, RA_PEER, RA_CURSOR, RA_HOLDER, RA_OTHER_KEYS),
    SignallingType.REGISTER_ACK,
)

EPOCH = Field(2, "epoch", 8, required=True)
H_VERSION = Field(3, "version", 8, required=True)
H_CURSOR = Field(4, "cursor", CURSOR_SIZE)
H_CANDIDATE = Field.repeated(5, "candidate", _ENDPOINT_SIZES, most=MAX_CANDIDATES)
H_TOKEN = Field(6, "token", TOKEN_SIZE)
H_PROBE_AT = Field(7, "probe at", _ENDPOINT_SIZES)
HEARTBEAT = Layout(
    "HEARTBEAT",
    (REQUEST, EPOCH, H_VERSION, H_CURSOR, H_CANDIDATE, H_TOKEN, H_PROBE_AT),
    SignallingType.HEARTBEAT,
)

HA_FROM = Field(3, "from version", 8, required=True)
HA_VERSION = Field(4, "version", 8, required=True)
HA_STATUS = Field(5, "status", 1, required=True)
HA_OBSERVED = Field(6, "observed endpoint", _ENDPOINT_SIZES)
HA_JOINED = Field.repeated(7, "joined entry", _ENTRY_SIZES)
HA_LEFT = Field.repeated(8, "left key", KEY_SIZE)
HA_MORE = Field(9, "more", 1)
HA_CURSOR = Field(10, "cursor", CURSOR_SIZE)
HA_HOLDER = Field(11, "holder entry", _ENTRY_SIZES)
HA_SNAPSHOT = Field(12, "snapshot", 1)
HA_PROBED = Field(13, "probed", 1)
HEARTBEAT_ACK = Layout(
    "HEARTBEAT_ACK",
    (
        *(REQUEST, EPOCH, HA_FROM, HA_VERSION, HA_STATUS, HA_OBSERVED),
        *(HA_JOINED, HA_LEFT, HA_MORE, HA_CURSOR, HA_HOLDER, HA_SNAPSHOT, HA_PROBED),
    ),
    SignallingType.HEARTBEAT_ACK,
)

Q_ADDRESS = Field(2, "address", ADDRESS_SIZES)
Q_MAC = Field(3, "mac", MAC_SIZE)
Q_KEY = Field(4, "key", KEY_SIZE)
Q_FLAGS = Field(5, "flags", 1)
QUERY_PEER = Layout("QUERY_PEER", (REQUEST, Q_ADDRESS, Q_MAC, Q_KEY, Q_FLAGS), SignallingType.QUERY_PEER)

P_STATUS = Field(2, "status", 1, required=True)
P_ENTRY = Field(3, "entry", _ENTRY_SIZES)
P_FLAGS = Field(4, "flags", 1)
PEER_INFO = Layout("PEER_INFO", (REQUEST, P_STATUS, P_ENTRY, P_FLAGS), SignallingType.PEER_INFO)

LEAVE = Layout("LEAVE", (REQUEST,), SignallingType.LEAVE)

TOKEN = Field(1, "token", TOKEN_SIZE, required=True)
PROBE = Layout("PROBE", (TOKEN,), SignallingType.PROBE)

SIGNALLING_LAYOUTS = (REGISTER, REGISTER_ACK, HEARTBEAT, HEARTBEAT_ACK, QUERY_PEER, PEER_INFO, LEAVE, PROBE)
