"""A decoder around an SRVGG trunk: the input's own cells, steered by latents.

Legend: B batch, H x W frame size (multiples of 8), C latent channels, F features, cells of 4 x 4
pixels.

A pixel of a frame that bicubic enlarged four times is, to 7e-4, the same weighted mean of the 4 x 4
pixels that it became (:data:`CELL`). So the decoder works on cells like an SR network on its small
input, and may start as one (:meth:`TrunkDecoder.start_from`): it can draw from the first step.
Latents are added to its features at several depths, from zero (our decision).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.models.srvgg import SRVGG

SIDE = 4
"""Pixels a side of a cell."""

CELL = (-0.078, 0.578, 0.578, -0.078)
"""Weights of a cell's four pixels, along one axis, that undo bicubic's (a = -0.75) enlargement by
four; least squares, rounded."""

TAPS = 4
"""Depths at which latents come in."""


class TrunkDecoder(nn.Module):
    """(B,C,H/8,W/8) latents and the frame (B,3,H,W) in [-1, 1] -> the difference to that frame."""

    def __init__(self, latent_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.trunk = SRVGG(width, depth, SIDE)
        self.join = nn.Conv2d(3 * SIDE**2, width, 3, padding=1)
        self.taps = nn.ModuleList(
            nn.Conv2d(latent_channels, 4 * width, 3, padding=1) for _ in range(TAPS)
        )
        for addition in (self.join, *self.taps):  # they start as no change
            for parameter in addition.parameters():
                nn.init.zeros_(parameter)

    def start_from(self, network: SRVGG) -> None:
        """The trunk's weights from a network of its sizes; ``ValueError`` for one of others."""
        try:
            self.trunk.load_state_dict(network.state_dict())
        except RuntimeError as error:
            raise ValueError("a network of other sizes than the decoder's trunk") from error

    def forward(self, latents: Tensor, lq_frames: Tensor) -> Tensor:
        cells = F.pixel_unshuffle(lq_frames, SIDE)
        small = small_of(cells)
        body, dtype = list(self.trunk.body), latents.dtype
        x: Tensor = body[0](small.to(dtype)) + self.join(cells.to(dtype))
        between = len(body) // TAPS
        for index, layer in enumerate(body[1:]):
            tap, within = divmod(index, between)
            if not within and tap < TAPS:
                x = x + F.pixel_shuffle(self.taps[tap](latents), 2)
            x = layer(x)
        # In float32: in half precision a frame's own values are only good to half a grey level.
        rest = 2 * F.interpolate(small, scale_factor=SIDE, mode="nearest") - 1 - lq_frames
        return 2 * F.pixel_shuffle(x, SIDE).float() + rest


def small_of(cells: Tensor) -> Tensor:
    """Folded frames (B,48,h,w) in [-1, 1] -> the small frame (B,3,h,w), about [0, 1]."""
    row = cells.new_tensor(CELL)
    weights = torch.outer(row, row).reshape(SIDE**2, 1, 1)
    return ((cells.unflatten(1, (3, SIDE**2)) * weights).sum(dim=2) + 1) / 2
