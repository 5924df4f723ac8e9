"""Where clips come from and how they are cut: one description for everything that draws them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from math import inf
from typing import Any, Self

from dloral.errors import OptionError
from dloral.frames.resize import LATENT_STRIDE

LEAST_SPACING = 0.001  # seconds; times in videos are stored in thousandths
OF_THE_TRAINING = ("frames", "size", "seed")


@dataclass(frozen=True)
class ClipSpec:
    """Where clips come from, and how they are cut.

    ``places``: ``KIND:PATH`` each, KIND one of ``photos``, ``videos``, ``list``, ``reds``,
    ``lsdir``, ``pexels``, ``pack`` (:mod:`dloral.data.sources`). ``exclude``, ``only``: parts of
    names. ``video_share`` of the samples are from videos, the others from photographs (None: half
    and half where there are both). Photographs are first shrunk by one of ``photo_reductions``,
    drawn at random: at full size they are soft from JPEG and demosaicing. Videos are made
    ``video_reduction`` times smaller, which hides most of their compression. A clip starts every
    ``video_spacing`` seconds, from ``video_from`` until ``video_until`` (None: the end).

    A sample is ``frames`` frames, ``size`` pixels square, ``scale`` times smaller when degraded,
    mirrored sideways or not; ``turned``: put into any of the eight orientations of a square.
    Everything follows from ``seed`` and the sample's number. In a training's configuration
    ``frames``, ``size`` and ``seed`` are the training's own (:meth:`for_training`).
    """

    places: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    video_share: float | None = None
    photo_reductions: tuple[float, ...] = (2.0, 3.2)
    video_reduction: int = 2
    video_spacing: float = 1.0
    video_from: float = 0.0
    video_until: float | None = None
    frames: int = 1
    size: int = 256
    scale: int = 4
    turned: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("places", "exclude", "only"):
            if isinstance(value := getattr(self, name), str):
                raise OptionError(f"{name} is {value!r}; give a tuple, such as ({value!r},)")
        share, until, reductions = self.video_share, self.video_until, self.photo_reductions
        spaced = LEAST_SPACING <= self.video_spacing < inf
        check(
            self,
            {
                "video_share": (share is None or 0 <= share <= 1, "a share from 0 to 1"),
                "photo_reductions": (min(reductions, default=0) >= 1, "factors of 1 or more"),
                "video_reduction": (self.video_reduction >= 1, "1 or more"),
                "video_spacing": (spaced, f"{LEAST_SPACING} seconds or more"),
                "video_from": (0 <= self.video_from < inf, "0 seconds or more"),
                "video_until": (until is None or 0 < until < inf, "more than 0 seconds"),
                "frames": (self.frames >= 1, "1 for stills, 2 or more for clips"),
                "size": on_grid(self.size),
                "scale": (self.scale >= 1, "1 or more"),
                "seed": (self.seed >= 0, "0 or more"),
            },
        )

    def for_training(self, frames: int, size: int, seed: int) -> Self:
        """The same source for a training with clips of ``frames`` frames and ``size`` pixels."""
        plain = {field.name: field.default for field in fields(self)}
        for name in OF_THE_TRAINING:
            if (value := getattr(self, name)) != plain[name]:
                raise OptionError(
                    f"{name} is {value} in a training's source; leave it out, since the training's "
                    "own settings determine it"
                )
        return replace(self, frames=frames, size=size, seed=seed, turned=True)

    @property
    def photo_side(self) -> int:
        """Least side of a photograph, in pixels."""
        return round(self.size * min(self.photo_reductions))

    @property
    def video_side(self) -> int:
        """Least side of a video, in pixels."""
        return self.size * self.video_reduction


def check(config: Any, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raise :class:`OptionError` for the first invalid setting; ``rules``: by setting name, whether
    it is valid, and what to give (or :func:`one_of`)."""
    for name, (fits, wanted) in rules.items():
        if not fits:
            remedy = wanted if wanted.startswith("choose") else f"give {wanted}"
            raise OptionError(f"{name} is {getattr(config, name)!r}; {remedy}")


def one_of(names: Iterable[str]) -> str:
    """What to do about a name that is not one of ``names``."""
    return f"choose from {', '.join(names)}"


def on_grid(side: int) -> tuple[bool, str]:
    """A rule for :func:`check`: a number of pixels that the latent grid divides."""
    return side >= 1 and side % LATENT_STRIDE == 0, f"a multiple of {LATENT_STRIDE} pixels"


def thousandths(seconds: float) -> Fraction:
    """Seconds in a video as an exact number."""
    return Fraction(seconds).limit_denominator(1000)
