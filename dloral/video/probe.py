"""What a source is, before anything is restored: its size, timing, colours, sound, and its faults.

A video is scanned packet by packet without decoding (a gigabyte takes about a second), so that the
number of frames is exact and a file that was cut off is found before hours of work, not after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av import VideoFrame
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.stream import Stream
from av.video.stream import VideoStream

from dloral.errors import InputError
from dloral.video.images import FOLDER_FPS, frame_files, image_header, looks_like_image
from dloral.video.integrity import check_whole
from dloral.video.media import (
    MAX_HOURS,
    check_size,
    existing_path,
    has_timestamps,
    open_media,
    picture_stream,
)

_LONGEST_LAST_FRAME = 10
"""Seconds; a tag that says more than that is taken for stale."""


@dataclass(frozen=True)
class Orientation:
    """How to turn stored pixels upright: transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation(self) -> int:
        """Clockwise degrees, 0, 90, 180 or 270 (of a mirrored picture: before mirroring)."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0


@dataclass(frozen=True)
class ClipInfo:
    """A source that can be read.

    ``width``, ``height``: pixels as shown upright, the sample aspect not applied.
    ``num_frames``: exact; None only where a stream says nothing before it is decoded.
    ``duration``: seconds that the picture lasts. ``fps``: the average rate (folders: 24 unless
    told, images: 1). ``sample_aspect_ratio``: of the upright picture. ``rotation``: clockwise
    degrees that the reader applies. ``color_*``: code points of ISO/IEC 23091-2, None where the
    source does not say. ``start_time``: when the first frame is shown, in seconds on the source's
    own clock; ``time_base``: the unit of its timestamps.
    """

    path: Path
    kind: Literal["video", "image", "folder"]
    width: int
    height: int
    num_frames: int | None
    duration: Fraction | None
    fps: Fraction
    codec: str
    pixel_format: str
    bit_depth: int
    sample_aspect_ratio: Fraction = Fraction(1)
    rotation: int = 0
    color_range: int | None = None
    color_space: int | None = None
    color_primaries: int | None = None
    color_transfer: int | None = None
    has_audio: bool = False
    audio_codecs: tuple[str, ...] = ()
    subtitle_codecs: tuple[str, ...] = ()
    start_time: Fraction = Fraction(0)
    time_base: Fraction = Fraction(1, 1000)


def probe(path: str | Path, folder_fps: Fraction | int | None = None) -> ClipInfo:
    """What ``path`` is: a video, an image or a folder of frames (``folder_fps`` of them a second).

    Raises InputError in one line for everything that cannot be used: missing, unreadable, empty,
    no known kind, without a picture, cut off, mixed in size, too large (16384 pixels a side,
    8192 x 8192 in all) or too long (24 hours).
    """
    found = existing_path(path)
    if found.is_dir():
        return _probe_folder(found, Fraction(folder_fps or FOLDER_FPS))
    if looks_like_image(found):
        return _probe_image(found)
    return _probe_video(found)


def orientation_of(frame: VideoFrame) -> Orientation:
    """How the frame's display matrix (ISO/IEC 14496-12, 6.2.2) turns it, to quarter turns."""
    sides: Any = frame.side_data  # PyAV's type hint names another class
    raw = next((bytes(data) for data in sides if data.type is SideData.DISPLAYMATRIX), None)
    if raw is None:
        return Orientation()
    a, b, _, c, d = (
        int.from_bytes(raw[at : at + 4], "little", signed=True) for at in range(0, 20, 4)
    )
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def _probe_image(path: Path) -> ClipInfo:
    height, width, kind, bits, _ = image_header(path)
    return ClipInfo(
        path=path,
        kind="image",
        width=width,
        height=height,
        num_frames=1,
        duration=Fraction(1),
        fps=Fraction(1),
        codec=kind,
        pixel_format="rgb48" if bits == 16 else "rgb24",
        bit_depth=bits,
    )


def _probe_folder(path: Path, fps: Fraction) -> ClipInfo:
    files = frame_files(path)
    height, width, kind, bits, _ = image_header(files[0])
    for file in files[1:]:
        other_height, other_width, *_ = image_header(file)
        if (other_height, other_width) != (height, width):
            raise InputError(
                f"{path} holds frames of different sizes: {files[0].name} is {width}x{height}, "
                f"{file.name} is {other_width}x{other_height}; make them the same"
            )
    if len(files) / fps > MAX_HOURS * 3600:
        raise InputError(f"{path} holds {len(files)} frames; at most {MAX_HOURS} hours are read")
    return ClipInfo(
        path=path,
        kind="folder",
        width=width,
        height=height,
        num_frames=len(files),
        duration=len(files) / fps,
        fps=fps,
        codec=kind,
        pixel_format="rgb48" if bits == 16 else "rgb24",
        bit_depth=bits,
        time_base=1 / fps,
    )


