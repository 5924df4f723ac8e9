"""The UNet: diffusers' own, with a ``conv_in`` for two sets of latents and two LoRAs.

Step 5 of the generator: ``eps = UNet(concat[aligned, retrieved], timestep 1, prompt)``, aligned
first. On disk it is a plain diffusers UNet with one LoRA file for each adapter beside it, so
either can be replaced, and other software can read them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel

# diffusers looks for this name in the module of every component it loads.
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Tensor, nn

from dloral.models.adapters import (
    ADAPTERS,
    MergedScales,
    adapter_parameters,
    add_adapter,
    add_adapters,
    load_adapter,
    lora_layers,
    save_adapter,
    set_scales,
)
from dloral.models.building import building

TIMESTEP = 1
"""The one step's timestep (notes, step 5)."""

MOST_TO_COPY = 2**28
"""Bytes of weights beyond which a CPU runs LoRAs beside the layers: merging needs copies of them,
and saves 7% of a frame's time (our decision; benchmarks/speed.md)."""


class TwoLoRAUNet(UNet2DConditionModel):
    """UNet2DConditionModel for [aligned, retrieved] latents that carries C-LoRA and D-LoRA."""

    _merged: MergedScales | None = None

    @property
    def has_adapters(self) -> bool:
        return next(lora_layers(self), None) is not None

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """``eps`` (B,C,h,w) from two (B,C,h,w) and prompt embeddings (B or 1, tokens, D)."""
        sample = torch.cat([aligned_latents, retrieved_latents], dim=1)
        if prompt_embeds is not None:
            prompt_embeds = prompt_embeds.expand(len(sample), -1, -1).to(sample.dtype)
        # Made on the device: a number would be copied there, and the CPU would wait for it.
        timestep = torch.full((1,), TIMESTEP, device=sample.device)
        return self(sample, timestep, encoder_hidden_states=prompt_embeds).sample

    def set_scales(self, *, consistency: float, detail: float, merge: bool = True) -> None:
        """Run with ``W + consistency * dC + detail * dD``.

        ``merge`` writes that sum into the layers, for speed, unless :attr:`too_large_to_merge`;
        without it both branches run live beside the layers and keep gradients.
        """
        if not self.has_adapters:
            return
        if merge and not self.too_large_to_merge:
            if self._merged is None:
                self._merged = MergedScales(self)
            self._merged.apply(consistency=consistency, detail=detail)
        else:
            self.unmerge()
            set_scales(self, consistency=consistency, detail=detail)

    def bytes_to_merge(self) -> int:
        """Bytes that :meth:`set_scales` needs for its pristine copies; 0 once they are made."""
        return 0 if self._merged is not None or self.too_large_to_merge else self._bytes_to_copy()

    @property
    def too_large_to_merge(self) -> bool:
        """On a CPU, where copies of the layers would take more than ``MOST_TO_COPY``."""
        return self.device.type == "cpu" and self._bytes_to_copy() > MOST_TO_COPY

    def _bytes_to_copy(self) -> int:
        weights = (layer.get_base_layer().weight for layer in lora_layers(self))
        return sum(weight.numel() * weight.itemsize for weight in weights)

    def keep_pristine_on(self, device: torch.device | str) -> None:
        """Keep the copies that scales are merged from on ``device``."""
        if self._merged is not None:
            self._merged.to(device)

    def unmerge(self) -> None:
        """Pristine base weights back in the layers, adapters live."""
        if self._merged is not None:
            self._merged.restore()
            self._merged = None

    @building()
    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """The plain UNet's files, then ``consistency.safetensors`` and ``detail.safetensors``."""
        self.unmerge()
        with init_empty_weights():  # it shares this one's tensors
            plain = TwoLoRAUNet.from_config(self.config)
        plain.load_state_dict(plain_state_dict(self), assign=True)
        super(TwoLoRAUNet, plain).save_pretrained(save_directory, **kwargs)
        for adapter in ADAPTERS:
            path = Path(save_directory) / f"{adapter}.safetensors"
            if self.has_adapters:
                save_adapter(self, adapter, path)
            else:  # left by an earlier model: the next load would take it for this one's
                path.unlink(missing_ok=True)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Load a folder written by :meth:`save_pretrained`, with any LoRAs beside it."""
        unet = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        files = {adapter: folder / f"{adapter}.safetensors" for adapter in ADAPTERS}
        if not any(path.is_file() for path in files.values()):
            files = {adapter: _from_hub(path) for adapter, path in files.items()}
        present = [adapter for adapter, path in files.items() if path.is_file()]
        if len(present) == 1:
            raise ValueError(f"{folder} holds {present[0]}.safetensors but not the other LoRA's")
        if present:
            load_adapters(unet, files)
        return unet


def _from_hub(file: Path) -> Path:
    """``file``, fetched if its folder is part of a Hub snapshot: diffusers only downloads files
    named like a model's weights."""
    repo, snapshots, revision = file.parts[-5:-2] if len(file.parts) > 5 else ("", "", "")
    if snapshots != "snapshots" or not repo.startswith("models--"):
        return file
    name = repo.removeprefix("models--").replace("--", "/")
    inside = "/".join(file.parts[-2:])
    try:
        return Path(
            hf_hub_download(name, inside, revision=revision, cache_dir=Path(*file.parts[:-5]))
        )
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:  # a UNet without LoRAs
        return file


