"""Frames in memory shared by two processes: a few places, each filled and copied in turn.

The memory is anonymous and in no folder, so it goes with the last process that has it, however that
ends, and a container's small ``/dev/shm`` does not matter. Its size is sealed: the other process
cannot shrink it while this one uses it.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence

import torch
from torch import Tensor

_MANY = 2**26
"""Bytes of a frame up to which there are two places, so that both processes work at once."""


class Slots:
    """Places for float32 frames of up to ``most`` bytes each. ``file``: its descriptor."""

    def __init__(self, most: int, file: int | None = None) -> None:
        self.most = -(-most // mmap.PAGESIZE) * mmap.PAGESIZE
        self.count = 2 if self.most <= _MANY else 1
        size = self.count * self.most
        self.file = _sealed(size) if file is None else file
        self._memory = mmap.mmap(self.file, size)

    def put(self, slot: int, frame: Tensor) -> tuple[int, ...]:
        """Copy a frame into a place; returns its shape, to be passed to :meth:`take`."""
        self._view(slot, frame.shape).copy_(frame)
        return tuple(frame.shape)

    def take(self, slot: int, shape: Sequence[int]) -> Tensor:
        """A copy of the frame in a place. ValueError for a shape that does not fit there."""
        return self._view(slot, shape).clone()

    def close(self) -> None:
        self._memory.close()
        os.close(self.file)

    def _view(self, slot: int, shape: Sequence[int]) -> Tensor:
        count = math.prod(shape)
        if not 0 <= slot < self.count or min(shape) < 1 or 4 * count > self.most:
            raise ValueError(f"no place {slot} for a frame of {tuple(shape)}")
        at = slot * self.most
        return torch.frombuffer(self._memory, dtype=torch.float32, count=count, offset=at).view(
            tuple(shape)
        )


def _sealed(size: int) -> int:
    """Anonymous memory of ``size`` bytes, sealed at that size, as a descriptor. Linux only."""
    import fcntl

    file = os.memfd_create("dloral-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, size)
    fcntl.fcntl(
        file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return file
