"""Transparency: colour that can be restored up to an edge and beyond, and alpha beside it.

What is written under transparent pixels is anything: black, white, another picture. A model would
draw it into what is seen, as a halo. So hidden colour is replaced by the seen colour nearest to
it; alpha itself is enlarged by bicubic.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.frames.resize import resize_bicubic

_TRUSTED = 8.0
"""From 1/8 of opacity on a pixel's colour is its own: below, 8 bits leave too little of it."""

_UNSEEN = 1 / 64
"""Up to here nothing is seen; rounding leaves that much where nothing is."""

_REACH = 8
"""Pixels of the result around what is seen that keep its colour, for players that blend edges;
farther away hidden pixels are white, as a page."""


def fill_hidden(rgb: Tensor, alpha: Tensor) -> Tensor:
    """``rgb`` (3,H,W) with the seen colours spread into what straight ``alpha`` (H,W) hides.

    Push and pull (Gortler et al. 1996): averages weighted by alpha on coarser and coarser grids
    fill what the finer ones leave open. A picture that is hidden as a whole becomes white.
    """
    weight = _trust(alpha)[None, None]
    if not bool(weight.any()):
        return torch.ones_like(rgb)
    return _filled(rgb[None] * weight, weight)[0]


def fill_hidden_chroma(chroma: Tensor, alpha: Tensor) -> Tensor:
    """Chroma (2,h,w) of fewer samples than ``alpha`` (H,W) has: what is hidden gives way to what is
    seen, before interpolation would mix them."""
    height, width = chroma.shape[-2:]
    weight = _trust(F.adaptive_avg_pool2d(alpha[None, None], (height, width)))
    return _filled(chroma[None] * weight, weight)[0] if bool(weight.any()) else chroma


def _trust(alpha: Tensor) -> Tensor:
    return ((alpha - _UNSEEN) * _TRUSTED).clamp(0, 1)


def _filled(weighted: Tensor, weight: Tensor) -> Tensor:
    height, width = weight.shape[-2:]
    own = weighted / weight.clamp(min=1e-6)
    if max(height, width) == 1 or bool((weight >= 1).all()):
        return own
    coarse_weight = _halved(weight)
    # Weights of 1 where anything is seen, so that a thin thing is not lost on coarse grids.
    boost = (coarse_weight * 4).clamp(max=1) / coarse_weight.clamp(min=1e-6)
    coarse = _filled(_halved(weighted) * boost, coarse_weight * boost)
    behind = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return weighted + behind * (1 - weight)


def _halved(planes: Tensor) -> Tensor:
    height, width = planes.shape[-2:]
    planes = F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(planes, 2)


def with_alpha(rgb: Tensor, alpha: Tensor | None) -> Tensor:
    """A restored frame (3,H,W) and the source's ``alpha`` (h,w): (4,H,W), alpha enlarged.

    Without alpha the frame itself.
    """
    if alpha is None:
        return rgb
    height, width = rgb.shape[-2:]
    enlarged = resize_bicubic(alpha[None, None], height, width)[0, 0]
    enlarged = torch.where(enlarged < 0.5 / 255, 0, enlarged).to(rgb)
    size = 2 * _REACH + 1
    near = F.max_pool2d((enlarged > 0).float()[None, None], size, 1, _REACH)[0, 0] > 0
    return torch.cat([torch.where(near, rgb, torch.ones_like(rgb)), enlarged[None]])
