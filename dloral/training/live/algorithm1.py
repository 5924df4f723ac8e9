"""The live recipe's Algorithm 1: C-LoRA with CFR, and D-LoRA, in turn, on a frozen base."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

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
from dloral.training.losses import charbonnier, excess_detail, grid, log_error, temporal_difference
from dloral.training.packs import ClipBatch


class LiveAlgorithm1:
    """Both kinds of step, and their turns, on the model of a :class:`Recipe`."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.config, self.pipe = recipe, recipe.config, recipe.pipe

    def train(self, seconds: float) -> None:
        """C-LoRA and CFR, then D-LoRA, in turn; steps of a stage fixed by the first trial."""
        recipe, pipe, config = self.recipe, self.pipe, self.config
        pipe.vae.requires_grad_(False)
        pipe.unet.requires_grad_(False)
        torch.manual_seed(config.seed)
        if not any(lora_layers(pipe.unet)):
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
        unit = seconds / sum(parts[stage] for stage in stages)
        phases: dict[str, Phase] = {}
        judge: list[Phase] = []

        def planned(stage: str, total: int, first: bool) -> Callable[[int], Mapping[str, Tensor]]:
            def step(index: int) -> Mapping[str, Tensor]:
                ramp = min(1.0, (index + 1) / max(1.0, config.transition_part * total))
                losses = (
                    self.consistency_step(ramp, first)
                    if stage == "consistency"
                    else self.enhancement_step(ramp, judge[0])
                )
                phases[stage].update()
                return losses

            return step

        steps: dict[str, int] = {}
        for stage, parameters in groups.items():  # how many steps fit: timed once a stage
            if stage not in stages:
                continue
            for other in groups.values():
                for parameter in other:
                    parameter.requires_grad_(other is parameters)
            before = [p.detach().clone() for p in parameters]
            phases[stage] = Phase(parameters, config.lora_rate, 1000)
            judge[:] = [Phase(list(self.adversary.discriminator.parameters()), 1e-6, 1000)]
            recipe.steps(planned(stage, 12, True), 4)
            recipe.wait()
            clock = time.monotonic()
            recipe.steps(planned(stage, 12, True), 10)
            recipe.wait()
            each = (time.monotonic() - clock) / 10
            steps[stage] = max(12, int(parts[stage] * unit * 0.97 / each))
            recipe.log(phase=stage, steps=steps[stage], milliseconds_a_step=round(1000 * each, 2))
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
        totals = {stage: each * stages.count(stage) for stage, each in steps.items()}
        phases.update({s: Phase(groups[s], config.lora_rate, totals[s]) for s in set(stages)})
        self.new_adversary()
        judge[:] = [
            Phase(
                list(self.adversary.discriminator.parameters()),
                config.discriminator_rate,
                2 * totals.get("enhancement", 0),  # half way down the cosine at the end
            )
        ]
        for number, stage in enumerate(stages):
            for name, parameters in groups.items():
                for parameter in parameters:
                    parameter.requires_grad_(name == stage)
            recipe.steps(
                planned(stage, steps[stage], number == 0), steps[stage], f"{stage} {number}"
            )
            phases[stage].take_average()  # the other stage builds on the average
        recipe.save("final")

    def new_adversary(self) -> None:
        kind = AdversarialConfig("softplus", self.config.discriminator_width, 2, "strided")
        self.adversary = AdversarialLoss(kind, self.config.seed)
        self.adversary.discriminator.to(self.recipe.device)

    def consistency_step(self, ramp: float, first: bool) -> Mapping[str, Tensor]:
        """Lines 6 to 13: theta_1 and mu by pixels and by the change along the true motion.

        With D-LoRA at 1, pixels would teach C-LoRA to undo it: there the feature distance stands
        in for them.
        """
        config = self.config
        detail = float(not first and self.recipe.rng.random() < config.detail_share)
        batch = self.recipe.draw(config.consistency_clips, config.crop)
        restored = self.restored(batch, consistency=1.0, detail=detail)
        hq = batch.hq_frames[:, 1:]
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
            total = losses["log_error"] = log_error(frames, truth, config.error_floor).mean()
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

    def restored(self, batch: ClipBatch, consistency: float, detail: float) -> Tensor:
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
