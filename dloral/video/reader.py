"""Frames of a clip, an image or a folder, one after another, upright and with their times."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import av
import torch
from av import Packet, VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from dloral.errors import InputError, Setting
from dloral.video import codes, worker
from dloral.video.alpha import fill_hidden
from dloral.video.colour import BT2020, frame_to_rgb, over_white
from dloral.video.filters import FILM, OFF, TOP_FIRST, ShownFrame, deinterlaced
from dloral.video.hdr import Mastering, to_restorable, to_sdr
from dloral.video.images import frame_files, load_image, load_pages
from dloral.video.looks import picture_decoder, watched
from dloral.video.media import (
    MAX_DAYS,
    can_seek,
    forgives_damage,
    has_times,
    has_timestamps,
    not_damaged,
    open_media,
    picture_stream,
    reason,
    repeats_frames,
    seconds,
)
from dloral.video.probe import ClipInfo, probe
from dloral.video.side_data import Orientation, orientation_of

_ANSWER_SECONDS = 60
_SECONDS_PER_PIXEL = 1e-7
"""For each pixel of frames decoded only to reach the first one that counts."""


class _Timed(NamedTuple):
    """A frame not yet converted to floats: its time, its own duration, and how to convert it:
    (3,H,W), with alpha (4,H,W)."""

    time: Fraction
    duration: Fraction
    pixels: Callable[[], Tensor]


class Frame(NamedTuple):
    """One frame of a source.

    ``index`` counts the frames of this reading from 0. ``pixels``: float32 (3,H,W) RGB in [0, 1],
    upright; PQ and linear light as :func:`dloral.video.hdr.to_restorable` has them. ``alpha``:
    (H,W) in [0, 1] where the clip keeps it. Of a clip read ``as_codes``, ``pixels`` may be codes,
    of one dimension: see :func:`floats_of`. ``time``, ``duration``: seconds; times
    count from the first frame of the source clip, also where reading starts later.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which frames have no use for
    pixels: Tensor
    time: Fraction
    duration: Fraction
    alpha: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """``pixels`` as they look on a white page: what transparency hides is white."""
        return self.pixels if self.alpha is None else over_white(self.pixels, self.alpha)


