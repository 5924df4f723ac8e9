"""The first frame of a video that can be decoded, and what it says of the rest."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from dloral.errors import InputError
from dloral.video.media import forgives_damage
from dloral.video.scan import Scan


def first_decoded(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """The first frame that can be decoded; a recording may begin in the middle of a group."""
    failed: av.FFmpegError | None = None
    for packet in container.demux(stream):
        if not packet.size and packet.pts is not None:
            continue  # "the same again": not for the decoder, which would take it for the end
        try:
            frames = stream.decode(packet)
        except av.InvalidDataError as error:
            if not forgives_damage(container):
                raise
            failed = error
            continue
        for frame in frames:
            return frame
    if failed is not None:
        raise failed
    raise InputError(
        "{path} holds no frames", remedy="it is empty or damaged: give another file", path=path
    )


def begin_with(scan: Scan, container: InputContainer, frame: VideoFrame) -> None:
    """Drop from ``scan`` what lies before ``frame``, the first that can be decoded."""
    if not scan.timed or frame.pts is None or not forgives_damage(container):
        return
    skipped = frame.pts * Fraction(frame.time_base or 0) - scan.first
    if 0 < skipped < scan.last - scan.first:
        scan.num_frames -= round(scan.num_frames * skipped / (scan.end - scan.first))
        scan.first += skipped
        scan.changes = tuple(
            change._replace(time=change.time - skipped)
            for change in scan.changes
            if change.time > skipped
        )


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width by height of a pixel. As in FFmpeg, what the container says goes before what the codec
    says; a codec may know it only once a frame is decoded."""
    return Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
