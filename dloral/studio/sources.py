"""Frames of visitors' clips as previews need them: read once, kept within bounds, all together.

A frame of 8192 x 8192 pixels is 0.8 GB as floats, so frames are handed on one by one, kept as the
codes they were read from where these are exact, and those of all visitors share one bound.
"""

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dloral.errors import InputError, ResourceError
from dloral.memory import free_memory
from dloral.options import AUTO
from dloral.video.filters import FRAME, OFF
from dloral.video.probe import ClipInfo
from dloral.video.reader import read_frames

KEPT_BYTES = 2**29
"""Of all visitors' frames together, at most; and :data:`KEPT_SHARE` of the memory that is free."""
KEPT_SHARE = 0.1

READ_BYTES = 2**30
"""What frames that are being read take at once; one that takes more waits until it is alone."""

COPIES = 3
"""Of a frame, while it is read: as it is decoded, in shared memory, and ours."""

Packed = np.ndarray[Any, Any]
"""A frame (3,H,W): its codes of 8 or 16 bits where these say it exactly, else its floats."""

_CODES: tuple[tuple[type[np.unsignedinteger[Any]], int], ...] = (
    (np.uint8, 255),
    (np.uint16, 65535),
)
_ROWS = 256  # are tried at a time, so that trying takes next to no memory


class Sources:
    """What previews have read of their clips, for all visitors. Frames used longest ago go first.

    ``kept_bytes`` and ``read_bytes``: see :data:`KEPT_BYTES` and :data:`READ_BYTES`.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES, read_bytes: int = READ_BYTES) -> None:
        self._kept_bytes, self._read_bytes = kept_bytes, read_bytes
        self._kept: OrderedDict[Any, list[Packed]] = OrderedDict()
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # who waits for room is not overtaken
        self._room = threading.Condition()
        self._held = 0

    @property
    def kept(self) -> int:
        """Bytes of all frames that are kept."""
        with self._lock:
            return sum(map(_size, self._kept.values()))

    @contextmanager
    def reading(
        self, clip: ClipInfo, index: int, window: int, deinterlace: str
    ) -> Iterator[Iterator[Tensor]]:
        """Frame ``index`` and up to ``window`` before it, oldest first, float (3,H,W) in [0, 1].
        Waits until calls with large frames leave room; ResourceError where this machine has none,
        InputError where the clip has no such frame."""
        needed = COPIES * 3 * 4 * clip.height * clip.width
        with (
            self._held_back(clip, needed),
            closing(self._frames(clip, index, window, deinterlace)) as frames,
        ):
            yield frames

    def forget(self, clip: ClipInfo) -> None:
        """The clip goes: so do its frames."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == clip.path]:
                del self._kept[key]

    @contextmanager
    def _held_back(self, clip: ClipInfo, needed: int) -> Iterator[None]:
        with self._turn, self._room:
            while self._held and self._held + needed > self._read_bytes:
                self._room.wait()
            self._held += needed
        try:
            free = free_memory(torch.device("cpu"))
            if needed > free:
                raise ResourceError(
                    f"{{path}} is {clip.width}x{clip.height}: to show a frame takes "
                    f"{needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free",
                    remedy="come back later, or use a smaller clip",
                    path=clip.path,
                )
            yield
        finally:
            with self._room:
                self._held -= needed
                self._room.notify_all()

    def _frames(
        self, clip: ClipInfo, index: int, window: int, deinterlace: str
    ) -> Generator[Tensor, None, None]:
        first = max(index - window, 0)
        count = index - first + 1
        key = clip.path, index, deinterlace
        with self._lock:
            known = self._kept.get(key, [])
            if len(known) >= count:
                self._kept.move_to_end(key)
        if len(known) >= count:
            yield from map(unpacked, known[-count:])
            return
        read: list[Packed] | None = []
        for frame in source_frames(read_as(clip, deinterlace), first, index):
            if read is not None:
                read.append(packed(frame))
                read = read if _size(read) <= self._kept_bytes else None
            yield frame
        if read is not None:
            self._keep(key, read)

    def _keep(self, key: Any, frames: list[Packed]) -> None:
        """One frame of each clip, with those before it."""
        free = free_memory(torch.device("cpu"))
        with self._lock:
            for other in [other for other in self._kept if other[0] == key[0]]:
                del self._kept[other]
            self._kept[key] = frames
            total = sum(map(_size, self._kept.values()))
            most = min(self._kept_bytes, int(KEPT_SHARE * (free + total)))
            while total > most:
                _, gone = self._kept.popitem(last=False)
                total -= _size(gone)


def packed(frame: Tensor) -> Packed:
    """A float frame (3,H,W) in as few bytes as hold it exactly. Not a copy where that is floats."""
    pixels: Packed = frame.numpy()
    for kind, peak in _CODES:
        if not _is_exact(pixels[:, ::61, ::67], kind, peak):  # most often the first look tells
            continue
        codes = np.empty(pixels.shape, kind)
        for at in range(0, pixels.shape[1], _ROWS):
            part = pixels[:, at : at + _ROWS]
            if not _is_exact(part, kind, peak):
                break
            codes[:, at : at + _ROWS] = _codes(part, kind, peak)
        else:
            return codes
    return pixels


def unpacked(frame: Packed) -> Tensor:
    """The float frame that :func:`packed` was given."""
    for kind, peak in _CODES:
        if frame.dtype == kind:
            return torch.from_numpy(_floats(frame, peak))
    return torch.from_numpy(frame)


def _codes(pixels: Packed, kind: type[np.unsignedinteger[Any]], peak: int) -> Packed:
    return np.rint(pixels * np.float32(peak)).astype(kind)


def _floats(codes: Packed, peak: int) -> Packed:
    floats = codes.astype(np.float32)
    floats /= np.float32(peak)
    return floats


def _is_exact(pixels: Packed, kind: type[np.unsignedinteger[Any]], peak: int) -> bool:
    is_within = bool(pixels.min() >= 0 and pixels.max() <= 1)
    return is_within and np.array_equal(_floats(_codes(pixels, kind, peak), peak), pixels)


def _size(frames: Sequence[Packed]) -> int:
    return sum(frame.nbytes for frame in frames)


def read_as(clip: ClipInfo, deinterlace: str) -> ClipInfo:
    """The clip with its frames as a run with ``deinterlace`` sees them. Their number stays, so
    where that makes more or fewer of them (field, film) the nearest whole frame is shown."""
    if clip.kind != "video" or deinterlace == AUTO:
        return clip  # the probe has decided
    return replace(clip, deinterlace=OFF if deinterlace == OFF else FRAME)


def source_frames(clip: ClipInfo, first: int, last: int) -> Iterator[Tensor]:
    """Frames ``first`` to ``last`` of a source, float (3,H,W) in [0, 1] each, one by one. Counted
    by the average rate: where frames come at uneven times, the one that is shown nearest to that
    moment. InputError where the source has none of them."""
    start = max(Fraction(0), (first - Fraction(1, 2)) / clip.fps)
    is_empty = True
    with read_frames(clip, start=start) as frames:
        for frame in islice(frames, last - first + 1):
            is_empty = False
            yield frame.pixels
    if is_empty:
        raise InputError(f"{clip.path.name} has no frame {last + 1}; choose an earlier one")
