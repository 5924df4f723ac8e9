"""VP9 with transparency: a packet of the picture with its alpha packet as side data.

PyAV can read side data but not create it. So such a packet is read from a one-frame Matroska file,
whose block carries the alpha as an addition (Matroska, RFC 9559: BlockAdditions).
"""

from __future__ import annotations

from io import BytesIO

import av
from av import Packet

from dloral.video.matroska import SEGMENT, TRACK, TRACKS, VIDEO, ebml_element, ebml_number


def packet_with_alpha(data: bytes, alpha: bytes) -> Packet:
    """``data``, ``alpha``: VP9 frames of the same moment."""
    track = ebml_element(
        TRACK,
        ebml_number(0xD7, 1),  # TrackNumber
        ebml_number(0x73C5, 1),  # TrackUID
        ebml_number(0x83, 1),  # TrackType: video
        ebml_element(0x86, b"V_VP9"),
        ebml_element(VIDEO, ebml_number(0xB0, 16), ebml_number(0xBA, 16), ebml_number(0x53C0, 1)),
    )
    addition = ebml_element(0xA6, ebml_number(0xEE, 1), ebml_element(0xA5, alpha))  # BlockMore
    block = ebml_element(0xA1, b"\x81\0\0\0", data)
    group = ebml_element(0xA0, block, ebml_element(0x75A1, addition))
    cluster = ebml_element(0x1F43B675, ebml_number(0xE7, 0), group)
    header = ebml_element(0x1A45DFA3, ebml_element(0x4282, b"matroska"))
    segment = ebml_element(SEGMENT, ebml_element(TRACKS, track), cluster)
    with av.open(BytesIO(header + segment), mode="r", format="matroska") as container:
        return next(packet for packet in container.demux() if packet.size)
