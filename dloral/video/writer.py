"""Restored frames to a video, a picture or a folder of PNG frames: whole, or not at all.

Everything is written beside the target under a temporary name (inside the target, if that is a
folder) and moved into place at the very end. On an error or a cancelled job it is removed, and
whatever was at the target before stays as it was. Only a finished result that cannot be moved into
place is kept, and the error says where.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import av
from av import Packet
from av.container import OutputContainer
from av.video.stream import VideoStream
from torch import Tensor

from dloral.errors import OptionError
from dloral.video.animations import is_animation
from dloral.video.carried import PIPED
from dloral.video.encoders import CONTAINERS, mastering_options
from dloral.video.encoding import CodedFrame, OutputFormat, set_up, time_unit
from dloral.video.extras import own_keys
from dloral.video.frame_writers import FrameWriter, write_animation, write_folder, write_picture
from dloral.video.isolated_writer import isolated_writer
from dloral.video.matroska import SPARE, write_pixel_aspect
from dloral.video.media import seconds
from dloral.video.pipe_formats import Y4M
from dloral.video.pipes import STANDARD_OUTPUT, check_pipe_choices, is_pipe, write_output
from dloral.video.probe import ClipInfo
from dloral.video.targets import (
    beside,
    check_output_size,
    checked_target,
    frame_names,
    left_notes,
    output_error,
)
from dloral.video.tracks import Tracks
from dloral.video.vp9_alpha import packet_with_alpha


class Writer(Protocol):
    """Takes frames in order. ``notes``: what could not be kept as it was, one line each.

    ``chosen``: how frames are encoded, for those who encode segments of them elsewhere.
    """

    notes: list[str]
    chosen: OutputFormat

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        """One frame: float (3,H,W) in [0, 1]; ``time`` on the source clip's clock, in seconds.

        The first frame's time becomes 0 of the result.
        """
        ...

    def write_coded(
        self, coded: Iterable[CodedFrame], origin: Fraction, end: Fraction | None = None
    ) -> None:
        """Frames that were encoded as ``chosen``, a whole segment of them.

        ``origin``: the time of the result's first frame on the source clip's clock; ``end``: when
        the segment's last frame is no longer shown, seconds of the result.
        """
        ...

    def cut_short(self) -> None:
        """No more frames follow, though the source has some: sound and subtitles end here too."""
        ...


def open_writer(
    target: str | Path,
    *,
    width: int,
    height: int,
    source: ClipInfo,
    codec: str = "h264",
    crf: int | None = None,
    bit_depth: int = 8,
    chroma: str = "auto",
    preset: str | None = None,
    encoder_options: tuple[str, ...] = (),
    audio: str = "auto",
    keep_names: bool = True,
    start: Fraction | float = 0,
    duration: Fraction | float | None = None,
    overwrite: bool = True,
    pipe_format: str = Y4M,
) -> contextlib.AbstractContextManager[Writer]:
    """A place to write the restored frames of ``source`` to, in a ``with`` block.

    ``target``: .mp4, .mkv, .mov, .webm; .png, .jpg, .webp, .tif, .exr for a single picture; .gif,
    .apng, .png, .webp, .tif for several in one file; a folder (no suffix, a trailing slash, or an
    existing folder) for 00000000.png, 00000001.png, ..., or with the names of the source's frames
    (``keep_names``); 16 bits a channel when ``bit_depth`` is 10. ``start``, ``duration``: which
    seconds of the source the frames come from, so that sound and subtitles are cut alike. ``-`` is
    standard output, which takes uncompressed frames as ``pipe_format`` says. ``audio``: auto, copy,
    aac or none. A source that keeps its alpha takes frames of four channels.

    An existing folder is filled only if it is empty or holds nothing but frames that this writer
    once wrote (they carry a mark, and go once the new ones are in place); otherwise OutputError.
    OptionError for a wrong choice, such as a frame of the source; both raised here, before any
    work. OutputError in the block when, for example, the disk is full.
    """
    named = {name: value for name, value in locals().items() if name != "target"}
    if is_pipe(target):
        return _open_pipe(**named)
    path, suffix = checked_target(target, source, overwrite)
    check_output_size(path, width, height, suffix)
    more = crf, bit_depth, chroma, preset, encoder_options, source.keep_alpha
    chosen = OutputFormat(suffix, width, height, codec, *more)
    if chosen.is_video:
        chosen.check()
    elif suffix and source.num_frames != 1 and not is_animation(suffix, source):
        raise OptionError(
            "{path} holds one picture, but the source has more",
            remedy="give .mp4, .mkv, .mov, .webm, .gif, .apng, .webp, .tif, or a folder for frames",
            path=path,
        )
    if source.isolated:
        return isolated_writer(path, suffix, chosen, named)
    if not suffix:
        names = frame_names(source, keep_names, start)
        return write_folder(path, source, chosen, audio, names)
    if not chosen.is_video:
        write = write_animation if is_animation(suffix, source) else write_picture
        return write(path, source, chosen, audio)
    first = seconds(start)
    end = None if duration is None else first + seconds(duration)
    return _write_video(path, source, chosen, end, audio)


def _open_pipe(
    *, width: int, height: int, source: ClipInfo, codec: str, pipe_format: str, **more: Any
) -> contextlib.AbstractContextManager[Writer]:
    """:func:`open_writer` for standard output."""
    check_output_size(STANDARD_OUTPUT, width, height, PIPED)
    piped = OutputFormat("", width, height, bit_depth=more["bit_depth"], chroma=more["chroma"])
    encoding = {"codec": codec if codec != "h264" else None}
    encoding |= {"crf": more["crf"], "preset": more["preset"]}
    check_pipe_choices({**encoding, "encoder_option": more["encoder_options"]}, piped)
    return write_output(source, piped, pipe_format)


@contextmanager
def _write_video(
    path: Path, source: ClipInfo, chosen: OutputFormat, end: Fraction | None, audio: str
) -> Iterator[Writer]:
    options = {}
    if chosen.suffix in (".mp4", ".mov"):
        shows_cover = source.has_cover and chosen.suffix == ".mp4"
        by_name = own_keys(dict(source.tags)) and not shows_cover
        named = "+use_metadata_tags" if by_name else ""
        options["movflags"] = "+faststart" + named
    with beside(path, chosen.suffix) as part:
        try:
            container = av.open(
                str(part.path), "w", format=CONTAINERS[chosen.suffix], container_options=options
            )
            notes = left_notes(part)
            try:
                writer = _VideoWriter(container, source, chosen, end, notes)
                add_picture = writer.add_stream
                with Tracks(source, container, chosen.suffix, notes, add_picture, audio) as tracks:
                    writer.tracks = tracks
                    yield writer
                    writer.finish()
            except BaseException:
                # The file is thrown away, so errors on closing it no longer matter.
                with contextlib.suppress(av.FFmpegError, OSError):
                    container.close()
                raise
            container.close()
            writer.record_aspect(part.path)
        except av.FFmpegError as error:
            raise output_error(path, error) from error


class _VideoWriter(FrameWriter):
    """Writes the picture and keeps the other ``tracks`` in step with it."""

    tracks: Tracks

    def __init__(
        self,
        container: OutputContainer,
        source: ClipInfo,
        chosen: OutputFormat,
        last: Fraction | None,
        notes: list[str],
    ) -> None:
        super().__init__(source, chosen)
        self.notes = notes
        self._container = container
        self._lead = 0  # ticks
        self._last = last  # seconds from the source's first frame
        self._last_pts = self._last_dts = -1 << 62
        self._unit = time_unit(source)
        encoder = chosen.video_encoder
        if chosen.coded_size != (chosen.width, chosen.height):
            width, height = chosen.coded_size
            self.notes.append(
                f"{chosen.width}x{chosen.height} is padded to {width}x{height}, the smallest "
                f"that {chosen.codec} takes"
            )
        told = source.mastering if source.keeps_hdr else None
        if told is not None and mastering_options(encoder.library, told) is None:
            self.notes.append(
                f"mastering display and MaxCLL left out: {chosen.codec} cannot hold them"
            )
        usual = encoder.formats[chosen.bit_depth]
        if chosen.chroma == "auto" and not chosen.alpha and chosen.pixel_format != usual:
            self.notes.append(
                f"{chosen.width}x{chosen.height} is odd: written as {chosen.pixel_format}, "
                "which some players do not support"
            )

    def add_stream(self) -> VideoStream:
        """The picture's place among the container's streams."""
        # This encoder encodes nothing; the container's header is made from it.
        encoder = self.chosen.video_encoder
        stream = self._container.add_stream(encoder.library, rate=self._source.fps)
        self._stream = cast(VideoStream, stream)
        set_up(self._stream.codec_context, self._source, self.chosen)
        if self.chosen.alpha and encoder.library == "libvpx-vp9":
            self._stream.metadata["alpha_mode"] = "1"
        if mode := self._source.marks.matroska_mode(self.chosen.suffix):
            self._stream.metadata["stereo_mode"] = mode
        return self._stream

    def finish(self) -> None:
        super().finish()
        self.tracks.finish(self._end + self._lead * self._unit, self._is_short)

    def record_aspect(self, part: Path) -> None:
        """Record the pixel aspect ratio in the closed file: PyAV cannot tell FFmpeg's muxer."""
        if not self._needs_aspect:
            return
        aspect = self._source.sample_aspect_ratio
        try:
            write_pixel_aspect(part, aspect, self.chosen.suffix)
        except (OSError, ValueError):
            told = f"{aspect.numerator}:{aspect.denominator}"
            self.notes.append(f"the source's pixel aspect ratio of {told} could not be recorded")

    @property
    def _needs_aspect(self) -> bool:
        return self.chosen.suffix in (".mkv", ".webm") and self._source.sample_aspect_ratio != 1

    def _begin(self, origin: Fraction) -> None:
        super()._begin(origin)
        if self._needs_aspect:
            titled = self._stream.metadata
            titled["title"] = titled.get("title", "") + SPARE
        # Sound that begins before the picture is played before it, unless a part is cut out.
        self._lead = 0 if origin else round(self._source.lead_in / self._unit)
        self.tracks.begin(origin, self._last, self._lead * self._unit)

    def _put(self, coded: CodedFrame) -> None:
        # The first frame of a segment has the same time as the last one of the segment before only
        # if the clock is too coarse.
        dts = max(coded.dts + self._lead, self._last_dts + 1)
        pts = max(coded.pts + self._lead, dts)
        self._last_dts = dts
        packet = packet_with_alpha(coded.data, coded.alpha) if coded.alpha else Packet(coded.data)
        packet.time_base, packet.pts, packet.dts = self._unit, pts, dts
        packet.duration, packet.is_keyframe = coded.duration, coded.is_key
        self.tracks.mux_until(dts * self._unit)
        packet.stream = self._stream
        self._container.mux(packet)
