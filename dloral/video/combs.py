"""Whether a clip's pictures are combed by interlacing, judged by their flags and their content.

Flags are wrong both ways in many files, so what the first frames look like counts more; where
nothing can be seen (still or tiny pictures) the flags decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import av
import numpy as np
from av import VideoFrame

from dloral.video.filters import BOTTOM_FIRST, TOP_FIRST, fields_of

LOOKED_AT = 24
"""Frames examined to decide whether a clip is interlaced."""

_LEAST_SURE = 6
"""Of those: how many must look combed if nothing in the file says so."""

_LEAST_LINES = 200
"""Pictures of fewer lines were never interlaced; only the flags count there."""

_WHOLE = "whole"
_DIFFERS = 1.06
_FITS = 1.4
"""Bounds of :func:`_fields_fit`, from interlaced and progressive clips of drawings and of film."""

_MOVED = 8.0
"""Of 255: pixels that change by more between two frames have moved."""

_LEAST_MOVED = 1 / 500
"""Of a frame: less motion shows no combs."""

_SMOOTH, _ROUGH = 0.85, 1.3
"""Bounds of :func:`_combing`: whole film has 0.36 to 0.65, whole drawings up to 0.91 and noise up
to 1.25; combed film has 0.75 to 15, and less where little moves."""

_FILM_PHASES = 5
_FILM_SHARE = 0.8


class Combs(NamedTuple):
    """``order``: which lines come first, None if frames are whole. ``is_film``: whether combs come
    and go in a telecine's pattern: two frames in five."""

    order: str | None = None
    is_film: bool = False


WHOLE = Combs()


def find_combs(frames: Iterable[VideoFrame]) -> Combs:
    """What a clip's first frames show, by their content and their flags."""
    marked = total = 0
    marked_order = TOP_FIRST
    seen: list[str | None] = []
    combing: list[float | None] = []
    before: list[np.ndarray] = []
    for frame in islice(frames, LOOKED_AT):
        total += 1
        if frame.interlaced_frame:
            marked_order = _marked_order(frame) if not marked else marked_order
            marked += 1
        before = [*before[-2:], _luma(frame)]
        if len(before) == 3 and len({plane.shape for plane in before}) == 1:
            combing.append(_combing(before[0], before[1]))
            seen.append(_vote(*_fields_fit(*before), combing[-1], len(before[0])))
    is_film = _comes_and_goes(combing)
    top, bottom, whole = (seen.count(kind) for kind in (TOP_FIRST, BOTTOM_FIRST, _WHOLE))
    combed, first = max((top, TOP_FIRST), (bottom, BOTTOM_FIRST))
    if 2 * marked > total:
        if whole > max(3 * combed, _LEAST_SURE) and not is_film:
            return WHOLE
        is_sure = combed >= max(_LEAST_SURE, 4 * min(top, bottom))
        return Combs(first if is_sure else marked_order, is_film)
    least = max(_LEAST_SURE, 4 * min(top, bottom))
    if not is_film:
        least = max(least, 3 * whole, total // 3)
    is_combed = combed >= least and bool(before) and len(before[0]) >= _LEAST_LINES
    return Combs(first, is_film) if is_combed else WHOLE


def _marked_order(frame: VideoFrame) -> str:
    """PyAV does not say it, but FFmpeg's filters go by it."""
    try:
        fields = fields_of(frame)
    except (av.FFmpegError, ValueError):
        return TOP_FIRST
    return BOTTOM_FIRST if fields and not _begins_with(frame, fields[0]) else TOP_FIRST


def _begins_with(frame: VideoFrame, field: VideoFrame) -> bool:
    whole, lines = _luma(frame), _luma(field)
    return bool(np.array_equal(whole[::2][: len(lines)], lines[: len(whole[::2])]))


def _luma(frame: VideoFrame) -> np.ndarray:
    """About 300 columns of the first plane, all lines; 0 to 255."""
    plane = frame.planes[0]
    bits = frame.format.components[0].bits
    rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * plane.height]
    kind = np.dtype("<u2") if bits > 8 else np.uint8
    pixels = rows.view(kind).reshape(plane.height, -1)
    step = max(plane.width // 300, 1)
    luma = pixels[: plane.height // 2 * 2, : plane.width : step].astype(np.float32)
    return luma / 2 ** (bits - 8) if bits > 8 else luma


def _fields_fit(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """How much better the top lines of ``now`` fit the frame before than the one after (1: no
    difference), and how much worse the better of the two fits than the frame's own other lines.

    As in FFmpeg's idet: lines of one parity are compared with those of the other parity in the
    frames before and after. In combed pictures the nearer field fits better than the farther one,
    and about as well as the frame's own lines do. (idet does not check the latter; without that,
    things that move up or down are mistaken for combs.)
    """
    if len(now) < 8:
        return 1.0, _FITS
    own = 0.0
    misfit = [1e-3, 1e-3]  # top lines first, bottom lines first
    for parity in (0, 1):
        lines = slice(2 + parity, len(now) - 2, 2)
        around = now[1 + parity : len(now) - 3 : 2] + now[3 + parity : len(now) - 1 : 2]
        own += float(np.abs(around - 2 * now[lines]).sum())
        misfit[parity] += float(np.abs(around - 2 * before[lines]).sum())
        misfit[1 - parity] += float(np.abs(around - 2 * after[lines]).sum())
    return misfit[0] / misfit[1], min(misfit) / max(own, 1e-3)


def _combing(before: np.ndarray, now: np.ndarray) -> float | None:
    """How much lines differ from their neighbours, relative to lines two away, where something
    moves: below 1 in whole pictures, above it in combed ones. None if too little moves."""
    if len(now) < 8:
        return None
    centre = now[2:-2]
    moved = np.abs(now - before)[2:-2] > _MOVED
    if moved.sum() < max(_LEAST_MOVED * moved.size, 50):
        return None
    near = np.abs(now[1:-3] + now[3:-1] - 2 * centre)[moved].sum()
    far = np.abs(now[:-4] + now[4:] - 2 * centre)[moved].sum()
    return float(near) / max(float(far), 1e-3)


def _vote(ratio: float, fit: float, combing: float | None, lines: int) -> str | None:
    """Which lines of a frame come first, _WHOLE if all are of one moment, None if unclear.

    In tiny pictures all detail is fine, so smoothness says nothing there.
    """
    differs, nearer = max(ratio, 1 / ratio) > _DIFFERS, TOP_FIRST if ratio > 1 else BOTTOM_FIRST
    if combing is not None and lines >= _LEAST_LINES:
        if combing > _ROUGH:
            return nearer
        if combing < _SMOOTH:
            return None if fit < _FITS and differs else _WHOLE
    return nearer if fit < _FITS and differs else None


def _comes_and_goes(combing: Sequence[float | None]) -> bool:
    """Whether two frames in five are combed and the other three are not (a 2:3 pulldown)."""
    combed = [None if value is None else value > 1 for value in combing]
    known = [(index, value) for index, value in enumerate(combed) if value is not None]
    if len(known) < 3 * _FILM_PHASES or sum(value for _, value in known) < _LEAST_SURE:
        return False
    fitting = (
        sum(value == ((index + phase) % _FILM_PHASES < 2) for index, value in known)
        for phase in range(_FILM_PHASES)
    )
    return max(fitting) >= _FILM_SHARE * len(known)
