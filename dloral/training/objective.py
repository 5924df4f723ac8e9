"""The losses by name and their weights: what every phase minimises.

A phase names losses and weights; each name is defined here, once. A frame loss may also take a
teacher's answer (its output) as target instead of the truth (``teacher_charbonnier``, ...): a
deterministic teacher's answer is a function of its input, so such a loss does not blur. Other
targets are the teacher's answer to the truth itself, downscaled to the input's size
(``clean_charbonnier``, ...): crisp, and free of what the teacher draws from noise; its answer to
the restored latents' small picture, which is the input cleaned and stabilised
(``own_charbonnier``, ...): with the answer to the raw input as target, an l1 would undo the
cleaning; that same answer made crisp (``crisp_charbonnier``, ...); and its mean answer to the eight
rotated and mirrored versions of that picture (``turned_charbonnier``, ...). The last two are
functions of the input too (our decisions). Losses named ``picture_*`` compare the small picture
itself with the truth at the same size.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dloral.errors import OptionError
from dloral.frames.crisp import crisp
from dloral.frames.resize import resize_bicubic
from dloral.models.srvgg import mean_of_turns
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.training.adversarial import AdversarialConfig, AdversarialLoss
from dloral.training.csd import CSDConfig, ScoreDistillation
from dloral.training.hints import Hints
from dloral.training.losses import FRAME_LOSSES, flow_consistency, temporal_difference

TEACHER, CLEAN, OWN, CRISP, TURNED = "teacher_", "clean_", "own_", "crisp_", "turned_"
PICTURE = "picture_"
ASKING = (TEACHER, CLEAN, OWN, CRISP, TURNED)
"""Prefixes of losses against a teacher's answer to the input, to the truth downscaled to the same
size, and to the small picture in the restored latents; the last also made crisp, and as the mean of
the answers to all its orientations."""
FEATURES = ("perceptual", "lpips", "feature")
"""Losses of a frozen network; ``perceptual`` is whichever of the other two is available."""

LOSSES = (
    *FRAME_LOSSES,
    *FEATURES,
    *(asked + name for asked in ASKING for name in (*FRAME_LOSSES, "feature")),
    *(PICTURE + name for name in (*FRAME_LOSSES, "temporal")),
    *("flow", "temporal", "csd", "adversarial", "hints"),
)
"""Every loss that a phase may use; docs/training.md describes them."""

PAIR_LOSSES = ("flow", "temporal", PICTURE + "temporal")
"""Losses of two consecutive outputs: with only one they would be the mean of nothing."""


@dataclass(frozen=True)
class Restored:
    """The last n frames of B clips: frames, hq_frames (B,n,3,H,W) in [0, 1]; latents (B,n,C,h,w);
    flow between them (B,n-1,2,H,W) in pixels, or None; prompt embeddings (B*n, tokens, D) or None;
    small_frames (B,n,3,h,w): the low-quality frames before upscaling, or None;
    lq_frames (B,n,3,H,W): the upscaled ones, or None if no loss needs them; lossless (B,)
    bool or None, as in :class:`~dloral.data.clips.Clips`."""

    frames: Tensor
    hq_frames: Tensor
    latents: Tensor
    flow: Tensor | None
    prompt_embeds: Tensor | None = None
    small_frames: Tensor | None = None
    lq_frames: Tensor | None = None
    lossless: Tensor | None = None

    def or_truth(self, answers: Tensor) -> Tensor:
        """A teacher's answers (N,3,H,W), but the truth where it has nothing to add."""
        if self.lossless is None:
            return answers
        return truth_where(self._lossless_frames(), self.hq_frames.flatten(0, 1), answers)

    def zero_where_lossless(self, losses: Tensor) -> Tensor:
        """Losses (N,) of a teacher's layers, 0 where it has nothing to add."""
        return losses if self.lossless is None else losses * ~self._lossless_frames()

    def _lossless_frames(self) -> Tensor:
        assert self.lossless is not None
        return self.lossless.repeat_interleave(self.frames.shape[1])


