"""Training D-LoRA's part in the decoder alone, on teacher answers prepared once and used often.

In Algorithm 1 each step restores clips and runs the teacher on them, whose mean answer over eight
orientations takes longer than the decoder's own step. Here restored latents and their answers are
kept, and each is drawn several times, so two cores process three times as many crops a second (our
decision: docs/decisions.md, "Clean first"). Nothing before the decoder changes, so what is kept
stays valid.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource, Draw
from dloral.data.pool import preparing
from dloral.data.spec import check, on_grid
from dloral.errors import OptionError
from dloral.frames.crisp import crisp
from dloral.models.adapters import DETAIL, adapter_parameters
from dloral.models.lora_conv import two_lora_convs
from dloral.pipeline import DLoRALPipeline
from dloral.training.objective import TURNED
from dloral.training.phases.algorithm1 import Algorithm1Config, Algorithm1Task
from dloral.training.phases.drawing import nearness, towards
from dloral.training.phases.phase import Phase
from dloral.training.schedule import StageSchedule


@dataclass(frozen=True)
class DetailConfig:
    """A step: ``clips`` prepared frames of ``crop`` pixels, all with the same scale of C-LoRA.

    As many are prepared every ``refill_every`` steps, after ``warm_refills`` times as many before
    the first; the newest ``held`` are kept. ``answer``: which of a teacher's answers is the target,
    by the prefix of its losses. ``gradient``: the weight of the loss on differences between
    neighbours. ``feature``: that of a frozen network's distance to the answer, computed on the
    middle quarter of each frame, since it takes longer than the decoder's own step.

    ``share``: where D-LoRA ends up between its initial (0) and its trained (1) weights; half way it
    can be better than at either end (WiSE-FT, Wortsman et al., CVPR 2022). ``steepness``: how much
    the answers are made steeper everywhere before they are learned (:func:`crisp` without
    smoothing); 0: not at all."""

    clips: int = 12
    crop: int = 160
    held: int = 1536
    refill_every: int = 6
    warm_refills: int = 24
    answer: str = TURNED
    gradient: float = 2.0
    feature: float = 0.4
    share: float = 1.0
    steepness: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            {
                "clips": (self.clips >= 1, "1 or more"),
                "crop": on_grid(self.crop),
                "held": (self.held >= self.clips, f"{self.clips} or more (as many as clips)"),
                "refill_every": (self.refill_every >= 1, "1 or more"),
                "warm_refills": (self.warm_refills >= 0, "0 or more"),
                "gradient": (self.gradient >= 0, "0 or more"),
                "feature": (self.feature >= 0, "0 or more"),
                "steepness": (self.steepness >= 0, "0 or more"),
                "share": (0 < self.share <= 1, "more than 0 and at most 1"),
            },
        )

    def algorithm1(self, config: Algorithm1Config) -> Algorithm1Config:
        """How Algorithm 1 restores the frames that are prepared here."""
        weights = {f"{self.answer}charbonnier": 1.0}
        schedule = StageSchedule(0, 1, 0, {}, weights, stages=("enhancement",))
        return replace(config, clips=self.clips, crop=self.crop, outputs=1, schedule=schedule)


@dataclass(frozen=True)
class Answered:
    """N restored frames before decoding: latents (N,C,h,w), the upscaled input and the answer
    (N,3,H,W) in [0, 1], and the scale of C-LoRA that all were restored with."""

    latents: Tensor
    lq_frames: Tensor
    answers: Tensor
    consistency: float


class DetailPhase(Phase):
    """Trains D-LoRA in a compact VAE's decoder; the rest of the pipeline stays identical.

    ``algorithm1``: how clips are restored; ``source`` provides ``clips`` of them, with the frames
    needed for that. Raises :class:`OptionError` for a decoder without LoRAs, or without a teacher.
    """

    def __init__(
        self,
        pipe: DLoRALPipeline,
        source: ClipSource,
        config: DetailConfig,
        algorithm1: Algorithm1Config,
        seed: int,
        teacher: nn.Module | None,
        held_out: Clips | None = None,
        feature_distance: nn.Module | None = None,
    ) -> None:
        self.feature_distance = feature_distance
        self.pipe, self.source, self.config, self.seed = pipe, source, config, seed
        self.held_out = held_out
        self.task = Algorithm1Task(pipe, {}, config.algorithm1(algorithm1), teacher=teacher)
        self.scales = algorithm1.scale_choices
        self.slots = max(1, config.held // config.clips)
        self.answered: list[Answered] = []
        self.refills = 0
        if not adapter_parameters(pipe.vae, DETAIL):
            raise OptionError(
                "the detail phase needs a decoder with D-LoRA",
                remedy="set sizes.head_rank and sizes.block_rank, or detail=None",
            )
        self.before = [conv.change(DETAIL).detach() for conv in two_lora_convs(pipe.vae)]

    def trainable(self) -> dict[str, nn.Parameter]:
        parameters = adapter_parameters(self.pipe.vae, DETAIL)
        return {f"vae.{name}": parameter for name, parameter in parameters.items()}

    def losses(self, draw: Draw) -> dict[str, Tensor]:
        self._refill_until(draw.step)
        frames, answers = self._drawn(self._picked(draw.rng))
        losses = towards(frames, answers, self.config.gradient)
        if self.config.feature:
            assert self.feature_distance is not None, "the phase has a weight without its network"
            distance = self.feature_distance(_middle(frames), _middle(answers)).mean()
            losses["teacher_feature"] = self.config.feature * distance
        return losses

    def _picked(self, rng: np.random.Generator) -> Answered:
        """Random frames of those prepared with the same scale as a random one."""
        scale = self.answered[int(rng.integers(len(self.answered)))].consistency
        same = [part for part in self.answered if part.consistency == scale]
        size = self.config.clips
        places = [divmod(int(n), size) for n in rng.integers(len(same) * size, size=size)]

        def rows(name: str) -> Tensor:
            return torch.stack([getattr(same[part], name)[row].float() for part, row in places])

        return Answered(rows("latents"), rows("lq_frames"), rows("answers"), scale)

    def _drawn(self, given: Answered) -> tuple[Tensor, Tensor]:
        """What the decoder draws (N,3,H,W), and the answers."""
        self.pipe.vae.set_scales(consistency=given.consistency, detail=1.0)
        lq_frames = given.lq_frames.contiguous(memory_format=torch.channels_last)
        return self.pipe.decode(given.latents, lq_frames), given.answers

    def _refill_until(self, step: int) -> None:
        """Prepare what is due by ``step``. Refill ``k`` depends on ``k`` alone, so a resumed run,
        which prepares those still kept, draws what an uninterrupted one does."""
        due = self.config.warm_refills + 1 + step // self.config.refill_every
        if due < self.refills:  # back at an earlier step
            self.refills, self.answered = 0, []
        for number in preparing(range(max(self.refills, due - self.slots), due)):
            rng = np.random.default_rng((self.seed, number))
            first_step = max(0, number - self.config.warm_refills) * self.config.refill_every
            clips = self.source.draw(Draw(first_step, 0, rng))
            scale = self.scales[number % len(self.scales)]
            self.answered = [*self.answered, self._prepared(clips, scale, rng)][-self.slots :]
            self.refills = number + 1

    @torch.no_grad()
    def _prepared(
        self, clips: Clips, consistency: float, rng: np.random.Generator | None = None
    ) -> Answered:
        """The last frame of each clip, restored with ``consistency``, and the teacher's answer."""
        self.pipe.set_scales(consistency, 1.0, merge=False)
        restored = self.task.restore(clips, rng)
        assert restored.lq_frames is not None
        answers = self.task.objective.answer(restored, self.config.answer)
        if self.config.steepness:
            answers = crisp(answers, self.config.steepness, smoothing=0)
        return Answered(
            restored.latents.flatten(0, 1),
            restored.lq_frames.flatten(0, 1).half(),
            answers.half(),
            consistency,
        )

    def finish(self) -> None:
        """Interpolate D-LoRA: ``share`` of the way from its initial to its trained weights."""
        share = self.config.share
        if share == 1:
            return
        for conv, before in zip(two_lora_convs(self.pipe.vae), self.before, strict=True):
            conv.set_change(DETAIL, torch.lerp(before, conv.change(DETAIL), share))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The distance of held-out clips, with both LoRAs at 1, from the answers."""
        if self.held_out is None:
            return {}
        return nearness(*self._drawn(self._prepared(self.held_out, 1.0)))


def _middle(frames: Tensor) -> Tensor:
    """The middle half of the height and of the width of frames (N,3,H,W)."""
    height, width = (side // 4 for side in frames.shape[-2:])
    return frames[..., height : 3 * height, width : 3 * width]
