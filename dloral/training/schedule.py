"""When Algorithm 1 trains what: the stages, and the loss weights that slide between them."""

from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["consistency", "enhancement"]


@dataclass(frozen=True)
class StageSchedule:
    """Algorithm 1, lines 3 to 5: ``consistency_steps`` (N_cons), then ``enhancement_steps``
    (N_enh), again and again. After every switch the loss weights move linearly to the new stage's
    over ``transition_steps`` (the paper's s_t)."""

    consistency_steps: int = 5000
    enhancement_steps: int = 8000
    transition_steps: int = 1000
    consistency_weights: dict[str, float] = field(default_factory=dict)
    enhancement_weights: dict[str, float] = field(default_factory=dict)

    def stage_at(self, iteration: int) -> Stage:
        """``iteration`` counts from 1, as in the paper."""
        cycle = self.consistency_steps + self.enhancement_steps
        return "consistency" if (iteration - 1) % cycle < self.consistency_steps else "enhancement"

    def weights_at(self, iteration: int) -> dict[str, float]:
        """The weight of each loss by name; a loss that a stage does not name weighs 0 in it."""
        cycle = self.consistency_steps + self.enhancement_steps
        position = (iteration - 1) % cycle
        stage = self.stage_at(iteration)
        since_switch = position if stage == "consistency" else position - self.consistency_steps
        now, before = self.consistency_weights, self.enhancement_weights
        if stage == "enhancement":
            now, before = before, now
        first = iteration <= self.consistency_steps and stage == "consistency"
        share = 1.0 if first else min(1.0, since_switch / max(self.transition_steps, 1))
        return {
            name: share * now.get(name, 0.0) + (1 - share) * before.get(name, 0.0)
            for name in now.keys() | before.keys()
        }
