"""From a model's name to a pipeline that runs on a device, in a precision."""

import json
import math
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.hooks import apply_layerwise_casting
from safetensors import safe_open

from dloral.errors import DLoRALError, OptionError, WeightsError
from dloral.memory import free_memory, keep_freed_memory
from dloral.models.unet import plain_state_dict
from dloral.pipeline import DLoRALPipeline
from dloral.weights.bicubic import BICUBIC, BicubicPipeline
from dloral.weights.checkpoint_io import BROKEN, first_line, quiet_bars
from dloral.weights.fetch import TerminalFetch, fetch
from dloral.weights.registry import TINY_VAE, fetched, make_again
from dloral.weights.resolve import INDEX, find_model

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda", "mps")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

LARGE = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding)
"""Layers whose weights are widened as they run; those that the libraries' casting knows."""


def load_pipeline(
    model: str | Path = "compact", device: str = AUTO, dtype: str = AUTO, vae: str = AUTO
) -> DLoRALPipeline:
    """A pipeline ready to run, in evaluation mode.

    ``model``: ``"compact"``; ``"sd21"``, which is fetched when it is not on this machine; a folder
    that ``save_pretrained`` or ``convert`` wrote; or a Hub id ``owner/name`` of such a folder.
    ``device``: auto takes CUDA, else Apple's MPS, else the CPU; ``cuda:1`` and the like name one.
    ``dtype``: float32, bfloat16, float16 or auto (see :func:`choose_dtype`); a CPU that does not
    multiply in a half precision keeps weights in it and computes in float32. ``vae``: auto for the
    model's own, ``"tiny"`` or ``"tiny-decoder"`` for TAESD in its place or in its decoder's.
    On a CPU the process keeps some of its freed memory from then on, see
    :func:`dloral.memory.keep_freed_memory`. Raises :class:`WeightsError` or :class:`OptionError`.
    """
    if model == BICUBIC:
        return BicubicPipeline()  # type: ignore[return-value]
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    folder = find_model(str(model))
    if place.type == "cpu":
        keep_freed_memory()
    try:
        if dtype == AUTO and place.type == "cpu" and _weights_bytes(folder) > free_memory(place):
            precision = torch.bfloat16
        _check_folders(folder)
        with quiet_bars():
            pipe = DLoRALPipeline.from_pretrained(
                folder, dtype=precision, local_files_only=True, use_safetensors=True
            )
        _check_complete(pipe, folder)
        if vae != AUTO:
            _use_tiny_vae(pipe, vae, precision)
    except DLoRALError:
        raise
    except (*BROKEN, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"model {str(model)!r} cannot be loaded from {folder}: {first_line(error)}; "
            f"{make_again(folder)}, or use --model compact"
        ) from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    pipe.to(place).channels_last()
    if place.type == "cpu" and precision != torch.float32 and not _multiplies(precision):
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                compute_in_float32(part)
    return pipe


def _weights_bytes(folder: Path) -> int:
    """What a model takes in float32, with the copies that LoRAs are merged from."""
    count = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        count += sum(math.prod(size) for size in sizes) * (2 if path.parent.name == "unet" else 1)
    return 4 * count


def _use_tiny_vae(pipe: DLoRALPipeline, vae: str, dtype: torch.dtype) -> None:
    """TAESD in the VAE's place, or in its decoder's alone; fetched if it is not there."""
    if not isinstance(pipe.vae, AutoencoderKL):
        raise OptionError(
            f"--vae is {vae!r}, which knows Stable Diffusion's latents alone; this model has a "
            f"{type(pipe.vae).__name__}, use --vae auto"
        )
    shown = TerminalFetch()
    folder = fetched(TINY_VAE) or fetch(TINY_VAE, on_plan=shown.plan, on_progress=shown.progress)
    tiny = AutoencoderTiny.from_pretrained(folder, dtype=dtype, local_files_only=True)
    if vae == "tiny":
        pipe.vae = tiny
    else:
        pipe.tiny_decoder = tiny


def _check_folders(folder: Path) -> None:
    """Raise ``ValueError`` for a part of the index that has no folder: the libraries' words for
    that name no part, and a tokenizer without files would simply know no words."""
    for name, kind in json.loads((folder / INDEX).read_text()).items():
        # a part is [library, class]; one that the model does without is [null, null]
        if isinstance(kind, list) and len(kind) != 2:
            raise ValueError(f"part {name[:40]!r} names no library and class")
        library = str(kind[0]) if isinstance(kind, list) and kind[0] else None
        if library is None:
            continue
        if library.partition(".")[0] not in ("diffusers", "transformers", "dloral"):
            raise ValueError(f"part {name[:40]!r} is of {library[:40]!r}, which no part comes from")
        if not any((folder / name).glob("*.json")):
            raise ValueError(f"the folder {name!r} is missing or empty")


def _check_complete(pipe: DLoRALPipeline, folder: Path) -> None:
    """Raise ``ValueError`` for a tensor that no file holds: diffusers would leave it random."""
    for name, part in pipe.components.items():
        if not isinstance(part, diffusers.ModelMixin):
            continue
        stored: set[str] = set()
        for path in (folder / name).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                stored.update(file.keys())
        if missing := plain_state_dict(part).keys() - stored:
            raise ValueError(f"{name}: {len(missing)} tensors are missing, one is {min(missing)}")


def choose_device(device: str) -> torch.device:
    """The device by its name, if this machine has it."""
    if device == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = device.split(":")[0]
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in present:
        raise OptionError(f"device is {device!r}; choose from {', '.join(DEVICES)}")
    if not present[kind]:
        raise OptionError(f"device {device!r} is not on this machine; use --device cpu or auto")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise OptionError(
            f"device {device!r} is not understood; say cpu, cuda or cuda:1"
        ) from error
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (place.index or 0) >= count:
        raise OptionError(f"device {device!r} is not on this machine; it has {count} of that kind")
    return place


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Auto: bfloat16 where the device multiplies it natively, else float16 on a GPU, float32 on a
    CPU (emulated bfloat16 is slower than float32 there)."""
    if dtype != AUTO and dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; choose from {', '.join([AUTO, *DTYPES])}")
    if dtype != AUTO:
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _multiplies(torch.bfloat16) else torch.float32


def _multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies in a half precision itself."""
    has = torch.cpu.get_capabilities()
    names = {
        torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
        torch.float16: ("avx512_fp16", "amx_fp16", "fp16"),
    }[dtype]
    return any(has.get(name, False) for name in names)


def compute_in_float32(part: torch.nn.Module) -> None:
    """Large weights stay as they are and each layer is widened while it runs; the rest is float32.

    Where a CPU has no instructions for a half precision, a convolution in it takes hundreds of
    times as long as in float32 (our measure: 23 s against 0.04 s for one of 128 channels).
    """
    storage = part.dtype
    for module in part.modules():
        if not isinstance(module, LARGE):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    apply_layerwise_casting(part, storage, torch.float32, skip_modules_pattern=())
