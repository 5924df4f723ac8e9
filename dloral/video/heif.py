"""What HEIC and AVIF files hold beyond what Pillow reports: depth, further pictures, HDR."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from dloral.video.boxes import boxes_in
from dloral.video.colour import UNSPECIFIED, frame_to_rgb
from dloral.video.companions import auxiliary_notes, more_pictures
from dloral.video.hdr import HLG, PQ, WIDE

_BT601 = 6
_OPTIONS = {"protocol_whitelist": "file"}
_MOST_HEADER = 4_000_000
"""Bytes at a file's start to search for its index."""


class PictureFacts(NamedTuple):
    """``bits``: as they are read; ``primaries``, ``transfer``: code points where it is HDR
    or has more colours than sRGB; ``notes``: what of the file is not restored, a line each."""

    bits: int
    primaries: int | None
    transfer: int | None
    notes: tuple[str, ...] = ()


def heif_facts(path: Path, width: int, height: int, is_avif: bool, pages: int) -> PictureFacts:
    """Of a file whose main picture is stored with ``width`` x ``height``; ``pages``: of a
    sequence."""
    import pillow_heif  # loads a codec of 10 MB

    try:
        found = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
    except Exception:
        if is_avif:  # Pillow opened it, and reads it with 8 bits
            return PictureFacts(8, None, None)
        raise
    bits = int(found.info.get("bit_depth", 8))
    notes: list[str] = []
    others = len(found) - 1 - _listed_parts(path)
    if others > 0 and pages < 2:
        notes.append(more_pictures(others))
    notes += auxiliary_notes(found.info)
    if bits > 8 and is_avif and not _is_decoded(path, width, height):
        notes.append(f"{bits} bits are reduced to 8: the picture is stored in tiles")
        bits = 8
    coded = found.info.get("nclx_profile") or {}
    transfer = coded.get("transfer_characteristics")
    primaries = coded.get("color_primaries")
    is_hdr = transfer in (PQ, HLG)
    is_wide = primaries in WIDE and not found.info.get("icc_profile")
    if (bits == 8) if is_hdr else not is_wide:
        return PictureFacts(bits, None, None, tuple(notes))
    return PictureFacts(bits, primaries, transfer, tuple(notes))


def _listed_parts(path: Path) -> int:
    """How many tiles of other pictures are not marked as hidden: libheif lists the tiles of such a
    file as pictures (ISO/IEC 23008-12: item references ``dimg``)."""
    with path.open("rb") as file:
        content = file.read(_MOST_HEADER)
    meta = next((body for name, body in boxes_in(content) if name == b"meta"), b"")
    parts: set[int] = set()
    hidden: set[int] = set()
    for name, body in boxes_in(meta[4:]):
        if name == b"iref":
            size = 4 if body[0] else 2
            for kind, reference in boxes_in(body[4:]):
                ids = reference[size + 2 :] if kind == b"dimg" else b""
                parts.update(_numbers(ids, size))
        elif name == b"iinf":
            for _, entry in boxes_in(body[8 if body[0] else 6 :]):
                if entry[3] & 1:
                    hidden.add(int.from_bytes(entry[4 : 8 if entry[0] > 2 else 6]))
    return len(parts - hidden)


def _numbers(content: bytes, size: int) -> list[int]:
    return [int.from_bytes(content[at : at + size]) for at in range(0, len(content), size)]


def load_deep_heic(path: Path) -> Tensor:
    """(3,H,W), with transparency (4,H,W), of 10 or 12 bits, which Pillow would round to 8."""
    import pillow_heif

    heif = pillow_heif.open_heif(path, convert_hdr_to_8bit=False, bgr_mode=False)
    array = np.asarray(heif[heif.primary_index])
    peak = 65535.0 if array.dtype == np.uint16 else 255.0
    codes = torch.from_numpy(array.astype(np.float32) / peak)
    codes = codes[..., None].expand(-1, -1, 3) if codes.ndim == 2 else codes
    return codes.permute(2, 0, 1).contiguous()


def load_deep_avif(path: Path) -> Iterator[Tensor]:
    """Each picture as :func:`load_deep_heic`; libheif's own build has no decoder for them."""
    with _opened(path) as container:
        colour, alpha = _pictures_of(container)
        if alpha is None:
            yield from map(_rgb_of, container.decode(colour))
            return
        waiting: dict[int, deque[VideoFrame]] = {colour.index: deque(), alpha.index: deque()}
        for packet in container.demux(colour, alpha):
            at = packet.stream.index
            waiting[at].extend((colour if at == colour.index else alpha).decode(packet))
            while all(waiting.values()):
                rgb, mask = (frames.popleft() for frames in waiting.values())
                yield torch.cat([_rgb_of(rgb), frame_to_rgb(mask)[:1]])


def sequence_times(path: Path, count: int) -> tuple[tuple[Fraction, ...], Fraction] | None:
    """When each of an AVIF's ``count`` pictures is shown, and when the last one ends, in seconds
    from the first; Pillow rounds each length to milliseconds, which adds up. None where FFmpeg
    does not find these pictures."""
    with suppress(av.FFmpegError, ValueError), _opened(path) as container:
        colour, _ = _pictures_of(container)
        unit = Fraction(colour.time_base or 0)
        shown = [(p.pts, p.duration or 0) for p in container.demux(colour) if p.pts is not None]
        spans = sorted((pts * unit, (pts + length) * unit) for pts, length in shown)
        times = tuple(begin - spans[0][0] for begin, _ in spans)
        end = spans[-1][1] - spans[0][0] if spans else Fraction(0)
        if len(set(times)) == count and end > times[-1]:
            return times, end
    return None


def _pictures_of(container: InputContainer) -> tuple[VideoStream, VideoStream | None]:
    """The pictures and their transparency. Of a sequence, not the still that stands for it."""
    masks = [s for s in container.streams.video if _is_mask(s)]
    colour = max(set(container.streams.video) - set(masks), key=lambda s: (s.frames, -s.index))
    return colour, next((s for s in masks if s.frames == colour.frames), None)


def _is_mask(stream: VideoStream) -> bool:
    return (stream.codec_context.pix_fmt or "").startswith("gray") and stream.index > 0


def _rgb_of(frame: VideoFrame) -> Tensor:
    if int(frame.colorspace) == UNSPECIFIED:  # by libavif's rule, whatever the picture's size
        frame.colorspace = _BT601
    return frame_to_rgb(frame)


def _is_decoded(path: Path, width: int, height: int) -> bool:
    """Whether FFmpeg gives the main picture whole; it gives a tiled one tile by tile."""
    with suppress(av.FFmpegError, ValueError), _opened(path) as container:
        colour, _ = _pictures_of(container)
        return (colour.width, colour.height) == (width, height)
    return False


def _opened(path: Path) -> InputContainer:
    return av.open(f"file:{path.resolve()}", format="mov", options=_OPTIONS)
