"""Which streams of a transport stream belong together (ISO/IEC 13818-1, 2.4.4)."""

from __future__ import annotations

from pathlib import Path

from av.container import InputContainer
from av.stream import Stream

_LOOKED_AT = 2 << 20
"""Bytes at the start of a file, in which its tables are repeated many times."""

_PACKET = 188
_SIZES = (188, 192, 204)
"""Bytes from one packet to the next: plain, with a timecode (M2TS), with error correction."""


def other_programmes(path: Path, container: InputContainer, picture: Stream) -> tuple[int, ...]:
    """Indices of streams that are part of programmes of the file, but not of the picture's."""
    if container.format.name != "mpegts":
        return ()
    with path.open("rb") as file:
        programmes = _programmes(file.read(_LOOKED_AT))
    own = [pids for pids in programmes if picture.id in pids]
    if len(programmes) < 2 or not own:
        return ()
    ours = set().union(*own)
    others = set().union(*programmes) - ours
    return tuple(stream.index for stream in container.streams if stream.id in others)


def _programmes(data: bytes) -> list[set[int]]:
    """The elementary streams' PIDs, programme by programme."""
    tables: dict[int, set[int]] = {}  # by the PID of the programme's map
    maps: set[int] = set()
    for packet in _packets(data):
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if pid and pid not in maps:
            continue
        section = _section(packet)
        if section is None:
            continue
        if not pid and section[0] == 0:
            entries = section[8:]
            for at in range(0, len(entries) - 3, 4):
                if entries[at : at + 2] != b"\0\0":  # 0 is the network's own table
                    maps.add((entries[at + 2] & 0x1F) << 8 | entries[at + 3])
        elif pid and section[0] == 2:
            tables.setdefault(int.from_bytes(section[3:5], "big"), set()).update(_streams(section))
    return list(tables.values())


def _packets(data: bytes) -> list[bytes]:
    for size in _SIZES:
        first = size - _PACKET if size == 192 else 0
        starts = range(first, len(data) - _PACKET, size)
        if len(starts) > 2 and all(data[at] == 0x47 for at in starts[:8]):
            return [data[at : at + _PACKET] for at in starts if data[at] == 0x47]
    return []


def _section(packet: bytes) -> bytes | None:
    """The table that begins in this packet, without its checksum; tables longer than one packet are
    not needed, since a programme has few streams."""
    if not packet[1] & 0x40 or not packet[3] & 0x10:
        return None
    at = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    if at >= _PACKET:
        return None
    at += 1 + packet[at]
    section = packet[at:]
    if len(section) < 12:
        return None
    length = 3 + ((section[1] & 0x0F) << 8 | section[2])
    return section[: length - 4] if 12 <= length <= len(section) else None


def _streams(section: bytes) -> set[int]:
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    found = set()
    while at + 5 <= len(section):
        found.add((section[at + 1] & 0x1F) << 8 | section[at + 2])
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return found
