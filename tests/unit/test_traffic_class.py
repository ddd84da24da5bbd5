from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.traffic_class import CE, frame_traffic_class, mark_frame
from omninervous.errors import RemoteError
from omninervous.wire.frame import internet_checksum
from tests.datapaths import Side, drops, twins
from tests.differential.streams import TAG, packet

CLASS = 0xB8


def frame(*, v6: bool, tags: bytes = b"", tos: int = CLASS | 2) -> bytes:
    one, two = twins()
    return packet(one, two, b"data", v6=v6, tags=tags, tos=tos)


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("tags", [b"", TAG, TAG * 2])
def test_the_class_is_found_and_a_mark_changes_it_and_the_checksum_only(v6: bool, tags: bytes) -> None:
    plain = frame(v6=v6, tags=tags)
    assert frame_traffic_class(plain) == CLASS | 2
    for outer in (1, CE):
        assert mark_frame(plain, outer) == frame(v6=v6, tags=tags, tos=CLASS | outer)
    assert mark_frame(plain, 0) == mark_frame(plain, 2) == plain
    with pytest.raises(RemoteError, match="congestion"):
        mark_frame(frame(v6=v6, tags=tags, tos=CLASS), CE)


@given(st.binary(max_size=80), st.integers(0, 3))
def test_what_is_no_ip_packet_has_no_class_and_stays(body: bytes, outer: int) -> None:
    other = bytes(12) + b"\x88\xb5" + body
    assert frame_traffic_class(other) == 0 and mark_frame(other, outer) == other


@given(st.binary(min_size=19, max_size=19), st.sampled_from([1, 3]))
def test_a_checksum_stays_as_right_or_wrong_as_it_was(rest: bytes, outer: int) -> None:
    header = b"\x45" + rest
    if header[1] & 3 in (0, 3):
        return
    marked = mark_frame(bytes(12) + b"\x08\x00" + header, outer)[14:]
    assert internet_checksum(marked) % 0xFFFF == internet_checksum(header) % 0xFFFF


def exchange(one: Side, two: Side, data: bytes, ecn: int) -> list[bytes]:
    """What arrives of a frame whose datagrams all get that mark, but for the first one."""
    one.datapath.from_tap(1.0, data)
    output = one.take()
    assert output.classes == dict.fromkeys(range(len(output.datagrams)), data[15])
    for number, (_, datagram) in enumerate(output.datagrams):
        two.datapath.from_underlay(1.0, one.endpoint, datagram, ecn if number or len(output.datagrams) == 1 else 2)
    return two.take().frames


@pytest.mark.parametrize("size", [100, 4000])
def test_marks_cross_the_data_path_whole_or_in_pieces(size: int) -> None:
    one, two = twins()
    capable = packet(one, two, bytes(size), tos=CLASS | 2)
    assert exchange(one, two, capable, 0) == [capable]
    assert exchange(one, two, capable, CE) == [packet(one, two, bytes(size), tos=CLASS | CE)]
    assert exchange(one, two, packet(one, two, bytes(size), tos=CLASS), CE) == []
    assert drops(two) == {"ecn": 1}
