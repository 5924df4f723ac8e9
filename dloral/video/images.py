"""Still pictures and folders of numbered frames."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dloral.errors import InputError
from dloral.video.colour import over_white
from dloral.video.colour_profiles import as_rgb
from dloral.video.companions import companion_notes
from dloral.video.exr import exr_header, is_exr, load_exr
from dloral.video.hdr import HLG, PQ, WIDE
from dloral.video.header import Header
from dloral.video.heif import (
    PictureFacts,
    heif_facts,
    load_deep_avif,
    load_deep_heic,
    sequence_times,
)
from dloral.video.media import existing_path, first_bytes, reason
from dloral.video.picture_kinds import (
    RAW_SUFFIXES,
    SIGNATURES,
    check_not_raw,
    check_picture_size,
    opened_picture,
    played,
    reading_picture,
)
from dloral.video.picture_tags import ORIENTATION, lost_in_folder
from dloral.video.see_through import may_show_through
from dloral.video.wide_pictures import WidePicture

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".tga", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".exr"),
)
"""What counts as a frame in a folder."""

WRITABLE_SUFFIXES = (*(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".exr", ".gif", ".apng"),)
FOLDER_FPS = Fraction(24)
JPEG_QUALITY = 95

_UNREAD = (
    *(".gif", ".psd", ".dpx", ".jp2", ".jxl", ".jxr", ".j2k", ".hdr", ".svg", ".pcx", ".sgi"),
    *(".apng", ".mp4", ".mov", ".mkv", ".webm", ".avi"),
)
"""Pictures and clips that cannot be frames of a folder: reported, not skipped silently."""

AFTER_IHDR = 33
_MARK_TEXT = b"tEXtSoftware\0dloral frame"
MARK = (len(_MARK_TEXT) - 4).to_bytes(4, "big") + _MARK_TEXT + crc32(_MARK_TEXT).to_bytes(4, "big")
"""A text chunk right after the header chunk of a PNG (PNG specification, 11.3.3.2)."""

_TURNED = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""

_MIRRORED = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}
"""Axes of (3,H,W) that an EXIF orientation mirrors, after the swap."""


def image_header(path: Path, page_fps: Fraction = FOLDER_FPS) -> Header:
    """What a picture is; InputError in one line if it is damaged, too large or a camera's RAW.

    ``page_fps``: how many pages of a TIFF are shown per second.
    """
    check_not_raw(path)
    if is_exr(path):
        return exr_header(path)
    with reading_picture(path, "is not a readable image"), opened_picture(path) as image:
        width, height = image.size
        check_picture_size(path, width, height)
        orientation = _orientation(image)
        if orientation in _TURNED:
            width, height = height, width
        kind = str(image.format).lower()
        times, end, is_wide, has_alpha = _pages_of(path, image, page_fps)
        facts = PictureFacts(16 if is_wide else 8, *_coded_colours(path, image))
        beside = companion_notes(image)
        if kind in ("heif", "heic", "avif"):
            facts = heif_facts(path, *image.size, kind == "avif", len(times))
        bits, primaries, transfer, notes = facts
        plays, unkept = played(image), tuple(lost_in_folder(image, bits))
    colours, notes = (has_alpha, primaries, transfer), (*notes, *beside)
    return Header(
        height, width, kind, bits, orientation, *colours, times, end, plays, notes, unkept
    )


def load_image(
    source: str | Path,
    page: int = 0,
    keep_alpha: bool = False,
    keep_profile: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> Tensor:
    """A still picture as float32 (3,H,W) RGB in [0, 1], upright, in sRGB, over white.

    ``keep_alpha``: (4,H,W) with straight alpha instead, if it has any; ``keep_profile``: in its own
    colour space; ``page``: in a file of several. OpenEXR is linear light, from 0 on. ``on_note`` is
    told of pixels that are NaN or infinite. Raises InputError in one line if the file is missing,
    cut off or not a picture, or holds values beyond 1.
    """
    path = existing_path(source)
    header = image_header(path)
    with reading_picture(path, "cannot be decoded"):
        if header.kind == "exr":
            return load_exr(path, keep_alpha)
        if header.kind == "avif" and header.bits > 8:
            rgba = next(itertools.islice(load_deep_avif(path), page, None))
        elif header.kind in ("heif", "heic") and header.bits > 8:
            rgba = load_deep_heic(path)
        elif header.bits == 16:
            rgba = WidePicture(path, on_note).page(page)
        else:
            rgba = _load_usual(path, page, keep_profile)
    if len(rgba) == 4 and not keep_alpha:
        rgba = over_white(rgba[:3], rgba[3])
    return _upright(rgba.contiguous(), header.orientation)


def load_pages(
    path: Path,
    count: int,
    keep_alpha: bool,
    keep_profile: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[Tensor]:
    """:func:`load_image` for each picture of a file, one after another."""
    header = image_header(path)
    with closing(_decoded_pages(path, header, keep_profile, on_note)) as pages:
        for page in range(count):
            with reading_picture(path, f"cannot be decoded at picture {page + 1}"):
                rgba = next(pages)
            if len(rgba) == 4 and not keep_alpha:
                rgba = over_white(rgba[:3], rgba[3])
            yield _upright(rgba.contiguous(), header.orientation)


def _decoded_pages(
    path: Path, header: Header, keep_profile: bool, on_note: Callable[[str], None] | None
) -> Generator[Tensor, None, None]:
    """As stored. The file is opened once: what comes before a page is not decoded again."""
    if header.bits > 8 and header.kind == "avif":
        yield from load_deep_avif(path)
    elif header.bits > 8:
        stack = WidePicture(path, on_note)
        for page in itertools.count():
            yield stack.page(page)
    else:
        with opened_picture(path) as image:
            for page in itertools.count():
                image.seek(page)
                yield _as_tensor(image, keep_profile)


def _coded_colours(path: Path, image: Image.Image) -> tuple[int | None, int | None]:
    """Primaries and transfer that a PNG's cICP chunk says, where that is HDR, or has more colours
    than sRGB and no profile says so too."""
    start = first_bytes(path, 4096)
    at = start.find(b"cICP", AFTER_IHDR)
    if not start.startswith(SIGNATURES[0]) or at < 0 or len(start) < at + 8:
        return None, None
    primaries, transfer = start[at + 4], start[at + 5]
    is_wide = primaries in WIDE and "icc_profile" not in image.info
    return (primaries, transfer) if transfer in (PQ, HLG) or is_wide else (None, None)


class _Pages(NamedTuple):
    """When each is shown and the last one ends, in seconds; whether any has more than 8 bits, or
    a way to be transparent."""

    times: tuple[Fraction, ...]
    end: Fraction
    is_wide: bool
    has_alpha: bool


def _pages_of(path: Path, image: Image.Image, fps: Fraction) -> _Pages:
    count = getattr(image, "n_frames", 1)
    is_wide = image.mode.startswith(("I", "F")) or _is_wide_png(path) or _is_wide_tiff(image)
    has_alpha = may_show_through(image)
    if count < 2 or image.format not in ("TIFF", "WEBP", "AVIF"):
        return _Pages((), Fraction(0), is_wide, has_alpha)
    if image.format == "AVIF" and (told := sequence_times(path, count)):
        return _Pages(*told, is_wide, has_alpha)
    times, now, size = [], Fraction(0), image.size
    for page in range(count):
        image.seek(page)
        if image.format == "TIFF":
            tags = getattr(image, "tag_v2", {})
            if page and tags.get(254, 0) & 1:  # NewSubfileType: a smaller version of another
                break
            if page and image.size != size:
                raise InputError(
                    f"{{path}} holds pages of different sizes: {size[0]}x{size[1]} and "
                    f"{image.width}x{image.height}",
                    remedy="save them as separate files",
                    path=path,
                )
            length = 1 / fps
            is_wide = is_wide or image.mode.startswith(("I", "F")) or _is_wide_tiff(image)
            has_alpha = has_alpha or may_show_through(image)
        else:
            image.load()  # which tells how long it is shown
            length = Fraction(max(int(image.info.get("duration") or 0), 0) or 100, 1000)
        times.append(now)
        now += length
    if len(times) < 2:
        times, now = [], Fraction(0)
    return _Pages(tuple(times), now, is_wide, has_alpha)


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


def is_marked(path: Path) -> bool:
    """Whether a writer made this frame (:func:`dloral.video.picture_files.marked`)."""
    return first_bytes(path, AFTER_IHDR + len(MARK))[AFTER_IHDR:] == MARK


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder in natural order: ``f2.png`` comes before ``f10.png``.

    InputError where other pictures lie between them; see also :func:`other_files`.
    """
    files = _listed(folder)
    frames = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    for file in files if frames else ():
        if file.suffix.lower() in (*_UNREAD, *RAW_SUFFIXES):
            raise InputError(
                "{path} holds {value}, which is not read as a frame",
                remedy="convert it to PNG, or take it out of the folder",
                path=folder,
                value=file.name,
            )
    if not frames:
        raise InputError(
            "{path} holds no frames",
            remedy=f"give a folder with {', '.join(IMAGE_SUFFIXES)} files",
            path=folder,
        )
    return sorted(frames, key=lambda path: _natural(path.name))


