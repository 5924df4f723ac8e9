"""Restored pictures to the bytes of a file, with their source's metadata."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any
from zlib import compress, crc32

import av
import cv2
import numpy as np
import torch
from av import VideoFrame
from PIL import Image
from torch import Tensor

from dloral.video.colour import over_white
from dloral.video.encoders import CONTAINERS
from dloral.video.gif import gif_picture
from dloral.video.hdr import HLG, LINEAR, PQ, WIDE, Mastering, from_restorable, linear_from_srgb
from dloral.video.images import AFTER_IHDR, JPEG_QUALITY, MARK
from dloral.video.picture_tags import UNUSED_PROFILE, PictureTags, picture_tags
from dloral.video.probe import ClipInfo

TIFFS = (".tif", ".tiff")
JPEGS = (".jpg", ".jpeg")
WITH_ALPHA = (".png", ".apng", ".gif", ".webp", *TIFFS, ".exr")
"""Files that hold transparency."""

DEEP = (".png", ".apng", *TIFFS, ".exr")
"""Files that hold more than 8 bits."""

_NAMES = {"exif": "EXIF", "xmp": "XMP", "profile": "colour profile"}
"""Of the kinds of metadata, the fields of PictureTags."""

_MOST_OF_JPEG = {"exif": 65_533, "xmp": 65_504, "profile": 255 * 65_519}
"""Bytes: EXIF and XMP have one segment, a profile has up to 255."""

_BT709, _BT2020 = 1, 9


@dataclass(frozen=True)
class PictureFormat:
    """``suffix``: .png, .jpg, .webp, .tif, .exr or .gif; ``bit_depth`` above 8 gives 16 bits where
    the file holds them. ``source``: whose tags are kept."""

    suffix: str
    bit_depth: int
    source: ClipInfo

    @property
    def is_wide(self) -> bool:
        return self.bit_depth > 8 and self.suffix in DEEP


def lost_tags(source: ClipInfo, suffix: str, bit_depth: int) -> list[str]:
    """The source's metadata that a file of this suffix will not hold, a line for each reason."""
    if not is_picture_file(source) or not suffix.startswith("."):
        return []
    tags, notes = _tags_of(source), []
    unheld = _unheld(source, suffix, bit_depth)
    reasons = {"not kept in": unheld, "too long for": _too_long(tags, suffix) - unheld}
    for why, lost in reasons.items():
        names = [name for kind, name in _NAMES.items() if kind in lost and getattr(tags, kind)]
        if names:
            notes.append(f"{' and '.join(names)} left out: {why} {suffix}")
    is_used = source.keep_profile or source.bit_depth == 8 or "profile" in unheld
    if tags.profile and not is_used:
        notes.append(UNUSED_PROFILE)
    return notes


def holds_profile_of(source: ClipInfo, suffix: str) -> bool:
    """Whether the source's colour profile is short enough for a file of this suffix."""
    return suffix not in JPEGS or "profile" not in _too_long(_tags_of(source), suffix)


def _tags_for(source: ClipInfo, suffix: str, bit_depth: int) -> PictureTags:
    """The source's metadata as far as a file of this suffix holds them."""
    tags = _tags_of(source)
    lost = _unheld(source, suffix, bit_depth) | _too_long(tags, suffix)
    if not source.keep_profile:
        lost |= {"profile"}
    return PictureTags(*(b"" if kind in lost else getattr(tags, kind) for kind in _NAMES))


def _tags_of(source: ClipInfo) -> PictureTags:
    """The metadata of a source that is a picture file, of one picture or several; else none."""
    if not is_picture_file(source):
        return PictureTags(b"", b"", b"")
    return picture_tags(source.path, source.isolated)


def _unheld(source: ClipInfo, suffix: str, bit_depth: int) -> set[str]:
    """The kinds of metadata that such a file does not hold, whatever they are."""
    if suffix in (".exr", ".gif") or (suffix in TIFFS and bit_depth > 8):
        return {"exif", "xmp", "profile"}
    # Offsets in a page's EXIF would not be right in a file of many.
    is_stack = suffix in TIFFS and source.num_frames != 1
    return {"exif", "xmp"} if is_stack or suffix in CONTAINERS else set()


def _too_long(tags: PictureTags, suffix: str) -> set[str]:
    """The kinds of metadata that are longer than such a file can hold."""
    if suffix not in JPEGS:
        return set()
    return {kind for kind, most in _MOST_OF_JPEG.items() if len(getattr(tags, kind)) > most}


def is_picture_file(source: ClipInfo) -> bool:
    return source.kind in ("image", "pages") or source.codec == "apng"