@contextmanager
def read_frames(
    source: ClipInfo | str | Path,
    start: Fraction | float = 0,
    duration: Fraction | float | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[Iterator[Frame]]:
    """The frames shown from ``start`` on, for ``duration`` seconds (None: to the end), in order.

    A frame is included if ``start <= time < start + duration``. Frames are decoded on demand: two
    at a time are held, however long the clip is. Frames whose size differs from the first are
    scaled to it. Raises InputError, in one line that names the time, at a frame that cannot be
    decoded; broadcasts and raw streams continue after it, and ``on_note`` is told.
    """
    clip = source if isinstance(source, ClipInfo) else probe(source)
    if clip.isolated:
        with read_isolated("read_frames", clip, (start, duration), start, on_note) as received:
            yield received
        return
    first = seconds(start)
    end = None if duration is None else first + seconds(duration)
    if clip.kind in ("video", "pipe"):
        frames = _video_frames(clip, first, on_note or (lambda note: None))
    else:
        frames = _still_frames(clip, on_note)
    chosen = _chosen(frames, clip, first, end)
    try:
        yield chosen
    finally:
        chosen.close()
        frames.close()


@contextmanager
def read_isolated(
    name: str,
    clip: ClipInfo,
    arguments: tuple[Any, ...],
    start: Fraction | float,
    on_note: Callable[[str], None] | None,
) -> Iterator[Iterator[Frame]]:
    """What the reader ``name`` yields for ``clip`` and ``arguments``, read by a worker.

    ``start``: seconds of the clip that may have to be decoded before the first frame comes.
    """
    height, width = clip.whole_size
    skipped = float(start * clip.stored_fps)
    task = worker.Task(
        name,
        clip.path,
        (replace(clip, path=clip.path.absolute(), isolated=False), *arguments),
        memory=worker.memory_to_read(height, width),
        seconds=_ANSWER_SECONDS + skipped * height * width * _SECONDS_PER_PIXEL,
        frame_bytes=4 * 4 * height * width,
    )
    with closing(worker.Worker(task)) as reading:
        received = _received(reading, on_note or (lambda note: None))
        with closing(received):
            yield received


def _received(
    reading: worker.Worker, on_note: Callable[[str], None]
) -> Generator[Frame, None, None]:
    assert reading.slots is not None
    while True:
        kind, *rest = reading.expect(worker.FRAME, worker.NOTE, worker.END)
        if kind == worker.END:
            return
        if kind == worker.NOTE:
            on_note(str(rest[0]))
            continue
        slot, shape, (index, time, duration, has_alpha) = rest
        pixels = reading.slots.take(slot, shape)
        reading.send(slot)
        if has_alpha:
            yield Frame(index, pixels[:3], time, duration, pixels[3])
        else:
            yield Frame(index, pixels, time, duration)


def first_frame(clip: ClipInfo) -> Tensor | None:
    """The next frame of a pipe, float (3,H,W) in [0, 1], without consuming it."""
    assert clip.stream is not None
    frame = clip.stream.peek()
    return None if frame is None else _upright(frame, clip)[:3]


def _chosen(
    timed: Iterator[_Timed], clip: ClipInfo, first: Fraction, end: Fraction | None
) -> Generator[Frame, None, None]:
    """The frames to read; each waits for its successor, which ends it.

    Those of a pipe have a known rate, and are yielded as they arrive.
    """
    if clip.stream:
        part = takewhile(lambda one: end is None or one.time < end, timed)
        wanted = (one for one in part if one.time >= first)
        for index, one in enumerate(wanted):
            yield _finished(clip, index, one, one.duration)
        return
    index = 0
    held: _Timed | None = None
    for following in timed:
        if held is not None and held.time >= first:
            yield _finished(clip, index, held, following.time - held.time)
            index += 1
        held = following
        if end is not None and held.time >= end:
            return
    if held is not None and held.time >= first:
        left = (clip.duration or 0) - held.time
        yield _finished(clip, index, held, left if left > 0 else held.duration or 1 / clip.fps)


def _finished(clip: ClipInfo, index: int, timed: _Timed, duration: Fraction) -> Frame:
    pixels = timed.pixels()
    found, expected = codes.shape_of(pixels), _expected_shape(pixels, clip)
    if found != expected:
        raise InputError(
            f"{{path}} changes size at {float(timed.time):.2f} s: "
            f"{expected[1]}x{expected[0]} before, {found[1]}x{found[0]} there",
            remedy="cut it in two",
            path=clip.path,
        )
    if codes.is_coded(pixels) or (len(pixels) == 3 and not clip.keep_alpha):
        return Frame(index, pixels, timed.time, duration)
    if len(pixels) == 3:  # a picture without transparency among others with it
        return Frame(index, pixels, timed.time, duration, torch.ones_like(pixels[0]))
    return Frame(index, fill_hidden(pixels[:3], pixels[3]), timed.time, duration, pixels[3])


def _still_frames(
    clip: ClipInfo, on_note: Callable[[str], None] | None
) -> Generator[_Timed, None, None]:
    if clip.kind == "pages":
        ends = [*clip.page_times[1:], clip.duration or clip.page_times[-1]]
        pages = load_pages(clip.path, len(ends), clip.keep_alpha, clip.keep_profile, on_note)
        for time, end, pixels in zip(clip.page_times, ends, pages, strict=True):
            yield _Timed(time, end - time, partial(_restorable, pixels, clip))
        return
    files = frame_files(clip.path) if clip.kind == "folder" else [clip.path]
    for index, file in enumerate(files):
        yield _Timed(index / clip.fps, 1 / clip.fps, partial(_picture, file, clip, on_note))


def _picture(file: Path, clip: ClipInfo, on_note: Callable[[str], None] | None) -> Tensor:
    pixels = load_image(file, 0, clip.keep_alpha, clip.keep_profile, on_note)
    return _restorable(pixels, clip)


def _restorable(pixels: Tensor, clip: ClipInfo) -> Tensor:
    """HDR in an encoding that a model knows, or tone-mapped; other pixels as they are."""
    transfer = clip.color_transfer
    if not clip.is_hdr or transfer is None:
        return pixels
    if clip.keeps_hdr:
        colour = to_restorable(pixels[:3], transfer)
    else:
        is_wide = clip.color_primaries in (None, BT2020)
        peak = clip.mastering.peak if clip.mastering else Mastering().peak
        colour = to_sdr(pixels[:3], transfer, is_wide, peak)
    return torch.cat([colour, pixels[3:]])


def _video_frames(
    clip: ClipInfo, first: Fraction, on_note: Callable[[str], None]
) -> Generator[_Timed, None, None]:
    """Every frame from the last key frame before ``first`` on, or from the start."""
    if first > 0 and not clip.stream and not clip.clock.jumps and clip.deinterlace != FILM:
        # filters look at the frame before the first one that counts
        run_up = 0 if clip.deinterlace == OFF else 2 / clip.stored_fps
        frames = _whole(clip, max(first - run_up, Fraction(0)), on_note)
        frame = next(frames, None)
        if frame is not None and frame.time <= first:
            yield frame
            yield from frames
            return
        frames.close()  # the container's index is wrong: read the clip from its start
    yield from _whole(clip, None, on_note)


def _whole(
    clip: ClipInfo, seek_to: Fraction | None, on_note: Callable[[str], None]
) -> Generator[_Timed, None, None]:
    """Decoded frames, deinterlaced if the clip says so."""
    decoded = clip.stream.frames() if clip.stream else _decoded(clip, seek_to, on_note)
    with closing(decoded):
        frames: Iterator[ShownFrame] = watched(decoded, clip.has_alpha, on_note)
        if clip.deinterlace != OFF:
            order = clip.field_order or TOP_FIRST
            frames = deinterlaced(frames, clip.deinterlace, order, clip.stored_fps)
        for frame, time, duration in frames:
            yield _Timed(time, duration, partial(_upright, frame, clip))


def _decoded(
    clip: ClipInfo, seek_to: Fraction | None, on_note: Callable[[str], None]
) -> Generator[ShownFrame, None, None]:
    with open_media(clip.path) as container:
        stream = picture_stream(container, clip.path)
        timed, ordered = has_times(container), not has_timestamps(container)
        if seek_to and can_seek(container):
            # No clip is longer, and FFmpeg's clock has 64 bits.
            seek_to = min(seek_to, Fraction(MAX_DAYS * 86400))
            offset = math.floor((clip.start_time + seek_to) / clip.time_base)
            container.seek(offset, stream=stream)
        decoder = _Decoder(clip, stream, forgives_damage(container))
        stored: deque[int] = deque()  # AVI: the k-th frame shown has the k-th packet's time
        time: Fraction | None = None
        shown: VideoFrame | None = None
        for packet in clip.clock.demux(container, stream):
            if not packet.size and packet.pts is not None:
                # Not for the decoder, which would take it for the end.
                if shown is not None and repeats_frames(stream):
                    time = _time_of(clip, packet.pts, shown, time)
                    yield ShownFrame(shown, time, Fraction(0))
                continue
            if ordered and packet.size and packet.dts is not None:
                stored.append(packet.dts)
            for frame in decoder.decode(packet, time):
                ticks = stored.popleft() if stored else None if ordered else frame.pts
                time = _time_of(clip, ticks if timed else None, frame, time)
                own = (frame.duration or 0) * Fraction(frame.time_base or 0)
                shown = frame
                yield ShownFrame(frame, time, own)
        if decoder.lost:
            on_note(f"{decoder.lost} damaged video packets left out")


class _Decoder:
    """Decodes packets; ``lost``: how many could not be decoded, where that is to be expected."""

    def __init__(self, clip: ClipInfo, stream: VideoStream, forgives: bool) -> None:
        self._clip, self._forgives = clip, forgives
        self._decode = picture_decoder(stream)
        self.lost = 0

    def decode(self, packet: Packet, time: Fraction | None) -> list[VideoFrame]:
        """``time``: when the previous frame is shown."""
        try:
            return self._decode(packet)
        except av.FFmpegError as error:
            if self._forgives and isinstance(error, av.InvalidDataError):
                self.lost += 1
                return []
            if other := not_damaged(error, self._clip.path):
                raise other from error
            raise InputError(
                "{path} cannot be decoded {where} ({value})",
                remedy="it is damaged there: choose a part before or after it with {start} and "
                "{duration}",
                path=self._clip.path,
                where=f"after {float(time):.2f} s" if time is not None else "at its start",
                value=reason(error),
                start=Setting("start"),
                duration=Setting("duration"),
            ) from error


def _time_of(
    clip: ClipInfo, ticks: int | None, frame: VideoFrame, before: Fraction | None
) -> Fraction:
    """Seconds from the clip's first frame; always later than the frame before."""
    time = None
    if ticks is not None and frame.time_base:
        time = ticks * clip.time_base - clip.start_time
    if before is None:
        return time if time is not None else Fraction(0)
    if time is None or time <= before:
        return before + 1 / clip.stored_fps
    return time


def _upright(frame: VideoFrame, clip: ClipInfo) -> Tensor:
    """The frame's pixels in the clip's size, cropped, with its display matrix applied."""
    turn = orientation_of(frame, clip.turn)
    height, width = clip.whole_size
    stored = (height, width) if turn.transpose else (width, height)
    if (frame.width, frame.height) != stored and clip.size_changes:
        frame = frame.reformat(*stored, interpolation="BICUBIC", threads=1)
    coded = codes.coded(frame, clip.codec, turn) if clip.as_codes else None
    if coded is not None:
        return coded
    shown = clip.crop.of(frame_to_rgb(frame, clip.codec, clip.keep_alpha))
    return _turned(_restorable(shown, clip), turn)


def _expected_shape(pixels: Tensor, clip: ClipInfo) -> tuple[int, int]:
    """Height and width of a frame of the clip. Codes are whole: they are cropped as floats."""
    return clip.whole_size if codes.is_coded(pixels) else (clip.height, clip.width)


def floats_of(pixels: Tensor, clip: ClipInfo) -> Tensor:
    """A frame of a clip read ``as_codes``, as float32 (3,H,W); frames that are floats already are
    unchanged. InputError if a worker sent codes that are not of this clip."""
    if not codes.is_coded(pixels):
        return pixels
    try:
        if codes.shape_of(pixels) != clip.whole_size:
            raise ValueError("codes of another size")
        rgb, turn = codes.floats_of(pixels)
    except ValueError as error:
        raise InputError(
            "{path} cannot be read: its decoder gave no frame",
            remedy="convert it to MP4 first",
            path=clip.path,
        ) from error
    return _turned(_restorable(clip.crop.of(rgb), clip), turn)


def _turned(pixels: Tensor, turn: Orientation) -> Tensor:
    if turn.transpose:
        pixels = pixels.transpose(1, 2)
    mirrored = [axis for axis, flip in ((2, turn.mirror_x), (1, turn.mirror_y)) if flip]
    return pixels.flip(mirrored).contiguous() if mirrored else pixels.contiguous()
