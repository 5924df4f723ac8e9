"""What the routes, the API and the page share: visitors, model, queue, limits, examples."""

from dataclasses import dataclass
from pathlib import Path

from dloral.errors import InputError
from dloral.options import UpscaleOptions
from dloral.studio.estimates import time_in_words
from dloral.studio.models import Models
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.upscale import expected_frames
from dloral.video.probe import ClipInfo


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for. ``max_upload``: bytes; ``max_minutes``: of a clip, restored at
    once, None: any."""

    max_upload: int
    max_minutes: float | None = None

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_minutes is None else 60 * self.max_minutes

    def check(self, clip: ClipInfo, options: UpscaleOptions) -> None:
        """InputError if more is to be restored at once than is allowed."""
        frames = expected_frames(clip, options)
        if self.max_seconds is None or clip.kind == "image" or frames is None:
            return
        seconds = float(frames / clip.fps)
        if seconds > self.max_seconds + 0.5:
            raise InputError(
                f"{time_in_words(seconds)} are more than the {time_in_words(self.max_seconds)} "
                "that this page restores at once; choose a shorter part on the strip"
            )


@dataclass(frozen=True)
class Studio:
    """Everything there is one of, however many visitors come."""

    sessions: Sessions
    models: Models
    queue: JobQueue
    limits: Limits
    examples: dict[str, Path]

    @property
    def model(self) -> Model:
        """The one that previews and new jobs use at this moment."""
        return self.models.current
