"""Files of strangers as they are opened: nothing else is."""

import os
import struct

import av
import pytest

from dloral.errors import InputError
from dloral.video.probe import probe

AROUND = (b"moov", b"trak", b"mdia", b"minf", b"dinf")
"""The boxes around a ``dref``."""


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def alias(name: str) -> bytes:
    """A Macintosh alias record to a file beside the one that has it, as FFmpeg's mov.c reads it."""
    file, path = name.encode(), f":{name}".encode()
    names = bytes(11 + 27 + 12) + bytes([len(file)]) + file.ljust(63, b"\0") + bytes(16)
    levels = struct.pack(">HH", 1, 1) + bytes(16)
    path = struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2)
    return box(b"alis", bytes(4) + names + levels + path + struct.pack(">HH", 0xFFFF, 0))


def referring(data: bytes, name: str) -> bytes:
    """The boxes of a MOV, its samples looked for in the file ``name``."""
    made, at = b"", 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        if kind == b"dref":
            body = body[:4] + struct.pack(">I", 1) + alias(name)
        made += box(kind, referring(body, name) if kind in AROUND else body)
        at += size
    return made


@pytest.mark.parametrize("isolated", [False, True])
def test_a_reference_movie_opens_no_other_file(clips, tmp_path, isolated):
    """A MOV whose samples lie in another file (ISO/IEC 14496-12, 8.7.2)."""
    data, secret, movie = clips("sound.mp4").read_bytes(), tmp_path / "b.mp4", tmp_path / "a.mov"
    secret.write_bytes(data)
    movie.write_bytes(referring(data, secret.name))
    with av.open(str(movie), options={"enable_drefs": "1"}) as container:
        assert len(list(container.decode(video=0))) == 25  # who follows the reference has them
    os.utime(secret, (1, 1))  # an access time that any reading would move on
    with pytest.raises(InputError, match="holds no frames"):
        probe(movie, isolated=isolated)
    assert secret.stat().st_atime == 1
