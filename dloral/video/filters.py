"""Interlaced pictures: found by their marks and by looking, and made whole by FFmpeg's filters.

A television picture of old holds two moments, one in the odd lines and one in the even ones. Such
combs must not be enlarged. ``frame`` gives one whole picture for each stored one, ``field`` one for
each moment, at twice the rate, and ``film`` takes back what a telecine did to 24 frames a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import av
import numpy as np
from av import VideoFrame
from av.filter import Graph

OFF, FRAME, FIELD, FILM = "off", "frame", "field", "film"

RATES = {FIELD: Fraction(2), FILM: Fraction(4, 5)}
"""Frames that come out for one that goes in, where it is not one."""

TOP_FIRST, BOTTOM_FIRST = "top first", "bottom first"

LOOKED_AT = 24
"""Frames by which it is decided whether a clip is interlaced."""

_LEAST_SURE = 6
"""Of those: so many must be seen to be combed, where nothing in the file says so."""

_WHOLE = "whole"
_DIFFERS = 1.06
_FITS = 1.4
"""Bounds of :func:`_look`, from interlaced and progressive clips of drawings and of film."""

_LEAST_LINES = 200
"""Pictures of fewer lines never were interlaced; the marks alone count there."""

_PARITY = {TOP_FIRST: "tff", BOTTOM_FIRST: "bff"}
_UNIT = Fraction(1, 1_000_000)
"""The filters' clock: fine, and no more than a way to tell frames apart."""


class ShownFrame(NamedTuple):
    """A decoded frame, when it is shown and for how long by its own account, in seconds."""

    frame: VideoFrame
    time: Fraction
    duration: Fraction


def field_order(frames: Iterable[VideoFrame]) -> str | None:
    """Which lines of a clip's frames come first, or None where its pictures are whole.

    What the first frames look like counts more than the file's marks, which are wrong both ways in
    many files; where it cannot be seen (still pictures), the marks count.
    """
    marked = total = 0
    seen: dict[str, int] = {TOP_FIRST: 0, BOTTOM_FIRST: 0, _WHOLE: 0}
    before: list[np.ndarray] = []
    for frame in islice(frames, LOOKED_AT):
        total += 1
        marked += frame.interlaced_frame
        before = [*before[-2:], _luma(frame)]
        alike = len(before) == 3 and len({plane.shape for plane in before}) == 1
        if alike and (looks := _look(*before)):
            seen[looks] += 1
    top, bottom = seen[TOP_FIRST], seen[BOTTOM_FIRST]
    combed, first = max((top, TOP_FIRST), (bottom, BOTTOM_FIRST))
    if 2 * marked > total:
        return None if seen[_WHOLE] > max(3 * combed, _LEAST_SURE) else first
    least = max(_LEAST_SURE, 4 * (top + bottom - combed), 3 * seen[_WHOLE], total // 2)
    is_combed = combed >= least and bool(before) and len(before[0]) >= _LEAST_LINES
    return first if is_combed else None


def _luma(frame: VideoFrame) -> np.ndarray:
    """About 300 columns of the first plane, all lines."""
    plane = frame.planes[0]
    wide = frame.format.components[0].bits > 8
    rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * plane.height]
    pixels = rows.view(np.dtype("<u2") if wide else np.uint8).reshape(plane.height, -1)
    step = max(plane.width // 300, 1)
    return pixels[: plane.height // 2 * 2, : plane.width : step].astype(np.float32)


def _look(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> str | None:
    """Which lines of ``now`` come first, _WHOLE if all are of one moment, None if it is not seen.

    As in FFmpeg's idet: lines of one parity are held against those of the other parity in the
    frame before and the frame after. In combed pictures the nearer field fits better than the
    farther one, and about as well as the frame's own lines do. (The latter idet does not ask;
    without it, things that move up or down are taken for combs.)
    """
    if len(now) < 8:
        return None
    own = 0.0
    misfit = [1e-3, 1e-3]  # top lines first, bottom lines first
    for parity in (0, 1):
        lines = slice(2 + parity, len(now) - 2, 2)
        around = now[1 + parity : len(now) - 3 : 2] + now[3 + parity : len(now) - 1 : 2]
        own += float(np.abs(around - 2 * now[lines]).sum())
        misfit[parity] += float(np.abs(around - 2 * before[lines]).sum())
        misfit[1 - parity] += float(np.abs(around - 2 * after[lines]).sum())
    ratio, fit = misfit[0] / misfit[1], min(misfit) / max(own, 1e-3)
    if fit < _FITS and max(ratio, 1 / ratio) > _DIFFERS:
        return TOP_FIRST if ratio > 1 else BOTTOM_FIRST
    return _WHOLE if fit > _FITS and max(ratio, 1 / ratio) < _DIFFERS else None


def deinterlaced(
    frames: Iterable[ShownFrame], method: str, order: str, fps: Fraction
) -> Iterator[ShownFrame]:
    """``frames``, ``fps`` of them a second, made whole by ``method``: frame, field or film.
    ``order``: TOP_FIRST or BOTTOM_FIRST.

    The filter looks one frame ahead and one back, so reading has to begin a frame before the first
    one that counts for the same result.
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


class _Chain:
    """Filters one after another, set up anew where frames change their size or format."""

    def __init__(self, filters: str, fps: Fraction) -> None:
        self._fps = fps
        self._filters = [part.partition("=")[::2] for part in filters.split(",")]
        self._graph: Graph | None = None
        self._takes: tuple[int, int, str] | None = None
        self._count = 0

    def put(self, frame: VideoFrame, keep_time: bool = False) -> list[VideoFrame]:
        """What comes out after ``frame``; its time stamp is overwritten unless it is to be kept."""
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
