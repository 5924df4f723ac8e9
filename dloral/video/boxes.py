"""The boxes that MP4, MOV, HEIC and AVIF files are made of (ISO/IEC 14496-12, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator


def boxes_in(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each box that is whole in ``content``."""
    at = 0
    while at + 8 <= len(content):
        size, head = int.from_bytes(content[at : at + 4]), 8
        if size == 1:
            size, head = int.from_bytes(content[at + 8 : at + 16]), 16
        if size < head or at + size > len(content):
            return
        yield content[at + 4 : at + 8], content[at + head : at + size]
        at += size


def box_at(content: bytes, *path: bytes) -> bytes:
    """The body of the first box at ``path``, one name a level; empty where there is none."""
    for wanted in path:
        content = next((body for name, body in boxes_in(content) if name == wanted), b"")
    return content
