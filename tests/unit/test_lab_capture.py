from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest

from omninervous.errors import DecodeError
from omninervous.lab.capture import examine, frames_of, udp_datagram

MACS = bytes.fromhex("020000000001020000000002")


def ipv4(payload: bytes, *, fragment: int = 0, options: bytes = b"", protocol: int = 17) -> bytes:
    udp = struct.pack("!HHHH", 51820, 51821, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(udp), 0, fragment, 64, protocol, 0
    )
    return MACS + b"\x08\x00" + header + bytes([198, 51, 100, 11, 198, 51, 100, 12]) + options + udp


def ipv6(payload: bytes) -> bytes:
    udp = struct.pack("!HHHH", 51820, 51821, 8 + len(payload), 0) + payload
    addresses = ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed
    return MACS + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + addresses + udp


def pcap(frames: list[bytes], order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1) -> bytes:
    records = [struct.pack(f"{order}IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames]
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 2048, link) + b"".join(records)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_frames_are_read_in_either_byte_order(tmp_path: Path, order: str, magic: int) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([b"one", b"", b"three"], order, magic))
    assert list(frames_of(path)) == [b"one", b"", b"three"]


def test_a_capture_cut_short_yields_its_whole_frames(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.pcap", pcap([b"one", b"two"])
    for length in range(24 + 16 + 3, len(whole)):
        path.write_bytes(whole[:length])
        assert list(frames_of(path)) == [b"one"]


@pytest.mark.parametrize("data", [b"", b"\xd4\xc3\xb2\xa1", b"x" * 40, pcap([], link=101)])
def test_what_is_no_ethernet_capture_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    with pytest.raises(DecodeError):
        list(frames_of(path))


def test_datagrams_are_found_behind_options_tags_and_in_ipv6() -> None:
    plain = ipv4(b"\x04abc")
    tagged = plain[:12] + bytes.fromhex("88a8000a81000014") + plain[12:]
    for frame in (plain, ipv4(b"\x04abc", options=bytes(8)), tagged, ipv6(b"\x04abc")):
        datagram = udp_datagram(frame)
        assert datagram is not None
        assert (datagram.source_port, datagram.destination_port, datagram.payload) == (51820, 51821, b"\x04abc")


def test_padding_behind_a_short_datagram_is_no_payload() -> None:
    datagram = udp_datagram(ipv4(b"\x04") + bytes(30))
    assert datagram is not None and datagram.payload == b"\x04"


def test_fragments_and_other_protocols_are_no_datagrams() -> None:
    for frame in (ipv4(b"\x04", fragment=0x2000), ipv4(b"\x04", fragment=7), ipv4(b"\x04", protocol=6), b"", MACS):
        assert udp_datagram(frame) is None


def test_every_truncation_is_read_without_an_error() -> None:
    for frame in (ipv4(b"\x04abc"), ipv6(b"\x04abc")):
        for length in range(len(frame)):
            udp_datagram(frame[:length])


def test_examine_counts_types_and_finds_patterns_in_every_ip_packet() -> None:
    frames = [
        ipv4(b"\x04sealed"),
        ipv4(b"\x01"),
        ipv4(b""),
        ipv6(b"\x04 secret"),
        ipv4(b"secret", protocol=6),
        MACS + b"\x08\x06" + b"secret",
    ]
    verdict = examine(frames, [("it", b"secret"), ("MAC", MACS[:6])])
    assert (verdict.frames, verdict.datagrams, verdict.other_ip) == (6, 4, 1)
    assert verdict.first_bytes == {4: 2, 1: 1, -1: 1}
    assert verdict.found == {"it": 2}, "outer MACs and ARP are no inner bytes"