class Objective:
    """Computes the losses listed in ``names`` for one pipeline.

    ``feature_distance``: the network of ``feature`` and ``lpips``, two (B,3,H,W) batches -> (B,).
    ``teacher``: small frames (B,3,h,w) -> the teacher's answers (B,3,H,W).
    ``flow_reduction``: the factor by which frames are shrunk for the flow loss. ``checkpointing``:
    compute losses frame by frame and recompute them in the backward pass, to save memory.
    """

    def __init__(
        self,
        pipe: DLoRALPipeline,
        names: set[str],
        *,
        feature_distance: nn.Module | None = None,
        teacher: nn.Module | None = None,
        adversarial: AdversarialConfig | None = None,
        csd: CSDConfig | None = None,
        flow_reduction: int = 1,
        checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        check_names(names)
        self.pipe, self.names = pipe, names
        self.feature_distance, self.teacher = feature_distance, teacher
        self.flow_reduction, self.checkpointing = flow_reduction, checkpointing
        self._answered: tuple[Restored, dict[str, Tensor]] | None = None
        self.csd = ScoreDistillation(pipe, csd or CSDConfig()) if "csd" in names else None
        self.adversarial = None
        if "adversarial" in names:
            self.adversarial = AdversarialLoss(adversarial or AdversarialConfig(), seed)
            self.adversarial.discriminator.to(pipe.unet.device)
        self.hints = Hints(pipe.vae, teacher) if "hints" in names else None
        # Hints compare layers on what the decoder sees: the input, or the steadied small picture.
        self._hinted = OWN if holds_picture(pipe) else TEACHER
        asking = {name for name in names if name.startswith(ASKING)}
        if self.adversarial is not None and self.adversarial.config.real != "truth":
            asking.add("adversarial")
        if teacher is None and asking:
            raise OptionError(
                "{name} needs a teacher",
                remedy="set {teacher} to the path of realesr-general-x4v3",
                name=min(asking),
                teacher="model.teacher",
            )

    def parameters(self) -> dict[str, nn.Parameter]:
        """The discriminator's parameters, by name; empty without one."""
        if self.adversarial is None:
            return {}
        found = self.adversarial.discriminator.named_parameters()
        return {f"discriminator.{name}": parameter for name, parameter in found}

    def watching(self) -> AbstractContextManager[None]:
        """Wraps the decoding that ``hints`` compares with the teacher."""
        if self.hints is None:
            return nullcontext()
        self.hints.forget()
        return self.hints.watching()

    def buffers(self) -> dict[str, Tensor]:
        """Other state that changes in training: the discriminator's spectral norms."""
        if self.adversarial is None:
            return {}
        found = self.adversarial.discriminator.named_buffers()
        return {f"discriminator.{name}": buffer for name, buffer in found}

    def weighed(
        self,
        restored: Restored,
        weights: Mapping[str, float],
        rng: np.random.Generator | None = None,
        discriminate: bool = True,
    ) -> dict[str, Tensor]:
        """Every loss of non-zero weight, times its weight; with an adversarial loss also the
        discriminator's own, unless ``discriminate`` is False."""
        found = {
            name: weight * self.loss(name, restored, rng).mean()
            for name, weight in sorted(weights.items())
            if weight
        }
        if self.adversarial is not None and discriminate:
            real = self._real(restored, rng)
            frames = restored.frames.flatten(0, 1)
            critic = self.adversarial.critic(frames, real, _inputs(restored))
            found["discriminator"] = critic.mean()
        self._answered = None
        return found

    def _real(self, restored: Restored, rng: np.random.Generator | None) -> Tensor:
        """The frames (N,3,H,W) that count as real."""
        assert self.adversarial is not None
        hq_frames, kind = restored.hq_frames.flatten(0, 1), self.adversarial.config.real
        if kind == "truth":
            return hq_frames
        answers = self.answer(restored)
        if kind == "teacher":
            return answers
        assert rng is not None
        drawn = torch.from_numpy(rng.random(len(answers)) < 0.5).to(answers.device)
        return torch.where(drawn[:, None, None, None], answers, hq_frames)

    def loss(self, name: str, restored: Restored, rng: np.random.Generator | None = None) -> Tensor:
        """One loss by its name, (N,) for N frames or pairs of frames."""
        if name.startswith(PICTURE):
            return self.loss(name.removeprefix(PICTURE), self._pictures(restored), rng)
        frames = restored.frames.flatten(0, 1)
        asked = next((kind for kind in ASKING if name.startswith(kind)), "")
        wanted = self.answer(restored, asked) if asked else restored.hq_frames.flatten(0, 1)
        name = name.removeprefix(asked)
        if name in FRAME_LOSSES:
            return FRAME_LOSSES[name](frames, wanted)
        if name in FEATURES:
            return self._each(self._features, frames, wanted)
        losses: dict[str, Callable[[], Tensor]] = {
            "flow": lambda: self._each(self._flow, *_pairs(restored)),
            "temporal": lambda: self._temporal(restored),
            "csd": lambda: self._csd(restored, rng),
            "adversarial": lambda: self._adversarial(restored),
            "hints": lambda: self._hints(restored),
        }
        return losses[name]()

    def answer(self, restored: Restored, kind: str = TEACHER) -> Tensor:
        """The teacher's answers (N,3,H,W) to the small frames or the truth, computed once for all
        losses."""
        if self._answered is None or self._answered[0] is not restored:
            self._answered = (restored, {})
        known = self._answered[1]
        if kind not in known:
            known[kind] = restored.or_truth(self._answers(restored, kind))
        return known[kind]

    def _hints(self, restored: Restored) -> Tensor:
        assert self.hints is not None
        self.answer(restored, self._hinted)
        return restored.zero_where_lossless(self.hints.loss())

    @torch.no_grad()
    def _answers(self, restored: Restored, kind: str) -> Tensor:
        if kind == CRISP:
            return crisp(self.answer(restored, OWN))
        assert self.teacher is not None
        if restored.small_frames is None:
            raise OptionError(
                "a teacher needs small frames, which these clips do not have; "
                "train on a pack, photographs or videos"
            )
        small = restored.small_frames.flatten(0, 1)
        if kind == CLEAN:
            truth, (height, width) = restored.hq_frames.flatten(0, 1), small.shape[-2:]
            small = resize_bicubic(truth, height, width, "pil")
        elif kind in (OWN, TURNED):
            small = self._own_small_frames(restored, small)
        with self.hints.watching() if self.hints and kind == self._hinted else nullcontext():
            answers = mean_of_turns(self.teacher, small) if kind == TURNED else self.teacher(small)
            answers = answers.clamp(0, 1)
        height, width = restored.frames.shape[-2:]
        if answers.shape[-2] < height:
            raise OptionError(
                f"the teacher upscales frames to {answers.shape[-1]}x{answers.shape[-2]}, but here "
                f"they are {width}x{height}; train at its own scale or below"
            )
        answers = resize_bicubic(answers, height, width, "pil")  # as usual below its scale
        return answers

    def _own_small_frames(self, restored: Restored, small: Tensor) -> Tensor:
        """Small frames (N,3,h,w) with the restored latents' changes; unchanged at scales below 4,
        where the small picture is smaller than they are."""
        vae, latents = self._picture_latents(restored)
        inputs = _inputs(restored)
        assert inputs is not None, "clips with small frames have the enlarged ones"
        change = vae.picture_change(latents, 2 * inputs - 1) / 2
        return (small + change).clamp(0, 1) if change.shape == small.shape else small

    def _picture_latents(self, restored: Restored) -> tuple[CompactVAE, Tensor]:
        """The VAE, whose latents hold a small picture, and the restored latents (N,C,h,w)."""
        vae = self.pipe.vae
        if not holds_picture(self.pipe):
            raise OptionError(
                "the losses own_*, crisp_*, turned_* and picture_* need latents with a small "
                "picture",
                remedy="set sizes.small_picture=True, or use other losses",
            )
        assert isinstance(vae, CompactVAE)
        return vae, restored.latents.flatten(0, 1) / vae.config.scaling_factor

    def _pictures(self, restored: Restored) -> Restored:
        """The small pictures in place of the frames, and the truth at the same size."""
        vae, latents = self._picture_latents(restored)
        pictures = (vae.picture(latents) + 1) / 2
        height, width = pictures.shape[-2:]
        truth = resize_bicubic(restored.hq_frames.flatten(0, 1), height, width, "pil")
        flow, shape = restored.flow, restored.latents.shape[:2]
        if flow is not None:
            factor = flow.shape[-1] // width
            flow = F.avg_pool2d(flow.flatten(0, 1), factor).unflatten(0, flow.shape[:2]) / factor
        return replace(
            restored,
            frames=pictures.unflatten(0, shape),
            hq_frames=truth.unflatten(0, shape),
            flow=flow,
        )

    def _each(self, loss: Callable[..., Tensor], *frames: Tensor) -> Tensor:
        """A loss of frames (N,...) -> (N,); frame by frame, and again for the gradient, to save
        memory."""
        if not self.checkpointing:
            return loss(*frames)
        parts = zip(*(part.split(1) for part in frames), strict=True)
        return torch.cat([checkpoint(loss, *part, use_reentrant=False) for part in parts])

    def _features(self, frames: Tensor, hq_frames: Tensor) -> Tensor:
        assert self.feature_distance is not None, "a phase names a loss without its network"
        return self.feature_distance(frames, hq_frames)

    def _flow(self, now: Tensor, before: Tensor, true_now: Tensor, true_before: Tensor) -> Tensor:
        reduction = self.flow_reduction
        return flow_consistency(self.pipe.flow, now, before, true_now, true_before, reduction)

    def _temporal(self, restored: Restored) -> Tensor:
        """Only over clips of known flow; film has none."""
        if restored.flow is None:
            raise OptionError(
                "the loss 'temporal' needs exact flow, which clips from videos do not have; use "
                "the loss 'flow' instead, or train on photographs"
            )
        flow = restored.flow.flatten(0, 1)
        known = torch.isfinite(flow).flatten(1).all(dim=1)
        if known.all():
            return temporal_difference(*_pairs(restored), flow)
        found = temporal_difference(*_pairs(restored), flow.nan_to_num())
        # scaled so that the mean over all is the mean over clips of known flow
        return found * known * len(known) / known.sum().clamp(min=1)

    def _csd(self, restored: Restored, rng: np.random.Generator | None) -> Tensor:
        assert self.csd is not None
        assert restored.prompt_embeds is not None
        assert rng is not None
        frames = restored.latents.shape[1]
        return self.csd(restored.latents.flatten(0, 1), restored.prompt_embeds, rng, frames)

    def _adversarial(self, restored: Restored) -> Tensor:
        assert self.adversarial is not None
        return self.adversarial.generator(restored.frames.flatten(0, 1), _inputs(restored))


def truth_where(lossless: Tensor, hq_frames: Tensor, answers: Tensor) -> Tensor:
    """A teacher's answers (N,3,H,W), but the truth where ``lossless`` (N,): a teacher turns
    repeating patterns into different ones (our decision)."""
    return torch.where(lossless[:, None, None, None], hq_frames, answers)


def holds_picture(pipe: DLoRALPipeline) -> bool:
    """Whether the pipeline's latents contain a small picture."""
    return isinstance(pipe.vae, CompactVAE) and bool(pipe.vae.config.small_picture)


def check_names(names: set[str]) -> None:
    """Raise :class:`OptionError` for an unknown loss."""
    if unknown := names - set(LOSSES):
        raise OptionError(f"unknown loss {min(unknown)!r}; choose from {', '.join(LOSSES)}")


def _inputs(restored: Restored) -> Tensor | None:
    """The enlarged low-quality frames (N,3,H,W)."""
    return None if restored.lq_frames is None else restored.lq_frames.flatten(0, 1)


def _pairs(restored: Restored) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(frames, previous, hq, previous hq) of consecutive outputs, (B*(n-1),3,H,W) each."""
    both = (restored.frames, restored.hq_frames)
    current, true = (part[:, 1:].flatten(0, 1) for part in both)
    previous, true_previous = (part[:, :-1].flatten(0, 1) for part in both)
    return current, previous, true, true_previous
