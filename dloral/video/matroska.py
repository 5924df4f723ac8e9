"""What PyAV neither reads nor writes of a Matroska file's header (RFC 9559, EBML: RFC 8794).

FFmpeg's muxer takes the pixel aspect ratio from a field that PyAV cannot set. So the picture's
track is given a name with room to spare (:data:`SPARE`), which the aspect ratio takes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

SEGMENT, TRACKS, TRACK, VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_VOID, _CRC, _NAME = 0xEC, 0xBF, 0x536E
_WIDTH, _HEIGHT = 0xB0, 0xBA
_SHOWN_WIDTH, _SHOWN_HEIGHT, _SHOWN_UNIT = 0x54B0, 0x54BA, 0x54B2
_ASPECT = 3
"""DisplayUnit: shown width and height are a ratio, not pixels."""

SPARE = " " * 60
"""At the end of the name of a track whose pixels are not square."""

_SHORT = 127
"""Bytes from which on an element's size takes eight bytes of ours, not one."""


def ebml_element(identifier: int, *contents: bytes) -> bytes:
    """An element that holds ``contents``."""
    body = b"".join(contents)
    size = len(body)
    stated = bytes([0x80 | size]) if size < _SHORT else (size | 1 << 56).to_bytes(8, "big")
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + stated + body


def ebml_number(identifier: int, value: int) -> bytes:
    """An element that holds an unsigned number below 2**32."""
    return ebml_element(identifier, value.to_bytes(4, "big"))


def ebml_children(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Identifier and body of each element in the body of another."""
    at = 0
    while at < len(body):
        identifier, begin, end = _placed(body[at : at + 12])
        yield identifier, body[at + begin : at + end]
        at += end


def ebml_child(body: bytes, *path: int) -> bytes | None:
    """The body of the first element at ``path``, one identifier a level."""
    found: bytes | None = body
    for wanted in path:
        found = next((inner for one, inner in ebml_children(found or b"") if one == wanted), None)
    return found


def write_pixel_aspect(path: Path, aspect: Fraction, suffix: str) -> None:
    """Record in a finished file that its picture's pixels are ``aspect`` times as wide as high.

    Its track's name ends in :data:`SPARE`. WebM (by ``suffix``) knows whole pixels only, so there
    the picture is shown up to half a pixel wider or narrower. ValueError if there is no such track.
    """
    with path.open("r+b") as file:
        begin, end = _place_of_tracks(file)
        file.seek(begin)
        tracks = list(ebml_children(file.read(end - begin)))
        parts = []
        for identifier, body in tracks:
            if identifier == TRACK and ebml_child(body, VIDEO) is not None:
                body = _with_aspect(body, aspect, suffix == ".webm")
            if identifier not in (_CRC, _VOID):
                parts.append(ebml_element(identifier, body))
        has_sum = tracks[0][0] == _CRC
        left = end - begin - sum(map(len, parts)) - (6 if has_sum else 0)
        if left < 2:
            raise ValueError(f"{-left} bytes too few for the pixel aspect ratio")
        content = b"".join(parts) + _void(left)
        if has_sum:
            content = ebml_element(_CRC, crc32(content).to_bytes(4, "little")) + content
        file.seek(begin)
        file.write(content)


def _with_aspect(track: bytes, aspect: Fraction, whole_pixels: bool) -> bytes:
    parts = []
    for identifier, body in ebml_children(track):
        if identifier == _NAME:
            body = body.rstrip(b" ")
            if not body:
                continue
        elif identifier == VIDEO:
            body = _video_with_aspect(body, aspect, whole_pixels)
        parts.append(ebml_element(identifier, body))
    return b"".join(parts)


def _video_with_aspect(video: bytes, aspect: Fraction, whole_pixels: bool) -> bytes:
    numbers = {_SHOWN_WIDTH, _SHOWN_HEIGHT, _SHOWN_UNIT}
    kept = [(name, body) for name, body in ebml_children(video) if name not in numbers]
    sides = dict(kept)
    width, height = (int.from_bytes(sides[side], "big") for side in (_WIDTH, _HEIGHT))
    if whole_pixels:
        told = {_SHOWN_WIDTH: max(round(width * aspect), 1), _SHOWN_HEIGHT: height}
    else:
        shown = (width * aspect / height).limit_denominator(1 << 20)
        told = {_SHOWN_WIDTH: shown.numerator, _SHOWN_HEIGHT: shown.denominator}
        told[_SHOWN_UNIT] = _ASPECT
    added = [ebml_number(*one) for one in told.items()]
    return b"".join([*(ebml_element(*one) for one in kept), *added])


def _void(size: int) -> bytes:
    """An element of ``size`` bytes, at least 2, that says nothing."""
    if size < _SHORT + 2:
        return ebml_element(_VOID, bytes(size - 2))
    return bytes([_VOID]) + (size - 9 | 1 << 56).to_bytes(8, "big") + bytes(size - 9)


def _place_of_tracks(file: BinaryIO) -> tuple[int, int]:
    """Where the body of the element that describes the tracks begins and ends."""
    at = 0
    while True:
        file.seek(at)
        identifier, begin, end = _placed(file.read(12))
        if identifier == TRACKS:
            return at + begin, at + end
        at += begin if identifier == SEGMENT else end


def _placed(start: bytes) -> tuple[int, int, int]:
    """An element's identifier, and where its body begins and ends, from its first 12 bytes.
    ValueError if there is none."""
    if len(start) < 2 or not start[0]:
        raise ValueError("no element of Matroska")
    at = 9 - start[0].bit_length()
    length = 9 - (start[at] if at < len(start) else 0).bit_length()
    begin = at + length
    size = int.from_bytes(start[at:begin], "big") & ((1 << 7 * length) - 1)
    return int.from_bytes(start[:at], "big"), begin, begin + size
