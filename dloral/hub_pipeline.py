"""The methods users know from other diffusers pipelines, and saving for the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor
from transformers import CLIPTextModel

from dloral.errors import OptionError, Setting
from dloral.hub_folder import is_package, named_as_here, write_code, write_headers
from dloral.looks import check_lora_scales
from dloral.memory import release_memory
from dloral.models.adapters import ADAPTERS, CONSISTENCY, DETAIL, load_adapter
from dloral.models.building import building
from dloral.models.unet import TwoLoRAUNet, replace_adapter
from dloral.models.vae_kinds import kind_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline as _Base
else:
    _Base = object  # no pipeline: diffusers looks for the only one in a model's own code


class HubPipeline(_Base):
    """The part of :class:`dloral.pipeline.DLoRALPipeline` that is not about restoring."""

    unet: TwoLoRAUNet
    vae: Any
    reads_prompts: Any
    folder: Any
    execution_device: Any
    _adapter_scales: dict[str, float]
    _vae_tile: int | None

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Sequence[float] | None = None,
    ) -> None:
        """Set a call's default scales: ``"consistency"`` and ``"detail"``, 1 each if no weights
        are given. One that is not named is off, as in diffusers."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = 1.0 if adapter_weights is None else adapter_weights
        scales = [weights] * len(names) if isinstance(weights, int | float) else list(weights)
        if len(scales) != len(names):
            raise OptionError(
                f"{len(names)} adapters are named, and {{option}} holds {len(scales)}",
                remedy="give a weight for each",
                option=Setting("adapter_weights"),
            )
        chosen = dict.fromkeys(ADAPTERS, 0.0)
        for name, scale in zip(names, scales, strict=True):
            _check_adapter(name)
            chosen[name] = float(scale)
        check_lora_scales(chosen[CONSISTENCY], chosen[DETAIL])
        self._adapter_scales = chosen

    def get_active_adapters(self) -> list[str]:
        """The adapters that a call uses by default."""
        return [name for name, scale in self._adapter_scales.items() if scale]

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | dict[str, Tensor],
        adapter_name: str = DETAIL,
        weight_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Replace the UNet's C-LoRA or D-LoRA, by ``adapter_name``, with another of any rank.
        A compact decoder keeps its share of the shipped one.

        From a file, from a folder or a Hub id (there ``weight_name``, by default
        ``detail.safetensors`` or ``consistency.safetensors``), or from tensors; named as
        :func:`save_adapter` does. ``kwargs`` go to the Hub (``revision``, ``token``,
        ``subfolder``). OptionError for another name, ValueError for one that does not fit.
        """
        _check_adapter(adapter_name)
        given = pretrained_model_name_or_path_or_dict
        if not isinstance(given, dict):
            path, file = Path(given), weight_name or f"{adapter_name}.safetensors"
            if path.is_dir():
                path = path / kwargs.get("subfolder", "") / file
            elif not path.is_file():
                path = Path(hf_hub_download(str(given), file, **kwargs))
            given = load_adapter(path)
        replace_adapter(self.unet, adapter_name, given)

    def unload_text_encoder(self) -> None:
        """Free its memory; :meth:`encode_prompt` reloads it. Only for a model loaded from disk."""
        if self.folder is not None and self.text_encoder is not None:
            self._keep_text_encoder(None)
            release_memory()

    @building()
    def _load_text_encoder(self) -> None:
        assert self.folder is not None, "a text encoder is unloaded only where it can come back"
        on_cpu = self.device.type == "cpu"  # which may have no half precision
        text_encoder = CLIPTextModel.from_pretrained(
            self.folder,
            subfolder="text_encoder",
            dtype=torch.float32 if on_cpu else self.unet.dtype,
            local_files_only=True,
        )
        text_encoder.requires_grad_(False).eval().to(self.execution_device)
        self._keep_text_encoder(text_encoder)

    def _keep_text_encoder(self, text_encoder: CLIPTextModel | None) -> None:
        # Not through diffusers' __setattr__, which would write None into the model's index.
        object.__setattr__(self, "text_encoder", text_encoder)

    def enable_vae_tiling(self, tile: int = 64) -> None:
        """Encode and decode in tiles of so many latent cells, where the VAE has tiles."""
        self._vae_tile = tile if kind_of(self.vae).has_tiles else None

    def disable_vae_tiling(self) -> None:
        """Encode and decode frames whole."""
        self._vae_tile = None

    @classmethod
    @building()
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in diffusers; one model at a time, whatever the number of threads."""
        return super().from_pretrained(*args, **kwargs)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; the folder includes its own code, for environments without dloral."""
        if self.reads_prompts and self.text_encoder is None and self.folder is not None:
            self._load_text_encoder()
        super().save_pretrained(save_directory, *args, **kwargs)
        self._complete(Path(save_directory))

    def _upload_folder(self, working_dir: str | Path, *args: Any, **kwargs: Any) -> Any:
        self._complete(Path(working_dir))
        return super()._upload_folder(working_dir, *args, **kwargs)

    def _complete(self, folder: Path) -> None:
        # A model that reads prompts is based on Stable Diffusion 2.1, and under its licence.
        name, licence = ("sd21", "openrail++") if self.reads_prompts else ("compact", "apache-2.0")
        write_code(folder)
        write_headers(folder, f"dloral-{name}", licence)

    @classmethod
    def _dict_from_json_file(cls, json_file: str | Path) -> dict[str, Any]:
        index: dict[str, Any] = super()._dict_from_json_file(json_file)
        # The package runs its own classes, never a folder's.
        return named_as_here(index) if is_package() else index


def _check_adapter(name: str) -> None:
    if name not in ADAPTERS:
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"choose from {', '.join(ADAPTERS)}",
            option=Setting("adapter_name"),
            value=name,
        )
