"""Type-length-value fields: the body of every control message, of a membership and of a peer entry.

    +-----------+------------------+------------------+
    | type (u8) | length (u16, BE) | value            |  ... repeated to the end, at least no field at all
    +-----------+------------------+------------------+

Unknown types are skipped, so that a later version can add fields. A known field with a wrong size, a field too often,
and a missing mandatory one are errors. Encoders write ascending types; decoders take any order.

A control message (plaintext of a transport message, kind CONTROL) puts two bytes in front:

    +-------------+-----------+--------+
    | kind = 0x04 | type (u8) | fields |
    +-------------+-----------+--------+
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from omninervous.errors import DecodeError

__all__ = [
    "CONTROL_HEADER_SIZE",
    "CONTROL_KIND",
    "FIELD_HEADER_SIZE",
    "Field",
    "Layout",
    "Values",
    "decode_text",
    "split_control",
]

FIELD_HEADER_SIZE = 3
CONTROL_KIND = 0x04
CONTROL_HEADER_SIZE = 2

_ANY_NUMBER = 1 << 16
"""`Field.most` of a field that only the size of the message bounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a layout. A constant: compared and hashed by identity, for messages are encoded by it."""

    number: int
    """Its type byte."""
    name: str
    """What `docs/PROTOCOL.md` calls it."""
    size: int | range | tuple[int, ...]
    """Bytes of the value: exactly, a range, or one of several."""
    required: bool = False
    most: int = 1
    """How often it may occur."""

    @classmethod
    def repeated(cls, number: int, name: str, size: int | range | tuple[int, ...], most: int = _ANY_NUMBER) -> Field:
        """A field that may occur any number of times, or at most `most` times."""
        return cls(number, name, size, most=most)

    def fits(self, length: int) -> bool:
        """Whether a value may have that many bytes."""
        return length == self.size if isinstance(self.size, int) else length in self.size

    @property
    def size_text(self) -> str:
        """The size as `docs/PROTOCOL.md` writes it: `4`, `1..63`, `7 or 19`."""
        if isinstance(self.size, range):
            return f"{self.size.start}..{self.size.stop - 1}"
        return str(self.size) if isinstance(self.size, int) else " or ".join(map(str, self.size))


class Values:
    """The known fields of one decoded body, by field."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[int, Sequence[bytes]]) -> None:
        self._values = values

    def one(self, field: Field) -> bytes:
        """The value of a required field."""
        return self._values[field.number][0]

    def maybe(self, field: Field) -> bytes | None:
        """The value of an optional field, None when absent."""
        found = self._values.get(field.number)
        return found[0] if found else None

    def all(self, field: Field) -> tuple[bytes, ...]:
        """Every value of a repeated field, in the order of the message."""
        return tuple(self._values.get(field.number, ()))

    def unsigned(self, field: Field) -> int:
        """A big-endian number; 0 when absent."""
        return int.from_bytes(self.maybe(field) or b"", "big")

    def flag(self, field: Field) -> bool:
        """A u8 that is 0 or 1; False when absent."""
        number = self.unsigned(field)
        if number > 1:
            raise DecodeError(f"{field.name} is {number}, not 0 or 1")
        return number == 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of one message (with a control type) or of one nested structure (without)."""

    name: str
    fields: tuple[Field, ...]
    """Ascending by number."""
    type: int | None = None
    """Control type; None for a body that is nested in something else."""
    _by_number: dict[int, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_number", {known.number: known for known in self.fields})
        numbers = [known.number for known in self.fields]
        if numbers != sorted(set(numbers)):
            raise AssertionError(f"{self.name}: field numbers do not ascend")

    def encode(self, values: Mapping[Field, bytes | Sequence[bytes] | None]) -> bytes:
        """The message. None and an empty sequence leave a field out; AssertionError when a value breaks the layout."""
        out = bytearray() if self.type is None else bytearray((CONTROL_KIND, self.type))
        for known in self.fields:
            given = values.get(known)
            items: Sequence[bytes] = () if given is None else (given,) if isinstance(given, bytes) else given
            if len(items) > known.most or (known.required and not items):
                raise AssertionError(f"{self.name}: {known.name} occurs {len(items)} times")
            for item in items:
                if not known.fits(len(item)):
                    raise AssertionError(f"{self.name}: {known.name} has {len(item)} bytes, not {known.size_text}")
                out += bytes((known.number,)) + len(item).to_bytes(2, "big") + item
        return bytes(out)

    def decode(self, body: bytes) -> Values:
        """The fields of a body (what follows kind and type); DecodeError when it breaks the layout."""
        found: dict[int, list[bytes]] = {}
        position = 0
        while position < len(body):
            start = position + FIELD_HEADER_SIZE
            if start > len(body):
                raise DecodeError(f"{self.name}: {len(body) - position} bytes where a field should begin")
            end = start + int.from_bytes(body[position + 1 : start], "big")
            if end > len(body):
                raise DecodeError(f"{self.name}: field {body[position]} runs {end - len(body)} bytes over the end")
            known = self._by_number.get(body[position])
            if known is not None:
                if not known.fits(end - start):
                    raise DecodeError(f"{self.name}: {known.name} has {end - start} bytes, not {known.size_text}")
                values = found.setdefault(known.number, [])
                if len(values) >= known.most:
                    raise DecodeError(f"{self.name}: {known.name} occurs more than {known.most} times")
                values.append(body[start:end])
            position = end
        for known in self.fields:
            if known.required and known.number not in found:
                raise DecodeError(f"{self.name}: no {known.name}")
        return Values(found)


def split_control(payload: bytes) -> tuple[int, bytes]:
    """(control type, body) of a plaintext; DecodeError when it is not of kind CONTROL."""
    if len(payload) < CONTROL_HEADER_SIZE or payload[0] != CONTROL_KIND:
        raise DecodeError(f"no control message: {payload[:CONTROL_HEADER_SIZE].hex() or 'empty'}")
    return payload[1], payload[CONTROL_HEADER_SIZE:]


def decode_text(value: bytes, what: str) -> str:
    """UTF-8 text of a field; DecodeError when it is not."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"{what} is not UTF-8") from error
