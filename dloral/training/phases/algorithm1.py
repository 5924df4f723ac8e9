"""Algorithm 1: C-LoRA and CFR by consistency losses, D-LoRA by enhancement losses, in turn.

:func:`algorithm_1` is the paper's pseudo-code, line by line. Names, beside the paper's: theta_1
``consistency``, theta_2 ``detail``, mu ``retrieval``, E_phi ``encode``, R_mu ``retrieve``,
epsilon_{phi,theta_1,theta_2} ``refine``, D_phi ``decode``, Y ``prompts``. The strategies, orders,
branches and windows that the appendix compares (A.2) are settings of :class:`Algorithm1Config`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource
from dloral.data.spec import check, on_grid, one_of
from dloral.errors import OptionError
from dloral.frames.resize import shrink_for_flow
from dloral.models.adapters import ADAPTERS, adapter_parameters
from dloral.options import WINDOWS
from dloral.pipeline import DLoRALPipeline
from dloral.training.adversarial import AdversarialConfig
from dloral.training.csd import CSDConfig
from dloral.training.objective import PAIR_LOSSES, Objective, Restored, check_names
from dloral.training.schedule import Stage, StageSchedule, named_schedule
from dloral.training.trainer import Trainer

STRATEGIES = ("dual", "alternating-one-space", "joint")
ORDERS = ("consistency-first", "enhancement-first")
BRANCHES = ("both", "C-only", "D-only")


@dataclass(frozen=True)
class Algorithm1Config:
    """A micro-batch is ``clips`` clips cropped to ``crop`` pixels; the last ``outputs`` frames of
    each are restored, from as many frames as ``window`` needs.

    ``schedule``: a :class:`StageSchedule` or its name (``algorithm1``, ``public``).
    ``strategy``: ``dual`` is the paper's, two LoRAs trained in turn; ``alternating-one-space``
    trains only C-LoRA, on both groups of losses in turn; ``joint`` trains it on both at once.
    ``branches``: ``C-only`` and ``D-only`` train one LoRA in its own stage only (Table A1).
    ``order``: which stage comes first (Table A2). ``window``: earlier frames that CFR looks at
    (Table A3); 0 means no CFR.

    ``first_frame_share`` of the clips are treated as if each frame were the first of its clip (its
    own predecessor), because stills and first frames are restored that way. ``scale_choices``: in
    each stage, the other LoRA's scale is drawn from these, so that each slider keeps its meaning
    independently of the other (our decision; the paper has both at 1). ``decoder_loras``: which
    LoRAs are also trained in a decoder that supports them. ``flow_reduction``: the factor by which
    frames are shrunk for the flow loss.
    """

    clips: int = 4
    crop: int = 128
    first_frame_share: float = 0.25
    scale_choices: tuple[float, ...] = (0.0, 1.0)
    schedule: StageSchedule = field(default_factory=lambda: named_schedule("algorithm1"))
    strategy: str = "dual"
    branches: str = "both"
    order: str = "consistency-first"
    window: int = 1
    outputs: int = 2
    decoder_loras: tuple[str, ...] = ADAPTERS
    flow_reduction: int = 1
    csd: CSDConfig = field(default_factory=CSDConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", named_schedule(self.schedule))
        counts = ("clips", "outputs", "flow_reduction")
        share = self.first_frame_share
        check(
            self,
            {
                "strategy": (self.strategy in STRATEGIES, one_of(STRATEGIES)),
                "branches": (self.branches in BRANCHES, one_of(BRANCHES)),
                "order": (self.order in ORDERS, one_of(ORDERS)),
                "window": (self.window in WINDOWS, one_of(map(str, WINDOWS))),
                **{name: (getattr(self, name) >= 1, "1 or more") for name in counts},
                "crop": on_grid(self.crop),
                "first_frame_share": (0 <= share <= 1, "a share from 0 to 1"),
                "decoder_loras": ({*self.decoder_loras} <= {*ADAPTERS}, f"some of {ADAPTERS}"),
                "scale_choices": (bool(self.scale_choices), "at least one, such as (1.0,)"),
            },
        )
        if self.strategy != "dual" and self.branches != "both":
            raise OptionError(
                f"strategy {self.strategy!r} has one LoRA for both stages; leave branches at 'both'"
            )
        check_names(self.schedule.loss_names())
        if "hints" in self._weighed():
            raise OptionError(
                "the loss 'hints' trains a whole decoder, not LoRAs; give it weight in base.weights"
            )
        paired = [name for name in PAIR_LOSSES if name in self._weighed()]
        if paired and self.outputs < 2:
            raise OptionError(
                f"outputs is {self.outputs}, but the loss {paired[0]!r} compares two outputs of a "
                "clip; give 2 or more, or use other losses"
            )

    def _weighed(self) -> set[str]:
        """Losses that have a weight above 0 in some stage of the plan."""
        plan = self.plan()
        weights = [plan.first_weights or {}]
        if plan.stages != ("enhancement",):
            weights.append(plan.consistency_weights)
        if plan.stages != ("consistency",):
            weights.append(plan.enhancement_weights)
        return {name for each in weights for name, weight in each.items() if weight}

    @property
    def frames(self) -> int:
        """Frames needed per clip."""
        return self.outputs + max(self.window, 1)

    def plan(self) -> StageSchedule:
        """The schedule, with its stages set by strategy, branches and order."""
        stages: tuple[Stage, ...] = ("consistency", "enhancement")
        if self.strategy == "joint":
            stages = ("joint",)
        elif self.branches != "both":
            stages = stages[:1] if self.branches == "C-only" else stages[1:]
        elif self.order == "enhancement-first":
            stages = stages[::-1]
        # The first weights belong to a consistency stage that comes first.
        first = self.schedule.first_weights if stages[0] == "consistency" else None
        return replace(self.schedule, stages=stages, first_weights=first)


def algorithm_1(task: "Algorithm1Task", trainer: Trainer) -> None:
    """The paper's Algorithm 1, with its line numbers; lines 1 and 2 made ``task``.

    Lines 6 to 10 and 16 to 20 differ only in where the sample comes from.
    """
    schedule = task.schedule  # 3: N_cycle = N_cons + N_enh
    for i in trainer.iterations():  # 4: i = 1 to N
        stage = trainer.stage = schedule.stage_at(i)  # 5, 15: (i - 1) mod N_cycle < N_cons
        with trainer.update(task.learns(stage)) as update:  # 13, 22: theta_1 and mu, or theta_2
            for draw in update:
                x_l_and_h = task.sources[stage].draw(draw)  # 6, 16: from S_cons, or from S_enh
                with trainer.autocast():
                    task.set_scales(stage, draw.rng)
                    c_y = task.prompts(x_l_and_h)  # 7, 17: Y
                    z_l = task.encode(x_l_and_h)  # 8, 18: E_phi
                    z_h = task.refine(z_l, c_y, draw.rng)  # 9, 19: epsilon(R_mu(z_l); c_y)
                    x_h = task.decode(z_h, x_l_and_h, c_y)  # 10, 20: D_phi
                    losses = task.losses(x_h, stage, schedule.weights_at(i), draw.rng)
                update.backward(losses)  # 11, 12, 21


class Algorithm1Task:
    """The generator being trained, its losses, and the parameters that each stage trains.

    ``sources``: one for each stage of the schedule. ``feature_distance``, ``teacher``: the losses'
    networks (:class:`~dloral.training.objective.Objective`). ``prompts``: clips -> text embeddings
    (None: the empty prompt's, or none for a model without text).
    """

    def __init__(
        self,
        pipe: DLoRALPipeline,
        sources: Mapping[Stage, ClipSource],
        config: Algorithm1Config,
        feature_distance: nn.Module | None = None,
        prompts: Callable[[Clips], Tensor | None] | None = None,
        gradient_checkpointing: bool = False,
        teacher: nn.Module | None = None,
    ) -> None:
        self.pipe, self.sources, self.config = pipe, sources, config
        self.schedule = config.plan()
        self.checkpointing = gradient_checkpointing
        self.objective = Objective(
            pipe,
            self.schedule.loss_names(),
            feature_distance=feature_distance,
            teacher=teacher,
            adversarial=config.adversarial,
            csd=config.csd,
            flow_reduction=config.flow_reduction,
            checkpointing=gradient_checkpointing,
        )
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False)
        with torch.no_grad():
            empty = pipe.encode_prompt("")
        self.prompts = prompts or (lambda clips: empty)
        self._parameters = self._spaces()

    # What learns -----------------------------------------------------------------------------

    def _spaces(self) -> dict[Stage, dict[str, nn.Parameter]]:
        """By stage: theta_1 and mu, or theta_2, or what the strategy trains instead."""
        theta_1, theta_2 = (
            _named("unet", adapter_parameters(self.pipe.unet, adapter))
            | (_named("vae", adapter_parameters(self.pipe.vae, adapter)) if also else {})
            for adapter, also in ((name, name in self.config.decoder_loras) for name in ADAPTERS)
        )
        mu = _named("retrieval", dict(self.pipe.retrieval.named_parameters()))
        if not self.config.window:
            mu = {}  # nothing is retrieved
        critic = self.objective.parameters()
        enhancement = theta_2 if self.config.strategy == "dual" else theta_1 | mu
        return {
            "consistency": theta_1 | mu,
            "enhancement": enhancement | critic,
            "joint": theta_1 | mu | critic,
        }

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every parameter that some stage of the schedule updates, by name."""
        stages = self.schedule.stages
        return {name: p for stage in stages for name, p in self._parameters[stage].items()}

    def learns(self, stage: Stage) -> set[str]:
        """Names of the parameters that a stage updates."""
        return set(self._parameters[stage])

    def buffers(self) -> dict[str, Tensor]:
        """Other state that changes in training: the discriminator's spectral norms."""
        return self.objective.buffers()

    def set_scales(self, stage: Stage, rng: np.random.Generator) -> None:
        """Set the LoRAs' scales for a micro-batch: the stage's own to 1, the other at random."""
        other = float(rng.choice(self.config.scale_choices))
        consistency = other if stage == "enhancement" else 1.0
        detail = 1.0 if stage == "enhancement" else other
        if self.config.strategy != "dual" or self.config.branches == "C-only":
            consistency, detail = 1.0, 0.0
        elif self.config.branches == "D-only":
            consistency, detail = 0.0, 1.0
        self.pipe.set_scales(consistency, detail, merge=False)

    # The network's forward pass --------------------------------------------------------------

    @torch.no_grad()
    def encode(self, clips: Clips) -> tuple[Tensor, Tensor]:
        """Latents (B,T,C,h,w) of every frame, and small frames (B,T,3,h,w) for the flow net."""
        shape = clips.lq_frames.shape[:2]
        lq_frames = clips.lq_frames.flatten(0, 1)
        per_pass = 1 if self.checkpointing else len(lq_frames)
        latents = torch.cat([self.pipe.encode(part) for part in lq_frames.split(per_pass)])
        small_frames = shrink_for_flow(lq_frames, self.pipe.latent_stride)
        return latents.unflatten(0, shape), small_frames.unflatten(0, shape)

    def refine(
        self,
        encoded: tuple[Tensor, Tensor],
        prompt_embeds: Tensor | None,
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """Restored latents (B,n,C,h,w) of the last n frames.

        With ``rng``, a share of the clips is restored frame by frame, as if all were first frames.
        """
        total = encoded[0].shape[1]
        count = min(self.config.outputs, max(total - 1, 1))
        current = range(total - count, total)
        window = range(1, self.config.window + 1)
        now = [part[:, current.start :] for part in encoded]
        # (K,B,n,...), nearest first; the oldest frame stands in for those before it.
        before = [
            torch.stack([part[:, [max(t - k, 0) for t in current]] for k in window])
            if window
            else latest[None][:0]
            for part, latest in zip(encoded, now, strict=True)
        ]
        if rng is not None:
            alone = torch.from_numpy(rng.random(len(now[0])) < self.config.first_frame_share)
            for earlier, latest in zip(before, now, strict=True):
                earlier[:, alone] = latest[alone]
        retrieved, aligned = self.pipe.retrieve(
            *(part.flatten(0, 1) for part in now), *(part.flatten(1, 2) for part in before)
        )
        restored = self.pipe.refine(aligned, retrieved, _repeated(prompt_embeds, count))
        return restored.unflatten(0, (-1, count))

    def decode(self, latents: Tensor, clips: Clips, prompt_embeds: Tensor | None) -> Restored:
        """x_hat of the last n frames, with everything that the losses need."""
        count = latents.shape[1]
        inputs = clips.lq_frames[:, -count:].flatten(0, 1)
        per_pass = 1 if self.checkpointing else len(inputs)
        passes = zip(latents.flatten(0, 1).split(per_pass), inputs.split(per_pass), strict=True)
        frames = torch.cat([self.pipe.decode(*part) for part in passes])
        flow = (
            clips.flow if clips.flow is None else clips.flow[:, clips.flow.shape[1] - count + 1 :]
        )
        return Restored(
            frames=frames.unflatten(0, (-1, count)),
            hq_frames=clips.hq_frames[:, -count:],
            latents=latents,
            flow=flow,
            prompt_embeds=_repeated(prompt_embeds, count),
            small_frames=None if clips.small_frames is None else clips.small_frames[:, -count:],
            lq_frames=clips.lq_frames[:, -count:],
            lossless=clips.lossless,
        )

    def restore(self, clips: Clips, rng: np.random.Generator | None = None) -> Restored:
        """Lines 7 to 10, with the LoRAs' current scales."""
        prompt_embeds = self.prompts(clips)
        return self.decode(
            self.refine(self.encode(clips), prompt_embeds, rng), clips, prompt_embeds
        )

    # Losses ----------------------------------------------------------------------------------

    def losses(
        self,
        restored: Restored,
        stage: Stage,
        weights: Mapping[str, float],
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Every loss of non-zero weight in this step, times its weight."""
        return self.objective.weighed(restored, weights, rng, stage != "consistency")

    def loss(self, name: str, restored: Restored, rng: np.random.Generator | None = None) -> Tensor:
        """One loss by its name, (N,) for N frames or pairs of frames."""
        return self.objective.loss(name, restored, rng)


def _named(part: str, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"{part}.{name}": parameter for name, parameter in parameters.items()}


def _repeated(prompt_embeds: Tensor | None, count: int) -> Tensor | None:
    """Embeddings of B clips, repeated for ``count`` frames each; a shared one stays single."""
    if prompt_embeds is None or len(prompt_embeds) == 1:
        return prompt_embeds
    return prompt_embeds.repeat_interleave(count, dim=0)
