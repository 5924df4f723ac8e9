"""The schedule of Algorithm 1: its stages, and the loss weights that blend between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from dloral.data.spec import check
from dloral.errors import OptionError

Stage = Literal["consistency", "enhancement", "joint"]
"""``joint``: both groups of losses at once, for the strategy of that name (Figure A1, a)."""

Weights = Mapping[str, float]


@dataclass(frozen=True)
class StageSchedule:
    """Algorithm 1, lines 3 to 5: ``consistency_steps`` (N_cons), then ``enhancement_steps``
    (N_enh), repeated. After every switch the loss weights change linearly to the new stage's
    over ``transition_steps`` (the paper's s_t).

    ``first_weights``: weights of the very first stage, if they differ. ``stages``: the cycle; a
    single stage never ends. ``switches``: maximum number of stage changes, after which the last
    stage stays (None: no limit).
    """

    consistency_steps: int = 5000
    enhancement_steps: int = 8000
    transition_steps: int = 1000
    consistency_weights: Weights = field(default_factory=dict)
    enhancement_weights: Weights = field(default_factory=dict)
    first_weights: Weights | None = None
    stages: tuple[Stage, ...] = ("consistency", "enhancement")
    switches: int | None = None

    def __post_init__(self) -> None:
        counts = ("consistency_steps", "enhancement_steps", "transition_steps")
        check(self, {name: (getattr(self, name) >= 0, "0 or more") for name in counts})
        if not self._cycle():
            raise OptionError("both stages have 0 steps; give at least one of them 1 or more")

    def stage_at(self, iteration: int) -> Stage:
        """``iteration`` counts from 1, as in the paper."""
        return self._stage(self._turn_at(iteration)[0])

    def weights_at(self, iteration: int) -> dict[str, float]:
        """The weight of each loss by name; a loss that a stage does not name has weight 0 there."""
        turn, since_switch = self._turn_at(iteration)
        now = self._weights(turn)
        if not turn:
            return {name: now.get(name, 0.0) for name in self.loss_names()}
        before = self._weights(turn - 1)
        share = min(1.0, since_switch / self.transition_steps) if self.transition_steps else 1.0
        return {
            name: share * now.get(name, 0.0) + (1 - share) * before.get(name, 0.0)
            for name in self.loss_names()
        }

    def loss_names(self) -> set[str]:
        """Every loss named by some stage of the cycle."""
        names = set(self.first_weights or ())
        return names.union(*(self._weights_of(stage) for stage in self.stages))

    def scaled(self, factor: float) -> Self:
        """The same schedule, ``factor`` times as long; no stage is shorter than one step."""

        def scaled(steps: int) -> int:
            return max(1, round(factor * steps)) if steps else 0

        return replace(
            self,
            consistency_steps=scaled(self.consistency_steps),
            enhancement_steps=scaled(self.enhancement_steps),
            transition_steps=scaled(self.transition_steps),
        )

    def _turn_at(self, iteration: int) -> tuple[int, int]:
        """(how many switches came before, iterations since the last)."""
        lengths = [self._length(stage) for stage in self._cycle()]
        if len(lengths) == 1:
            return 0, iteration - 1
        turn = 2 * ((iteration - 1) // sum(lengths))
        turn += (iteration - 1) % sum(lengths) >= lengths[0]
        if self.switches is not None:
            turn = min(turn, self.switches)
        return turn, iteration - 1 - turn // 2 * sum(lengths) - turn % 2 * lengths[0]

    def _stage(self, turn: int) -> Stage:
        cycle = self._cycle()
        return cycle[turn % len(cycle)]

    def _cycle(self) -> tuple[Stage, ...]:
        """One stage or two; a stage of 0 steps is left out."""
        if len(self.stages) == 1:
            return self.stages
        return tuple(stage for stage in self.stages if self._length(stage))

    def _length(self, stage: Stage) -> int:
        return self.enhancement_steps if stage == "enhancement" else self.consistency_steps

    def _weights(self, turn: int) -> Weights:
        stage = self._stage(turn)
        # They are a consistency stage's, which may have been left out.
        if not turn and self.first_weights is not None and stage != "enhancement":
            return self.first_weights
        return self._weights_of(stage)

    def _weights_of(self, stage: Stage) -> Weights:
        if stage == "consistency":
            return self.consistency_weights
        if stage == "enhancement":
            return self.enhancement_weights
        both = (self.consistency_weights, self.enhancement_weights)
        return {name: max(w.get(name, 0.0) for w in both) for name in both[0].keys() | both[1]}


PAPER_CONSISTENCY = {"l2": 4.0, "perceptual": 2.0, "flow": 10.0}
PAPER_ENHANCEMENT = {"l2": 4.0, "perceptual": 2.0, "flow": 5.0, "csd": 1.0}
PAPER_FIRST = {"l2": 4.0, "perceptual": 0.04, "flow": 10.0}
"""Half of the public script's loss, on our scale. There frames are in [-1, 1], which makes ``l2``
4 times larger, and ``l2``, ``perceptual`` and ``csd`` are summed over the two frames where ours are
means; ``flow`` is one number a pair on both sides. The script's weights are 1, 2, 1 and 10 (twice
10 in consistency stages). AdamW does not see the factor; the gradient clip is halved too.
"""

SCHEDULES = {
    # Figure A1: stages switch every 5000 iterations, throughout.
    "algorithm1": StageSchedule(
        5000, 5000, 1000, PAPER_CONSISTENCY, PAPER_ENHANCEMENT, PAPER_FIRST
    ),
    # The public training script: consistency to 5000, enhancement to 13000, consistency for 5000
    # more, then enhancement to the end.
    "public": StageSchedule(
        5000, 8000, 1000, PAPER_CONSISTENCY, PAPER_ENHANCEMENT, PAPER_FIRST, switches=3
    ),
}
"""Schedules by name, with the public script's loss weights (notes, "Training")."""


def named_schedule(name: str) -> StageSchedule:
    """One of :data:`SCHEDULES`; raises :class:`OptionError` for another name."""
    if name not in SCHEDULES:
        raise OptionError(f"schedule is {name!r}; choose from {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
