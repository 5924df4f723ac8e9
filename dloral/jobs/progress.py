"""How far a job is, as every face of the software shows it."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor

from dloral.errors import Terminated
from dloral.prompts import Scene
from dloral.weights.fetch import FetchProgress
from dloral.weights.fetch_plan import FetchPlan


@dataclass(frozen=True)
class Progress:
    """How far a job is. ``stage``: fetching, loading, looking, restoring, writing or done.

    ``frame`` of ``num_frames`` (None where the source does not say) are restored, at
    ``frames_per_second``. ``restored_frame`` and ``lq_frame`` are the newest pair, (3,H,W) in
    [0, 1], shown at ``time`` of the source for ``duration`` seconds; None where the frames are
    restored elsewhere. ``notes`` say what the result could not keep of the source and where memory
    was short. ``scenes``: each with its prompt, as far as they are found. ``fetched``: what is
    downloaded from the Hub in the fetching stage. ``message``: one line for the user, given once.
    ``kept``: the folder that finished parts are kept in, if they are. ``target``: the result,
    once it is in place.
    """

    stage: str
    frame: int = 0
    num_frames: int | None = None
    frames_per_second: float = 0.0
    restored_frame: Tensor | None = None
    lq_frame: Tensor | None = None
    target: Path | None = None
    notes: tuple[str, ...] = field(default=())
    time: Fraction = Fraction(0)
    duration: Fraction = Fraction(0)
    scenes: tuple[Scene, ...] = ()
    fetched: FetchPlan | FetchProgress | None = None
    message: str = ""
    kept: Path | None = None

    @property
    def is_written(self) -> bool:
        """Whether the result is in place while the parts it was made from are still kept, until the
        job is asked for its next step."""
        return self.stage == "writing" and self.target is not None

    @property
    def seconds_left(self) -> float | None:
        if self.num_frames is None or not self.frames_per_second:
            return None
        return max(self.num_frames - self.frame, 0) / self.frames_per_second


class Clock:
    """Frames per second since the job's first frame began."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def rate(self, frames: int) -> float:
        return frames / self.seconds

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-6)


def time_in_words(seconds: float) -> str:
    """``3 h 20 min``, ``7 min``, ``40 s``."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def kept_parts_message(seconds_left: float, folder: Path) -> str:
    """Why a job keeps its finished parts, and where."""
    takes = "an unknown time" if seconds_left == inf else f"about {time_in_words(seconds_left)}"
    return (
        f"this takes {takes}: finished parts are kept in {folder} until it is done, and after a "
        "crash the same command resumes from there"
    )


@contextmanager
def ending(steps: Generator[Any, Any, Any]) -> Iterator[None]:
    """Close ``steps`` at the end of the block, however that ends: a job closed before its end is
    cancelled. A SIGTERM is passed on instead, so that the job keeps what is done."""
    try:
        yield
    except Terminated as error:
        with suppress(Terminated, StopIteration):
            steps.throw(error)
        raise
    finally:
        steps.close()
