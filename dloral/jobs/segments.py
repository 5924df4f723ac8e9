"""A segment's file: the encoded frames of part of a job, as they came out of the encoder.

No media container is used: Matroska rounds times to milliseconds, NUT has no durations and MP4
holds neither FFV1 nor VP9 well, while a segment must give back exactly what the encoder produced.
"""

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from dloral.errors import InputError
from dloral.video.encoding import CodedFrame

_MAGIC = b"dloral segment 2\n"
_RECORD = struct.Struct("<qqqBII")
"""Before each frame's data: pts, dts, duration, whether it is a key frame, bytes of data and of
alpha."""


class SegmentFile:
    """Writes the encoded frames of one segment to ``path``.

    ``frames``, ``bytes`` and ``sha256`` say what was written; OSError where the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = self.bytes = 0
        self._digest = sha256()
        self._file = path.open("wb")
        try:
            self._put(_MAGIC)
        except OSError:
            self.abandon()
            raise

    def write(self, coded: Iterable[CodedFrame]) -> None:
        for frame in coded:
            sizes = len(frame.data), len(frame.alpha)
            self._put(_RECORD.pack(frame.pts, frame.dts, frame.duration, frame.is_key, *sizes))
            self._put(frame.data + frame.alpha)
            self.frames += 1

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def close(self) -> None:
        """Finish: what was written is safe on disk."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Discard what was written."""
        with contextlib.suppress(OSError):  # buffered data may not fit on the disk
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.bytes += len(content)


def read_segment(path: Path) -> Iterator[CodedFrame]:
    """The encoded frames of a segment's file; InputError if it is not one, or is cut short."""
    damaged = InputError(
        "{path} is cut short or not a segment", remedy="remove it and resume the job", path=path
    )
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise damaged
        while head := file.read(_RECORD.size):
            if len(head) < _RECORD.size:
                raise damaged
            pts, dts, duration, is_key, size, alpha = _RECORD.unpack(head)
            data = file.read(size + alpha)
            if len(data) < size + alpha:
                raise damaged
            yield CodedFrame(data[:size], pts, dts, duration, bool(is_key), data[size:])


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
