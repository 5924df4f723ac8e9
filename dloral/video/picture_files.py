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
from dloral.video.hdr import HLG, LINEAR, PQ, Mastering, from_restorable, linear_from_srgb
from dloral.video.images import AFTER_IHDR, JPEG_QUALITY, MARK
from dloral.video.picture_tags import PictureTags, picture_tags
from dloral.video.probe import ClipInfo

TIFFS = (".tif", ".tiff")
WITH_ALPHA = (".png", ".apng", ".gif", ".webp", *TIFFS, ".exr")
"""Files that hold transparency."""

DEEP = (".png", ".apng", *TIFFS, ".exr")
"""Files that hold more than 8 bits."""

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
    """The source's metadata that a file of this suffix will not hold."""
    tags = tags_kept_of(source)
    if tags is None or not suffix.startswith("."):
        return []
    none_kept = suffix in (".exr", ".gif") or (suffix in TIFFS and bit_depth > 8)
    text_lost = none_kept or suffix in CONTAINERS
    text_lost |= suffix in TIFFS and source.num_frames != 1
    named = {
        "EXIF": tags.exif and text_lost,
        "XMP": tags.xmp and text_lost,
        "colour profile": tags.profile and none_kept,
    }
    return [name for name, is_lost in named.items() if is_lost]


def tags_kept_of(source: ClipInfo) -> PictureTags | None:
    """The metadata of a source that is a picture file, of one picture or several."""
    return picture_tags(source.path, source.isolated) if is_picture_file(source) else None


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
    kept: dict[str, Any] = {}
    tags = tags_kept_of(source)
    if tags is not None:
        profile = tags.profile if source.keep_profile else b""
        kept = {"exif": tags.exif, "icc_profile": profile, "xmp": tags.xmp}
        # Offsets in a page's EXIF would not be right in a file of many.
        names = ("icc_profile",) if suffix in TIFFS and source.num_frames != 1 else tuple(kept)
        kept = {name: kept[name] for name in names if kept[name]}
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
    tags = tags_kept_of(source)
    if tags is not None:
        if tags.profile and source.keep_profile:
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
