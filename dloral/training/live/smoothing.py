"""The live recipe's way to a decoder that draws no grid: it keeps its pictures, and nothing else
learns.

On smooth ground nothing hides what a decoder with pixel-shuffles draws of itself, so that is where
it is taught (our decision). What it drew before is its teacher elsewhere: figures stay, which a
price on grids in a longer training does not grant.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from dloral.data.pool import smooth_pairs
from dloral.models.vae import CompactVAE
from dloral.training.live.recipe import Recipe
from dloral.training.losses import grid

SCALES = ((0.0, 1.0), (0.0, 1.0, 1.5))
"""Of C-LoRA and D-LoRA, that latents are made with, where the model has LoRAs."""


def lose_grids(recipe: Recipe, seconds: float) -> None:
    """Train the decoder for ``seconds``; the rest of the pipeline stays as it is, to the bit."""
    pipe, config = recipe.pipe, recipe.config
    pipe.vae.requires_grad_(False)
    pipe.unet.requires_grad_(False)
    teacher = copy.deepcopy(pipe.vae)
    recipe.fill(1)

    def losses(done: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        found = smoothing_losses(recipe, teacher)
        price = config.smoothing_price * (found["clean"] + found["noisy"]) / 2
        return config.smoothing_keep * found["kept"] + price, found

    weights = [*pipe.vae.decoder.parameters(), *pipe.vae.finish.parameters()]
    recipe.run_phase("smoothing", seconds, weights, config.smoothing_rate, losses, ema=0.99)


def smoothing_losses(recipe: Recipe, teacher: CompactVAE) -> dict[str, Tensor]:
    """``kept``: how far the pictures are from the teacher's; ``clean``, ``noisy``: the grid on
    smooth ground as it is and lightly degraded."""
    config, pipe = recipe.config, recipe.pipe
    lq = recipe.draw(config.smoothing_pairs, config.crop).lq_frames.flatten(0, 1)
    smooth, degraded = smooth_pairs(config.smooth_crops, config.crop, recipe.rng, recipe.device)
    clean = config.smooth_crops // 2
    inputs = torch.cat([lq, smooth[:clean], degraded[clean:]])
    with recipe.autocast():
        with torch.no_grad():
            consistency, detail = (float(recipe.rng.choice(some)) for some in SCALES)
            pipe.unet.set_scales(consistency=consistency, detail=detail, merge=False)
            latents = pipe.encode(inputs.contiguous(memory_format=torch.channels_last))
            latents = pipe.refine(latents, latents, None) / pipe.vae.config.scaling_factor
            wanted = teacher.decode(latents[: len(lq)]).sample
        drawn = pipe.vae.decode(latents).sample
    frames = inputs[len(lq) :] + drawn[len(lq) :].float() / 2  # what a pipeline's decode adds
    patterns = grid(frames, smooth)
    return {
        "kept": (drawn[: len(lq)] - wanted).abs().mean(),
        "clean": patterns[:clean].mean(),
        "noisy": patterns[clean:].mean(),
    }
