"""C-LoRA and D-LoRA: two PEFT adapters on the UNet, named ``consistency`` and ``detail``.

The effective weight is ``W + c * dC + d * dD``. Two ways to run it give the same result:

* live (training, gradients): PEFT computes both low-rank branches beside every layer;
* merged (inference): :func:`merge_scales` writes the effective weights into the layers, from
  pristine copies, so that changing scales a thousand times causes no drift.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dloral.models.building import building

CONSISTENCY = "consistency"
DETAIL = "detail"
ADAPTERS = (CONSISTENCY, DETAIL)

LORA_ALPHA = 8
"""PEFT's default, which the released weights use: the delta is scaled by 8 / rank."""

TARGET_LAYERS = frozenset(
    {"to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut"}
    | {"conv_out", "proj_out", "proj_in", "ff.net.2", "ff.net.0.proj"}
)
"""Layers of the UNet that carry both LoRAs (notes, "Two LoRAs"), by the end of their name."""


def target_modules(unet: nn.Module) -> list[str]:
    """Full names of the convolutions and linear layers that carry the LoRAs, in model order."""
    return [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and any(name == end or name.endswith("." + end) for end in TARGET_LAYERS)
    ]


@building()
def add_adapters(unet: UNet2DConditionModel, rank: Mapping[str, int] | int) -> None:
    """Add both LoRAs, with Gaussian A and zero B, so that at first they change nothing.

    ``rank``: one for both, or one for each by adapter name.
    """
    targets = target_modules(unet)
    for name in ADAPTERS:
        add_adapter(unet, name, rank if isinstance(rank, int) else rank[name], targets)
    set_scales(unet, consistency=1.0, detail=1.0)


def add_adapter(unet: UNet2DConditionModel, name: str, rank: int, targets: list[str]) -> None:
    """Add one of the LoRAs to the layers ``targets``."""
    config = LoraConfig(
        r=rank, lora_alpha=LORA_ALPHA, init_lora_weights="gaussian", target_modules=targets
    )
    with warnings.catch_warnings():
        # PEFT warns that a second adapter may be a mistake; it is intended.
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        unet.add_adapter(config, adapter_name=name)


def lora_layers(unet: nn.Module) -> Iterator[LoraLayer]:
    """Every layer that carries adapters."""
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            yield module


def set_scales(unet: nn.Module, *, consistency: float, detail: float) -> None:
    """Scales of the live adapters, both active; a scale of 0 leaves a branch out exactly."""
    scales = {CONSISTENCY: consistency, DETAIL: detail}
    for layer in lora_layers(unet):
        if list(layer.active_adapters) != list(ADAPTERS):
            # Only once: PEFT makes what it activates trainable, which is up to the training.
            layer.set_adapter(list(ADAPTERS))
        for name, scale in scales.items():
            layer.set_scale(name, scale)


def adapter_parameters(network: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """Name -> parameter of one LoRA (A and B matrices) in a UNet, or in a decoder's head."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if ".lora_" in name and f".{adapter}." in name
    }


class MergedScales:
    """Effective weights written into a UNet's layers, always from pristine copies.

    The copies stay in the dtype and on the device the weights had, one for each layer that
    carries LoRAs.
    """

    def __init__(self, unet: nn.Module) -> None:
        self._unet = unet
        self._pristine: list[tuple[LoraLayer, Tensor]] = []
        self._scales: tuple[float, float] | None = None

    @torch.no_grad()
    def apply(self, *, consistency: float, detail: float) -> None:
        """Make the UNet compute with ``W + consistency * dC + detail * dD`` and no side branch."""
        if self._scales == (consistency, detail):
            return
        if not self._pristine:
            self._pristine = [
                (layer, layer.get_base_layer().weight.detach().clone())
                for layer in lora_layers(self._unet)
            ]
        set_scales(self._unet, consistency=consistency, detail=detail)
        for layer, pristine in self._pristine:
            target = layer.get_base_layer().weight
            weight = pristine.to(target.device, torch.float32)
            for name, scale in zip(ADAPTERS, (consistency, detail), strict=True):
                if scale:
                    weight = weight + layer.get_delta_weight(name).float()
            target.copy_(weight)
            layer.merged_adapters = list(ADAPTERS)
        self._scales = (consistency, detail)

    def to(self, device: torch.device | str) -> None:
        """Keep the pristine copies on ``device``."""
        self._pristine = [(layer, weight.to(device)) for layer, weight in self._pristine]

    @torch.no_grad()
    def restore(self) -> None:
        """Back to pristine weights and live adapters."""
        for layer, pristine in self._pristine:
            layer.get_base_layer().weight.copy_(pristine)
            layer.merged_adapters = []
        self._pristine = []
        self._scales = None


def save_adapter(unet: nn.Module, adapter: str, path: Path) -> None:
    """One LoRA as safetensors: ``<layer>.lora_A.weight``, ``<layer>.lora_B.weight``."""
    tensors = {
        name.replace(f".{adapter}.", "."): parameter.detach().contiguous()
        for name, parameter in adapter_parameters(unet, adapter).items()
    }
    save_file(tensors, path, metadata={"format": "pt", "lora_alpha": str(LORA_ALPHA)})


def load_adapter(path: Path) -> dict[str, Tensor]:
    """The tensors of one LoRA file, named as by :func:`save_adapter`, for an alpha of LORA_ALPHA.

    What diffusers' ``save_lora_adapter`` wrote with another alpha is scaled to the same effect.
    ValueError for kinds of LoRA that change a layer in other ways.
    """
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(told.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    other = ("use_dora", "alpha_pattern", "rank_pattern", "lora_bias", "alora_invocation_tokens")
    if unknown := [name for name in other if config.get(name)]:
        raise ValueError(f"{path}: LoRAs with {unknown[0]} cannot be used here; give a plain LoRA")
    alpha = float(config.get("lora_alpha", told.get("lora_alpha", LORA_ALPHA)))
    if config.get("use_rslora"):
        alpha *= config["r"] ** 0.5  # alpha / sqrt(r) instead of alpha / r
    if alpha != LORA_ALPHA:
        for name in tensors:
            if name.endswith("lora_B.weight"):
                tensors[name] = tensors[name] * (alpha / LORA_ALPHA)
    return tensors
