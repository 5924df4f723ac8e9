"""Still pictures and folders of numbered frames."""

from __future__ import annotations

import re
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from dloral.errors import InputError
from dloral.video.colour import over_white
from dloral.video.media import MAX_INPUT_PIXELS, check_size, existing_path, first_bytes, reason

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""What counts as a frame in a folder; files of other names are passed over."""

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FOLDER_FPS = Fraction(24)
JPEG_QUALITY = 95

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
_AFTER_IHDR = 33
_MARK_TEXT = b"tEXtSoftware\0dloral frame"
_MARK = (len(_MARK_TEXT) - 4).to_bytes(4, "big") + _MARK_TEXT + crc32(_MARK_TEXT).to_bytes(4, "big")
"""A text chunk right behind the header chunk of a PNG (PNG specification, 11.3.3.2)."""

_ORIENTATION = 0x0112
_TURNED = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""

_MIRRORED = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}
"""Axes of (3,H,W) that an EXIF orientation mirrors, after the exchange."""


class Header(NamedTuple):
    """Height and width as shown upright, kind (png, jpeg, ...), bits per channel, 8 or 16, and
    the EXIF orientation that decoded pixels still have, 1 to 8."""

    height: int
    width: int
    kind: str
    bits: int
    orientation: int


def looks_like_image(path: Path) -> bool:
    """Whether the file's first bytes are those of a still picture (an animated PNG is a video)."""
    start = first_bytes(path)
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    if start.startswith(_SIGNATURES[0]):
        return b"acTL" not in first_bytes(path, 4096)
    return start.startswith(_SIGNATURES)


def image_header(path: Path) -> Header:
    """What a picture is; InputError in one line if it is damaged, too large or animated."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            check_size(path, image.height, image.width)
            if getattr(image, "n_frames", 1) > 1 and image.format == "WEBP":
                raise InputError(f"{path} is an animated WebP; convert it to GIF or MP4 first")
            width, height = image.size
            orientation = _orientation(image)
            if orientation in _TURNED:
                width, height = height, width
            kind = str(image.format).lower()
            wide = image.mode.startswith(("I", "F")) or _is_wide_png(path) or _is_wide_tiff(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} is too large; at most {MAX_INPUT_PIXELS} pixels are read; make it smaller"
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path} is not a readable image: damaged or cut off; get the whole file"
        ) from error
    return Header(height, width, kind, 16 if wide else 8, orientation)


def load_image(source: str | Path) -> Tensor:
    """A still picture as float32 (3,H,W) RGB in [0, 1], upright, in sRGB, over white.

    Raises InputError in one line where the file is missing, cut off or no picture.
    """
    path = existing_path(source)
    header = image_header(path)
    try:
        pixels = _load_wide(path) if header.bits == 16 else _load_usual(path)
    except (OSError, ValueError, SyntaxError, cv2.error) as error:
        raise InputError(
            f"{path} cannot be decoded: damaged or cut off; get the whole file"
        ) from error
    return _upright(pixels, header.orientation)


def encode_image(pixels: Tensor, suffix: str, bit_depth: int = 8) -> bytes:
    """The bytes of a PNG, JPEG or WebP file (without loss, but for JPEG) of (3,H,W) in [0, 1]."""
    wide = bit_depth > 8 and suffix == ".png"
    peak, dtype = (65535, np.uint16) if wide else (255, np.uint8)
    codes = (pixels.detach().to("cpu", torch.float32).clamp(0, 1) * peak).round()
    array = codes.permute(1, 2, 0).numpy().astype(dtype)
    if wide:
        done, data = cv2.imencode(".png", np.ascontiguousarray(array[..., ::-1], np.uint16))
        assert done, "OpenCV writes 16-bit PNG"
        return data.tobytes()
    buffer = BytesIO()
    image = Image.fromarray(array)
    if suffix == ".png":
        image.save(buffer, "PNG", compress_level=4)
    elif suffix == ".webp":
        image.save(buffer, "WEBP", lossless=True)
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def encode_marked_png(pixels: Tensor, bit_depth: int) -> bytes:
    """A PNG that says who wrote it, so that it may be replaced later; see :func:`is_marked`."""
    png = encode_image(pixels, ".png", bit_depth)
    return png[:_AFTER_IHDR] + _MARK + png[_AFTER_IHDR:]


def is_marked(path: Path) -> bool:
    """Whether this is a frame that :func:`encode_marked_png` made."""
    return first_bytes(path, _AFTER_IHDR + len(_MARK))[_AFTER_IHDR:] == _MARK


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder in natural order: ``f2.png`` comes before ``f10.png``."""
    try:
        files = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        ]
    except OSError as error:  # a folder may be listed and yet not be entered
        raise InputError(f"{folder} cannot be read: {reason(error)}") from error
    if not files:
        raise InputError(
            f"{folder} holds no frames; give a folder with {', '.join(IMAGE_SUFFIXES)} files"
        )
    return sorted(files, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part.lower()) for part in parts]


def _is_wide_png(path: Path) -> bool:
    start = first_bytes(path, 26)  # IHDR: the bit depth is byte 24
    return start.startswith(_SIGNATURES[0]) and len(start) > 24 and start[24] == 16


def _is_wide_tiff(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", None)
    return tags is not None and max(tags.get(258, (8,))) > 8  # 258: BitsPerSample


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation still to be applied, 1 to 8; a broken EXIF block counts as none."""
    if image.format == "TIFF":
        return 1  # Pillow and OpenCV both turn these themselves
    if image.format == "PNG":
        image.load()  # the block may come after the pixels; damaged pixels are an error, here
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged bytes can lead the parser into any error there is
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 2)
    mirrored = _MIRRORED.get(orientation)
    return pixels.flip(mirrored).contiguous() if mirrored else pixels.contiguous()


def _load_usual(path: Path) -> Tensor:
    with Image.open(path, formats=_FORMATS) as opened:
        opened.load()
        image: Image.Image = opened
        profile = opened.info.get("icc_profile")
        transparent = "A" in image.mode or "transparency" in image.info
        if profile and image.mode in ("RGB", "RGBA"):
            image = _to_srgb(image, profile)
        image = image.convert("RGBA" if transparent else "RGB")
    codes = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1).div_(255)
    return over_white(codes[:3], codes[3]).contiguous() if transparent else codes.contiguous()


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours through the picture's own profile; a profile that is broken counts as none."""
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(profile))
        turned = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"))
    except ImageCms.PyCMSError:
        return image
    return turned or image


def _load_wide(path: Path) -> Tensor:
    # Not imread: OpenCV 5's fails at a TIFF that must be turned by a quarter.
    array = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("OpenCV cannot decode it")
    peak = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(array.dtype, 1.0)
    codes = torch.from_numpy(array.astype(np.float32) / peak)
    if codes.ndim == 2:
        return codes.expand(3, -1, -1).clone()
    codes = codes.permute(2, 0, 1)
    rgb = codes[:3].flip(0) if len(codes) >= 3 else codes[:1].expand(3, -1, -1)
    return over_white(rgb, codes[-1]).contiguous() if len(codes) in (2, 4) else rgb.contiguous()
