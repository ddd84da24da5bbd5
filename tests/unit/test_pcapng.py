"""pcapng blocks, byte for byte (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct

from omninervous.hostos.pcapng import INBOUND, OUTBOUND, file_header, frame_block, statistics_block


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each."""
    found = []
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0 and struct.unpack_from("<I", data, length - 4)[0] == length
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            assert length == 0 and len(data) == 4
            break
        found[code] = data[4 : 4 + length]
        data = data[4 + length + -length % 4 :]
    return found


def test_a_file_begins_with_a_section_and_an_interface() -> None:
    (section, head), (interface, body) = blocks(file_header("omni 1.2", "omni0", 96))
    assert (section, interface) == (0x0A0D0D0A, 1)
    assert head[:16] == bytes.fromhex("4d3c2b1a01000000") + b"\xff" * 8
    assert options(head[16:]) == {4: b"omni 1.2"}
    assert struct.unpack_from("<HHI", body) == (1, 0, 96)
    assert options(body[8:]) == {2: b"omni0", 9: b"\x09"}


def test_frames_have_time_lengths_and_direction() -> None:
    when = (5 << 32) + 7
    ((kind, body),) = blocks(frame_block(when, b"frame", 1000, OUTBOUND))
    assert kind == 6 and struct.unpack_from("<5I", body) == (0, 5, 7, 5, 1000)
    assert body[20:28] == b"frame\0\0\0" and options(body[28:]) == {2: struct.pack("<I", 2)}
    ((_, inward),) = blocks(frame_block(when, b"", 0, INBOUND))
    assert options(inward[20:]) == {2: struct.pack("<I", 1)}


def test_the_last_block_says_what_was_lost() -> None:
    ((kind, body),) = blocks(statistics_block(1 << 32, 10, 3))
    assert kind == 5 and struct.unpack_from("<3I", body) == (0, 1, 0)
    assert options(body[12:]) == {4: struct.pack("<Q", 10), 5: struct.pack("<Q", 3)}
