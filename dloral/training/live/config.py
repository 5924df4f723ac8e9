"""The settings of the live recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite

from dloral.errors import OptionError
from dloral.frames.resize import LATENT_STRIDE


@dataclass(frozen=True)
class LiveConfig:
    """Batch sizes, rates and weights of the recipe."""

    seed: int = 0
    log_every: int = 100
    size: int = 256
    crop: int = 192
    film_share: float = 0.2
    light_share: float = 0.08
    stills_held: int = 24000
    clips_held: int = 6000
    stills_at_a_time: int = 192
    clips_at_a_time: int = 48
    refill_every: int = 5
    warm_refills: int = 12
    draws: int = 2500

    flow_clips: int = 96
    flow_rate: float = 5e-4

    base_restored: int = 96
    base_reconstructed: int = 24
    base_rate: float = 1e-3
    charbonnier_part: float = 0.15
    error_floor: float = 2e-5

    smoothing_pairs: int = 4
    smooth_crops: int = 6
    smoothing_rate: float = 1e-4
    smoothing_keep: float = 8.0
    smoothing_price: float = 300.0
    """Of a stage S: on how many crops the decoder keeps its pictures, on how many smooth ones it
    loses its grids, and what a difference and a grid cost."""

    lora_rank: int = 32
    consistency_clips: int = 32
    enhancement_clips: int = 24
    lora_rate: float = 1e-3
    discriminator_rate: float = 2e-4
    discriminator_width: int = 64
    stages: str = "CDCDC"
    """Algorithm 1's stages: C trains C-LoRA and CFR, D trains D-LoRA. With an S before them the
    decoder first loses the grids that it draws on smooth ground."""
    consistency_part: float = 0.3
    """A C stage's time to a D stage's is this to one minus this."""
    transition_part: float = 0.15
    """Of a stage's steps: weights of the new losses rise linearly (s_t)."""
    alone_share: float = 0.2
    consistency_share: float = 0.65
    """How often C-LoRA is at 1 rather than 0 while D-LoRA learns."""
    detail_share: float = 0.3
    """The same of D-LoRA while C-LoRA learns; in the first stage of new LoRAs, when it is nothing
    yet, never."""
    temporal_weight: float = 0.5
    kept_detail_weight: float = 0.5
    enhancement_pixel: float = 1.0
    enhancement_feature: float = 1.0
    enhancement_grid: float = 20.0
    enhancement_excess: float = 0.0
    adversarial_share: float = 0.35
    """Of the enhancement gradient, the discriminator's; with 0 there is none."""

    def __post_init__(self) -> None:
        if not self.stages or set(self.stages.removeprefix("S")) - set("CD"):
            raise OptionError(
                f"stages is {self.stages!r}; give letters C and D, as in CDCDC, or S before them"
            )
        for name in WHOLE:
            least = 0 if name == "seed" else 1
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; give {least} or more")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")
        for name in ("size", "crop"):
            if getattr(self, name) % LATENT_STRIDE:
                raise OptionError(f"{name} is {getattr(self, name)}; give a multiple of 8 pixels")
        if self.crop > self.size:
            raise OptionError(f"crop is {self.crop}, larger than size, {self.size}; give less")
        for kind in ("stills", "clips"):
            held, made = getattr(self, f"{kind}_held"), getattr(self, f"{kind}_at_a_time")
            if held < made:
                raise OptionError(f"{kind}_held is {held}; give {made} ({kind}_at_a_time) or more")
        if self.smooth_crops < 2:
            raise OptionError("smooth_crops is 1; give 2 or more, for one half stays clean")


WHOLE = {field.name for field in fields(LiveConfig) if isinstance(field.default, int)}
SHARES = {field.name for field in fields(LiveConfig) if field.name.endswith(("_share", "_part"))}
"""Which settings are whole numbers, and which are shares."""


def changed_config(items: Sequence[str]) -> LiveConfig:
    """The recipe's settings with ``NAME=VALUE`` items changed; raises :class:`OptionError`."""
    names = [field.name for field in fields(LiveConfig)]
    changed: dict[str, float | str] = {}
    for item in items:
        name, _, text = item.partition("=")
        try:
            if name not in names:
                raise ValueError
            changed[name] = _value(name, text)
        except (ValueError, OverflowError) as error:
            raise OptionError(
                f"--set {item!r} is no setting with its value; give NAME=VALUE, NAME of "
                f"{', '.join(names)}"
            ) from error
    return replace(LiveConfig(), **changed)  # type: ignore[arg-type]


def _value(name: str, text: str) -> float | str:
    if isinstance(getattr(LiveConfig, name), str):
        return text
    number = float(text)
    if not isfinite(number) or (name in WHOLE and number != int(number)):
        raise ValueError
    return int(number) if name in WHOLE else number
