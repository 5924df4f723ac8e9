"""Steadier frames: each blended with its predecessor along the motion, where the two agree (our
decision; judged blind, docs/decisions.md).

What a model draws from noise differs from frame to frame, so a mean of two flickers less, and
what both show stays. Only one predecessor counts, as it was before it was steadied itself: no error
lasts longer than a frame, and a frame depends on few others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.frames.sliding import BAND

LARGEST_SHARE = 0.5
"""Of the predecessor: both frames count the same, which leaves the least noise."""

DISAGREEMENT = 16 / 255
"""Difference of the means of 4 x 4 pixels at which half of the share is left. It enters with its
fourth power, averaged over 3 x 3 such squares, so one that differs much closes all around it: a
line that has moved away unseen leaves hardly a ghost."""

CELL = 4
"""Pixels a side of the squares whose means are compared: a mean has a quarter of the noise."""


def steady_in_turn(
    frames: Tensor, before: Tensor | None, flow_to_before: Tensor, share: float, stride: int
) -> Tensor:
    """:func:`steady` of consecutive frames (B,3,H,W): each with the one before it, the first with
    ``before`` (1,3,H,W). Without that, the first stays as it is."""
    if before is not None:
        earlier = before if len(frames) == 1 else torch.cat([before, frames[:-1]])
        return steady(frames, earlier, flow_to_before, share, stride)
    if len(frames) == 1:
        return frames
    return torch.cat(
        [frames[:1], steady(frames[1:], frames[:-1], flow_to_before[1:], share, stride)]
    )


def steady(
    frames: Tensor, before: Tensor, flow_to_before: Tensor, share: float, stride: int
) -> Tensor:
    """Frames (B,3,H,W) blended with the frames before them (B,3,H,W), up to ``share`` of those.

    ``flow_to_before``: (B,2,h,w), in cells of ``stride`` pixels, a multiple of ``CELL``; the cells
    may go beyond the frame. Computed in float32: bfloat16 cannot tell one pixel from the next.
    """
    dtype, frames, before = frames.dtype, frames.float(), before.float()
    height, width = frames.shape[-2:]
    cells = -(-height // stride)
    rows = max(4, BAND // (width * stride)) if frames.device.type == "cpu" else cells
    bands = [
        _band(frames, before, flow_to_before, share, stride, top, min(top + rows, cells))
        for top in range(0, cells, rows)
    ]
    blended = bands[0] if len(bands) == 1 else torch.cat(bands, dim=-2)
    return blended.to(dtype)


def _band(
    frames: Tensor, before: Tensor, flow: Tensor, share: float, stride: int, top: int, bottom: int
) -> Tensor:
    """Rows of cells from ``top`` to ``bottom``; trust depends on two squares more on each side."""
    height, width = frames.shape[-2:]
    more = -(-2 * CELL // stride)
    first, last = max(top - more, 0), bottom + more
    now = frames[..., first * stride : last * stride, :]
    motion = _pixel_flow(flow, first, last, stride)[..., : now.shape[-2], :width]
    change = _sampled(before, motion, first * stride).sub_(now)
    trust = _trust(change, share)
    inner = slice((top - first) * stride, min(bottom * stride, height) - first * stride)
    return torch.addcmul(now[..., inner, :], trust[..., inner, :], change[..., inner, :])


def _pixel_flow(flow: Tensor, first: int, last: int, stride: int) -> Tensor:
    """Rows of cells from ``first`` to ``last`` of a flow in cells, in pixels and for each pixel."""
    start = max(first - 1, 0)
    seen = flow[..., start : last + 1, :].float()
    finer = F.interpolate(stride * seen, scale_factor=stride, mode="bilinear")
    return finer[..., (first - start) * stride : (last - start) * stride, :]


def _sampled(before: Tensor, motion: Tensor, top: int) -> Tensor:
    """``before`` (B,3,H,W) where the ``motion`` (B,2,n,W) of rows from ``top`` on points, bilinear;
    beyond its borders, their pixels."""
    height, width = before.shape[-2:]
    columns = torch.arange(width, device=motion.device, dtype=motion.dtype)
    rows = torch.arange(top, top + motion.shape[-2], device=motion.device, dtype=motion.dtype)
    # As grid_sample counts with align_corners=False: a frame's borders, not the middles of its
    # outermost pixels, are -1 and 1.
    x = (motion[:, 0] + columns).add_(0.5).mul_(2 / width).sub_(1)
    y = (motion[:, 1] + rows[:, None]).add_(0.5).mul_(2 / height).sub_(1)
    grid = torch.stack((x, y), dim=-1)
    return F.grid_sample(before, grid, "bilinear", "border", align_corners=False)


def _trust(change: Tensor, share: float) -> Tensor:
    """Share of the predecessor (B,1,H,W), given what it would change (B,3,H,W)."""
    height, width = change.shape[-2:]
    cells = _means(change, CELL, CELL).abs_().mean(dim=1, keepdim=True)
    doubt = _means((cells / DISAGREEMENT) ** 4, 3, 1, padding=1)
    trust = share / (1 + doubt)
    return F.interpolate(trust, scale_factor=CELL, mode="bilinear")[..., :height, :width]


def _means(pictures: Tensor, side: int, step: int, padding: int = 0) -> Tensor:
    """Of squares, at the border of what there is of them."""
    return F.avg_pool2d(
        pictures, side, step, padding, ceil_mode=padding == 0, count_include_pad=False
    )
