"""SRVGGNetCompact: Real-ESRGAN's small enlargers (Wang et al., ICCVW 2021; release v0.2.5.0).

A stack of 3x3 convolutions and PReLUs at the input's resolution, one pixel shuffle, and the
nearest-neighbour enlargement added to it. ``realesr-general-x4v3`` has 64 channels, 32 inner
convolutions and enlarges four times. Tensors are named as in the release (``body.0.weight``, ...).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.models.building import building

COLOURS = 3


class SRVGG(nn.Module):
    """Frames (B,3,h,w) in [0, 1] -> (B,3,scale*h,scale*w), about [0, 1], unclamped."""

    def __init__(self, width: int = 64, depth: int = 32, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(COLOURS, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        layers.append(nn.Conv2d(width, COLOURS * scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        enlarged = F.interpolate(frames, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(self.body(frames), self.scale) + enlarged


def mean_of_turns(network: nn.Module, frames: Tensor) -> Tensor:
    """An enlarger's mean output (B,3,scale*h,scale*w) over all quarter turns and mirrorings of
    frames (B,3,h,w): what it draws from noise differs each time, as does the mesh that its shuffle
    leaves, so both are reduced (Timofte et al., CVPR 2016, enhanced prediction)."""
    answers = []
    for quarters in range(4):
        turned = frames.rot90(quarters, (-2, -1))
        answers.append(network(turned).rot90(-quarters, (-2, -1)))
        answers.append(network(turned.flip(-1)).flip(-1).rot90(-quarters, (-2, -1)))
    return torch.stack(answers).mean(dim=0)


@building()
def srvgg_from_tensors(tensors: Mapping[str, Tensor]) -> SRVGG:
    """A network of the released tensors' sizes, loaded with them, in float32.

    Raises ``ValueError`` where they are not those of an SRVGGNetCompact.
    """
    convolutions = [name for name, tensor in tensors.items() if tensor.ndim == 4]
    first, last = "body.0.weight", f"body.{2 * len(convolutions) - 2}.weight"
    if len(convolutions) < 2 or first not in tensors or last not in tensors:
        raise ValueError(f"{len(convolutions)} convolutions, none or not all of a stack body.N")
    scale = round((len(tensors[last]) / COLOURS) ** 0.5)
    network = SRVGG(len(tensors[first]), len(convolutions) - 2, scale)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return network.requires_grad_(False).eval()
