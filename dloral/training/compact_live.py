r"""The compact model's recipe for one GPU: every phase, from photographs to weights, in one run.

    python -m dloral.training.compact_live --photos PHOTOS --film FILM --out RUN --seconds 500

The step counts are what fits into ``--seconds`` on the GPU at hand, split by ``SHARES`` and
measured at the start of each phase; the log holds them. Pairs are made on the GPU all the while
(:mod:`dloral.training.live`). In order:

* ``flow``: the flow net goes on from the embedded one's weights, on exact flow;
* ``base``: VAE and UNet on single frames, and clean frames through the VAE alone;
* ``algorithm1``: C-LoRA with CFR, then D-LoRA, in turn (``stages``, C D C D C).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dloral.errors import InputError, OptionError, exit_status
from dloral.frames.batch_degradation import DegradationBank
from dloral.frames.resize import shrink_for_flow
from dloral.models.adapters import (
    CONSISTENCY,
    DETAIL,
    adapter_parameters,
    add_adapters,
    lora_layers,
)
from dloral.models.flow import SPyNet
from dloral.models.perceptual import LPIPSLike
from dloral.pipeline import DLoRALPipeline
from dloral.training.adversarial import AdversarialConfig, AdversarialLoss, balanced_gradient
from dloral.training.compact import CompactSizes, build_pipeline, embed
from dloral.training.flow import end_point_error
from dloral.training.live import PairPool, Pictures, read_film
from dloral.training.losses import (
    charbonnier,
    excess_detail,
    grid,
    log_error,
    temporal_difference,
)
from dloral.training.packs import ClipBatch
from dloral.weights.finding import EMBEDDED
from dloral.weights.loading import load_pipeline

SHARES = {"flow": 0.06, "base": 0.46, "algorithm1": 0.48}


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

    lora_rank: int = 32
    consistency_clips: int = 32
    enhancement_clips: int = 24
    lora_rate: float = 1e-3
    discriminator_rate: float = 2e-4
    discriminator_width: int = 64
    stages: str = "CDCDC"
    """Algorithm 1's stages: C trains C-LoRA and CFR, D trains D-LoRA."""
    consistency_part: float = 0.3
    """A C stage's time to a D stage's is this to one minus this."""
    transition_part: float = 0.15
    """Of a stage's steps: weights of the new losses rise linearly (s_t)."""
    alone_share: float = 0.2
    consistency_share: float = 0.65
    """How often C-LoRA is at 1 rather than 0 while D-LoRA learns."""
    detail_share: float = 0.3
    """The same of D-LoRA while C-LoRA learns; in the first stage, when it is nothing yet, never."""
    temporal_weight: float = 0.5
    kept_detail_weight: float = 0.5
    enhancement_pixel: float = 1.0
    enhancement_feature: float = 1.0
    enhancement_grid: float = 20.0
    enhancement_excess: float = 0.0
    adversarial_share: float = 0.35
    """Of the enhancement gradient, the discriminator's; with 0 there is none."""

    def __post_init__(self) -> None:
        if not self.stages or set(self.stages) - set("CD"):
            raise OptionError(f"stages is {self.stages!r}; give letters C and D, as in CDCDC")


