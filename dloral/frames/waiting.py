"""Frames on their way into a generator."""

from collections import deque
from collections.abc import Iterable
from itertools import islice, repeat

from torch import Tensor

from dloral.frames.clips import as_frames, check_range


class Waiting:
    """Frames read but not yet restored, each with its prompt; more are read when needed."""

    def __init__(self, frames: Iterable[Tensor], prompt: str | Iterable[str]) -> None:
        prompts = repeat(prompt) if isinstance(prompt, str) else iter(prompt)
        self._source = zip(frames, prompts, strict=False)
        self._pairs: deque[tuple[Tensor, str]] = deque()
        self._is_checked = False

    def fill(self, most: int) -> bool:
        """Read until ``most`` are waiting or none are left; returns whether any is waiting."""
        self._pairs.extend(islice(self._source, max(0, most - len(self._pairs))))
        return bool(self._pairs)

    def frames(self, most: int) -> Tensor:
        """The first ``most`` waiting frames: float (B,3,H,W) in [0, 1]. OptionError if the first
        one of all has other values: one look, whatever the clip's length."""
        frames = as_frames([frame for frame, _ in islice(self._pairs, most)])
        if not self._is_checked:
            check_range(frames)
            self._is_checked = True
        return frames

    def prompts(self, most: int) -> list[str]:
        return [prompt for _, prompt in islice(self._pairs, most)]

    def drop(self, count: int) -> None:
        for _ in range(count):
            self._pairs.popleft()
