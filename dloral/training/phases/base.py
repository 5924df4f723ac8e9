"""The compact base: a VAE and a UNet that restore clips, trained before any LoRA.

It plays the role of Stable Diffusion in the full model: a generative prior. A step restores two
consecutive frames of each clip. In a share of the clips the UNet's aligned half is the predecessor,
warped by the flow net, as at inference; in the others it is the frame's own latents, as for the
first frame of a clip. A few clean frames go through the VAE alone, so that the decoder can draw
detail that the degraded input never had: D-LoRA needs that later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource, Draw
from dloral.data.packs import psnr
from dloral.data.spec import check, on_grid
from dloral.frames.resize import shrink_for_flow
from dloral.pipeline import DLoRALPipeline
from dloral.training.adversarial import AdversarialConfig
from dloral.training.losses import charbonnier
from dloral.training.objective import PICTURE, Objective, Restored, check_names
from dloral.training.phases.phase import Phase


@dataclass(frozen=True)
class BaseConfig:
    """A step: ``clips`` clips of ``frames`` frames and ``crop`` pixels, every frame restored, and
    ``reconstructed`` clean frames through the VAE alone, with Charbonnier's loss. They are the last
    frames of the first clips or, with ``own_reconstructed``, of clips drawn for this alone.
    ``context``: frames before the restored ones, used as input only: a clip's first frame has no
    predecessor to steady it, so a loss over pairs would make the second frame copy it.

    ``weights``: loss weights by name until ``late_from`` (a share of the steps, 0 to 1);
    ``late_weights`` from there on (empty: the same). ``aligned_share`` of the clips see their
    warped predecessor. With an adversarial loss, the discriminator learns from ``critic_from`` on
    (None: as ``late_from``): an untrained one pushes frames in arbitrary directions.
    """

    clips: int = 4
    frames: int = 2
    context: int = 0
    crop: int = 128
    reconstructed: int = 1
    reconstructed_weight: float = 0.25
    own_reconstructed: bool = False
    aligned_share: float = 0.5
    weights: Mapping[str, float] = field(default_factory=lambda: {"charbonnier": 1.0})
    late_weights: Mapping[str, float] = field(default_factory=dict)
    late_from: float = 0.15
    critic_from: float | None = None
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)

    def __post_init__(self) -> None:
        check(
            self,
            {
                "clips": (self.clips >= 1, "1 or more"),
                "frames": (self.frames >= 1, "1 or more"),
                "context": (self.context >= 0, "0 or more"),
                "crop": on_grid(self.crop),
                "reconstructed": (
                    0 <= self.reconstructed <= (inf if self.own_reconstructed else self.clips),
                    "0 or more, and no more than clips",
                ),
                "aligned_share": (0 <= self.aligned_share <= 1, "a share from 0 to 1"),
                "late_from": (0 <= self.late_from <= 1, "a share from 0 to 1"),
                "critic_from": (0 <= (self.critic_from or 0) <= 1, "a share from 0 to 1"),
                "weights": (bool(self.weights), "at least one loss with its weight"),
            },
        )
        check_names(self.loss_names())

    @property
    def of_pictures(self) -> bool:
        """Whether all losses are on small pictures, so that no frame has to be decoded."""
        return all(name.startswith(PICTURE) for name in self.loss_names())

    @property
    def drawn(self) -> int:
        """Clips needed per micro-batch."""
        return self.clips + self.own_reconstructed * self.reconstructed

    @property
    def seen(self) -> int:
        """Frames needed per clip."""
        return self.context + self.frames

    def loss_names(self) -> set[str]:
        """Every loss that is used at some point."""
        return {*self.weights, *self.late_weights}


class BasePhase(Phase):
    """Trains the VAE, the UNet and any retrieval gate of a pipeline without adapters; the flow net
    is frozen. If all losses are on small pictures, no frame is decoded and the VAE stays unchanged.

    ``steps``: of the whole phase. ``held_out``: clips to evaluate on.
    """

    def __init__(
        self,
        pipe: DLoRALPipeline,
        source: ClipSource,
        config: BaseConfig,
        steps: int,
        *,
        held_out: Clips | None = None,
        feature_distance: nn.Module | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        self.pipe, self.source, self.config, self.held_out = pipe, source, config, held_out
        self.late_step = round(config.late_from * steps)
        critic_from = config.late_from if config.critic_from is None else config.critic_from
        self.critic_step = round(critic_from * steps)
        self.objective = Objective(
            pipe,
            config.loss_names(),
            feature_distance=feature_distance,
            teacher=teacher,
            adversarial=config.adversarial,
        )
        pipe.vae.requires_grad_(not config.of_pictures)
        pipe.unet.requires_grad_(True)
        pipe.flow.requires_grad_(False)
        pipe.retrieval.requires_grad_(False)
        if pipe.retrieval.gate is not None:
            pipe.retrieval.gate.requires_grad_(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        parts: dict[str, nn.Module] = {"vae": self.pipe.vae, "unet": self.pipe.unet}
        if self.config.of_pictures:
            del parts["vae"]
        if self.pipe.retrieval.gate is not None:
            parts["retrieval.gate"] = self.pipe.retrieval.gate
        found = {f"{p}.{n}": w for p, module in parts.items() for n, w in module.named_parameters()}
        return found | self.objective.parameters()

    def buffers(self) -> dict[str, Tensor]:
        return self.objective.buffers()

    def active(self, step: int) -> set[str]:
        judging = step >= self.critic_step
        return {n for n in self.trainable() if judging or not n.startswith("discriminator.")}

    def losses(self, draw: Draw) -> dict[str, Tensor]:
        config, late = self.config, draw.step >= self.late_step
        drawn = self.source.draw(draw)
        clips = drawn.rows(slice(config.clips))
        aligned = torch.from_numpy(draw.rng.random(len(clips.hq_frames)))
        restored = self.restore(clips, aligned < config.aligned_share, not config.of_pictures)
        weights = (late and config.late_weights) or config.weights
        found = self.objective.weighed(restored, weights, draw.rng, draw.step >= self.critic_step)
        if config.reconstructed:
            first = config.clips if config.own_reconstructed else 0
            rows = slice(first, first + config.reconstructed)
            hq, lq = (part[rows, -1] for part in (drawn.hq_frames, drawn.lq_frames))
            copies = self.pipe.decode(self.pipe.encode(_channels_last(hq)), lq)
            error = charbonnier(copies, hq).mean()
            found["reconstructed"] = config.reconstructed_weight * error
        return found

    def restore(self, clips: Clips, aligned: Tensor | None = None, drawn: bool = True) -> Restored:
        """Every frame of the clips but the first ``context``; ``aligned`` (B,) bool: which clips
        see their warped predecessor (None: all). Only CFR's gate is used: the rest is untrained.
        Without ``drawn``, the upscaled input frames stand in for the restored ones."""
        pipe, shape = self.pipe, clips.lq_frames.shape[:2]
        # A clip may have a single frame: the last one is always restored.
        first = min(self.config.context, shape[1] - 1)
        latents = pipe.encode(_channels_last(clips.lq_frames.flatten(0, 1))).unflatten(0, shape)
        before = latents
        if shape[1] > 1:
            before = self._warped(latents, clips.lq_frames)
            if aligned is not None:
                keep = aligned.to(latents.device)[:, None, None, None, None]
                before = torch.where(keep, before, latents)
        now, before = (part[:, first:].flatten(0, 1) for part in (latents, before))
        retrieved = now + pipe.retrieval.at_the_place(now, before[None])
        refined = pipe.refine(before, retrieved, None)
        clips = clips.frames_from(first)
        frames = clips.lq_frames.flatten(0, 1)
        if drawn:
            with self.objective.watching():
                frames = pipe.decode(refined, frames)
        shape = clips.lq_frames.shape[:2]
        return Restored(
            frames=frames.unflatten(0, shape),
            hq_frames=clips.hq_frames,
            latents=refined.unflatten(0, shape),
            flow=clips.flow if shape[1] > 1 else None,
            small_frames=clips.small_frames,
            lq_frames=clips.lq_frames,
            lossless=clips.lossless,
        )

    def _warped(self, latents: Tensor, lq_frames: Tensor) -> Tensor:
        """Each frame's predecessor (B,T,C,h,w), warped to it; the first frame's is itself."""
        shape = latents.shape[:2]
        with torch.no_grad():
            small = shrink_for_flow(lq_frames.flatten(0, 1), self.pipe.latent_stride)
            small = small.unflatten(0, shape)
            flow = self.pipe.estimate_flow(small[:, 1:].flatten(0, 1), small[:, :-1].flatten(0, 1))
        warped = self.pipe.warp(latents[:, :-1].flatten(0, 1), flow)
        warped = warped.unflatten(0, (shape[0], shape[1] - 1))
        return torch.cat([latents[:, :1], warped], dim=1)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """PSNR gain over bicubic in dB, sharpness relative to the truth's, reconstruction PSNR,
        and the temporal difference from the truth if flow is known."""
        if self.held_out is None:
            return {}
        found: dict[str, list[float]] = {}
        clips = self.held_out
        for index in range(len(clips.hq_frames)):
            one = clips.rows(slice(index, index + 1))
            restored = self.restore(one)
            one = one.frames_from(one.hq_frames.shape[1] - restored.frames.shape[1])
            frames, hq = restored.frames.flatten(0, 1), one.hq_frames.flatten(0, 1)
            copies = self.pipe.decode(self.pipe.encode(hq), one.lq_frames.flatten(0, 1))
            figures = {
                "psnr_gain": psnr(frames, hq) - psnr(one.lq_frames.flatten(0, 1), hq),
                "sharpness": _edges(frames) / _edges(hq),
                "reconstruction_psnr": psnr(copies, hq),
            }
            if restored.flow is not None and torch.isfinite(restored.flow).all():
                figures["temporal"] = self.objective.loss("temporal", restored)
            for name, values in figures.items():
                found.setdefault(name, []).append(values.mean().item())
        return {name: sum(values) / len(values) for name, values in found.items()}


def _edges(frames: Tensor) -> Tensor:
    """Mean absolute difference of horizontal plus that of vertical neighbours, (B,)."""
    return sum(frames.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (-1, -2))  # type: ignore[return-value]


def _channels_last(frames: Tensor) -> Tensor:
    return frames.contiguous(memory_format=torch.channels_last)
