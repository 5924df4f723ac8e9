"""A picture's metadata: EXIF, XMP, colour profile."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dloral.errors import InputError, ResourceError
from dloral.video import worker
from dloral.video.colour_profiles import has_rgb_profile
from dloral.video.companions import without_claims, xmp_of
from dloral.video.exr import is_exr
from dloral.video.media import version_of
from dloral.video.picture_kinds import opened_picture

ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD, _PREVIEW_IFD = 0x8769, 0x8825, 1
_OF_THE_PIXELS = (
    *(ORIENTATION, 0x00FE, 0x00FF, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x010A, 0x0111, 0x0115),
    *(0x0116, 0x0117, 0x011C, 0x0122, 0x0123, 0x0124, 0x0125, 0x0129, 0x013D, 0x0140, 0x0142),
    *(0x0143, 0x0144, 0x0145, 0x014C, 0x014E, 0x0152, 0x0153, 0x0154, 0x015B, 0x0200, 0x0201),
    *(0x0202, 0x0203, 0x0205, 0x0206, 0x0207, 0x0208, 0x0209, 0x0211, 0x0212, 0x0213, 0x0214),
    *(0x02BC, 0x8773),
)
"""TIFF's own tags of how the source's pixels are stored, and those that are kept apart."""


_DOTS = {0x011A, 0x011B, 0x0128, 0x0131}
"""XResolution, YResolution, ResolutionUnit, and the Software that wrote them."""

UNUSED_PROFILE = "colour profile left out: more than 8 bits are taken for sRGB"


class PictureTags(NamedTuple):
    """EXIF (upright, without a preview), XMP and colour profile of a picture, each may be empty."""

    exif: bytes
    xmp: bytes
    profile: bytes


def picture_tags(path: Path, isolated: bool = False) -> PictureTags:
    """A picture's metadata, as far as they can be read. ``isolated``: as in
    :class:`dloral.video.probe.ClipInfo`."""
    return _tags_of(path, version_of(path), isolated)


@lru_cache(maxsize=4)
def _tags_of(path: Path, version: tuple[int, int, int] | None, isolated: bool) -> PictureTags:
    """``version``: distinguishes the file from a rewritten one."""
    nothing = PictureTags(b"", b"", b"")
    if isolated:
        try:
            memory = worker.memory_to_probe(path)
            told = worker.call(worker.Task("picture_tags", path, (path.absolute(),), {}, memory))
        except (InputError, ResourceError):
            return nothing
        return told if isinstance(told, PictureTags) else nothing
    if is_exr(path):
        return nothing
    try:
        with opened_picture(path) as image:
            return _tags_in(image)
    except Exception:  # damaged bytes can lead the parser into any error there is
        return nothing


def _tags_in(image: Image.Image) -> PictureTags:
    exif, xmp = image.getexif(), without_claims(xmp_of(image))
    profile = image.info["icc_profile"] if has_rgb_profile(image) else b""
    return PictureTags(_upright_exif(exif), xmp, bytes(profile))


def lost_in_folder(image: Image.Image, bits: int) -> list[str]:
    """A line for each kind of metadata that the open picture loses as a frame of a folder, where
    only its pixels are read. ``bits``: of a channel; with 8 the colours become sRGB, and the
    profile is not lost."""
    try:
        tags = _tags_in(image)
    except Exception:  # damaged bytes can lead the parser into any error there is
        return []
    lost = {"EXIF": _says_more(tags.exif), "XMP": tags.xmp}
    lines = [f"{name} left out: not kept for folders" for name, told in lost.items() if told]
    if bits > 8 and tags.profile:
        lines.append(UNUSED_PROFILE)
    return lines


def _says_more(exif: bytes) -> bool:
    """Whether EXIF says more than what any program that writes TIFF does: dots an inch."""
    found = Image.Exif()
    found.load(exif)
    return bool(found.keys() - _DOTS)


def _upright_exif(exif: Image.Exif) -> bytes:
    """EXIF without what no longer applies: the orientation, the size, the preview."""
    try:
        for tag in _OF_THE_PIXELS:
            exif.pop(tag, None)
        if _EXIF_IFD in exif:
            details = exif.get_ifd(_EXIF_IFD)
            for tag in (0xA002, 0xA003):  # PixelXDimension, PixelYDimension
                details.pop(tag, None)
        if _GPS_IFD in exif:
            exif.get_ifd(_GPS_IFD)
        for own in (getattr(exif, "_ifds", {}), exif):
            own.pop(_PREVIEW_IFD, None)
        return exif.tobytes() if len(exif) else b""
    except Exception:  # damaged bytes can lead the parser into any error there is
        return b""
