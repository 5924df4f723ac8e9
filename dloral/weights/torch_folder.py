"""Loading a folder of safetensors as a torch pipeline, the runtime that most models use."""

import json
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderTiny
from diffusers.hooks import apply_layerwise_casting
from safetensors import safe_open

from dloral.errors import OptionError, Setting
from dloral.hub_folder import PARTS
from dloral.models.unet import plain_state_dict
from dloral.options import AUTO
from dloral.pipeline import DLoRALPipeline
from dloral.weights.checkpoint_io import quiet_bars
from dloral.weights.fetch import TerminalFetch, fetch
from dloral.weights.loading import LARGE, load_pipeline
from dloral.weights.registry import TINY_VAE, fetched
from dloral.weights.resolve import INDEX


def load_torch_pipeline(
    model: str | Path = "compact", device: str = AUTO, dtype: str = AUTO, vae: str = AUTO
) -> DLoRALPipeline:
    """:func:`load_pipeline` for code that needs the networks, such as training; raises
    :class:`OptionError` for a model that has none."""
    pipe = load_pipeline(model, device, dtype, vae)
    if not isinstance(pipe, DLoRALPipeline):
        raise OptionError(
            "{option} is {value}, which has no torch networks",
            remedy="use {instead}",
            option=Setting("model"),
            value=str(model),
            instead=Setting("model", "compact"),
        )
    return pipe


def open_folder(
    folder: Path, place: torch.device, dtype: torch.dtype, vae: str, *, widen: bool
) -> DLoRALPipeline:
    """The pipeline of a folder on ``place``, in evaluation mode.

    ``widen``: weights stay in ``dtype``, but computation is in float32. Raises whatever the
    libraries raise for an invalid folder.
    """
    _check_folders(folder)
    with quiet_bars():
        pipe = DLoRALPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    _check_complete(pipe, folder)
    if vae != AUTO:
        _use_tiny_vae(pipe, vae, dtype)
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    for part in parts:
        part.requires_grad_(False).eval()
    pipe.to(place).channels_last()
    for part in parts if widen else ():
        compute_in_float32(part)
    return pipe


def _use_tiny_vae(pipe: DLoRALPipeline, vae: str, dtype: torch.dtype) -> None:
    """Put TAESD in place of the VAE, or of its decoder only; fetched if missing."""
    if vae not in pipe.other_vaes:
        raise OptionError(
            "{option} is {value!r}, which does not support this model's latents",
            remedy="use {instead}",
            option=Setting("vae"),
            value=vae,
            instead=Setting("vae", AUTO),
        )
    shown = TerminalFetch()
    folder = fetched(TINY_VAE) or fetch(TINY_VAE, on_plan=shown.plan, on_progress=shown.progress)
    tiny = AutoencoderTiny.from_pretrained(folder, dtype=dtype, local_files_only=True)
    if vae == "tiny":
        pipe.vae = tiny
    else:
        pipe.tiny_decoder = tiny


def _check_folders(folder: Path) -> None:
    """Raise ``ValueError`` for a part of the index that has no folder: the libraries' messages for
    that name no part, and a tokenizer without files would simply know no words."""
    for name, kind in json.loads((folder / INDEX).read_text()).items():
        if name.startswith("_"):
            continue
        # a part is [library, class]; one the model does not have is [null, null]
        if isinstance(kind, list) and len(kind) != 2:
            raise ValueError(f"part {name[:40]!r} does not name a library and a class")
        library = str(kind[0]) if isinstance(kind, list) and kind[0] else None
        if library is None:
            continue
        if library.partition(".")[0] not in ("diffusers", "transformers", "dloral", PARTS):
            raise ValueError(f"part {name[:40]!r} is from {library[:40]!r}, which is not allowed")
        if not any((folder / name).glob("*.json")):
            raise ValueError(f"the folder {name!r} is missing or empty")


def _check_complete(pipe: DLoRALPipeline, folder: Path) -> None:
    """Raise ``ValueError`` for a tensor missing from all files: diffusers would leave it random."""
    for name, part in pipe.components.items():
        if not isinstance(part, diffusers.ModelMixin):
            continue
        stored: set[str] = set()
        for path in (folder / name).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                stored.update(file.keys())
        if missing := plain_state_dict(part).keys() - stored:
            raise ValueError(f"{name}: missing tensors: {min(missing)} ({len(missing)} in total)")


def compute_in_float32(part: torch.nn.Module) -> None:
    """Keep large weights as they are and upcast each layer while it runs; the rest is float32.

    On a CPU without instructions for a half precision, a convolution in it takes hundreds of times
    as long as in float32 (measured: 23 s against 0.04 s with 128 channels).
    """
    storage = part.dtype
    for module in part.modules():
        if not isinstance(module, LARGE):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    apply_layerwise_casting(part, storage, torch.float32, skip_modules_pattern=())
