"""Pictures in one file, shown one after another: GIF, APNG, animated WebP, multi-page TIFF.

Each frame arrives as the bytes of a single-picture file and is moved into the shared file
unchanged. So no frame is held, and a resumed job gives the same file as an unbroken one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol
from zlib import crc32

from PIL.TiffImagePlugin import AppendingTiffWriter

from dloral.errors import OutputError
from dloral.video.probe import ClipInfo

_LEAST_DELAY = 2
"""Hundredths of a second; browsers show frames with a shorter delay for a tenth of a second."""

MOST_OF_GIF = 100 // _LEAST_DELAY
"""Frames per second."""

_MOST_DELAY = 0xFFFF
_MOST_BYTES = 0xFFFF_FFF0
"""TIFF and RIFF offsets have 32 bits."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ONE_PICTURE = {b"IHDR", b"IDAT", b"IEND", b"tEXt"}


def is_animation(suffix: str, source: ClipInfo) -> bool:
    """Whether a file of this suffix holds all of a source's frames as pictures.

    Most programs show only the first picture of a .png, so a video does not become one unasked.
    """
    if suffix in (".gif", ".apng") or source.num_frames == 1:
        return suffix in (".gif", ".apng")
    is_of_pictures = source.kind == "pages" or source.plays is not None
    return suffix in (".webp", ".tif", ".tiff") or (suffix == ".png" and is_of_pictures)


@dataclass(frozen=True)
class Canvas:
    """What an animation's header says. ``plays``: how often it is shown, 0 for ever."""

    width: int
    height: int
    has_alpha: bool
    plays: int


class Animation(Protocol):
    """Takes pictures in order. ``left_out``: how many were not shown long enough to be kept."""

    left_out: int

    def add(self, picture: bytes, start: Fraction, end: Fraction) -> None:
        """A picture's file, shown from ``start`` to ``end``, in seconds from the first one."""
        ...

    def finish(self) -> None:
        """No more pictures follow."""
        ...


@contextmanager
def open_animation(path: Path, suffix: str, canvas: Canvas) -> Iterator[Animation]:
    """The file at ``path``, to be filled. Pictures are PNG for .apng, else of the same suffix."""
    kinds: dict[str, Callable[[BinaryIO, Canvas], Animation]]
    kinds = {".gif": _Gif, ".apng": _Apng, ".png": _Apng, ".webp": _WebP}
    with path.open("w+b") as file:
        yield kinds.get(suffix, _Tiff)(file, canvas)


class _Gif:
    def __init__(self, file: BinaryIO, canvas: Canvas) -> None:
        self.left_out = 0
        self._file, self._has_alpha = file, canvas.has_alpha
        self._shown = 0  # hundredths of a second: when the next picture begins
        file.write(b"GIF89a" + struct.pack("<HH", canvas.width, canvas.height) + b"\x70\0\0")
        if canvas.plays != 1:  # the file counts repetitions
            repeats = min(max(canvas.plays - 1, 0), 0xFFFF)
            file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", repeats) + b"\0")

    def add(self, picture: bytes, start: Fraction, end: Fraction) -> None:
        until = round(end * 100)
        if not self._shown:
            until = max(until, _LEAST_DELAY)
        elif until - self._shown < _LEAST_DELAY:
            self.left_out += 1  # the next one takes over its time
            return
        image, transparent = _gif_image(picture)
        # The previous picture would show through transparent pixels unless it is cleared.
        packed = 2 << 2 | 1 if transparent is not None else 2 << 2 if self._has_alpha else 1 << 2
        while self._shown < until:
            delay = min(until - self._shown, _MOST_DELAY)
            control = struct.pack("<BHB", packed, delay, transparent or 0)
            self._file.write(b"!\xf9\x04" + control + b"\0" + image)
            self._shown += delay

    def finish(self) -> None:
        self._file.write(b";")


def _gif_image(picture: bytes) -> tuple[bytes, int | None]:
    """The image of a single-picture GIF, with the file's palette as its own, and the index of its
    transparent colour."""
    palette, at, transparent = b"", 13, None
    size = picture[10] & 0b111
    if picture[10] & 0x80:
        palette = picture[at : at + (6 << size)]
        at += len(palette)
    while picture[at] == 0x21:
        if picture[at + 1] == 0xF9 and picture[at + 3] & 1:
            transparent = picture[at + 6]
        at += 2
        while picture[at]:
            at += picture[at] + 1
        at += 1
    place = picture[at : at + 9]
    return place + bytes([0x80 | size]) + palette + picture[at + 10 : -1], transparent


