"""Interlaced pictures, made whole by FFmpeg's filters; :mod:`dloral.video.combs` finds them.

An interlaced picture holds two moments, one in the odd lines and one in the even ones. Such combs
must not be enlarged. ``frame`` gives one whole picture for each stored one, ``field`` one for each
moment, at twice the rate, and ``film`` undoes the telecine of film at 24 frames a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av import VideoFrame
from av.filter import Graph

OFF, FRAME, FIELD, FILM = "off", "frame", "field", "film"

RATES = {FIELD: Fraction(2), FILM: Fraction(4, 5)}
"""Output frames per input frame, where that is not one."""

TOP_FIRST, BOTTOM_FIRST = "top first", "bottom first"

_PARITY = {TOP_FIRST: "tff", BOTTOM_FIRST: "bff"}
_UNIT = Fraction(1, 1_000_000)
"""The filters' clock: fine, and used only to tell frames apart."""


class ShownFrame(NamedTuple):
    """A decoded frame, when it is shown and its own stated duration, in seconds."""

    frame: VideoFrame
    time: Fraction
    duration: Fraction


def deinterlaced(
    frames: Iterable[ShownFrame], method: str, order: str, fps: Fraction
) -> Iterator[ShownFrame]:
    """``frames``, ``fps`` of them a second, made whole by ``method``: frame, field or film.
    ``order``: TOP_FIRST or BOTTOM_FIRST.

    The filter looks one frame ahead and one back, so for the same result reading must begin a frame
    before the first one that counts.
    """
    if method == FILM:
        yield from _film(frames, order, fps)
        return
    fields = 2 if method == FIELD else 1
    mode = "send_field" if method == FIELD else "send_frame"
    chain = _Chain(f"bwdif=mode={mode}:parity={_PARITY[order]}:deint=all", fps)
    waiting: deque[tuple[Fraction, Fraction]] = deque()  # moments still to come: when, how long
    ready: deque[VideoFrame] = deque()
    before: ShownFrame | None = None
    for shown in frames:
        if before is not None:
            waiting.extend(_moments(before.time, shown.time - before.time, fields))
        before = shown
        ready.extend(chain.put(shown.frame))
        yield from _timed(ready, waiting)
    if before is not None:
        waiting.extend(_moments(before.time, before.duration, fields))
        ready.extend(chain.finish())
        yield from _timed(ready, waiting)


def _moments(
    time: Fraction, duration: Fraction, fields: int
) -> Iterator[tuple[Fraction, Fraction]]:
    part = duration / fields
    for field in range(fields):
        yield time + field * part, part


def _timed(
    ready: deque[VideoFrame], waiting: deque[tuple[Fraction, Fraction]]
) -> Iterator[ShownFrame]:
    while ready and waiting:
        yield ShownFrame(ready.popleft(), *waiting.popleft())


def _film(frames: Iterable[ShownFrame], order: str, fps: Fraction) -> Iterator[ShownFrame]:
    """Fields are matched to the pictures they were made from; one in five, a repeat, is dropped."""
    matching = f"fieldmatch=order={_PARITY[order]}:combmatch=full"
    matching += ",bwdif=mode=send_frame:deint=interlaced,decimate"
    chain = _Chain(matching, fps)
    step = Fraction(5, 4) / fps
    origin: Fraction | None = None
    for shown in frames:
        origin = shown.time if origin is None else origin
        shown.frame.pts, shown.frame.time_base = round((shown.time - origin) / _UNIT), _UNIT
        for frame in chain.put(shown.frame, keep_time=True):
            yield ShownFrame(
                frame, origin + (frame.pts or 0) * Fraction(frame.time_base or 0), step
            )
    for frame in chain.finish():
        assert origin is not None
        yield ShownFrame(frame, origin + (frame.pts or 0) * Fraction(frame.time_base or 0), step)


def fields_of(frame: VideoFrame) -> list[VideoFrame]:
    """The two fields of a frame, in the order given by its own flag."""
    chain = _Chain("separatefields", Fraction(25))
    return [*chain.put(frame, keep_time=True), *chain.finish()]


class _Chain:
    """A chain of filters, set up again whenever frames change size or format."""

    def __init__(self, filters: str, fps: Fraction) -> None:
        self._fps = fps
        self._filters = [part.partition("=")[::2] for part in filters.split(",")]
        self._graph: Graph | None = None
        self._takes: tuple[int, int, str] | None = None
        self._count = 0

    def put(self, frame: VideoFrame, keep_time: bool = False) -> list[VideoFrame]:
        """What comes out after ``frame``, whose timestamp is overwritten without ``keep_time``."""
        form = (frame.width, frame.height, frame.format.name)
        out: list[VideoFrame] = []
        if form != self._takes:
            out += self.finish()
            self._takes, self._graph = form, self._new_graph(frame)
        assert self._graph is not None
        if not keep_time:
            frame.pts, frame.time_base = self._count * 1000, _UNIT
        self._count += 1
        self._graph.vpush(frame)
        return out + self._pull()

    def finish(self) -> list[VideoFrame]:
        """The rest."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        rest = self._pull()
        self._graph = self._takes = None
        return rest

    def _new_graph(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        form = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
        rate = f"time_base={_UNIT}:frame_rate={self._fps}"  # decimate counts by the rate
        nodes = [graph.add("buffer", f"{form}:{rate}")]
        nodes += [graph.add(name, arguments) for name, arguments in self._filters]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph

    def _pull(self) -> list[VideoFrame]:
        assert self._graph is not None
        out: list[VideoFrame] = []
        while True:
            try:
                frame = self._graph.vpull()
            except (BlockingIOError, av.EOFError):
                return out
            if isinstance(frame, VideoFrame):
                out.append(frame)
