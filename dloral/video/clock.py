"""One clock for a whole file: where a recording's timestamps jump, and how time continues there.

Transport and program streams may be joined, paused or wrapped: their timestamps restart or leap
ahead while the picture simply continues. The rules are those of the FFmpeg program itself
(``fftools/ffmpeg_demux.c``): a step back, or one ahead by more than 10 seconds, is a jump of the
clock, and the stream continues where it stood. Two things differ: streams that pass the same joint
share one shift, so that sound and picture stay together, and the picture decides how long it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from av import Packet
from av.container import InputContainer
from av.format import Flags
from av.stream import Stream

from dloral.video.media import has_flag

_AHEAD = 10
"""Seconds: a longer gap is a jump of the clock, a shorter one a pause that is kept."""

_BACK = Fraction(1, 10)
"""Seconds by which a stream may step back without its clock having jumped."""

_SAME_JOINT = Fraction(1, 2)
"""Seconds by which the picture may miss its own continuation at a joint that sound met first."""

_RESTARTS = {"flv"}
"""Formats that FFmpeg trusts, but whose recorders restart at 0 in the middle of a file."""


@dataclass(frozen=True)
class Clock:
    """What is added to the timestamps of a file's packets.

    ``shifts``: for each stream whose clock jumps, by index: from which packet on (counted from 0,
    without empty ones) how many seconds are added. ``jumps``: how many joints.
    """

    shifts: tuple[tuple[int, tuple[tuple[int, Fraction], ...]], ...] = ()
    jumps: int = 0

    def demux(self, container: InputContainer, *streams: Stream) -> Iterator[Packet]:
        """Packets of ``streams`` from the start of the file, their times on the one clock."""
        if not self.shifts:
            yield from container.demux(*streams)
            return
        pending = {index: list(switches) for index, switches in self.shifts}
        counts = dict.fromkeys(pending, 0)
        ticks = dict.fromkeys(pending, 0)
        for packet in container.demux(*streams):
            index = packet.stream_index
            if packet.size and index in pending:
                if pending[index] and pending[index][0][0] == counts[index]:
                    ticks[index] = round(pending[index].pop(0)[1] / Fraction(packet.time_base))
                counts[index] += 1
                if packet.pts is not None:
                    packet.pts += ticks[index]
                if packet.dts is not None:
                    packet.dts += ticks[index]
            yield packet


NO_JUMPS = Clock()


@dataclass
class _StreamClock:
    unit: Fraction
    count: int = 0  # packets so far
    epoch: int = 0
    ticks: int = 0  # the epoch's shift in the stream's own unit
    expected: int | None = None  # when the next packet is due, on the one clock
    switches: list[tuple[int, int]] = field(default_factory=list)  # packet, epoch


class ClockFinder:
    """Takes all packets of a file in order; finds its jumps.

    An epoch is a part of the file whose timestamps belong together. ``add`` gives the epoch of a
    packet; ``shifts`` are final after ``finish``.
    """

    def __init__(self, container: InputContainer, picture: Stream) -> None:
        self._back_only = container.format.name in _RESTARTS
        self.watches = has_flag(container, Flags.ts_discont) or self._back_only
        self._picture = picture.index
        self._streams: dict[int, _StreamClock] = {}
        self._sparse = {s.index for s in container.streams if s.type not in ("video", "audio")}
        self._gaps: list[tuple[int, Fraction]] = []  # epochs that the picture enters, and how far
        self.shifts: list[Fraction] = [Fraction(0)]  # by epoch, in seconds

    def add(self, packet: Packet) -> int:
        """The epoch of ``packet``, which has content."""
        if not self.watches:
            return 0
        index = packet.stream_index
        state = self._streams.get(index)
        if state is None:
            state = self._streams[index] = _StreamClock(Fraction(packet.time_base))
        if packet.dts is not None:
            if index in self._sparse:
                self._follow(state, packet.dts)
            else:
                self._check(state, index, packet.dts, packet.duration or 0)
        state.count += 1
        return state.epoch

    def _follow(self, state: _StreamClock, dts: int) -> None:
        """Subtitles naturally have gaps, so they follow the nearest of the picture's clocks."""
        picture = self._streams.get(self._picture)
        if picture is None or picture.expected is None:
            return
        now = picture.expected * picture.unit
        near = range(max(picture.epoch - 1, 0), picture.epoch + 1)
        self._enter(state, min(near, key=lambda e: abs(dts * state.unit + self.shifts[e] - now)))

    def _check(self, state: _StreamClock, index: int, dts: int, duration: int) -> None:
        expected = state.expected
        if expected is None:
            expected = self._start(state, dts)
        step = dts + state.ticks - expected
        if not self._fits(step * state.unit) and not self._is_gap(index, state, dts):
            epoch = self._known(state, dts, expected)
            if epoch is None:
                self.shifts.append((expected - dts) * state.unit)
                epoch = len(self.shifts) - 1
            self._enter(state, epoch)
            if index == self._picture:
                self._gaps.append((epoch, (dts + state.ticks - expected) * state.unit))
        state.expected = dts + state.ticks + duration

    def _start(self, state: _StreamClock, dts: int) -> int:
        """A stream's first packet belongs to the newest part, or begins where the others are."""
        if len(self.shifts) > 1:
            self._enter(state, len(self.shifts) - 1)
        others = [s.expected * s.unit for s in self._streams.values() if s.expected is not None]
        begin = dts * state.unit + self.shifts[state.epoch]
        if others and not min(others) - _AHEAD <= begin <= max(others) + _AHEAD:
            return round(max(others) / state.unit)
        return dts + state.ticks

    def _fits(self, step: Fraction) -> bool:
        return step >= -_BACK and (step <= _AHEAD or self._back_only)

    def _is_gap(self, index: int, state: _StreamClock, dts: int) -> bool:
        """Whether only this stream pauses: another has come to the same time by itself."""
        time = (dts + state.ticks) * state.unit
        return any(
            other.expected is not None
            and other.epoch == state.epoch
            and abs(other.expected * other.unit - time) <= _AHEAD
            for number, other in self._streams.items()
            if number != index and state.expected is not None and time > state.expected * state.unit
        )

    def _known(self, state: _StreamClock, dts: int, expected: int) -> int | None:
        """The epoch that this packet continues, if another stream has already found it: the next
        one, or, after a packet with a damaged time, one that was left a moment ago."""
        newer = range(state.epoch + 1, len(self.shifts))
        for epoch in (*newer, *reversed(range(state.epoch))):
            step = dts * state.unit + self.shifts[epoch] - expected * state.unit
            if -_SAME_JOINT <= step <= (_AHEAD if epoch > state.epoch else _SAME_JOINT):
                return epoch
        return None

    def _enter(self, state: _StreamClock, epoch: int) -> None:
        if epoch != state.epoch:
            state.epoch = epoch
            state.ticks = round(self.shifts[epoch] / state.unit)
            state.switches.append((state.count, epoch))

    def finish(self) -> Clock:
        """The clock; ``shifts`` are adjusted so that the picture continues without a step."""
        moved, seen = Fraction(0), {0}
        by_epoch = {0: moved}
        for epoch, gap in self._gaps:
            if epoch not in seen and abs(gap) <= _SAME_JOINT:
                moved += gap
            seen.add(epoch)
            by_epoch.setdefault(epoch, moved)
        last = Fraction(0)
        for epoch, shift in enumerate(self.shifts):
            last = by_epoch.get(epoch, last)
            self.shifts[epoch] = shift - last
        shifts = tuple(
            (index, tuple((count, self.shifts[epoch]) for count, epoch in state.switches))
            for index, state in sorted(self._streams.items())
            if state.switches
        )
        return Clock(shifts, len(self.shifts) - 1)
