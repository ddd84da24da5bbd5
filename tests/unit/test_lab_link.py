"""The link process's model: its statistics, and that a seed replays them."""

from __future__ import annotations

import struct
from dataclasses import fields
from itertools import pairwise

import pytest

from omninervous.lab.link import Blackout, Delivery, LinkModel, LinkSpec, damage, main

FRAMES = 20_000


def run(spec: LinkSpec, seed: int = 1, interval: float = 0.001) -> tuple[LinkModel, list[tuple[Delivery, ...]]]:
    model = LinkModel(spec, seed, 0)
    return model, [model.handle_frame(number * interval, 1000) for number in range(FRAMES)]


def test_a_seed_replays_a_link() -> None:
    spec = LinkSpec(loss=0.1, delay=0.01, jitter=0.005, reorder=0.05, duplicate=0.05, corrupt=0.05)
    assert run(spec)[1] == run(spec)[1] != run(spec, seed=2)[1]


def test_the_fate_of_a_frame_does_not_depend_on_when_it_comes() -> None:
    spec = LinkSpec(loss=0.1, duplicate=0.05, corrupt=0.05)
    fates = [
        [tuple(delivery.flip for delivery in each) for each in run(spec, interval=step)[1]] for step in (0.001, 0.01)
    ]
    assert fates[0] == fates[1]


def test_the_two_directions_differ() -> None:
    spec = LinkSpec(loss=0.5)
    models = LinkModel(spec, 1, 0), LinkModel(spec, 1, 1)
    assert len({tuple(bool(model.handle_frame(0, 100)) for _ in range(64)) for model in models}) == 2


def test_a_perfect_link_delivers_at_once() -> None:
    model, fates = run(LinkSpec())
    assert all(fate == (Delivery(number * 0.001),) for number, fate in enumerate(fates))
    assert model.counts.delivered == model.counts.frames == FRAMES


@pytest.mark.parametrize("name", ["loss", "reorder", "duplicate", "corrupt"])
def test_shares_are_what_was_asked_for(name: str) -> None:
    share = {each: 0.1 if each == name else 0.0 for each in ("loss", "reorder", "duplicate", "corrupt")}
    spec = LinkSpec(
        loss=share["loss"], reorder=share["reorder"], duplicate=share["duplicate"], corrupt=share["corrupt"]
    )
    counts = run(spec)[0].counts
    seen = {
        "loss": counts.lost,
        "reorder": counts.reordered,
        "duplicate": counts.duplicated,
        "corrupt": counts.corrupted,
    }
    # Four standard deviations of a binomial share are 0.0085.
    assert {key: value / FRAMES for key, value in seen.items()} == pytest.approx(share, abs=0.0085)
    assert counts.delivered == FRAMES - counts.lost + counts.duplicated


def test_all_or_nothing() -> None:
    assert run(LinkSpec(loss=1.0))[0].counts.delivered == 0
    assert run(LinkSpec(loss=1.0, loss_burst=5))[0].counts.delivered == 0


def test_bursts_keep_the_share_and_have_their_mean_length() -> None:
    _, fates = run(LinkSpec(loss=0.1, loss_burst=5))
    lost = [not fate for fate in fates]
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / FRAMES == pytest.approx(0.1, abs=0.025)
    assert sum(lost) / bursts == pytest.approx(5, rel=0.15)


def test_delay_and_jitter_keep_the_order() -> None:
    _, fates = run(LinkSpec(delay=0.01, jitter=0.005))
    times = [fate[0].at for fate in fates]
    assert times == sorted(times)
    delays = [at - number * 0.001 for number, at in enumerate(times)]
    assert min(delays) >= 0.01 and max(delays) <= 0.015 + 1e-9
    assert max(delays) - min(delays) > 0.003


def test_a_reordered_frame_is_overtaken() -> None:
    _, fates = run(LinkSpec(delay=0.01, reorder=0.1, reorder_by=0.0035))
    times = [fate[0].at for fate in fates]
    overtaken = sum(now > later for now, later in pairwise(times))
    assert overtaken / FRAMES == pytest.approx(0.09, abs=0.02)


def test_a_rate_spaces_frames_and_a_full_queue_loses_them() -> None:
    model, fates = run(LinkSpec(rate=4e6, queue=10_000), interval=0.001)  # offered: 8 Mbit/s
    times = [fate[0].at for fate in fates if fate]
    assert len(times) * 8000 / (FRAMES * 0.001) == pytest.approx(4e6, rel=0.01)
    assert min(later - now for now, later in pairwise(times)) >= 0.002 - 1e-9
    assert model.counts.queue_full == FRAMES - len(times)
    assert max(fate[0].at - number * 0.001 for number, fate in enumerate(fates) if fate) <= 10_000 * 8 / 4e6 + 1e-9


def test_blackouts_come_when_they_should() -> None:
    _, fates = run(LinkSpec(blackouts=(Blackout(1, 0.5), Blackout(3, 0.125, 2))), interval=1 / 128)
    dark = {number for number, fate in enumerate(fates[:1280]) if not fate}
    assert dark == {*range(128, 192), *(start + each for start in (384, 640, 896, 1152) for each in range(16))}


def test_damage_flips_one_bit_behind_the_ethernet_header() -> None:
    frame = bytes(range(14)) + bytes(50)
    for place in (0.0, 0.3, 0.999999):
        damaged = damage(frame, place)
        assert damaged[:14] == frame[:14]
        assert sum((a ^ b).bit_count() for a, b in zip(damaged, frame, strict=True)) == 1


def test_damage_to_a_datagram_reaches_its_reader() -> None:
    """The payload is hit, and the UDP checksum is taken out."""
    udp = struct.pack("!HHHH", 1, 2, 8 + 20, 0x1234) + bytes(20)
    frame = bytes(12) + b"\x08\x00" + struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + udp
    for place in (0.0, 0.5, 0.999999):
        damaged = damage(frame, place)
        assert damaged[:40] == frame[:40] and damaged[40:42] == b"\0\0"
        assert sum(byte.bit_count() for byte in damaged[42:]) == 1
    arp = bytes(12) + b"\x08\x06" + bytes(46)
    assert damage(arp, 0.5) == arp, "it would poison the neighbours' tables, which no FCS guards here"
    assert damage(b"", 0.5) == b"" and damage(bytes(14), 0.5) == bytes(14)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--loss 5", "'5' does not do: give a number from 0 to 1"),
        ("--loss=-0.1", "from 0 to 1"),
        ("--corrupt nan", "from 0 to 1"),
        ("--delay inf", "of at least 0"),
        ("--loss-burst 0", "of at least 1"),
        ("--blackout foo", "'foo' does not do"),
        ("--blackout 1", "is not START:SECONDS[:EVERY]"),
        ("--blackout 1:2:3:4", "is not START:SECONDS[:EVERY]"),
    ],
)
def test_a_link_that_cannot_be_is_refused(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["here", "a", "there", "b", "--seed", "1", *words.split()])
    assert ended.value.code == 2 and says in capsys.readouterr().err


def test_the_help_has_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for each in fields(LinkSpec):
        assert f"--{each.name.replace('_', '-').removesuffix('s')}" in told
    assert "[default: 262144]" in told and "usage: omni lab link" in told