def _probe_video(path: Path) -> ClipInfo:
    check_whole(path)
    with open_media(path) as container:
        stream = picture_stream(container, path)
        check_size(path, stream.height, stream.width)
        _check_duration(path, Fraction(container.duration or 0, av.time_base))
        frame = _first_frame(container, stream, path)
        check_size(path, frame.height, frame.width)
        scan = _scan(path)
        _check_duration(path, scan.end - scan.first)
        turn = orientation_of(frame)
        width, height = frame.width, frame.height
        aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1)
        if turn.transpose:
            width, height, aspect = height, width, 1 / aspect
        fps = _average_rate(stream, scan)
        audio = _codecs(container.streams.audio)
        return ClipInfo(
            path=path,
            kind="video",
            width=width,
            height=height,
            num_frames=scan.num_frames or None,
            duration=_picture_seconds(stream, scan, 1 / fps),
            fps=fps,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            bit_depth=max(part.bits for part in frame.format.components),
            sample_aspect_ratio=aspect,
            rotation=turn.rotation,
            color_range=_told(frame.color_range, 0),
            color_space=_told(frame.colorspace, 2),
            color_primaries=_told(frame.color_primaries, 2),
            color_transfer=_told(frame.color_trc, 2),
            has_audio=bool(audio),
            audio_codecs=audio,
            subtitle_codecs=_codecs(container.streams.subtitles),
            start_time=scan.first,
            time_base=Fraction(stream.time_base or Fraction(1, 1000)),
        )


@dataclass
class _Scan:
    """What the packets of the picture say: how many frames, from when to when (seconds)."""

    num_frames: int
    first: Fraction
    last: Fraction  # when the last frame is shown
    end: Fraction  # and until when; the same as ``last`` where that is not said


def _scan(path: Path) -> _Scan:
    times: list[Fraction] = []  # the first and the last
    num_frames, end = 0, Fraction(0)
    with open_media(path) as container:
        stream = picture_stream(container, path)
        in_order = not has_timestamps(container)
        hides_frames = stream.codec_context.name == "vp8"
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            if hides_frames and not bytes(packet)[0] & 0x10:  # RFC 6386, 9.1: show_frame
                continue
            num_frames += 1
            ticks = packet.dts if in_order or packet.pts is None else packet.pts
            if ticks is None:
                continue
            time = ticks * packet.time_base
            times = [min([time, *times]), max([time, *times])]
            end = max(end, time + (packet.duration or 0) * packet.time_base)
    first, last = times or (Fraction(0), Fraction(0))
    return _Scan(num_frames, first, last, max(last, end))


def _picture_seconds(stream: VideoStream, scan: _Scan, usual: Fraction) -> Fraction:
    """How long the picture lasts; Matroska says in a tag how long its last frame is shown."""
    end = scan.end if scan.end > scan.last else scan.last + usual
    told = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if told:
        hours, minutes, rest = told.groups()
        tagged = int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)
        if scan.last < tagged < end + _LONGEST_LAST_FRAME:
            end = tagged
    return end - scan.first


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    for frame in container.decode(stream):
        return frame
    raise InputError(f"{path} holds no frames; it is empty or damaged")


def _average_rate(stream: VideoStream, scan: _Scan) -> Fraction:
    """The stream's own rate where its frames agree with it, else frames per second counted."""
    told = Fraction(stream.average_rate or stream.guessed_rate or 0)
    seconds = scan.end - scan.first
    if told and abs(told * seconds - scan.num_frames) <= max(1, scan.num_frames // 100):
        return told
    if seconds and scan.num_frames:
        return (scan.num_frames / seconds).limit_denominator(1001)
    return told or Fraction(25)


def _check_duration(path: Path, seconds: Fraction) -> None:
    if seconds > MAX_HOURS * 3600:
        raise InputError(
            f"{path} says it lasts {float(seconds) / 3600:.0f} hours; "
            f"at most {MAX_HOURS} are read; cut it into parts"
        )


def _codecs(streams: Iterable[Stream]) -> tuple[str, ...]:
    return tuple(
        stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
        for stream in streams
    )


def _told(value: int, unspecified: int) -> int | None:
    return None if value == unspecified else int(value)
