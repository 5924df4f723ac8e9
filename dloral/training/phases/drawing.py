"""The decoder learns to draw from a teacher, before anything else is trained.

Here it sees the upscaled input alone: no latents, no encoder, no UNet, so a step takes half as long
as in the base phase. There are two phases: ``blocks``, in which its blocks learn separately, each
fed the teacher's preceding layer, and ``drawing``, in which they learn together, tied to the
teacher's layers less and less (our decision; results in docs/training.md). The latents have no
influence until the base phase.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dloral.data.clips import Clips, ClipSource, Draw
from dloral.data.spec import check, on_grid
from dloral.errors import OptionError
from dloral.frames.resize import resize_bicubic
from dloral.models.srvgg import mean_of_turns
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.training.hints import Hints
from dloral.training.losses import charbonnier, gradient, tempered
from dloral.training.objective import truth_where
from dloral.training.phases.phase import Phase

USUAL = {"teacher_charbonnier": 0.1, "teacher_gradient": 0.2, "hints": 1.0}
"""What a decoder that draws stays well below."""


@dataclass(frozen=True)
class DrawingConfig:
    """A step: ``clips`` frames of ``crop`` pixels. ``apart``: each block is fed the teacher's
    preceding layer. ``hints``: their weight relative to the answer's; it moves linearly to
    ``late_hints`` over the steps. ``gradient``: the weight of the loss on differences between
    neighbours. ``afresh``: start from a new decoder, since the blocks of an earlier one match none
    of the teacher's layers; without it, training continues an earlier phase's or run's decoder.
    ``turned``: the target is the mean of the answers to all orientations of the input."""

    clips: int = 6
    crop: int = 176
    apart: bool = False
    hints: float = 0.3
    late_hints: float = 0.3
    gradient: float = 1.0
    afresh: bool = False
    turned: bool = False

    def __post_init__(self) -> None:
        check(
            self,
            {
                "clips": (self.clips >= 1, "1 or more"),
                "crop": on_grid(self.crop),
                "hints": (self.hints >= 0, "0 or more"),
                "late_hints": (self.late_hints >= 0, "0 or more"),
                "gradient": (self.gradient >= 0, "0 or more"),
            },
        )


class DrawingPhase(Phase):
    """Trains a compact VAE's decoder from the upscaled input alone; all else stays unchanged.

    ``steps``: of the whole phase. Raises :class:`OptionError` for a decoder that does not see the
    input, or another kind of teacher.
    """

    def __init__(
        self,
        pipe: DLoRALPipeline,
        source: ClipSource,
        config: DrawingConfig,
        steps: int,
        teacher: nn.Module | None,
        held_out: Clips | None = None,
    ) -> None:
        self.pipe, self.source, self.config, self.held_out = pipe, source, config, held_out
        self.hints, self.steps = Hints(pipe.vae, teacher), steps
        assert teacher is not None
        self.teacher = teacher
        vae = pipe.vae
        if not (isinstance(vae, CompactVAE) and vae.config.decoder_sees_input):
            raise OptionError(
                "the decoder must see the input in the blocks and drawing phases",
                remedy="set sizes.decoder_sees_input=True, or blocks=None and drawing=None",
            )
        for module in (vae, pipe.unet, pipe.flow, pipe.retrieval):
            module.requires_grad_(False)
        if config.afresh:
            _start_afresh(vae)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {
            f"vae.{name}": weight
            for name, weight in self.pipe.vae.named_parameters()
            if not name.startswith(("encoder.", "decoder.0."))
        }

    def losses(self, draw: Draw) -> dict[str, Tensor]:
        config, done = self.config, draw.step / self.steps
        frames, answers, hints = self._drawn(self.source.draw(draw), config.apart)
        weight = config.hints + done * (config.late_hints - config.hints)
        return {
            **towards(frames, answers, config.gradient),
            "hints": weight * tempered(hints, USUAL["hints"]).mean(),
        }

    def _drawn(self, clips: Clips, apart: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder draws (N,3,H,W), the teacher's answer, and the hints' loss (N,)."""
        assert clips.small_frames is not None
        lq_frames = clips.lq_frames[:, -1].contiguous(memory_format=torch.channels_last)
        small_frames = clips.small_frames[:, -1].contiguous(memory_format=torch.channels_last)
        assert isinstance(self.pipe.vae, CompactVAE)
        nothing = self.pipe.vae.silent_latents(2 * lq_frames - 1)
        with torch.no_grad():
            turned = mean_of_turns(self.teacher, small_frames) if self.config.turned else None
        with self.hints.watching():
            with torch.no_grad():
                answers = self.teacher(small_frames)
                answers = (answers if turned is None else turned).clamp(0, 1)
                # As usual below the teacher's scale; hints apply at its own scale only.
                height, width = lq_frames.shape[-2:]
                answers = resize_bicubic(answers, height, width, "pil")
            with self.hints.apart() if apart else nullcontext():
                frames = self.pipe.decode(nothing, lq_frames)
        hints = self.hints.loss()
        if clips.lossless is not None and not apart:  # the teacher's layers lead to its answers
            answers = truth_where(clips.lossless, clips.hq_frames[:, -1], answers)
            hints = hints * ~clips.lossless
        return frames, answers, hints

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On held-out frames: the distance from the teacher's answers in grey levels, sharpness
        relative to theirs, and the distance of the blocks from its layers."""
        if self.held_out is None:
            return {}
        frames, answers, hints = self._drawn(self.held_out)
        return {**nearness(frames, answers), "hints": hints.mean().item()}


def towards(frames: Tensor, answers: Tensor, gradient_weight: float) -> dict[str, Tensor]:
    """The losses of frames (N,3,H,W) against a teacher's answers, tempered and weighted."""
    found = {
        "teacher_charbonnier": (charbonnier(frames, answers), 1.0),
        "teacher_gradient": (gradient(frames, answers), gradient_weight),
    }
    return {
        name: weight * tempered(losses, USUAL[name]).mean()
        for name, (losses, weight) in found.items()
    }


def nearness(frames: Tensor, answers: Tensor) -> dict[str, float]:
    """The distance of frames (N,3,H,W) from a teacher's answers in grey levels, and sharpness
    relative to theirs."""
    edges = [sum(part.diff(dim=dim).abs().mean() for dim in (-1, -2)) for part in (frames, answers)]
    return {
        "to_teacher": 255 * (frames - answers).abs().mean().item(),
        "sharpness": float(edges[0] / edges[1]),
    }


@torch.no_grad()
def _start_afresh(vae: CompactVAE) -> None:
    """A new decoder, the same at each call, on which the latents have no effect."""
    sizes = {name: size for name, size in vae.config.items() if not name.startswith("_")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = CompactVAE(**sizes)
    for name, part in vae.named_children():
        if name != "encoder":
            part.load_state_dict(getattr(fresh, name).state_dict())
    for parameter in vae.decoder[0].parameters():
        parameter.zero_()
