"""VP9 with transparency: a packet of the picture with its alpha packet as side data.

PyAV can read side data but not create it. So such a packet is read from a one-frame Matroska file,
whose block carries the alpha as an addition (Matroska, RFC 9559: BlockAdditions).
"""

from __future__ import annotations

from io import BytesIO

import av
from av import Packet


def packet_with_alpha(data: bytes, alpha: bytes) -> Packet:
    """``data``, ``alpha``: VP9 frames of the same moment."""
    track = _element(
        0xAE,
        _number(0xD7, 1),  # TrackNumber
        _number(0x73C5, 1),  # TrackUID
        _number(0x83, 1),  # TrackType: video
        _element(0x86, b"V_VP9"),
        _element(0xE0, _number(0xB0, 16), _number(0xBA, 16), _number(0x53C0, 1)),
    )
    addition = _element(0xA6, _number(0xEE, 1), _element(0xA5, alpha))  # BlockMore
    block = _element(0xA1, b"\x81\0\0\0", data)
    group = _element(0xA0, block, _element(0x75A1, addition))
    cluster = _element(0x1F43B675, _number(0xE7, 0), group)
    header = _element(0x1A45DFA3, _element(0x4282, b"matroska"))
    segment = _element(0x18538067, _element(0x1654AE6B, track), cluster)
    with av.open(BytesIO(header + segment), mode="r", format="matroska") as container:
        return next(packet for packet in container.demux() if packet.size)


def _element(identity: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    name = identity.to_bytes((identity.bit_length() + 7) // 8, "big")
    return name + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _number(identity: int, value: int) -> bytes:
    return _element(identity, value.to_bytes(4, "big"))
