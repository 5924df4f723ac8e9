"""A convolution that can have both LoRAs, in a network that PEFT does not know: the compact decoder.

``W + c * dC + d * dD`` is summed at each call. Of a decoder's 3x3 convolutions that is a few
thousandths of the arithmetic of a frame, so there are no copies of weights to keep, training and
inference run the same code, and a dial takes effect at once (our decision).
"""

import torch
from torch import Tensor, nn

from dloral.models.adapters import ADAPTERS


class TwoLoRAConv(nn.Conv2d):
    """(B,C,H,W) -> (B,D,H,W); an ``nn.Conv2d`` until :meth:`add_adapters`."""

    scales: Tensor

    def add_adapters(self, rank: int) -> None:
        """A LoRA of each name, which at first changes nothing: gaussian, then zeros, as PEFT."""
        seen = self.weight[0].numel()
        self.lora_down, self.lora_up = nn.ModuleDict(), nn.ModuleDict()
        for name in ADAPTERS:
            down, up = nn.Linear(seen, rank, bias=False), nn.Linear(rank, len(self.weight), False)
            nn.init.normal_(down.weight, std=1 / rank)
            nn.init.zeros_(up.weight)
            self.lora_down[name], self.lora_up[name] = down, up
        self.register_buffer("scales", torch.ones(len(ADAPTERS)))

    @property
    def has_adapters(self) -> bool:
        """Whether :meth:`add_adapters` was called."""
        return hasattr(self, "lora_up")

    def summed_weight(self) -> Tensor:
        """The weight (D,C,k,k) with the LoRAs at their scales."""
        weight = self.weight.flatten(1)
        for scale, down, up in zip(
            self.scales, self.lora_down.values(), self.lora_up.values(), strict=True
        ):
            # In training what is frozen may be in another precision than what learns.
            weight = weight + ((scale * up.weight) @ down.weight).to(weight.dtype)
        return weight.view_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if not self.has_adapters:
            return super().forward(x)
        return self._conv_forward(x, self.summed_weight(), self.bias)


def two_lora_convs(network: nn.Module) -> list[TwoLoRAConv]:
    """A network's convolutions that have LoRAs, in its order."""
    found = (module for module in network.modules() if isinstance(module, TwoLoRAConv))
    return [module for module in found if module.has_adapters]
