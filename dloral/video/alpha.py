"""Transparency: colour that can be restored up to an edge and beyond, with alpha kept apart.

Transparent pixels may hold any colour: black, white, another picture. A model would bleed it into
what is visible, as a halo. So hidden colour is replaced by the visible colour nearest to it; alpha
itself is enlarged with bicubic interpolation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.frames.resize import resize_bicubic

_TRUSTED = 8.0
"""From 1/8 opacity up a pixel's own colour is used: below, 8 bits leave too little of it."""

_UNSEEN = 1 / 64
"""Alpha up to here counts as invisible; rounding leaves that much where nothing is."""

_REACH = 8
"""Hidden pixels this close to visible ones in the result keep their colour, for players that blend
edges; farther away they are white, like a page."""


def fill_hidden(rgb: Tensor, alpha: Tensor) -> Tensor:
    """``rgb`` (3,H,W) with visible colours spread into what straight ``alpha`` (H,W) hides.

    Push-pull (Gortler et al. 1996): alpha-weighted averages on ever coarser grids fill what the
    finer ones leave open. A picture that is wholly hidden becomes white.
    """
    weight = _trust(alpha)[None, None]
    if not bool(weight.any()):
        return torch.ones_like(rgb)
    return _filled(rgb[None] * weight, weight)[0]


def fill_hidden_chroma(chroma: Tensor, alpha: Tensor) -> Tensor:
    """Subsampled chroma (2,h,w) for ``alpha`` (H,W): visible values replace hidden ones before
    interpolation can mix them."""
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
    # Weights of 1 where anything is visible, so that thin details are not lost on coarse grids.
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

    Without alpha, the frame itself.
    """
    if alpha is None:
        return rgb
    height, width = rgb.shape[-2:]
    enlarged = resize_bicubic(alpha[None, None], height, width)[0, 0]
    enlarged = torch.where(enlarged < 0.5 / 255, 0, enlarged).to(rgb)
    size = 2 * _REACH + 1
    near = F.max_pool2d((enlarged > 0).float()[None, None], size, 1, _REACH)[0, 0] > 0
    return torch.cat([torch.where(near, rgb, torch.ones_like(rgb)), enlarged[None]])