def other_files(folder: Path) -> list[str]:
    """Names of files in a folder of frames that are not pictures."""
    return sorted(
        file.name
        for file in _listed(folder)
        if file.suffix.lower() not in IMAGE_SUFFIXES and file.name.lower() != "thumbs.db"
    )


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder of frames, which are not looked into."""
    return sorted(path.name for path in _listed(folder, Path.is_dir))


def _listed(folder: Path, is_wanted: Callable[[Path], bool] = Path.is_file) -> list[Path]:
    try:
        return [
            path for path in folder.iterdir() if not path.name.startswith(".") and is_wanted(path)
        ]
    except OSError as error:  # a folder may be listed and yet not be entered
        raise InputError(
            "{path} cannot be read: {value}", path=folder, value=reason(error)
        ) from error


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part.lower()) for part in parts]


def _is_wide_png(path: Path) -> bool:
    start = first_bytes(path, 26)  # IHDR: the bit depth is byte 24
    return start.startswith(SIGNATURES[0]) and len(start) > 24 and start[24] == 16


def _is_wide_tiff(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", None)
    return tags is not None and max(tags.get(258, (8,))) > 8  # 258: BitsPerSample


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation still to be applied, 1 to 8; a broken EXIF block counts as none."""
    if image.format in ("TIFF", "HEIF"):
        return 1  # Pillow and OpenCV turn TIFF themselves, libheif its own
    if image.format == "PNG":
        image.load()  # the block may come after the pixels; damaged pixels are an error, here
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # damaged bytes can lead the parser into any error there is
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 2)
    mirrored = _MIRRORED.get(orientation)
    return pixels.flip(mirrored).contiguous() if mirrored else pixels.contiguous()


def _load_usual(path: Path, page: int, keep_profile: bool) -> Tensor:
    with opened_picture(path) as opened:
        if page:
            opened.seek(page)
        return _as_tensor(opened, keep_profile)


def _as_tensor(opened: Image.Image, keep_profile: bool) -> Tensor:
    """(3,H,W) in [0, 1], with alpha (4,H,W)."""
    opened.load()
    codes = torch.from_numpy(np.array(as_rgb(opened, keep_profile), dtype=np.float32))
    return codes.permute(2, 0, 1).div_(255).contiguous()
