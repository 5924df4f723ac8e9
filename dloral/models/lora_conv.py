"""A convolution that can have both LoRAs, for the compact decoder, which PEFT does not support.

``W + c * dC + d * dD`` is summed when needed, so training and inference run the same code, and a
dial takes effect at once. On a CPU, outside training, the sum is kept until one of its terms
changes: it took 3% of the time of a 512 x 512 frame (our decision).
"""

import torch
from torch import Tensor, nn

from dloral.models.adapters import ADAPTERS


class TwoLoRAConv(nn.Conv2d):
    """(B,C,H,W) -> (B,D,H,W); an ``nn.Conv2d`` until :meth:`add_adapters`."""

    scales: Tensor
    _kept: tuple[list[Tensor], list[tuple[int, int]], Tensor] | None = None

    def add_adapters(self, rank: int) -> None:
        """Add both LoRAs, which at first change nothing: Gaussian A and zero B, as in PEFT."""
        seen = self.weight[0].numel()
        self.lora_down, self.lora_up = nn.ModuleDict(), nn.ModuleDict()
        for name in ADAPTERS:
            down = nn.Linear(seen, rank, bias=False, device=self.weight.device)
            up = nn.Linear(rank, len(self.weight), bias=False, device=self.weight.device)
            nn.init.normal_(down.weight, std=1 / rank)
            nn.init.zeros_(up.weight)
            self.lora_down[name], self.lora_up[name] = down, up
        self.register_buffer("scales", torch.ones(len(ADAPTERS), device=self.weight.device))

    @property
    def has_adapters(self) -> bool:
        """Whether :meth:`add_adapters` was called."""
        return hasattr(self, "lora_up")

    def change(self, adapter: str) -> Tensor:
        """What a LoRA adds to the weight at a scale of 1, as a matrix (D, C*k*k) in float32."""
        up, down = self._matrices(adapter)
        return up.float() @ down.float()

    @torch.no_grad()
    def set_change(self, adapter: str, change: Tensor) -> None:
        """Make a LoRA add ``change`` (D, C*k*k), or what is closest to it of the LoRA's rank."""
        up, down = self._matrices(adapter)
        rank = min(up.shape[1], *change.shape)
        left, strengths, right = torch.linalg.svd(change.float(), full_matrices=False)
        roots = strengths[:rank].sqrt()
        for matrix, part in ((up, left[:, :rank] * roots), (down.T, right[:rank].T * roots)):
            matrix.zero_()[:, :rank] = part

    def _matrices(self, adapter: str) -> tuple[Tensor, Tensor]:
        name = f"{adapter}.weight"
        return self.lora_up.get_parameter(name), self.lora_down.get_parameter(name)

    def summed_weight(self) -> Tensor:
        """The weight (D,C,k,k) with the LoRAs at their scales, rounded once, laid out as it was."""
        weight = self.weight.float()
        for scale, down, up in zip(
            self.scales.float(), self.lora_down.values(), self.lora_up.values(), strict=True
        ):
            change = (scale * up.weight.float()) @ down.weight.float()
            weight = weight + change.view_as(weight)
        return weight.to(self.weight.dtype)

    def _weight_now(self) -> Tensor:
        """:meth:`summed_weight`, or the cached one."""
        terms = [self.weight, self.scales, *self.lora_down.parameters(), *self.lora_up.parameters()]
        if not _may_keep(terms):
            return self.summed_weight()
        # Address and number of writes. Keeping the terms keeps their addresses from being reused.
        state = [(term.data_ptr(), term._version) for term in terms]
        if self._kept is None or self._kept[1] != state or self._kept[2].dtype != terms[0].dtype:
            self._kept = (terms, state, self.summed_weight())
        return self._kept[2]

    def set_scales(self, *, consistency: float, detail: float) -> None:
        """Set how much of each LoRA it uses from now on."""
        if self.scales.device.type == "cpu":
            wanted = self.scales.new_tensor((consistency, detail))
            if not torch.equal(self.scales, wanted):  # writing the same would cost a new sum
                self.scales.copy_(wanted)
            return
        for index, scale in enumerate((consistency, detail)):
            self.scales[index].fill_(scale)  # a copy from the CPU would wait for a GPU

    def forward(self, x: Tensor) -> Tensor:
        if not self.has_adapters:
            return super().forward(x)
        return self._conv_forward(x, self._weight_now(), self.bias)


def _may_keep(terms: list[Tensor]) -> bool:
    """Not while gradients are needed or a graph is being built, nor on a GPU, whose recorded
    graphs recompute the sum; nor for inference tensors, which do not count their changes."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    making = tracing or torch.compiler.is_compiling()
    return not (
        making
        or torch.is_grad_enabled()
        or any(term.is_inference() or term.device.type != "cpu" for term in terms)
    )


def two_lora_convs(network: nn.Module) -> list[TwoLoRAConv]:
    """A network's convolutions that have LoRAs, in its order."""
    found = (module for module in network.modules() if isinstance(module, TwoLoRAConv))
    return [module for module in found if module.has_adapters]
