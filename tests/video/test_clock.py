"""Where timestamps jump, and how one clock goes on over them."""

from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import pytest
from av.format import Flags

from dloral.video.clock import Clock, ClockFinder

TICK = Fraction(1, 90_000)


@dataclass
class FakePacket:
    """What a clock looks at: a packet of 40 ms."""

    stream_index: int
    dts: int
    duration: int = 3600
    size: int = 1
    time_base: Fraction = TICK
    pts: int = field(init=False)

    def __post_init__(self):
        self.pts = self.dts


def container(name: str = "mpegts", *kinds: str):
    streams = [
        SimpleNamespace(index=index, type=kind)
        for index, kind in enumerate(kinds or ("video", "audio"))
    ]
    flags = Flags.ts_discont.value if name == "mpegts" else 0
    return SimpleNamespace(format=SimpleNamespace(name=name, flags=flags), streams=streams)


def run_of(stream: int, begin: float, count: int) -> list[FakePacket]:
    return [FakePacket(stream, round(begin * 90_000) + 3600 * n) for n in range(count)]


def corrected(packets: list[FakePacket], source) -> list[tuple[int, float]]:
    """(stream, seconds) of each packet on the one clock."""
    finder = ClockFinder(source, source.streams[0])
    for packet in packets:
        finder.add(packet)
    clock = finder.finish()
    copies = [FakePacket(p.stream_index, p.dts) for p in packets]
    demuxed = Clock(clock.shifts, clock.jumps).demux(
        SimpleNamespace(demux=lambda *streams: iter(copies))
    )
    return [(p.stream_index, round(float(p.pts * TICK), 3)) for p in demuxed]


def times(found: list[tuple[int, float]], stream: int) -> list[float]:
    return [time for index, time in found if index == stream]


EVEN = [round(1.4 + 0.04 * n, 3) for n in range(6)]


@pytest.mark.parametrize("begin", [1.4, 1001.4, 93601.4, 0.2])
def test_a_second_part_goes_on_where_the_first_ended(begin):
    found = corrected([*run_of(0, 1.4, 3), *run_of(0, begin, 3)], container())
    assert times(found, 0) == EVEN


def test_a_pause_of_less_than_ten_seconds_is_kept():
    found = corrected([*run_of(0, 1.4, 3), *run_of(0, 9.4, 3)], container())
    assert times(found, 0)[3:] == [9.4, 9.44, 9.48]


def test_sound_that_passes_the_joint_later_keeps_step():
    first, second = run_of(0, 1.4, 6), run_of(1, 1.4, 6)
    packets = [*first[:3], *second[:2]]  # sound is one packet behind
    part = [*run_of(0, 501.4, 3), second[2], *run_of(1, 501.4, 3)]
    found = corrected([*packets, *part], container())
    assert times(found, 0) == EVEN
    assert times(found, 1) == EVEN


def test_sound_that_meets_the_joint_first_does_not_move_the_picture():
    sound = run_of(1, 1.38, 4)  # ends 20 ms behind the picture
    packets = [*run_of(0, 1.4, 3), *sound, *run_of(1, 501.38, 3), *run_of(0, 501.4, 3)]
    assert times(corrected(packets, container()), 0) == EVEN


def test_one_damaged_time_moves_nothing_else():
    packets = run_of(0, 1.4, 6)
    packets[2] = FakePacket(0, packets[2].dts + 90_000 * 500)
    assert times(corrected(packets, container()), 0) == EVEN


def test_a_picture_that_pauses_while_the_sound_goes_on_is_no_jump():
    packets = [*run_of(0, 1.4, 2), *run_of(1, 1.4, 500), *run_of(0, 21.4, 2)]
    assert times(corrected(packets, container()), 0)[2:] == [21.4, 21.44]


def test_formats_with_one_clock_are_left_alone():
    packets = [*run_of(0, 1.4, 3), *run_of(0, 1001.4, 3)]
    assert times(corrected(packets, container("matroska")), 0)[3] == 1001.4
