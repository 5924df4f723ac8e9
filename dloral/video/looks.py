"""What a clip's first frames look like: combed by interlacing, transparent, graded for HDR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av import Packet, VideoFrame
from av.sidedata.sidedata import Type as SideData
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from dloral.video.colour import may_be_seen_through
from dloral.video.combs import LOOKED_AT, WHOLE, Combs, find_combs
from dloral.video.filters import ShownFrame
from dloral.video.hdr import Mastering, mastering_of
from dloral.video.media import open_media, picture_stream
from dloral.video.picture_marks import NO_MARKS, PictureMarks, marks_of
from dloral.video.see_through import OPAQUE
from dloral.video.side_data import side_data_of

_NEVER_INTERLACED = {"vp8", "vp9", "av1", "gif", "apng", "png", "webp", "hevc", "theora", "flv1"}

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Looks:
    """``has_alpha``: something is see-through."""

    combs: Combs = WHOLE
    has_alpha: bool = False
    mastering: Mastering | None = None
    marks: PictureMarks = NO_MARKS


def looks_of(path: Path, stream: VideoStream, first: VideoFrame) -> Looks:
    """``first``: the clip's first frame. A few more are decoded only if that can matter."""
    mastering = mastering_of(first)
    codec = stream.codec_context.codec.canonical_name
    may_comb = first.interlaced_frame or codec not in _NEVER_INTERLACED
    may_alpha = _alpha_plane(first) is not None or _decoder_of_alpha(stream) is not None
    if not may_comb and not may_alpha:
        return Looks(mastering=mastering, marks=marks_of(first))
    seen_through = [False]
    kinds: set[SideData] = set()
    with open_media(path) as container:
        frames = _frames(container, picture_stream(container, path), seen_through, may_alpha, kinds)
        combs = find_combs(frames) if may_comb else WHOLE
        if may_alpha:
            for _ in zip(range(LOOKED_AT), frames, strict=False):
                pass
    return Looks(combs, seen_through[0], mastering, marks_of(first, kinds))


def picture_decoder(stream: VideoStream) -> Callable[[Packet], list[VideoFrame]]:
    """What turns the stream's packets into frames: its own decoder, except for VP8 and VP9 with
    transparency, which FFmpeg's own decoder drops."""
    library = _decoder_of_alpha(stream)
    if library is None:
        return stream.decode
    context = cast(VideoCodecContext, av.CodecContext.create(library, "r"))
    context.extradata = stream.codec_context.extradata
    unit = stream.time_base

    def decode(packet: Packet) -> list[VideoFrame]:
        frames = context.decode(packet)
        for frame in frames:
            frame.time_base = unit
        return frames

    return decode


def _decoder_of_alpha(stream: VideoStream) -> str | None:
    """The decoder for video that Matroska marks as transparent, with alpha as a second stream."""
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    decoder = _WITH_ALPHA.get(stream.codec_context.codec.canonical_name)
    return decoder if tags.get("alpha_mode") == "1" else None


def _frames(
    container: av.container.InputContainer,
    stream: VideoStream,
    seen_through: list[bool],
    may_alpha: bool,
    kinds: set[SideData],
) -> Iterator[VideoFrame]:
    """Frames as far as they can be decoded; ``seen_through`` is set if one is see-through, and
    ``kinds`` gets those of their side data."""
    decode = picture_decoder(stream)
    for packet in container.demux(stream):
        if not packet.size and packet.pts is not None:
            continue
        try:
            frames = decode(packet)
        except av.InvalidDataError:
            continue
        for frame in frames:
            kinds.update(side_data_of(frame))
            if may_alpha and not seen_through[0]:
                seen_through[0] = _is_seen_through(frame)
            yield frame


def watched(
    frames: Iterable[ShownFrame], clip_has_alpha: bool, on_note: Callable[[str], None]
) -> Iterator[ShownFrame]:
    """``frames`` of a clip; ``on_note`` is told if one is see-through though the first ones, by
    which the clip was judged, were not."""
    is_told = clip_has_alpha
    for shown in frames:
        if not is_told and _is_seen_through(shown.frame):
            is_told = True
            on_note(f"transparency that begins after {LOOKED_AT} frames is shown over white")
        yield shown


def _alpha_plane(frame: VideoFrame) -> str | None:
    """The format in which the frame's transparency is read; None for a format without."""
    if not may_be_seen_through(frame):
        return None
    return "rgba64le" if frame.format.components[0].bits > 8 else "rgba"


def _is_seen_through(frame: VideoFrame) -> bool:
    packed = _alpha_plane(frame)
    if packed is None:
        return False
    rgba = frame.reformat(format=packed, threads=1)
    wide = packed == "rgba64le"
    rows: Any = np.frombuffer(memoryview(rgba.planes[0]), np.uint16 if wide else np.uint8)
    alpha = rows.reshape(rgba.height, -1)[:, 3 : rgba.width * 4 : 4]
    return bool((alpha < (65535 if wide else 255) * OPAQUE).any())
