"""What a visitor may ask for, checked before a call is accepted: with the number and the limit."""

from dataclasses import dataclass
from pathlib import Path

from dloral.errors import InputError
from dloral.jobs.admission import admitted_size
from dloral.jobs.spans import expected_frames, output_size
from dloral.options import UpscaleOptions
from dloral.studio.disk import Disk
from dloral.studio.estimates import time_in_words
from dloral.video.probe import ClipInfo

FRAMES_PER_SECOND = 60
"""Seconds are counted as so many frames at least, whatever rate a file claims."""

BYTES_PER_PIXEL = {"png": 3.0, "ffv1": 2.0, "gif": 1.0, "prores": 0.6, "webp": 1.5}
"""Of a result, about; other formats as :data:`_SMALL`."""
_SMALL = 0.15

TWICE = 2.2
"""A job's segments, its result, and the viewer's clip."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for. ``max_upload``: bytes; ``max_minutes``: of a clip, restored at
    once; ``max_pixels``: of a frame of the result; ``max_hours``: that a run is expected to take;
    None: any. ``disk``: where files are kept, None: not looked at."""

    max_upload: int
    max_minutes: float | None = None
    max_pixels: int | None = None
    max_hours: float | None = None
    disk: Disk | None = None

    @property
    def max_seconds(self) -> float | None:
        return None if self.max_minutes is None else 60 * self.max_minutes

    def check_frame(self, clip: ClipInfo, options: UpscaleOptions) -> None:
        """InputError or ResourceError for frames that are too large for this page, or for the
        memory that is free."""
        height, width = admitted_size(clip, options)
        self._check_pixels(clip.path, height, width)

    def check(
        self,
        clip: ClipInfo,
        options: UpscaleOptions,
        kept_as: str,
        expected_seconds: tuple[float, float] | None,
    ) -> None:
        """InputError or ResourceError if more is to be restored at once than is allowed, or than
        memory and disk have room for. ``expected_seconds``: of the run, None while not known."""
        self.check_frame(clip, options)
        frames = 1 if clip.kind == "image" else expected_frames(clip, options)
        if frames is None:
            return
        self._check_length(clip, frames)
        if self.max_hours is not None and expected_seconds is not None:
            least = expected_seconds[0]
            if least > 3600 * self.max_hours:
                raise InputError(
                    f"the estimate of {time_in_words(least)} or more exceeds the limit of "
                    f"{time_in_words(3600 * self.max_hours)}",
                    remedy="choose a shorter part or a smaller size",
                )
        if self.disk is not None:
            size = planned_bytes(clip, options, kept_as)
            self.disk.check(size, "choose a shorter part, a smaller size, or H.264")

    def _check_pixels(self, path: Path, height: int, width: int) -> None:
        if self.max_pixels is not None and height * width > self.max_pixels:
            raise InputError(
                f"a frame of {width} × {height} ({height * width / 1e6:.1f} million pixels) "
                f"exceeds the limit of {self.max_pixels / 1e6:g} million",
                remedy="use a smaller size",
                path=path,
            )

    def _check_length(self, clip: ClipInfo, frames: int) -> None:
        if self.max_seconds is None or clip.kind == "image":
            return
        seconds = float(frames / clip.fps)
        if seconds > self.max_seconds + 0.5:
            raise InputError(
                f"the length of {time_in_words(seconds)} exceeds the limit of "
                f"{time_in_words(self.max_seconds)} at once; choose a shorter part on the strip"
            )
        most = round((self.max_seconds + 0.5) * max(FRAMES_PER_SECOND, 1))
        if frames > most:
            raise InputError(
                f"the length of {frames} frames exceeds the limit of {most} at once",
                remedy="choose a shorter part on the strip",
            )


def planned_bytes(clip: ClipInfo, options: UpscaleOptions, kept_as: str) -> float:
    """About how much a run writes in all; 0 where its frames cannot be counted beforehand."""
    height, width = output_size(clip, options)
    frames = 1 if clip.kind == "image" else expected_frames(clip, options)
    return (frames or 0) * height * width * BYTES_PER_PIXEL.get(kept_as, _SMALL) * TWICE


@dataclass(frozen=True)
class Patience:
    """Seconds after which a visitor's things are removed.

    ``left``: after the page said it was closing; a reload takes no longer. ``silent``: without a
    sign of life; browsers let background pages call once a minute. ``kept``: a result.
    """

    left: float = 15
    silent: float = 180
    kept: float = 6 * 3600
