"""The window: what a frame needs from the frames before it."""

from collections import deque
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Remembered:
    latents: Tensor  # (C,h,w)
    small_frame: Tensor  # (3,h,w), for the flow net


class Window:
    """Remembers the latents and small frames of the last ``size`` frames of a clip, and of the last
    one the result (1,3,H,W), if the next is to be blended with it."""

    def __init__(self, size: int) -> None:
        self._frames: deque[_Remembered] = deque(maxlen=size)
        self.finished: Tensor | None = None

    def copy(self) -> Self:
        """An independent window; the tensors are shared."""
        other = type(self)(self._frames.maxlen or 0)
        other._frames.extend(self._frames)
        other.finished = self.finished
        return other

    def remember(self, lq_latents: Tensor, small_frames: Tensor) -> None:
        """Add frames without recalling anything: (B,C,h,w) and (B,3,h,w)."""
        pairs = zip(lq_latents, small_frames, strict=True)
        self._frames.extend(_Remembered(*pair) for pair in pairs)

    def recall(self, lq_latents: Tensor, small_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (K,B,C,h,w) and small frames (K,B,3,h,w) before each of B consecutive frames.

        ``lq_latents`` (B,C,h,w) and ``small_frames`` (B,3,h,w) are those frames' own and are
        remembered. At the start of a clip the oldest frame stands in for those that do not exist
        (frame 0: itself). K is the window's size.
        """
        frames = [_Remembered(*pair) for pair in zip(lq_latents, small_frames, strict=True)]
        known = [*self._frames, *frames]
        first, size = len(self._frames), self._frames.maxlen
        self._frames.extend(frames)
        if not size:
            return lq_latents[None][:0], small_frames[None][:0]
        earlier = [
            known[max(first + index - offset, 0)]
            for offset in range(1, size + 1)
            for index in range(len(frames))
        ]
        shape = (size, len(frames))
        return (
            torch.stack([frame.latents for frame in earlier]).unflatten(0, shape),
            torch.stack([frame.small_frame for frame in earlier]).unflatten(0, shape),
        )
