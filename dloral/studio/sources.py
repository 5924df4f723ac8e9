"""Frames of visitors' clips for previews: read once, and kept within one common bound.

A frame of 8192 x 8192 pixels is 0.8 GB as floats, so frames are passed on one by one, kept as the
codes they were read from where these are exact, and all visitors' frames share one bound. Large
frames for a waiting visitor are read within :meth:`Sources.held_back`.
"""

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dloral.errors import InputError, ResourceError
from dloral.memory import free_memory
from dloral.options import AUTO
from dloral.video.codes import is_coded, most_bytes
from dloral.video.filters import FRAME, OFF
from dloral.video.media import version_of
from dloral.video.probe import ClipInfo
from dloral.video.reader import floats_of, read_frames

KEPT_BYTES = 2**29
"""Of all visitors' frames together, at most; and :data:`KEPT_SHARE` of the memory that is free."""
KEPT_SHARE = 0.1

READ_BYTES = 2**30
"""What frames that are being read take at once; one that takes more waits until it is alone. The
same again for kept ones, which are made floats anew."""

COPIES = 3
"""Of a frame, while it is read: as it is decoded, in shared memory, and ours."""

_KEPT_COPIES = 2  # of one that is made floats anew: the one handed on, and the next

Packed = np.ndarray[Any, Any]
"""A frame: of a video the codes of its codec, of one dimension (:mod:`dloral.video.codes`); else
(3,H,W), its codes of 8 or 16 bits where these say it exactly, else its floats."""

_CODES: tuple[tuple[type[np.unsignedinteger[Any]], int], ...] = (
    (np.uint8, 255),
    (np.uint16, 65535),
)
_ROWS = 256  # are tried at a time, so that trying takes next to no memory


@dataclass(eq=False)
class _Reading:
    """A clip that is being read; ``is_forgotten``: it was closed meanwhile."""

    path: Path
    is_forgotten: bool = False


class Sources:
    """What previews have read of their clips, for all visitors; evicts the least recently used.

    ``kept_bytes`` and ``read_bytes``: see :data:`KEPT_BYTES` and :data:`READ_BYTES`.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES, read_bytes: int = READ_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[Any, list[Packed]] = OrderedDict()
        self._versions: dict[Path, tuple[int, int, int]] = {}  # of the files that are kept
        self._lock = threading.Lock()
        self._readings: set[_Reading] = set()
        # kept frames do not wait behind others' that are decoded
        self._room, self._room_of_kept = _Room(read_bytes), _Room(read_bytes)

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
        first = max(index - window, 0)
        self._forget_earlier(clip)
        key = clip.path, index, deinterlace
        known = self._known(key, index - first + 1)
        if known is not None:
            is_packed = any(frame.ndim == 1 or frame.dtype != np.float32 for frame in known)
            needed = _KEPT_COPIES * frame_bytes(*clip.whole_size) if is_packed else 0
            with _held(self._room_of_kept, clip, needed):
                yield (floats_of(unpacked(frame), clip) for frame in known)
            return
        keeping = (index - first + 1) * _kept_size(clip)
        if keeping > self._most:
            keeping = 0
        with (
            self._under_way(clip) as reading,
            self.held_back(clip, reading_bytes(clip) + keeping),
            closing(self._read(reading, read_as(clip, deinterlace), key, first, keeping)) as frames,
        ):
            yield frames

    @contextmanager
    def held_back(self, clip: ClipInfo, needed: int) -> Iterator[None]:
        """For whatever reads a visitor's large frames and is waited for: a block in which about
        ``needed`` bytes are taken. It begins when the others leave room; ResourceError where this
        machine has none. Not to be nested."""
        with _held(self._room, clip, needed):
            yield

    def forget(self, clip: ClipInfo) -> None:
        """Drop the clip's frames; those being read are dropped once they are read."""
        with self._lock:
            self._versions.pop(clip.path, None)
            for key in [key for key in self._kept if key[0] == clip.path]:
                del self._kept[key]
            for reading in self._readings:
                if reading.path == clip.path:
                    reading.is_forgotten = True

    def _forget_earlier(self, clip: ClipInfo) -> None:
        """Drop the frames of an earlier file of the same name."""
        version = version_of(clip.path)
        if version is None:
            return
        with self._lock:
            is_other = self._versions.get(clip.path, version) != version
        if is_other:
            self.forget(clip)
        with self._lock:
            self._versions[clip.path] = version

    @property
    def _most(self) -> int:
        """Bytes that may be kept of all visitors' frames as things are."""
        free = free_memory(torch.device("cpu"))
        return min(self._kept_bytes, int(KEPT_SHARE * (free + self.kept)))

    def _known(self, key: Any, count: int) -> list[Packed] | None:
        with self._lock:
            known = self._kept.get(key, [])
            if len(known) < count:
                return None
            self._kept.move_to_end(key)
            return known[-count:]

    @contextmanager
    def _under_way(self, clip: ClipInfo) -> Iterator[_Reading]:
        reading = _Reading(clip.path)
        with self._lock:
            self._readings.add(reading)
        try:
            yield reading
        finally:
            with self._lock:
                self._readings.discard(reading)

    def _read(
        self, reading: _Reading, clip: ClipInfo, key: Any, first: int, keeping: int
    ) -> Generator[Tensor, None, None]:
        """Frames from ``first`` on; kept where they take no more than ``keeping`` bytes."""
        read: list[Packed] | None = [] if keeping else None
        for frame in source_frames(replace(clip, as_codes=True), first, key[1]):
            if read is not None:
                read.append(frame.numpy() if is_coded(frame) else packed(frame))
                read = read if _size(read) <= keeping else None
            yield floats_of(frame, clip)
        if read is not None:
            self._keep(reading, key, read)

    def _keep(self, reading: _Reading, key: Any, frames: list[Packed]) -> None:
        """One frame of each clip, with those before it."""
        most = self._most
        with self._lock:
            if reading.is_forgotten:
                return
            for other in [other for other in self._kept if other[0] == key[0]]:
                del self._kept[other]
            self._kept[key] = frames
            total = sum(map(_size, self._kept.values()))
            while total > most:
                _, gone = self._kept.popitem(last=False)
                total -= _size(gone)


