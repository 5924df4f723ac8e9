"""What a packet's own header says of its stream: enough to see a change without decoding.

Sources: ITU-T H.264 and H.265 (NAL units), ISO/IEC 13818-2 and 14496-2 (start codes), RFC 6386
(VP8), the VP9 and AV1 bitstream specifications, ISO/IEC 10918-1 (JPEG); for sound ISO/IEC 13818-7
(ADTS), 11172-3 (MPEG audio), ATSC A/52 (AC-3 and, in annex E, E-AC-3) and ETSI TS 102 114 (DTS).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from av import Packet

_LOOKED_AT = 1 << 16
"""Bytes of a packet to search for its header."""

_START_CODE = b"\0\0\1"


def picture_header(codec: str, packet: Packet) -> bytes | None:
    """The part of a key frame that holds the picture's size, as it is stored; it may hold more.

    None if the packet has none, or the codec is not known here. Equal headers mean equal sizes; if
    they differ, only a decoder can tell what changed.
    """
    if packet.has_sidedata("new_extradata"):
        return bytes(packet.get_sidedata("new_extradata"))
    find = _FINDERS.get(codec)
    return find(bytes(memoryview(packet)[:_LOOKED_AT])) if find else None


def _nal_units(data: bytes, is_size: re.Pattern[bytes]) -> bytes | None:
    """Parameter sets of Annex B, or of length-prefixed NAL units with 4 bytes of length."""
    if data.startswith((_START_CODE, b"\0" + _START_CODE)):
        units = data.split(_START_CODE)[1:]
    else:
        units, at = [], 0
        while at + 5 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            units.append(data[at + 4 : at + 4 + length])
            at += 4 + length
    found = [unit.rstrip(b"\0") for unit in units if is_size.match(unit[:2])]
    return b"".join(found) or None


def _h264(data: bytes) -> bytes | None:
    return _nal_units(data, re.compile(rb"[\x07\x27\x47\x67]", re.DOTALL))  # type 7


def _hevc(data: bytes) -> bytes | None:
    return _nal_units(data, re.compile(rb"[\x42\x43]", re.DOTALL))  # type 33


def _mpeg2(data: bytes) -> bytes | None:
    at = data.find(b"\0\0\1\xb3")
    return data[at + 4 : at + 8] if at >= 0 else None


def _mpeg4(data: bytes) -> bytes | None:
    found = re.search(rb"\x00\x00\x01[\x20-\x2f](.*?)(?=\x00\x00\x01|$)", data, re.DOTALL)
    return found[1] if found else None


def _vp8(data: bytes) -> bytes | None:
    return data[6:10] if data[3:6] == b"\x9d\x01\x2a" else None


def _vp9(data: bytes) -> bytes | None:
    return data[:10] if b"\x49\x83\x42" in data[:5] else None


def _av1(data: bytes) -> bytes | None:
    """The sequence header OBU of a temporal unit."""
    at = 0
    while at + 2 <= len(data):
        kind, has_extension, has_size = data[at] >> 3 & 15, data[at] & 4, data[at] & 2
        at += 2 if has_extension else 1
        if not has_size:
            return None
        length = shift = 0
        while at < len(data):
            byte, at = data[at], at + 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if kind == 1:
            return data[at : at + length]
        at += length
    return None


def _mjpeg(data: bytes) -> bytes | None:
    found = re.search(rb"\xff[\xc0-\xc2]..(.{5})", data, re.DOTALL)
    return found[1] if found else None


def _prores(data: bytes) -> bytes | None:
    return data[16:20] if data[4:8] == b"icpf" else None


_FINDERS = {
    "h264": _h264,
    "hevc": _hevc,
    "mpeg1video": _mpeg2,
    "mpeg2video": _mpeg2,
    "mpeg4": _mpeg4,
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
    "mjpeg": _mjpeg,
    "prores": _prores,
}


class SoundHeader(NamedTuple):
    """``layout``: the codec's own number of channels or mode; ``rate``: its number of a rate."""

    rate: int
    layout: int
    profile: int = 0


SOUND_HEADER = 11
"""Bytes in which :func:`sound_header` looks."""


def sound_header(codec: str, start: bytes) -> SoundHeader | None:
    """What the first bytes of a packet say; None if they are not a header of ``codec``."""
    if len(start) < 8:
        return None
    if codec == "aac":  # ADTS
        if start[0] != 0xFF or start[1] & 0xF6 != 0xF0 or start[2] >> 2 & 15 > 12:
            return None
        channels = (start[2] & 1) << 2 | start[3] >> 6
        return SoundHeader(start[2] >> 2 & 15, channels, start[2] >> 6)
    if codec in ("mp1", "mp2", "mp3"):
        if start[0] != 0xFF or start[1] & 0xE0 != 0xE0 or start[2] >> 2 & 3 == 3:
            return None
        return SoundHeader((start[1] >> 3 & 3) << 2 | start[2] >> 2 & 3, start[3] >> 6 == 3)
    if codec == "ac3" and start[:2] == b"\x0b\x77":
        mode = start[6] >> 5
        skipped = 2 * ((mode & 1 and mode != 1) + bool(mode & 4) + (mode == 2))
        lfe = ((start[6] << 8 | start[7]) >> (12 - skipped)) & 1
        return SoundHeader(start[4] >> 6, mode << 1 | lfe)
    if codec == "eac3" and start[:2] == b"\x0b\x77" and start[2] >> 6 != 1:  # not a dependent part
        rate = start[4] >> 4 if start[4] >> 6 == 3 else start[4] >> 6
        return SoundHeader(rate, start[4] & 15)
    if codec == "dts" and start[:4] == b"\x7f\xfe\x80\x01" and len(start) >= SOUND_HEADER:
        bits = int.from_bytes(start[:11], "big")
        mode, rate, low = bits >> 22 & 63, bits >> 18 & 15, bits >> 1 & 3
        return SoundHeader(rate, mode << 1 | (low in (1, 2)))
    return None


def adts_length(start: bytes) -> int:
    """Bytes of an ADTS frame, its header included."""
    return (start[3] & 3) << 11 | start[4] << 3 | start[5] >> 5