def load_adapters(unet: TwoLoRAUNet, files: dict[str, Path]) -> None:
    """Both LoRAs from their files, with the ranks those hold."""
    tensors = {adapter: load_adapter(path) for adapter, path in files.items()}
    ranks = {
        adapter: next((t.shape[0] for key, t in lora.items() if key.endswith("lora_A.weight")), 1)
        for adapter, lora in tensors.items()
    }
    add_adapters(unet, ranks)
    for adapter, lora in tensors.items():
        named = {
            key.replace(".weight", f".{adapter}.weight"): tensor for key, tensor in lora.items()
        }
        wanted = {name for name in unet.state_dict() if f".{adapter}.weight" in name}
        if missing := wanted ^ named.keys():
            raise ValueError(
                f"{files[adapter]}: {len(missing)} LoRA tensors do not fit this UNet, "
                f"the first is {min(missing)}"
            )
        unet.load_state_dict(named, strict=False)
    cast(unet, unet.conv_in.weight.dtype)


def replace_adapter(unet: TwoLoRAUNet, adapter: str, tensors: dict[str, Tensor]) -> None:
    """Replace ``adapter`` with another LoRA of any rank; tensors are named as in its file.

    ValueError, with nothing changed, for one that does not fit this UNet.
    """
    if not unet.has_adapters:
        raise ValueError("this UNet has no LoRAs that could be replaced")
    unet.unmerge()
    old = {
        name.replace(f".{adapter}.", "."): parameter
        for name, parameter in adapter_parameters(unet, adapter).items()
    }
    if unknown := old.keys() ^ tensors.keys():
        raise ValueError(
            f"{len(unknown)} LoRA tensors do not fit this UNet, the first is {min(unknown)}"
        )
    axis = {"A": 0, "B": 1}  # of the rank
    ranks = {tensor.shape[axis[name.split(".lora_")[1][0]]] for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        shape = list(old[name].shape)
        shape[axis[name.split(".lora_")[1][0]]] = next(iter(ranks))
        if len(ranks) > 1 or list(tensor.shape) != shape:
            raise ValueError(f"LoRA tensor {name} has shape {tuple(tensor.shape)}, not {shape}")
    place = unet.conv_in.weight
    targets = sorted({name.split(".lora_")[0].removesuffix(".base_layer") for name in old})
    unet.delete_adapters(adapter)
    add_adapter(unet, adapter, ranks.pop(), targets)
    named = {name.replace(".weight", f".{adapter}.weight"): t for name, t in tensors.items()}
    unet.load_state_dict(named, strict=False)
    nn.Module.to(unet, place.device, place.dtype)
    unet.requires_grad_(place.requires_grad)
    set_scales(unet, consistency=1.0, detail=1.0)


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """``model.to(dtype)`` without the warning diffusers gives for each of its own models."""
    nn.Module.to(model, dtype)


def plain_state_dict(unet: nn.Module) -> dict[str, Tensor]:
    """The UNet's own weights under the names they have without adapters."""
    return plain_names(unet.state_dict())


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without those of adapters, under the names they have without adapters."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in weights.items()
        if ".lora_" not in name
    }


def widen_conv_in(unet: UNet2DConditionModel) -> None:
    """A ``conv_in`` for [aligned, retrieved]; both halves start as the old weights."""
    old = unet.conv_in
    wide = nn.Conv2d(
        2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding
    ).to(device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([old.weight, old.weight], dim=1))
        assert wide.bias is not None
        wide.bias.copy_(old.bias)
    unet.conv_in = wide
    unet.register_to_config(in_channels=2 * old.in_channels)