class _Apng:
    def __init__(self, file: BinaryIO, canvas: Canvas) -> None:
        self.left_out = 0
        self._file, self._canvas = file, canvas
        self._frames = self._chunks = 0
        self._count_at = 0

    def add(self, picture: bytes, start: Fraction, end: Fraction) -> None:
        chunks = list(_png_chunks(picture))
        if not self._frames:
            self._file.write(_PNG_SIGNATURE + _png_chunk(*chunks[0]))
            self._count_at = self._file.tell()
            self._write_count()
            for name, body in chunks:
                if name not in _ONE_PICTURE:
                    self._file.write(_png_chunk(name, body))
        canvas, delay = self._canvas, _png_delay(end - start)
        sides = struct.pack(">4I", canvas.width, canvas.height, 0, 0)
        self._write_numbered(b"fcTL", sides + struct.pack(">2H2B", *delay, 0, 0))
        pixels = b"".join(body for name, body in chunks if name == b"IDAT")
        if self._frames:
            self._write_numbered(b"fdAT", pixels)
        else:
            self._file.write(_png_chunk(b"IDAT", pixels))
        self._frames += 1

    def finish(self) -> None:
        self._file.write(_png_chunk(b"IEND", b""))
        self._file.seek(self._count_at)
        self._write_count()

    def _write_count(self) -> None:
        body = struct.pack(">2I", self._frames, self._canvas.plays)
        self._file.write(_png_chunk(b"acTL", body))

    def _write_numbered(self, name: bytes, body: bytes) -> None:
        self._file.write(_png_chunk(name, struct.pack(">I", self._chunks) + body))
        self._chunks += 1


def _png_delay(seconds: Fraction) -> tuple[int, int]:
    """Numerator and denominator of two bytes each."""
    seconds = min(seconds, Fraction(0xFFFF))
    delay = seconds.limit_denominator(max(0xFFFF // max(math.ceil(seconds), 1), 1))
    return delay.numerator, delay.denominator


def _png_chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG_SIGNATURE)
    while at < len(picture):
        (size,) = struct.unpack_from(">I", picture, at)
        yield picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]
        at += 12 + size


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc32(name + body))


class _WebP:
    def __init__(self, file: BinaryIO, canvas: Canvas) -> None:
        self.left_out = 0
        self._file, self._canvas = file, canvas
        self._last: list[tuple[bytes, bytes]] | None = None  # chunks that follow all frames

    def add(self, picture: bytes, start: Fraction, end: Fraction) -> None:
        chunks = list(_riff_chunks(picture))
        if self._last is None:
            self._begin(dict(chunks))
        canvas = self._canvas
        length = min(max(round(end * 1000) - round(start * 1000), 1), 0xFFFFFF)
        numbers = (0, 0, canvas.width - 1, canvas.height - 1, length)
        head = b"".join(number.to_bytes(3, "little") for number in numbers) + b"\x02"  # no blending
        coded = [chunk for chunk in chunks if chunk[0] in (b"ALPH", b"VP8 ", b"VP8L")]
        self._write(b"ANMF", head + b"".join(_riff_chunk(*chunk) for chunk in coded))

    def _begin(self, first: dict[bytes, bytes]) -> None:
        canvas = self._canvas
        bits = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
        flags = 0x02 | canvas.has_alpha * 0x10 | sum(bits[name] for name in bits if name in first)
        sides = ((side - 1).to_bytes(3, "little") for side in (canvas.width, canvas.height))
        self._file.write(b"RIFF\0\0\0\0WEBP")
        self._write(b"VP8X", struct.pack("<I", flags) + b"".join(sides))
        if profile := first.get(b"ICCP"):
            self._write(b"ICCP", profile)
        self._write(b"ANIM", struct.pack("<IH", 0, min(canvas.plays, 0xFFFF)))
        self._last = [(name, first[name]) for name in (b"EXIF", b"XMP ") if name in first]

    def _write(self, name: bytes, body: bytes) -> None:
        _check_room(self._file, len(body), "WebP")
        self._file.write(_riff_chunk(name, body))

    def finish(self) -> None:
        for chunk in self._last or ():
            self._write(*chunk)
        size = self._file.tell() - 8
        self._file.seek(4)
        self._file.write(struct.pack("<I", size))


def _riff_chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(picture):
        (size,) = struct.unpack_from("<I", picture, at + 4)
        yield picture[at : at + 4], picture[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


class _Tiff:
    def __init__(self, file: BinaryIO, canvas: Canvas) -> None:
        self.left_out = 0
        self._file = file
        self._pages = AppendingTiffWriter(file)

    def add(self, picture: bytes, start: Fraction, end: Fraction) -> None:
        _check_room(self._file, len(picture), "TIFF")
        self._pages.write(picture)
        self._pages.newFrame()

    def finish(self) -> None:
        self._pages.close()


def _check_room(file: BinaryIO, more: int, kind: str) -> None:
    if file.tell() + more > _MOST_BYTES:
        raise OutputError(
            f"the result has more than 4 GB, which a {kind} cannot hold",
            remedy="write a video, .apng or a folder of frames, or a shorter part",
        )