def encode_picture(pixels: Tensor, form: PictureFormat) -> bytes:
    """A file's bytes (without loss, but for JPEG) of (3,H,W) or, with alpha, (4,H,W) in [0, 1]."""
    pixels = pixels.detach().to("cpu", torch.float32)
    source, suffix = form.source, form.suffix
    transfer = source.color_transfer if source.keeps_hdr else None
    if transfer is not None:
        pixels = torch.cat([from_restorable(pixels[:3], transfer), pixels[3:]])
    if suffix == ".exr":
        is_linear = transfer == LINEAR
        colour = pixels[:3] if is_linear else linear_from_srgb(pixels[:3].clamp(0, 1))
        return _exr(torch.cat([colour, pixels[3:]]))
    if len(pixels) == 4 and suffix not in WITH_ALPHA:
        pixels = over_white(pixels[:3], pixels[3])
    peak, dtype = (65535, np.uint16) if form.is_wide else (255, np.uint8)
    codes = (pixels.clamp(0, 1) * peak).round().permute(1, 2, 0).numpy().astype(dtype)
    if suffix == ".gif":
        return gif_picture(codes)
    data = _wide(codes, suffix) if form.is_wide else _usual(codes, suffix, source)
    return _with_chunks(data, source) if suffix == ".png" else data


def marked(png: bytes) -> bytes:
    """A PNG that says who wrote it, so that it may be replaced later; see
    :func:`dloral.video.images.is_marked`."""
    return png[:AFTER_IHDR] + MARK + png[AFTER_IHDR:]


def _wide(codes: np.ndarray, suffix: str) -> bytes:
    order = [2, 1, 0] if codes.shape[2] == 3 else [2, 1, 0, 3]
    stored = np.ascontiguousarray(codes[..., order])
    done, data = cv2.imencode(".png" if suffix == ".png" else ".tiff", stored)
    assert done, "OpenCV writes PNG and TIFF of 16 bits"
    return data.tobytes()


def _usual(codes: np.ndarray, suffix: str, source: ClipInfo) -> bytes:
    image = Image.fromarray(codes)
    tags = _tags_for(source, suffix, 8)
    given = {"exif": tags.exif, "icc_profile": tags.profile, "xmp": tags.xmp}
    kept: dict[str, Any] = {name: value for name, value in given.items() if value}
    buffer = BytesIO()
    if suffix == ".png":
        image.save(buffer, "PNG", compress_level=4)  # its chunks are put in later
    elif suffix == ".webp":
        image.save(buffer, "WEBP", lossless=True, exact=True, **kept)
    elif suffix in TIFFS:
        if "xmp" in kept and "exif" in kept:
            # One directory holds both, and Pillow takes it from one argument.
            directory = Image.Exif()
            directory.load(kept["exif"])
            directory[700] = kept.pop("xmp")
            kept["exif"] = directory
        elif "xmp" in kept:
            kept["tiffinfo"] = {700: kept.pop("xmp")}
        # libtiff, which compresses, writes no EXIF.
        packing = {} if "exif" in kept else {"compression": "tiff_adobe_deflate"}
        image.save(buffer, "TIFF", **packing, **kept)
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, **kept)
    return buffer.getvalue()


def _exr(pixels: Tensor) -> bytes:
    """Linear light, alpha premultiplied, 32-bit floats (OpenEXR's own conventions)."""
    height, width = pixels.shape[-2:]
    if len(pixels) == 4:
        pixels = torch.cat([pixels[:3] * pixels[3], pixels[3:]])
    form = "gbrapf32le" if len(pixels) == 4 else "gbrpf32le"
    context = av.CodecContext.create("exr", "w")
    context.width, context.height, context.pix_fmt = width, height, form
    context.time_base = Fraction(1, 25)
    context.options = {"compression": "zip16", "format": "float"}
    frame = VideoFrame(width, height, form)
    for index, channel in enumerate((1, 2, 0, 3)[: len(pixels)]):
        plane = frame.planes[index]
        rows = np.frombuffer(memoryview(plane), "<f4").reshape(plane.height, -1)
        rows[:, :width] = pixels[channel].numpy()
    frame.pts, frame.time_base = 0, context.time_base
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _with_chunks(png: bytes, source: ClipInfo) -> bytes:
    """Chunks of the PNG specification, third edition, right behind the header."""
    chunks = b""
    if source.keeps_hdr and source.color_transfer in (PQ, HLG):
        primaries = source.color_primaries or _BT2020
        chunks += _chunk(b"cICP", bytes((primaries, source.color_transfer, 0, 1)))
        if source.mastering is not None:
            chunks += _light_chunks(source.mastering)
    elif source.written_primaries in WIDE:
        transfer = source.written_transfer or _BT709
        chunks += _chunk(b"cICP", bytes((source.written_primaries, transfer, 0, 1)))
    tags = _tags_for(source, ".png", 8)
    if tags.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + compress(tags.profile))
    if tags.exif:
        chunks += _chunk(b"eXIf", tags.exif.removeprefix(b"Exif\0\0"))
    if tags.xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + tags.xmp)
    return png[:AFTER_IHDR] + chunks + png[AFTER_IHDR:]


def _light_chunks(mastering: Mastering) -> bytes:
    chunks = b""
    if mastering.primaries and mastering.white and mastering.luminance:
        least, most = mastering.luminance
        values = (*mastering.primaries, *mastering.white)
        chunks += _chunk(b"mDCV", struct.pack(">8H2I", *values, most, least))
    if mastering.max_cll:
        light = (mastering.max_cll * 10_000, mastering.max_fall * 10_000)
        chunks += _chunk(b"cLLI", struct.pack(">2I", *light))
    return chunks


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc32(name + body))