class _Room:
    """Bytes that calls may take together. A call for more than ``most`` waits until it is alone,
    and waiting calls are not overtaken."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._turn = threading.Lock()
        self._change = threading.Condition()

    @contextmanager
    def taken(self, needed: int) -> Iterator[None]:
        with self._turn, self._change:
            while self._held and self._held + needed > self._most:
                self._change.wait()
            self._held += needed
        try:
            yield
        finally:
            with self._change:
                self._held -= needed
                self._change.notify_all()


@contextmanager
def _held(room: _Room, clip: ClipInfo, needed: int) -> Iterator[None]:
    if not needed:
        yield
        return
    with room.taken(needed):
        free = free_memory(torch.device("cpu"))
        if needed > free:
            raise ResourceError(
                f"{{path}} is {clip.width}x{clip.height}: showing a frame needs "
                f"{needed / 1e9:.1f} GB of memory, but only {free / 1e9:.1f} GB is free",
                remedy="try again later, or use a smaller clip",
                path=clip.path,
            )
        yield


def frame_bytes(height: int, width: int) -> int:
    """Bytes of a frame as floats."""
    return 3 * 4 * height * width


def reading_bytes(clip: ClipInfo) -> int:
    """Bytes that reading frames of a clip takes, one by one."""
    return COPIES * frame_bytes(*clip.whole_size)


def _kept_size(clip: ClipInfo) -> int:
    """Bytes that one frame is let take while it is collected: as codes where those may be exact. A
    frame that takes more is not kept."""
    floats = frame_bytes(clip.height, clip.width)
    if clip.kind == "video" and not clip.has_alpha:
        return most_bytes(*clip.whole_size, clip.pixel_format, clip.bit_depth)
    if clip.is_hdr or clip.has_alpha or clip.bit_depth > 16:
        return floats
    return floats // 4 if clip.bit_depth <= 8 else floats // 2


def packed(frame: Tensor) -> Packed:
    """A float frame (3,H,W) in the fewest bytes that hold it exactly; not a copy if floats."""
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
    """Frames ``first`` to ``last`` of a source, float (3,H,W) in [0, 1] each (of a clip read
    ``as_codes``, its :class:`~dloral.video.reader.Frame`'s pixels), one by one. Counted
    by the average rate: where frames come at uneven times, the one that is shown nearest to that
    moment. InputError where the source has none of them."""
    start = max(Fraction(0), (first - Fraction(1, 2)) / clip.fps)
    is_empty = True
    with read_frames(clip, start=start) as frames:
        for frame in islice(frames, last - first + 1):
            is_empty = False
            yield frame.pixels
    if is_empty:
        raise InputError(
            f"{{path}} has no frame {last + 1}", remedy="choose an earlier one", path=clip.path
        )