class Phase:
    """One AdamW over some parameters with a warm-up, a cosine to 0, gradient clipping and EMA."""

    def __init__(
        self, parameters: list[nn.Parameter], rate: float, steps: int, ema: float = 0.999
    ) -> None:
        self.parameters, self.rate, self.steps, self.ema, self.step = (
            parameters,
            rate,
            steps,
            ema,
            0,
        )
        fused = parameters[0].device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=fused
        )
        self.average = [p.detach().clone() for p in parameters]

    def update(self) -> None:
        """After backward."""
        done = self.step / max(self.steps, 1)
        warm = min(1.0, (self.step + 1) / max(1, min(200, self.steps // 10)))
        rate = self.rate * warm * 0.5 * (1 + np.cos(np.pi * min(done, 1)))
        for group in self.optimizer.param_groups:
            group["lr"] = max(rate, 1e-7)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        factor = min(self.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - factor)

    @torch.no_grad()
    def take_average(self) -> None:
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.copy_(average)


class Recipe:
    """The whole run; ``log`` lines are JSON."""

    def __init__(
        self,
        config: LiveConfig,
        pictures: Pictures,
        features: nn.Module,
        out: Path,
        sizes: CompactSizes | None = None,
    ) -> None:
        self.config, self.out, self.device = config, out, pictures.device
        torch.manual_seed(config.seed)
        self.rng = np.random.default_rng(config.seed)
        self.pictures = pictures
        self.bank = DegradationBank(config.draws, config.seed, self.device)
        self.features = features.to(self.device)
        pipe = build_pipeline(sizes or CompactSizes(), config.seed)
        pipe.register_modules(flow=SPyNet.from_pretrained(EMBEDDED["compact"] / "flow"))
        self.pipe: DLoRALPipeline = pipe.to(self.device).channels_last()
        self.pool: PairPool | None = None
        self.started = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    def take(self, folder: Path) -> None:
        """Go on from a pipeline's weights, and from its LoRAs and CFR where it has them."""
        self.pipe = load_pipeline(folder, self.device.type, "float32")

    def log(self, **entry: object) -> None:
        entry = {"seconds": round(time.monotonic() - self.started, 1), **entry}
        line = json.dumps(entry)
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def fill(self, num_frames: int) -> None:
        """A pool of clips of ``num_frames`` in place of the one before."""
        config = self.config
        self.pool = None
        held = config.stills_held if num_frames == 1 else config.clips_held
        at_a_time = config.stills_at_a_time if num_frames == 1 else config.clips_at_a_time
        self.pool = PairPool(
            self.pictures, self.bank, num_frames, held, at_a_time, config.light_share
        )
        for _ in range(config.warm_refills):
            self.pool.refill(self.rng)

    def run_phase(
        self,
        name: str,
        seconds: float,
        make_step: Callable[[int], Callable[[int], Mapping[str, Tensor]]],
    ) -> None:
        """Time a few steps of a throw-away plan, then run as many as fit."""
        begun = time.monotonic()
        trial = make_step(0)
        self._steps(trial, 6)
        self._wait()
        clock = time.monotonic()
        self._steps(trial, 12)
        self._wait()
        each = (time.monotonic() - clock) / 12
        left = seconds - (time.monotonic() - begun)
        steps = max(24, int(left / each))
        self.log(phase=name, steps=steps, milliseconds_a_step=round(1000 * each, 2))
        self._steps(make_step(steps), steps, name, begun + seconds)

    def _steps(
        self,
        step: Callable[[int], Mapping[str, Tensor]],
        count: int,
        name: str = "",
        deadline: float = float("inf"),
    ) -> None:
        assert self.pool is not None
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for index in range(count):
            if index % self.config.refill_every == 0:
                self.pool.refill(self.rng)
            for key, value in step(index).items():
                sums[key] = sums.get(key, 0.0) + value.detach()
                counts[key] = counts.get(key, 0) + 1
            if name and ((index + 1) % self.config.log_every == 0 or index + 1 == count):
                figures = {key: round((sums[key] / counts[key]).item(), 5) for key in sums}
                self.log(phase=name, step=index + 1, **figures)
                if not all(np.isfinite(list(figures.values()))):
                    raise FloatingPointError(f"{name} step {index + 1}: {figures}")
                sums, counts = {}, {}
                if time.monotonic() > deadline + 10:
                    self.log(phase=name, stopped_early_at=index + 1)
                    return

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    # The phases ------------------------------------------------------------------------------

    def train_flow(self, seconds: float) -> None:
        flow = self.pipe.flow
        flow.requires_grad_(True)
        self.fill(3)
        kept = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
        phases: list[Phase] = []

        def plan(steps: int) -> Callable[[int], Mapping[str, Tensor]]:
            flow.load_state_dict(kept)
            phase = Phase(list(flow.parameters()), self.config.flow_rate, steps)
            phases[:] = [phase]

            def step(index: int) -> Mapping[str, Tensor]:
                batch = self.draw(self.config.flow_clips, self.config.size)
                loss, finest = self.flow_losses(batch)
                loss.backward()
                phase.update()
                return {"end_point_error": finest}

            return step

        self.run_phase("flow", seconds, plan)
        phases[0].take_average()
        flow.requires_grad_(False)

    def flow_losses(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """(taught at every level, of the finest level alone)."""
        shape = batch.lq_frames.shape[:2]
        small = shrink_for_flow(batch.lq_frames.flatten(0, 1)).unflatten(0, shape)
        wanted = batch.flow.flatten(0, 1)[..., 4::8, 4::8] / 8
        known = torch.isfinite(wanted[:, :1]).float()
        wanted = wanted.nan_to_num()
        side = wanted.shape[-1]
        centre = torch.arange(side, device=wanted.device)
        ends = wanted + torch.stack(torch.meshgrid(centre, centre, indexing="xy"))
        known = known * ((ends >= 0) & (ends <= side - 1)).all(dim=1, keepdim=True)
        with self.autocast():
            flows = self.pipe.flow.coarse_to_fine(
                2 * small[:, 1:].flatten(0, 1) - 1, 2 * small[:, :-1].flatten(0, 1) - 1
            )
        total, weight = wanted.new_zeros(()), 1.0
        finest = end_point_error(flows[-1], wanted, known + 1e-6).detach()
        for flow in reversed(flows):
            if flow is not flows[-1]:  # a cell of the next level is twice as large
                wanted = nn.functional.avg_pool2d(wanted, 2) / 2
                known = nn.functional.avg_pool2d(known, 2)
            total = total + weight * end_point_error(flow, wanted, known + 1e-6)
            weight *= 0.7
        return total, finest

    def train_base(self, seconds: float) -> None:
        pipe, config = self.pipe, self.config
        parameters = [*pipe.vae.parameters(), *pipe.unet.parameters()]
        start = [p.detach().clone() for p in parameters]
        self.fill(1)
        phases: list[Phase] = []

        def plan(steps: int) -> Callable[[int], Mapping[str, Tensor]]:
            with torch.no_grad():
                for parameter, value in zip(parameters, start, strict=True):
                    parameter.copy_(value)
            phase = Phase(parameters, config.base_rate, steps)
            phases[:] = [phase]

            def step(index: int) -> Mapping[str, Tensor]:
                losses = self.base_losses(index < config.charbonnier_part * steps)
                (losses["restored"] + 0.25 * losses["reconstructed"]).backward()
                phase.update()
                return losses

            return step

        self.run_phase("base", seconds, plan)
        phases[0].take_average()

    def base_losses(self, early: bool) -> dict[str, Tensor]:
        config, pipe = self.config, self.pipe
        count = [config.base_restored, config.base_reconstructed]
        batch = self.draw(sum(count), config.crop)
        hq, lq = batch.hq_frames.flatten(0, 1), batch.lq_frames.flatten(0, 1)
        inputs = torch.cat([lq[: count[0]], hq[count[0] :]])
        with self.autocast():
            latents = pipe.encode(inputs.contiguous(memory_format=torch.channels_last))
            degraded, clean = latents.split(count)
            latents = torch.cat([pipe.refine(degraded, degraded, None), clean])
            frames = pipe.decode(latents, lq)
        (restored, copied), (hq_restored, hq_copied) = frames.split(count), hq.split(count)
        loss = (
            charbonnier(restored, hq_restored)
            if early
            else log_error(restored, hq_restored, config.error_floor)
        )
        return {
            "restored": loss.mean(),
            "reconstructed": charbonnier(copied, hq_copied).mean(),
            "decibels": (psnr_of(restored, hq_restored) - psnr_of(lq[: count[0]], hq_restored)),
        }

    def train_algorithm1(self, seconds: float) -> None:
        """C-LoRA and CFR, then D-LoRA, in turn; steps of a stage fixed by the first trial."""
        pipe, config = self.pipe, self.config
        pipe.vae.requires_grad_(False)
        pipe.unet.requires_grad_(False)
        torch.manual_seed(config.seed)
        if not any(lora_layers(pipe.unet)):
            add_adapters(pipe.unet, config.lora_rank)
            pipe.unet.to(self.device)
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
        self.fill(3)
        stages = [{"C": "consistency", "D": "enhancement"}[letter] for letter in config.stages]
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
            self._steps(planned(stage, 12, True), 4)
            self._wait()
            clock = time.monotonic()
            self._steps(planned(stage, 12, True), 10)
            self._wait()
            each = (time.monotonic() - clock) / 10
            steps[stage] = max(12, int(parts[stage] * unit * 0.97 / each))
            self.log(phase=stage, steps=steps[stage], milliseconds_a_step=round(1000 * each, 2))
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
            self._steps(
                planned(stage, steps[stage], number == 0), steps[stage], f"{stage} {number}"
            )
            phases[stage].take_average()  # the other stage builds on the average
        self.save("final")

    def new_adversary(self) -> None:
        kind = AdversarialConfig("softplus", self.config.discriminator_width, 2, "strided")
        self.adversary = AdversarialLoss(kind, self.config.seed)
        self.adversary.discriminator.to(self.device)

    def consistency_step(self, ramp: float, first: bool) -> Mapping[str, Tensor]:
        """Lines 6 to 13: theta_1 and mu by pixels and by the change along the true motion.

        With D-LoRA at 1, pixels would teach C-LoRA to undo it: there the feature distance stands
        in for them.
        """
        config = self.config
        detail = float(not first and self.rng.random() < config.detail_share)
        batch = self.draw(config.consistency_clips, config.crop)
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
            with self.autocast():
                kept = self.features(frames, truth).mean()
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
        consistency = float(self.rng.random() < config.consistency_share)
        batch = self.draw(config.enhancement_clips, config.crop)
        restored = self.restored(batch, consistency=consistency, detail=1.0)
        frames, truth = restored.flatten(0, 1), batch.hq_frames[:, 1:].flatten(0, 1)
        pixel, pattern = charbonnier(frames, truth).mean(), grid(frames, truth).mean()
        excess = excess_detail(frames, truth).mean()
        with self.autocast():
            feature = self.features(frames, truth).mean()
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
        with self.autocast():
            judging = self.adversary.critic(frames, truth).mean()
        judging.backward()
        judge.update()
        with self.autocast():
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
        with self.autocast():
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

    def draw(self, count: int, crop: int) -> ClipBatch:
        assert self.pool is not None
        return self.pool.draw(count, crop, self.rng)

    def save(self, name: str) -> None:
        """The pipeline as it is now, in half precision, under ``out/name``."""
        self.pipe.save_pretrained(self.out / "whole" / name)
        embed(self.out / "whole" / name, self.out / name)


def psnr_of(frames: Tensor, hq_frames: Tensor) -> Tensor:
    """Mean over (B,3,H,W) in [0, 1] of each frame's PSNR in dB, at most 70, for the log."""
    error = (frames.detach().clamp(0, 1) - hq_frames).square().mean(dim=(1, 2, 3))
    return (-10 * error.clamp(min=1e-7).log10()).mean()


def changed_config(items: Sequence[str]) -> LiveConfig:
    """The recipe's settings with ``NAME=VALUE`` items changed; raises :class:`OptionError`."""
    changed: dict[str, float | str] = {}
    for item in items:
        name, _, text = item.partition("=")
        usual = getattr(LiveConfig, name, None)
        try:
            if isinstance(usual, str):
                changed[name] = text
            elif isinstance(usual, int | float):
                changed[name] = type(usual)(float(text))
            else:
                raise ValueError
        except (ValueError, OverflowError) as error:
            raise OptionError(
                f"--set {item!r} is no setting with its value; give NAME=VALUE, NAME of "
                f"{', '.join(field.name for field in fields(LiveConfig))}"
            ) from error
    return replace(LiveConfig(), **changed)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--film", type=Path, help="video of five-frame shots")
    parser.add_argument("--features", type=Path, help="LPIPS-like weights (safetensors)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="go on from these weights: Algorithm 1 alone")
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    config = changed_config(given.set)
    if given.base and not given.base.is_dir():
        raise InputError(f"{given.base} is no folder; give the base of an earlier run")
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    film = read_film(given.film, 5) if given.film else None
    photos = sorted(given.photos.glob("*.jpg"))
    if not photos:
        raise InputError(f"{given.photos} holds no .jpg photographs; give a folder that does")
    pictures = Pictures(photos, film, config.size, given.device, config.film_share)
    features = LPIPSLike(given.features, blocks=4)
    recipe = Recipe(config, pictures, features, given.out)
    recipe.started = begun
    (given.out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    recipe.log(photographs=len(photos), film_shots=0 if film is None else len(film))
    if given.base:
        recipe.take(given.base)
    else:
        recipe.train_flow(SHARES["flow"] * given.seconds)
        recipe.train_base(SHARES["base"] * given.seconds)
        recipe.save("base")
    left = given.seconds - (time.monotonic() - begun)
    recipe.train_algorithm1(left)
    recipe.log(done=True)


if __name__ == "__main__":
    sys.exit(exit_status(main, "compact_live"))
