"""The settings of a training loop, its learning rate, and how its work is distributed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from dloral.data.spec import check, one_of
from dloral.devices import AUTO, choose_device
from dloral.errors import OptionError
from dloral.weights.loading import choose_dtype

OPTIMIZERS = ("adamw", "soap")
PRECISIONS = ("no", "auto", "bf16", "fp16")
FREE_SETTINGS = ("steps", "checkpoint_every", "evaluate_every", "log_every")
"""Loop settings that may change when a run is resumed."""

MOST_SEED = 2**62  # held-out clips use a slightly larger seed, and torch takes 2 ** 63


@dataclass(frozen=True)
class LoopConfig:
    """``steps`` in total; the learning rate rises linearly over ``warmup_steps``, stays constant,
    and falls linearly to zero over the last ``decay_steps``. ``ema``: its decay per step (0: none).

    A step's gradient is the mean over ``micro_batches``. They are divided among the processes of
    ``accelerate launch``, and a process with several accumulates their gradients; so one
    configuration trains the same model on any number of processes that divides ``micro_batches``.
    ``rate_factors``: learning-rate factors for parameters by name prefix; their gradients are
    clipped separately. ``mixed_precision``: no, bf16, fp16, or auto for what the device supports
    natively. ``optimizer``: adamw, or soap (:mod:`dloral.training.soap`).
    """

    steps: int = 20_000
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 100
    decay_steps: int = 0
    gradient_clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    checkpoint_every: int = 200
    evaluate_every: int = 1000
    log_every: int = 20
    micro_batches: int = 1
    mixed_precision: str = "no"
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        factors = self.rate_factors.values()
        counts = ("steps", "checkpoint_every", "evaluate_every", "log_every", "micro_batches")
        whole = {name: isinstance(getattr(self, name), int) for name in (*counts, "seed")}
        check(
            self,
            {
                name: (whole[name] and getattr(self, name) >= 1, "a whole number of 1 or more")
                for name in counts
            }
            | {
                "mixed_precision": (self.mixed_precision in PRECISIONS, one_of(PRECISIONS)),
                "optimizer": (self.optimizer in OPTIMIZERS, one_of(OPTIMIZERS)),
                "learning_rate": (0 <= self.learning_rate < inf, "0 or more"),
                "rate_factors": (all(0 <= f < inf for f in factors), "factors of 0 or more"),
                "betas": (all(0 <= b < 1 for b in self.betas), "factors from 0 to less than 1"),
                "weight_decay": (0 <= self.weight_decay < inf, "0 or more"),
                "warmup_steps": (self.warmup_steps >= 0, "0 or more"),
                "decay_steps": (self.decay_steps >= 0, "0 or more"),
                "gradient_clip": (self.gradient_clip > 0, "more than 0"),
                "ema": (0 <= self.ema < 1, "a factor from 0 to less than 1"),
                "seed": (
                    whole["seed"] and 0 <= self.seed < MOST_SEED,
                    "a whole number from 0 to less than 2 ** 62",
                ),
            },
        )

    def learning_rate_at(self, step: int) -> float:
        rising = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        falling = min(1.0, (self.steps - step) / max(self.decay_steps, 1))
        return self.learning_rate * min(rising, falling)


def own_micro_batches(total: int, processes: int, index: int) -> range:
    """The micro-batches of every step that process ``index`` computes."""
    if total % processes:
        raise OptionError(
            f"micro_batches is {total}, which cannot be split evenly over {processes} processes; "
            f"give a multiple of {processes}"
        )
    each = total // processes
    return range(each * index, each * (index + 1))


def resolve_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto`` for this device; keep other names. Raises :class:`OptionError` for fp16 on a
    CPU, where accelerate would silently compute in float32."""
    if name == "fp16" and device.type == "cpu":
        raise OptionError("mixed_precision 'fp16' needs a GPU; use auto, bf16 or no on a CPU")
    if name != "auto":
        return name
    dtype = choose_dtype("auto", device)
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "no")


def process_state() -> PartialState:
    """This process among those of ``accelerate launch``, and its device."""
    # Explicit, because accelerate joins several CPU processes only if told to.
    asked = parse_flag_from_env("ACCELERATE_USE_CPU")  # accelerate launch --cpu
    return PartialState(cpu=asked or choose_device(AUTO).type == "cpu")
