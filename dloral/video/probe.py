"""What a source is, before anything is restored: its size, timing, colours, sound, and faults.

A video is scanned packet by packet without decoding (a gigabyte takes about a second), so that the
number of frames is exact and a truncated file is found before hours of work, not after.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any, Literal

from av import VideoFrame
from av.stream import Stream

from dloral.video import worker
from dloral.video.beginning import begin_with, first_decoded, pixel_aspect
from dloral.video.clock import NO_JUMPS, Clock
from dloral.video.cropping import NO_CROP, Crop, crop_of
from dloral.video.durations import (
    FASTEST_RATE,
    average_rate,
    check_duration,
    lead_in,
    picture_seconds,
    undone_rounding,
)
from dloral.video.extras import has_cover, tags_of
from dloral.video.filters import FRAME, OFF, RATES
from dloral.video.folders import folder_header
from dloral.video.hdr import NAMES, Mastering
from dloral.video.header import Header
from dloral.video.images import FOLDER_FPS, frame_files, image_header
from dloral.video.integrity import check_whole
from dloral.video.looks import looks_of
from dloral.video.media import (
    check_size,
    existing_path,
    open_media,
    picture_stream,
)
from dloral.video.picture_kinds import looks_like_image, plays_of
from dloral.video.picture_marks import NO_MARKS, PictureMarks
from dloral.video.pipe_stream import FrameStream
from dloral.video.programmes import other_programmes
from dloral.video.scan import SizeChange, scan_video
from dloral.video.see_through import shows_through
from dloral.video.side_data import UPRIGHT, Orientation, orientation_of

_MOTION_JPEG = {".mjpeg", ".mjpg"}
"""Concatenated pictures, which begin like a single one."""


@dataclass(frozen=True)
class ClipInfo:
    """A source that can be read.

    ``width``, ``height``: pixels as shown upright, the sample aspect not applied.
    ``num_frames``: exact; None only where a stream says nothing before it is decoded.
    ``duration``: seconds that the picture lasts. ``fps``: the average rate (folders: 24 unless
    told, images: 1). ``sample_aspect_ratio``: of the upright picture. ``crop``, then ``turn``: what
    the reader does to stored pixels; ``rotation``: in clockwise degrees. ``color_*``: code points
    of ISO/IEC 23091-2, None where the source does not say. ``start_time``: when the first frame is
    shown, in seconds on the source's own clock; ``time_base``: the unit of its timestamps.
    ``missing``: seconds that the file claims to have beyond what can be read.

    ``field_order``: which lines come first, None where frames are whole; ``is_telecined``: film at
    24 frames a second was made into it; ``mastering``: of HDR; ``marks``: 3D and the like;
    ``page_times``: when the pages of a file of several pictures are shown; ``plays``: how often an
    animated picture is shown, 0 for ever, None where that is not said; ``file_notes``: what of the
    file is not read. What the reader
    does (:func:`dloral.video.treatment.treated` sets it): ``deinterlace``: off, frame, field or
    film; ``keep_alpha``: give transparency beside the colour, not a white page behind it;
    ``keep_profile``: leave a picture in its own colour space; ``hdr``: keep or sdr. ``stream``:
    where the frames of a pipe come from, once. ``isolated``: it is a stranger's, read and written
    by a process with limits (:mod:`dloral.video.worker`). ``as_codes``: video frames stay codes.
    """

    path: Path
    kind: Literal["video", "image", "folder", "pages", "pipe"]
    width: int
    height: int
    num_frames: int | None
    duration: Fraction | None
    fps: Fraction
    codec: str
    pixel_format: str
    bit_depth: int
    sample_aspect_ratio: Fraction = Fraction(1)
    crop: Crop = NO_CROP
    turn: Orientation = UPRIGHT
    color_range: int | None = None
    color_space: int | None = None
    color_primaries: int | None = None
    color_transfer: int | None = None
    has_audio: bool = False
    audio_codecs: tuple[str, ...] = ()
    subtitle_codecs: tuple[str, ...] = ()
    start_time: Fraction = Fraction(0)
    time_base: Fraction = Fraction(1, 1000)
    clock: Clock = NO_JUMPS
    lead_in: Fraction = Fraction(0)
    missing: Fraction = Fraction(0)
    size_changes: tuple[SizeChange, ...] = ()
    changing_sound: tuple[int, ...] = ()
    other_programmes: tuple[int, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    has_cover: bool = False
    field_order: str | None = None
    is_telecined: bool = False
    has_alpha: bool = False
    mastering: Mastering | None = None
    marks: PictureMarks = NO_MARKS
    page_times: tuple[Fraction, ...] = ()
    plays: int | None = None
    file_notes: tuple[str, ...] = ()
    deinterlace: str = OFF
    keep_alpha: bool = False
    keep_profile: bool = False
    hdr: str = "keep"
    stream: FrameStream | None = field(default=None, repr=False, compare=False)
    isolated: bool = False
    as_codes: bool = False

    @property
    def rotation(self) -> int:
        return self.turn.rotation

    @property
    def whole_size(self) -> tuple[int, int]:
        """Height and width of the picture turned upright, but not cropped."""
        across, down = self.crop.left + self.crop.right, self.crop.top + self.crop.bottom
        if self.turn.transpose:
            across, down = down, across
        return self.height + down, self.width + across

    @property
    def is_hdr(self) -> bool:
        """Whether its code values are PQ, HLG or linear light."""
        return self.color_transfer in NAMES

    @property
    def keeps_hdr(self) -> bool:
        """Whether frames that are read can be turned back into what the source has."""
        return self.is_hdr and self.hdr != "sdr"

    @property
    def written_primaries(self) -> int | None:
        """The primaries of the result, as ``color_primaries``."""
        return 1 if self.is_hdr and self.hdr == "sdr" else self.color_primaries

    @property
    def written_transfer(self) -> int | None:
        """The transfer characteristics of the result, as ``color_transfer``."""
        return 1 if self.is_hdr and self.hdr == "sdr" else self.color_transfer

    @property
    def stored_fps(self) -> Fraction:
        """The rate of the stored frames, which may be interlaced."""
        return self.fps / RATES.get(self.deinterlace, 1)


def probe(
    path: str | Path,
    folder_fps: Fraction | float | None = None,
    isolated: bool = False,
    patience: float = 1,
) -> ClipInfo:
    """What ``path`` is: a video, an image or a folder of frames (``folder_fps`` per second).

    ``isolated``: it is a stranger's; see :class:`ClipInfo`. ``patience``: of :class:`worker.Task`.

    Raises InputError in one line for everything that cannot be used: missing, unreadable, empty,
    no known kind, without a picture, cut off, mixed in size, too large (16384 pixels a side,
    8192 x 8192 in all) or too long (31 days); ResourceError where a stranger's takes too much.
    """
    found = existing_path(path)
    if isolated and worker.IS_POSSIBLE:
        memory, seconds = worker.memory_to_probe(found), worker.seconds_to_probe(found)
        given = found.absolute(), folder_fps
        asked = worker.Task("probe", found, given, {}, memory, seconds, patience)
        told = worker.call(asked)
        assert isinstance(told, ClipInfo)
        return replace(told, path=found, isolated=True)
    if found.is_dir():
        return _probe_folder(found, exact_rate(folder_fps or FOLDER_FPS))
    if looks_like_image(found) and found.suffix.lower() not in _MOTION_JPEG:
        return _probe_image(found, exact_rate(folder_fps or FOLDER_FPS))
    return _probe_video(found)


def exact_rate(fps: Fraction | float) -> Fraction:
    """The exact rate: 23.976, 29.97 and the like mean a thousandth less than a whole number."""
    rate = fps if isinstance(fps, Fraction) else Fraction(repr(float(fps)))
    television = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    return television if rate.denominator > 1 and abs(rate - television) < 0.005 else rate


def _probe_image(path: Path, page_fps: Fraction) -> ClipInfo:
    header = image_header(path, page_fps)
    header = header._replace(has_alpha=shows_through(path, header))
    clip = ClipInfo(
        path=path,
        kind="image",
        width=header.width,
        height=header.height,
        num_frames=1,
        duration=Fraction(1),
        fps=Fraction(1),
        file_notes=header.notes,
        **_of_header(header),
    )
    times, end = header.page_times, header.end
    if len(times) < 2:
        return clip
    return replace(
        clip,
        kind="pages",
        num_frames=len(times),
        duration=end,
        fps=min(len(times) / end, FASTEST_RATE).limit_denominator(1001),
        time_base=Fraction(1, lcm(*(time.denominator for time in (*times, end)))),
        page_times=times,
        plays=header.plays,
    )


def _of_header(header: Header) -> dict[str, Any]:
    return {
        "codec": header.kind,
        "pixel_format": "rgb24" if header.bits == 8 else "rgb48",
        "bit_depth": header.bits,
        "has_alpha": header.has_alpha,
        "color_primaries": header.primaries,
        "color_transfer": header.transfer,
    }


def _probe_folder(path: Path, fps: Fraction) -> ClipInfo:
    files = frame_files(path)
    header = folder_header(path, files)
    check_duration(path, len(files) / fps)
    return ClipInfo(
        path=path,
        kind="folder",
        width=header.width,
        height=header.height,
        num_frames=len(files),
        duration=len(files) / fps,
        fps=fps,
        **_of_header(header),
        time_base=1 / fps,
        file_notes=header.notes,
    )


def _probe_video(path: Path) -> ClipInfo:
    check_whole(path)
    with open_media(path) as container:
        stream = picture_stream(container, path)
        check_size(path, stream.height, stream.width)
        frame = first_decoded(container, stream, path)
        check_size(path, frame.height, frame.width)
        scan = scan_video(path)
        begin_with(scan, container, frame)
        check_duration(path, scan.end - scan.first)
        for change in scan.changes:
            check_size(path, change.height, change.width)
        turn, crop = orientation_of(frame), crop_of(container, stream, frame)
        height, width = crop.size_of(frame.height, frame.width)
        aspect = pixel_aspect(stream)
        if turn.transpose:
            height, width, aspect = width, height, 1 / aspect
        fps = average_rate(stream, scan)
        stretch = undone_rounding(container, stream, scan, fps)
        strangers = other_programmes(path, container, stream)
        looks = looks_of(path, stream, frame)
        audio = _codecs(s for s in container.streams.audio if s.index not in strangers)
        return ClipInfo(
            path=path,
            kind="video",
            width=width,
            height=height,
            num_frames=scan.num_frames or None,
            duration=picture_seconds(stream, scan, 1 / fps) * stretch,
            fps=fps,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            bit_depth=max(part.bits for part in frame.format.components),
            sample_aspect_ratio=aspect,
            crop=crop,
            turn=turn,
            **_colours_of(frame),
            has_audio=bool(audio),
            audio_codecs=audio,
            subtitle_codecs=_codecs(container.streams.subtitles),
            start_time=scan.first,
            time_base=Fraction(stream.time_base or Fraction(1, 1000)) * stretch,
            clock=scan.clock,
            lead_in=lead_in(scan),
            missing=scan.missing,
            size_changes=tuple(_upright_change(change, turn) for change in scan.changes),
            changing_sound=scan.changing_sound,
            other_programmes=strangers,
            tags=tuple(tags_of(container).items()),
            has_cover=has_cover(container),
            field_order=looks.combs.order,
            is_telecined=looks.combs.is_film,
            has_alpha=looks.has_alpha,
            mastering=looks.mastering,
            marks=looks.marks,
            plays=plays_of(path),
            deinterlace=FRAME if looks.combs.order else OFF,
        )


def _colours_of(frame: VideoFrame) -> dict[str, Any]:
    return {
        "color_range": _told(frame.color_range, 0),
        "color_space": _told(frame.colorspace, 2),
        "color_primaries": _told(frame.color_primaries, 2),
        "color_transfer": _told(frame.color_trc, 2),
    }


def _upright_change(change: SizeChange, turn: Orientation) -> SizeChange:
    if not turn.transpose:
        return change
    return SizeChange(change.time, change.height, change.width, 1 / change.aspect)


def _codecs(streams: Iterable[Stream]) -> tuple[str, ...]:
    return tuple(
        stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
        for stream in streams
    )


def _told(value: int, unspecified: int) -> int | None:
    return None if value == unspecified else int(value)
