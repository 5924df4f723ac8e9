"""What is asked of a result, checked: its look, and how it is to be computed."""

import math
from dataclasses import dataclass

from dloral.errors import OptionError, Setting
from dloral.frames.colour import COLOUR_FIXES
from dloral.options import AUTO, MAX_LORA_SCALE, WINDOWS


@dataclass(frozen=True)
class Look:
    """What a result looks like, apart from how it is computed; raises :class:`OptionError`."""

    consistency: float
    detail: float
    color_fix: str
    enlarged: float
    latents_only: bool = False

    def __post_init__(self) -> None:
        check_lora_scales(self.consistency, self.detail)
        if self.color_fix not in (AUTO, *COLOUR_FIXES):
            choices = ", ".join((AUTO, *COLOUR_FIXES))
            raise OptionError(f"color_fix is {self.color_fix!r}; choose from {choices}")
        if not isinstance(self.enlarged, int | float) or not 0 < self.enlarged < math.inf:
            raise OptionError(f"enlarged is {self.enlarged!r}; give a number above 0")


def check_lora_scales(consistency: float, detail: float) -> None:
    """Raise :class:`OptionError` for a scale outside [0, MAX_LORA_SCALE]."""
    for name, scale in (("consistency", consistency), ("detail", detail)):
        if not 0 <= scale <= MAX_LORA_SCALE:
            raise OptionError(
                "{option} is {value}",
                remedy=f"give a scale from 0 to {MAX_LORA_SCALE:g}, 1 is the usual",
                option=Setting(name),
                value=scale,
            )


def check_layout(window: int, tile: int | None, tile_overlap: int, batch_size: int = 1) -> None:
    """Raise :class:`OptionError` for a window, tile, overlap or batch that does not exist."""
    if window not in WINDOWS:
        raise OptionError(f"window is {window}; choose from {', '.join(map(str, WINDOWS))}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size is {batch_size!r}; give a whole number of 1 or more")
    if tile is not None and not isinstance(tile, int):
        raise OptionError(f"tile is {tile!r}; give whole latent cells, or None")
    if tile is not None and not 0 <= tile_overlap < tile:
        raise OptionError(
            f"tile is {tile} with an overlap of {tile_overlap} latent cells; "
            "the overlap must be smaller than the tile and not negative"
        )
