"""Whether a file is complete: the size its container declares, against the size on disk.

FFmpeg reads a truncated file up to the break and treats that as the end. For a restoration that is
the wrong answer, given hours too late; so the break is found first.
Sources: ISO/IEC 14496-12, 4.2 (boxes); RFC 8794, 4 and 6 (EBML); the RIFF and GIF89a formats.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dloral.errors import InputError

_SEGMENT = 0x18538067
_EBML = 0x1A45DFA3
_BOXES = {
    *(b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"mfra", b"sidx", b"styp"),
    *(b"uuid", b"meta", b"udta", b"pnot", b"emsg", b"pdin", b"prft"),
}
"""Boxes at the top level of an MP4 or MOV file; anything else is taken for padding."""

_NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}

_AVI_SLACK = 64
"""Bytes by which writers of AVI get their own size wrong."""


def check_whole(path: Path) -> None:
    """InputError if the container promises more bytes than the file has.

    MPEG streams carry no such promise and are read to wherever they end.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        promised = _promised_size(file, size)
        claimed = _most_samples(file, size)
    if claimed > size:
        raise InputError(
            "{path} is damaged: its tables claim {value} samples in {size} bytes",
            remedy="get the file again",
            path=path,
            value=claimed,
            size=size,
        )
    if promised > size:
        raise InputError(
            f"{path} is cut off: it has {size} of at least {promised} bytes; "
            "get the whole file, or save what is left of it with another tool"
        )


def _promised_size(file: BinaryIO, size: int) -> int:
    """Bytes that the container says it has, at least; ``size`` if it does not say."""
    start = file.read(12)
    if start[:4] == b"RIFF" and start[8:] == b"AVI ":
        length = int.from_bytes(start[4:8], "little")
        return length if length + 8 > size + _AVI_SLACK and length < 0xFFFFFF00 else size
    if start[:3] == b"GIF":
        return _gif_size(file, size)
    if int.from_bytes(start[:4], "big") == _EBML:
        return _matroska_size(file, size)
    if start[4:8] in _BOXES:
        return _boxes_size(file, size)
    return size


def _boxes_size(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if header[4:8] not in _BOXES or length < 8:
            return size  # padding, or a last box that reaches to the end of the file
        at += length
    return at


def _most_samples(file: BinaryIO, size: int) -> int:
    """Samples that the largest table of an MP4 or MOV claims (``stsz``): FFmpeg makes 30 bytes of
    each before anything is decoded, and none of them takes less than one in the file."""
    file.seek(4)
    if file.read(4) not in _BOXES:
        return 0
    most = 0
    spans = [(0, size)]
    while spans:
        at, end = spans.pop()
        while at + 8 <= end:
            file.seek(at)
            header = file.read(20)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            begin = at + 8
            if length == 1:
                length, begin = int.from_bytes(header[8:16], "big"), at + 16
            if length < 8:
                break
            if kind in _NESTED:
                spans.append((begin, min(at + length, end)))
            elif kind == b"stsz":
                most = max(most, int.from_bytes(header[16:20], "big"))
            at += length
    return most


def _gif_size(file: BinaryIO, size: int) -> int:
    """Where the block after the last whole one would begin."""
    file.seek(0)
    header = file.read(13)
    at = 13 + _gif_table(header[10:11])
    while at < size:
        file.seek(at)
        kind = file.read(1)
        if kind == b",":  # an image: descriptor, its own colours, code size
            descriptor = file.read(9)
            at += 11 + _gif_table(descriptor[8:9])
        elif kind == b"!":  # an extension and its label
            at += 2
        else:
            return size  # the trailer, or junk that players skip
        file.seek(at)
        while at < size and (length := file.read(1)[0]):
            file.seek(length, 1)
            at += 1 + length
        at += 1
    return at


def _gif_table(flags: bytes) -> int:
    """Bytes of the colour table that ``flags`` announce."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _matroska_size(file: BinaryIO, size: int) -> int:
    at = 0
    for _ in range(2):  # the EBML header, then the segment that holds all else
        if at > size:  # and maybe further than a seek can reach
            return at
        file.seek(at)
        element = int.from_bytes(file.read(4), "big")
        first = file.read(1)
        if not first or not first[0]:
            return 0
        length = 9 - first[0].bit_length()
        rest = file.read(length - 1)
        value = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
        unknown = value == (1 << (7 * length)) - 1  # as live streams write
        at += 4 + length + (0 if unknown else value)
        if element == _SEGMENT:
            return 0 if unknown else at
    return 0
