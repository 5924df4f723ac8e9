"""The live recipe before any LoRA: the flow net, and the base (VAE and UNet) on single frames."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dloral.data.clips import Clips
from dloral.data.packs import psnr
from dloral.frames.resize import shrink_for_flow
from dloral.training.flow import end_point_error
from dloral.training.live.recipe import Recipe
from dloral.training.losses import charbonnier, psnr_loss


def train_flow(recipe: Recipe, seconds: float) -> None:
    """The flow net, on exact flow."""
    flow = recipe.pipe.flow
    recipe.fill(3)

    def losses(done: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        batch = recipe.draw(recipe.config.flow_clips, recipe.config.size)
        loss, finest = flow_losses(recipe, batch)
        return loss, {"end_point_error": finest}

    recipe.run_phase("flow", seconds, list(flow.parameters()), recipe.config.flow_rate, losses)


def flow_losses(recipe: Recipe, batch: Clips) -> tuple[Tensor, Tensor]:
    """(taught at every level, of the finest level alone)."""
    shape = batch.lq_frames.shape[:2]
    small = shrink_for_flow(batch.lq_frames.flatten(0, 1)).unflatten(0, shape)
    assert batch.flow is not None
    wanted = batch.flow.flatten(0, 1)[..., 4::8, 4::8] / 8
    known = torch.isfinite(wanted[:, :1]).float()
    wanted = wanted.nan_to_num()
    side = wanted.shape[-1]
    centre = torch.arange(side, device=wanted.device)
    ends = wanted + torch.stack(torch.meshgrid(centre, centre, indexing="xy"))
    known = known * ((ends >= 0) & (ends <= side - 1)).all(dim=1, keepdim=True)
    with recipe.autocast():
        flows = recipe.pipe.flow.coarse_to_fine(
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


def train_base(recipe: Recipe, seconds: float) -> None:
    """VAE and UNet on single frames."""
    pipe, config = recipe.pipe, recipe.config
    recipe.fill(1)

    def losses(done: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        return base_losses(recipe, early=done < config.charbonnier_part)

    weights = [*pipe.vae.parameters(), *pipe.unet.parameters()]
    recipe.run_phase("base", seconds, weights, config.base_rate, losses)


def base_losses(recipe: Recipe, early: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """(what is minimised, figures for the log)."""
    config, pipe = recipe.config, recipe.pipe
    count = [config.base_restored, config.base_reconstructed]
    batch = recipe.draw(sum(count), config.crop)
    hq, lq = batch.hq_frames.flatten(0, 1), batch.lq_frames.flatten(0, 1)
    inputs = torch.cat([lq[: count[0]], hq[count[0] :]])
    with recipe.autocast():
        latents = pipe.encode(inputs.contiguous(memory_format=torch.channels_last))
        degraded, clean = latents.split(count)
        latents = torch.cat([pipe.refine(degraded, degraded, None), clean])
        frames = pipe.decode(latents, lq)
    (restored, copied), (hq_restored, hq_copied) = frames.split(count), hq.split(count)
    loss = (
        charbonnier(restored, hq_restored)
        if early
        else psnr_loss(restored, hq_restored, config.error_floor)
    )
    losses = {
        "restored": loss.mean(),
        "reconstructed": charbonnier(copied, hq_copied).mean(),
    }
    total = losses["restored"] + 0.25 * losses["reconstructed"]
    gain = psnr(restored, hq_restored) - psnr(lq[: count[0]], hq_restored)
    return total, {**losses, "decibels": gain.detach().mean()}
