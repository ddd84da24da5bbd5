"""Packets per second of the pure data path, each way, on one core: tap to sealed datagram, datagram to delivered frame.

Run: python -m tests.bench.bench_datapath [--seconds N]
"""

from __future__ import annotations

import argparse
import time

from omninervous.core.dataplane import Aead, LaneKeys, OpenLanes
from omninervous.wire.frame import build_ethernet
from tests.datapaths import Side, twins, udp_frame

BATCH = 500
UDP_HEADERS = 14 + 20 + 8


def rates(seconds: float, one: Side, two: Side, frame: bytes) -> tuple[float, float]:
    """Frames per second sent by `one` and received by `two`."""
    sending = receiving = 0.0
    frames = 0
    while sending + receiving < 2 * seconds:
        begin = time.perf_counter()
        for _ in range(BATCH):
            one.datapath.from_tap(1.0, frame)
        datagrams = one.datapath.take_packets().datagrams
        middle = time.perf_counter()
        for _, data in datagrams:
            two.datapath.from_underlay(1.0, one.endpoint, data)
        delivered = two.datapath.take_packets().frames
        receiving += time.perf_counter() - middle
        sending += middle - begin
        assert len(delivered) == BATCH
        frames += BATCH
    return frames / sending, frames / receiving


def cases(one: Side, two: Side) -> dict[str, bytes]:
    """Frames by name; the size is the whole frame's."""
    return {
        "IPv4 UDP, 64 B": udp_frame(one, two, bytes(64 - UDP_HEADERS)),
        "IPv4 UDP, 1400 B": udp_frame(one, two, bytes(1400 - UDP_HEADERS)),
        "raw ethertype, 64 B": build_ethernet(two.mac, one.mac, 0x88B5, bytes(50)),
        "tagged IPv4 UDP, 64 B": udp_frame(one, two, bytes(18), bytes.fromhex("8100002a")),
        "in fragments, 3000 B": udp_frame(one, two, bytes(3000 - UDP_HEADERS)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="per figure")
    seconds = parser.parse_args().seconds
    print(f"{'frames/s':40} {'send':>12} {'receive':>12}")
    for lane, aead in ((0, Aead.CHACHA20_POLY1305), (1, Aead.AES_256_GCM)):
        one, two = twins()
        if lane:
            forth, back = bytes([1]) * 32, bytes([2]) * 32
            one.datapath.submit(0.0, [OpenLanes(one.index, (LaneKeys(lane, aead, forth, back),), (lane,))])
            two.datapath.submit(0.0, [OpenLanes(two.index, (LaneKeys(lane, aead, back, forth),), (lane,))])
        for name, frame in cases(one, two).items():
            send, receive = rates(seconds, one, two, frame)
            print(f"{f'{name}, {aead.name}':40} {send:12,.0f} {receive:12,.0f}")


if __name__ == "__main__":
    main()
