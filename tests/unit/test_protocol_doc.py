"""docs/PROTOCOL.md against the code: sizes, field numbers, statuses, limits, labels and drop reasons."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import re
from enum import IntEnum
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from omninervous.core.dataplane import Aead
from omninervous.core.traffic_class import ECN, mark_packet
from omninervous.errors import RemoteError
from omninervous.wire import signalling
from omninervous.wire.address import ENDPOINT4_SIZE, ENDPOINT6_SIZE, Endpoint, encode_endpoint
from omninervous.wire.control import CONTROL_LAYOUTS, OUR_VERSIONS, VERSIONS_SIZE, CloseReason, ControlType
from omninervous.wire.handshake import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    RESPONSE_SIZE,
    CookieReply,
    Initiation,
    MessageType,
    Response,
)
from omninervous.wire.hello import HELLO_REPLY_SIZE, HELLO_SIZE
from omninervous.wire.membership import (
    MEMBERSHIP_BODY,
    MEMBERSHIP_MAX_SIZE,
    MEMBERSHIP_MIN_SIZE,
    MEMBERSHIP_VERSION,
    VIP_CLAIM_SIZE,
)
from omninervous.wire.payload import FRAGMENT_HEADER_SIZE, Fragment, PayloadKind
from omninervous.wire.signalling import HeartbeatStatus, PeerStatus, RegisterStatus
from omninervous.wire.signalling_fields import PEER_ENTRY, SIGNALLING_LAYOUTS, SignallingType
from omninervous.wire.tlv import CONTROL_HEADER_SIZE, CONTROL_KIND, FIELD_HEADER_SIZE, Layout, split_control
from omninervous.wire.transport import MIN_TRANSPORT_SIZE, TransportHeader
from tests.wire_examples import EXAMPLES

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "omninervous"
TEXT = (REPOSITORY / "docs" / "PROTOCOL.md").read_text()

LAYOUTS = (*CONTROL_LAYOUTS, *SIGNALLING_LAYOUTS, MEMBERSHIP_BODY, PEER_ENTRY)
DATAGRAM_SIZES = {
    MessageType.INITIATION: INITIATION_SIZE,
    MessageType.RESPONSE: RESPONSE_SIZE,
    MessageType.COOKIE_REPLY: COOKIE_REPLY_SIZE,
    MessageType.TRANSPORT: MIN_TRANSPORT_SIZE,
    MessageType.HELLO: HELLO_SIZE,
    MessageType.HELLO_REPLY: HELLO_REPLY_SIZE,
}
# What each drawn box says in its headline.
DRAWN = {
    "Initiation": f"type 1, {INITIATION_SIZE} bytes",
    "Response": f"type 2, {RESPONSE_SIZE} bytes",
    "Cookie reply": f"type 3, {COOKIE_REPLY_SIZE} bytes",
    "Transport data": f"type 4, {MIN_TRANSPORT_SIZE} bytes or more",
    "HELLO": f"type 5, {HELLO_SIZE} bytes",
    "HELLO_REPLY": f"type 6, {HELLO_REPLY_SIZE} bytes",
    "Fragment": f"payload kind {PayloadKind.FRAGMENT:d}, {FRAGMENT_HEADER_SIZE} bytes and data",
    "Control message": f"payload kind {CONTROL_KIND}, {CONTROL_HEADER_SIZE} bytes and fields",
    "Field": f"{FIELD_HEADER_SIZE} bytes and a value",
    "Endpoint": f"{ENDPOINT4_SIZE} or {ENDPOINT6_SIZE} bytes",
    "VIP claim": f"{VIP_CLAIM_SIZE} bytes",
    "Versions": f"{VERSIONS_SIZE} bytes",
    "Membership": f"{MEMBERSHIP_MIN_SIZE} to {MEMBERSHIP_MAX_SIZE} bytes",
}
UNITS = {"d": 86400, "h": 3600}


def section(title: str) -> str:
    """What stands below a headline, down to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no headline {title!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """Rows of the first table in a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


# ---------------------------------------------------------------- drawn bytes


def test_the_table_of_datagrams_is_the_codes() -> None:
    rows = [(int(row[0]), row[1], int(row[2].split()[0])) for row in table(section("1. Datagrams"))]
    assert rows == [(kind.value, kind.name, size) for kind, size in DATAGRAM_SIZES.items()]


def test_every_drawn_box_is_known_and_says_its_size() -> None:
    headlines = dict(re.findall(r"^### ([\w ]+?) \((.* bytes.*|\d+ .*)\)$", TEXT, re.MULTILINE))
    assert headlines == DRAWN


@pytest.mark.parametrize("name", DRAWN)
def test_a_box_has_an_offset_at_each_border_and_ends_where_the_headline_says(name: str) -> None:
    lines = section(f"{name} ({DRAWN[name]})").split("```")[1].splitlines()[1:]
    top = lines[1]
    borders = [position for position, char in enumerate(top) if char == "+"]
    offsets = list(re.finditer(r"\S+(?: \S+)*", lines[0]))
    assert [abs(offset.start() - border) <= 1 for offset, border in zip(offsets, borders, strict=True)]
    assert lines[-1] == top
    for row in lines[2:-1]:
        assert [position for position, char in enumerate(row) if char == "|"] == borders
    last = offsets[-1][0]
    assert last == DRAWN[name].split(" bytes")[0].split(", ")[-1] or not last.isdecimal()


def test_widths_in_the_boxes_of_datagrams_add_up() -> None:
    """Offsets differ by what each cell says it holds."""
    checked = 0
    for name in ("Initiation", "Response", "Cookie reply", "HELLO", "HELLO_REPLY"):
        lines = section(f"{name} ({DRAWN[name]})").split("```")[1].splitlines()[1:]
        offsets = [int(number) for number in lines[0].split()]
        cells = [row.strip("|").split("|") for row in lines[2:-1]]
        for index, (start, end) in enumerate(pairwise(offsets)):
            text = " ".join(row[index] for row in cells)
            assert _cell_size(text) in (None, end - start), f"{name}: {text}"
            checked += _cell_size(text) is not None
    assert checked > 20


def _cell_size(text: str) -> int | None:
    """Bytes that a cell's text speaks of; None if it does not."""
    if "u32" in text:
        return 4
    if text.strip() in ("lowest", "highest"):
        return 1
    zeros = re.search(r"(\d+) x zero|^\s*0 +0 +0\s*$", text)
    if zeros:
        return int(zeros[1] or 3)
    if re.search(r"0x|type =", text):
        return 1
    numbers = [int(number) for number in re.findall(r"(?<!mac)(?<!Ed)(?<!\d)\d+", text.replace("Ed25519", ""))]
    return sum(numbers) if numbers else None


def test_fixed_messages_have_the_drawn_sizes() -> None:
    assert len(Initiation(0, bytes(32), bytes(48), bytes(28), bytes(16), bytes(16)).encode()) == INITIATION_SIZE
    assert len(Response(0, 0, bytes(32), bytes(16), bytes(16), bytes(16)).encode()) == RESPONSE_SIZE
    assert len(CookieReply(0, bytes(24), bytes(32)).encode()) == COOKIE_REPLY_SIZE
    assert len(TransportHeader(0, 0).encode()) + 16 == MIN_TRANSPORT_SIZE
    assert len(Fragment(0, 0, True, b"x").encode()) == FRAGMENT_HEADER_SIZE + 1
    assert {len(encode_endpoint(Endpoint(host, 1))) for host in ("192.0.2.1", "::1")} == {
        ENDPOINT4_SIZE,
        ENDPOINT6_SIZE,
    }


def test_payload_kinds_are_the_codes() -> None:
    rows = {row[1]: int(row[0], 16) for row in table(section("4. Payloads")) if row[1]}
    assert rows == {kind.name: kind.value for kind in PayloadKind}
    assert PayloadKind.CONTROL == CONTROL_KIND


def test_aeads_and_versions_are_the_codes() -> None:
    for aead in Aead:
        assert f"{aead.value} = {aead.name}" in TEXT
    assert f"version {OUR_VERSIONS.maximum}" in TEXT.splitlines()[0]
    assert table(section("MEMBERSHIP (body)"))[0][-1] == str(MEMBERSHIP_VERSION)


# ---------------------------------------------------------------- fields


def headline(layout: Layout) -> str:
    if layout is MEMBERSHIP_BODY:
        return "MEMBERSHIP (body)"
    return "PEER ENTRY (nested)" if layout is PEER_ENTRY else f"{layout.name} (control type {layout.type:#04x})"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_fields_are_the_codes(layout: Layout) -> None:
    documented = [tuple(row[:4]) for row in table(section(headline(layout)))]
    assert documented == [
        (str(known.number), known.name, known.size_text, _times(known.required, known.most)) for known in layout.fields
    ]


def _times(required: bool, most: int) -> str:
    if required:
        return "1"
    return f"0..{most}" if most <= 256 else "0.."


def test_no_message_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^### (\w+) \(control type (0x[0-9a-f]{2})\)$", TEXT, re.MULTILINE)
    known = [*ControlType, *SignallingType]
    assert [(name, int(number, 16)) for name, number in documented] == [(kind.name, kind.value) for kind in known]


def test_examples_use_every_field_and_no_other() -> None:
    """So the encoders write what the layouts, and with them the document, say."""
    used: dict[int, set[int]] = {}
    for _, message in EXAMPLES:
        data = message.encode()
        if data[0] != CONTROL_KIND or len(data) < CONTROL_HEADER_SIZE:
            continue
        kind, body = split_control(data)
        while body:
            used.setdefault(kind, set()).add(body[0])
            body = body[FIELD_HEADER_SIZE + int.from_bytes(body[1:FIELD_HEADER_SIZE], "big") :]
    for layout in (*CONTROL_LAYOUTS, *SIGNALLING_LAYOUTS):
        assert layout.type is not None
        assert used[layout.type] == {known.number for known in layout.fields}, layout.name


@pytest.mark.parametrize("status", [CloseReason, RegisterStatus, HeartbeatStatus, PeerStatus])
def test_statuses_are_the_codes(status: type[IntEnum]) -> None:
    rows = [(int(row[0]), row[1]) for row in table(section(status.__name__))]
    assert rows == [(each.value, each.name) for each in status]


# ---------------------------------------------------------------- numbers, labels, reasons


@pytest.mark.parametrize("row", table(section("Timers")) + table(section("Limits")), ids=lambda row: row[2])
def test_numbers_are_the_codes(row: list[str]) -> None:
    value, unit = re.fullmatch(r"([\d.,/^ -]+?)(?: ([a-z]+))?", row[1]).groups()  # type: ignore[union-attr]
    exact = [_number(part) * UNITS.get(unit, 1) for part in value.split(",")]
    numbers = tuple(int(number) if number.denominator == 1 else float(number) for number in exact)
    constant = _constant(row[2])
    assert constant == (numbers if isinstance(constant, tuple) else numbers[0])


def _number(text: str) -> Fraction:
    """`90`, `0.25`, `1/3`, `2^60 - 2^13 - 1`."""
    first, *rest = (_power(term.strip()) for term in text.split(" - "))
    return first - sum(rest)


def _power(text: str) -> Fraction:
    base, _, exponent = text.partition("^")
    return Fraction(base) ** int(exponent or 1)


def _constant(path: str) -> Any:
    """`core.peer.REKEY_AFTER`, or the default of a dataclass's field."""
    module, name = path.rsplit(".", 1)
    if not module.rsplit(".", 1)[-1][0].isupper():
        return getattr(importlib.import_module(f"omninervous.{module}"), name)
    module, owner = module.rsplit(".", 1)
    fields = dataclasses.fields(getattr(importlib.import_module(f"omninervous.{module}"), owner))
    return next(field.default for field in fields if field.name == name)


def test_the_signalling_limit_fits_the_smallest_ipv6_mtu() -> None:
    assert signalling.MAX_SIGNALLING_DATAGRAM + 40 + 8 == 1280
    assert f"datagram ({signalling.MAX_SIGNALLING_DATAGRAM} bytes)" in TEXT


def test_every_label_of_the_code_is_documented_and_the_other_way_round() -> None:
    sources = "".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
    in_code = set(re.findall(r'= b"(omninervous [^"]*)"', sources))
    assert set(re.findall(r'"(omninervous [^"]*)"', TEXT)) == in_code


def test_every_drop_reason_of_the_code_is_documented_and_the_other_way_round() -> None:
    sources = "".join(
        path.read_text() for part in ("core", "synapse") for path in sorted((PACKAGE / part).glob("*.py"))
    )
    raised = set(re.findall(r'(?:raise RemoteError|\bdrop)\(\s*"([a-z0-9_]+)"', sources))
    raised |= set(re.findall(r'"drop_([a-z0-9_]+)"', sources))
    reasons = TEXT.split("### Drop reasons")[1]
    documented = re.findall(r"^\| `([a-z0-9_]+)` \|", reasons, re.MULTILINE)
    assert raised - set(documented) == set()
    assert [reason for reason in documented if f'"{reason}"' not in sources and f'"drop_{reason}"' not in sources] == []
    assert len(documented) == len(set(documented))


def test_links_inside_the_document_lead_somewhere() -> None:
    headlines = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headlines}
    assert [link for link in re.findall(r"\]\(#([^)]*)\)", TEXT) if link not in anchors] == []


def test_ecn_comes_back_as_the_table_says() -> None:
    names = ("Not-ECT", "ECT(1)", "ECT(0)", "CE")
    rows = {row[0]: row[1:] for row in table(section("Traffic class"))}
    for inner, outer in itertools.product(range(4), repeat=2):
        packet = bytes([0x45, 0xB8 | inner]) + bytes(18)
        try:
            marked = mark_packet(packet, outer)
            assert marked[1] & ~ECN == 0xB8
            found = names[marked[1] & ECN]
        except RemoteError as error:
            found = "dropped"
            assert error.reason == "ecn"
        assert rows[names[inner]][outer] == found
