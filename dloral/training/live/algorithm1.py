"""The live recipe's Algorithm 1: C-LoRA with CFR, and D-LoRA, in turn, on a frozen base."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dloral.data.clips import Clips
from dloral.frames.resize import shrink_for_flow
from dloral.models.adapters import (
    CONSISTENCY,
    DETAIL,
    adapter_parameters,
    add_adapters,
    lora_layers,
)
from dloral.training.adversarial import AdversarialConfig, AdversarialLoss, balanced_gradient
from dloral.training.live.phase import Phase
from dloral.training.live.recipe import Recipe
from dloral.training.losses import charbonnier, excess_detail, grid, psnr_loss, temporal_difference


class LiveAlgorithm1:
    """Both kinds of step, and their turns, on the model of a :class:`Recipe`."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.config, self.pipe = recipe, recipe.config, recipe.pipe

    def train(self, seconds: float) -> None:
        """C-LoRA and CFR, then D-LoRA, in turn; steps of a stage fixed by the first trial."""
        begun = time.monotonic()
        recipe, pipe, config = self.recipe, self.pipe, self.config
        pipe.vae.requires_grad_(False)
        pipe.unet.requires_grad_(False)
        torch.manual_seed(config.seed)
        fresh = not any(lora_layers(pipe.unet))
        if fresh:
            add_adapters(pipe.unet, config.lora_rank)
            pipe.unet.to(recipe.device)
            for weight in pipe.retrieval.proj.parameters():  # as the LoRAs, it starts as no change
                nn.init.zeros_(weight)
        groups = {
            "consistency": [
                *adapter_parameters(pipe.unet, CONSISTENCY).values(),
                *pipe.retrieval.parameters(),
            ],
            "enhancement": list(adapter_parameters(pipe.unet, DETAIL).values()),
        }
        self.new_adversary()
        recipe.fill(3)
        stages = [
            {"C": "consistency", "D": "enhancement"}[letter]
            for letter in config.stages.removeprefix("S")
        ]
        parts = {"consistency": config.consistency_part, "enhancement": 1 - config.consistency_part}
        self.phases: dict[str, Phase] = {}
        each = {s: self.seconds_a_step(s, groups) for s in groups if s in stages}
        left = seconds - (time.monotonic() - begun)
        unit = 0.97 * left / sum(parts[stage] for stage in stages)
        steps = {stage: max(12, int(parts[stage] * unit / each[stage])) for stage in each}
        recipe.log(steps=steps)
        totals = {stage: each * stages.count(stage) for stage, each in steps.items()}
        self.phases = {s: Phase(groups[s], config.lora_rate, totals[s]) for s in steps}
        self.new_adversary()
        # half way down the cosine at the end
        self.judge = self.judge_of(config.discriminator_rate, 2 * totals.get("enhancement", 0))
        for number, stage in enumerate(stages):
            _only(groups, stage)
            step = self.planned(stage, steps[stage], fresh and number == 0)
            recipe.steps(step, steps[stage], f"{stage} {number}")
            self.phases[stage].load_ema()  # the other stage builds on the average
        recipe.save("final")

    def planned(self, stage: str, total: int, alone: bool) -> Callable[[int], Mapping[str, Tensor]]:
        """A stage's step, of ``total``; ``alone``: C-LoRA's, while D-LoRA is still nothing."""

        def step(index: int) -> Mapping[str, Tensor]:
            ramp = min(1.0, (index + 1) / max(1.0, self.config.transition_part * total))
            losses = (
                self.consistency_step(ramp, alone)
                if stage == "consistency"
                else self.enhancement_step(ramp, self.judge)
            )
            self.phases[stage].update()
            return losses

        return step

    def seconds_a_step(self, stage: str, groups: Mapping[str, list[nn.Parameter]]) -> float:
        """Timed on steps that count for nothing."""
        weights = groups[stage]
        _only(groups, stage)
        before = [weight.detach().clone() for weight in weights]
        self.phases[stage] = Phase(weights, self.config.lora_rate, 1000)
        self.judge = self.judge_of(1e-6, 1000)
        seconds = self.recipe.timed(self.planned(stage, 12, False), warm=4, count=10)
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
        return seconds

    def judge_of(self, rate: float, steps: int) -> Phase:
        return Phase(list(self.adversary.discriminator.parameters()), rate, steps)

    def new_adversary(self) -> None:
        kind = AdversarialConfig("softplus", self.config.discriminator_width, 2, "strided")
        self.adversary = AdversarialLoss(kind, self.config.seed)
        self.adversary.discriminator.to(self.recipe.device)

    def consistency_step(self, ramp: float, alone: bool) -> Mapping[str, Tensor]:
        """Lines 6 to 13: theta_1 and mu by pixels and by the change along the true motion.

        With D-LoRA at 1, pixels would teach C-LoRA to undo it: there the feature distance stands
        in for them.
        """
        config = self.config
        detail = float(not alone and self.recipe.rng.random() < config.detail_share)
        batch = self.recipe.draw(config.consistency_clips, config.crop)
        restored = self.restored(batch, consistency=1.0, detail=detail)
        hq = batch.hq_frames[:, 1:]
        assert batch.flow is not None
        known = torch.isfinite(batch.flow[:, 1:]).flatten(1).all(dim=1)
        flow = batch.flow[:, 1:].nan_to_num()
        flicker = temporal_difference(
            restored[:, 1:].flatten(0, 1),
            restored[:, :-1].flatten(0, 1),
            hq[:, 1:].flatten(0, 1),
            hq[:, :-1].flatten(0, 1),
            flow.flatten(0, 1),
        )
        temporal = (flicker * known).sum() / known.sum().clamp(min=1)
        frames, truth = restored.flatten(0, 1), hq.flatten(0, 1)
        losses = {f"temporal d={detail:g}": temporal}
        if detail:
            with self.recipe.autocast():
                kept = self.recipe.features(frames, truth).mean()
            pixel = charbonnier(frames, truth).mean()
            losses["feature"] = kept
            total = config.kept_detail_weight * kept + 0.25 * pixel
        else:
            total = losses["psnr_loss"] = psnr_loss(frames, truth, config.error_floor).mean()
        (total + ramp * config.temporal_weight * temporal).backward()
        return losses

    def enhancement_step(self, ramp: float, judge: Phase) -> Mapping[str, Tensor]:
        """Lines 16 to 22: theta_2 by pixels, features, a price on grids, and the discriminator."""
        config = self.config
        consistency = float(self.recipe.rng.random() < config.consistency_share)
        batch = self.recipe.draw(config.enhancement_clips, config.crop)
        restored = self.restored(batch, consistency=consistency, detail=1.0)
        frames, truth = restored.flatten(0, 1), batch.hq_frames[:, 1:].flatten(0, 1)
        pixel, pattern = charbonnier(frames, truth).mean(), grid(frames, truth).mean()
        excess = excess_detail(frames, truth).mean()
        with self.recipe.autocast():
            feature = self.recipe.features(frames, truth).mean()
        others = (
            config.enhancement_pixel * pixel
            + config.enhancement_feature * feature
            + config.enhancement_grid * pattern
            + config.enhancement_excess * excess
        )
        losses = {"pixel": pixel, "feature d": feature, "grid": pattern, "excess": excess}
        if not config.adversarial_share:
            others.backward()
            return losses
        with self.recipe.autocast():
            judging = self.adversary.critic(frames, truth).mean()
        judging.backward()
        judge.update()
        with self.recipe.autocast():
            fooled = self.adversary.generator(frames).mean()
        share = ramp * config.adversarial_share
        frames.backward(balanced_gradient(frames, others, fooled, share))
        return {**losses, "judging": judging, "fooled": fooled}

    def restored(self, batch: Clips, consistency: float, detail: float) -> Tensor:
        """x_hat of every frame with a predecessor, (B,T-1,3,H,W); some clips stand alone."""
        pipe = self.pipe
        pipe.unet.set_scales(consistency=consistency, detail=detail, merge=False)
        shape = batch.lq_frames.shape[:2]
        lq = batch.lq_frames.flatten(0, 1)
        with self.recipe.autocast():
            with torch.no_grad():
                latents = pipe.encode(lq.contiguous(memory_format=torch.channels_last))
                latents = latents.unflatten(0, shape)
                small = shrink_for_flow(lq).unflatten(0, shape)
                alone = torch.rand(shape[0], 1, 1, 1, 1, device=lq.device) < self.config.alone_share
                before = torch.where(alone, latents[:, 1:], latents[:, :-1]).flatten(0, 1)
                small_before = torch.where(alone, small[:, 1:], small[:, :-1]).flatten(0, 1)
            retrieved, aligned = pipe.retrieve(
                latents[:, 1:].flatten(0, 1),
                small[:, 1:].flatten(0, 1),
                before[None],
                small_before[None],
            )
            refined = pipe.refine(aligned, retrieved, None)
            frames = pipe.decode(refined, batch.lq_frames[:, 1:].flatten(0, 1))
        return frames.unflatten(0, (shape[0], shape[1] - 1))


def _only(groups: Mapping[str, list[nn.Parameter]], stage: str) -> None:
    """Gradients for one stage's weights alone."""
    for name, weights in groups.items():
        for weight in weights:
            weight.requires_grad_(name == stage)
