"""What kind of picture a file is, by its first bytes and its name; and how each is opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dloral.errors import DLoRALError, InputError
from dloral.video.media import MAX_INPUT_PIXELS, check_size, first_bytes

# Pillow's complaints about damaged bytes are in our one-line error, or did no harm.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

RAW_SUFFIXES = (
    *(".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".orf", ".rw2"),
    *(".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".rwl", ".erf", ".kdc", ".mrw"),
)
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "TGA", "PPM", "AVIF")
SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"\x76\x2f\x31\x01"),
    *(b"P5\n", b"P6\n", b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"),
)
_LARGE = 2**24
_MOST_PIXELS_A_BYTE = 4096
"""More than any picture with content has: a white page at 600 dpi has fewer."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"avis", b"crx ")
"""ISO/IEC 23008-12 and the AVIF specification; crx is Canon's RAW."""


def looks_like_image(path: Path) -> bool:
    """Whether the first bytes are those of a still picture (an animated PNG is a video)."""
    start = first_bytes(path)
    if path.suffix.lower() in (
        ".tga",
        *RAW_SUFFIXES,
    ):  # TGA has no signature; RAW is refused by name
        return True
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    if start[4:8] == b"ftyp":
        return start[8:12] in _HEIF_BRANDS
    if start.startswith(SIGNATURES[0]):
        return b"acTL" not in first_bytes(path, 4096)
    return start.startswith(SIGNATURES)


@contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    start = first_bytes(path, 12)
    if start[4:8] == b"ftyp" and not _is_avif(path):
        import pillow_heif  # loads a codec of 10 MB

        with pillow_heif.HeifImageFile(path) as image:
            yield image
        return
    with Image.open(path, formats=_FORMATS) as image:
        yield image


@contextmanager
def reading_picture(path: Path, problem: str) -> Iterator[None]:
    """Whatever a decoder raises in the block is an InputError: ``{path} <problem>``.

    Damaged bytes make Pillow, libheif and OpenCV raise all kinds of errors, TypeError and
    ZeroDivisionError among them.
    """
    try:
        yield
    except (DLoRALError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{{path}} is too large; at most {MAX_INPUT_PIXELS} pixels are read",
            remedy="make it smaller",
            path=path,
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{{path}} {problem}: damaged or cut off, or of a kind that is not supported",
            remedy="get the whole file, or save it as a PNG",
            path=path,
        ) from error
    except Exception as error:
        raise InputError(
            f"{{path}} {problem}: damaged or cut off", remedy="get the whole file", path=path
        ) from error


def check_picture_size(path: Path, width: int, height: int) -> None:
    """InputError, before anything is decoded, if a picture is empty, absurdly large, or so much
    larger than its file that it can hold next to nothing."""
    check_size(path, height, width)
    size = path.stat().st_size
    if width * height > max(_LARGE, _MOST_PIXELS_A_BYTE * size):
        raise InputError(
            f"{{path}} is {width}x{height} in {size} bytes, which is a blank picture at best",
            remedy="make it smaller first",
            path=path,
        )


def _is_avif(path: Path) -> bool:
    """A file of the brand mif1 says among the others what its pictures are coded in."""
    start = first_bytes(path, 64)
    size = int.from_bytes(start[:4], "big")
    brands = (start[8:12], start[16 : max(size, 16)])
    return any(name in brand for name in (b"avif", b"avis") for brand in brands)


def plays_of(path: Path) -> int | None:
    """How often a GIF or APNG is shown, 0 for ever; None for other files."""
    if not first_bytes(path).startswith((b"GIF8", SIGNATURES[0])):
        return None
    try:
        with Image.open(path, formats=("GIF", "PNG")) as image:
            return played(image)
    except Exception:  # damaged: said where it is read
        return None


def played(image: Image.Image) -> int | None:
    """As :func:`plays_of`, for an open picture."""
    told = image.info.get("loop")
    if image.format == "GIF":  # it says how often it is repeated
        return 1 if told is None else told + 1 if told else 0
    return told if isinstance(told, int) else None


def check_not_raw(path: Path) -> None:
    start = first_bytes(path)
    is_tiff = start.startswith((b"II*\0", b"MM\0*"))
    is_raw = (
        path.suffix.lower() in RAW_SUFFIXES
        or (is_tiff and start[8:10] == b"CR")
        or start[4:12] == b"ftypcrx "
        or start.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"))
        or (is_tiff and _is_dng(path))
    )
    if is_raw:
        raise InputError(
            "{path} is a camera's RAW file",
            remedy="develop it to TIFF or PNG first, with darktable or RawTherapee for example",
            path=path,
        )


def _is_dng(path: Path) -> bool:
    try:
        with Image.open(path, formats=("TIFF",)) as image:
            return 50706 in getattr(image, "tag_v2", {})  # DNGVersion
    except Exception:  # damaged: said where it is read
        return False
