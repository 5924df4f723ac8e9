"""Loading a model by name, for a device and a precision.

Imports no library that runs models: the model's folder says which one is needed.
"""

import math
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from dloral.devices import AUTO, choose_device, half_precision
from dloral.errors import DLoRALError, OptionError, Setting, WeightsError
from dloral.memory import free_memory, keep_freed_memory
from dloral.options import TORCH
from dloral.weights.checkpoint_io import BROKEN, first_line
from dloral.weights.registry import make_again, models_home
from dloral.weights.resolve import RUNTIMES, find_model, index_kind

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

LARGE = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding)
"""Layers whose weights are upcast as they run; diffusers' layerwise casting supports these."""


def load_pipeline(
    model: str | Path = "compact",
    device: str = AUTO,
    dtype: str = AUTO,
    vae: str = AUTO,
    runtime: str = TORCH,
) -> "FrameGenerator":
    """A model ready to run, in the runtime that its folder's index names.

    ``model``: ``"compact"``; ``"bicubic"``, upscaling only; ``"sd21"``, which is fetched if
    missing; a folder written by ``save_pretrained`` or ``convert``; or the Hub id ``owner/name`` of
    such a folder.
    ``device``: auto, cpu, cuda, rocm, xpu, mps, directml, or one with an index, such as ``cuda:1``;
    auto picks the first GPU, or else the CPU (:mod:`dloral.devices`).
    ``dtype``: float32, bfloat16, float16 or auto (see :func:`choose_dtype`); a CPU without native
    half-precision arithmetic stores weights in it but computes in float32. ``vae``: auto for the
    model's own, ``"tiny"`` or ``"tiny-decoder"`` to replace it, or its decoder, with TAESD.
    ``runtime``: what runs the networks of a model without prompts on a CPU: ``"torch"``,
    ``"openvino"``, ``"onnx"``, or auto for the fastest one installed, measured once per machine. If
    one cannot run them, a log line says so and torch is used.
    On a CPU the process keeps some of its freed memory from then on, see
    :func:`dloral.memory.keep_freed_memory`. Raises :class:`WeightsError` or :class:`OptionError`.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    folder = find_model(str(model))
    if place.type == "cpu":
        keep_freed_memory()
    try:
        if dtype == AUTO and place.type == "cpu" and _weights_bytes(folder) > free_memory(place):
            precision = torch.bfloat16
        on_half_cpu = place.type == "cpu" and precision != torch.float32
        widen = on_half_cpu and not _multiplies(precision)
        opener = import_module(RUNTIMES[index_kind(folder)])
        pipe: FrameGenerator = opener.open_folder(folder, place, precision, vae, widen=widen)
    except DLoRALError:
        raise
    except (*BROKEN, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(
            "model {value!r} cannot be loaded from {path}: {reason}",
            remedy="{again}, or use {instead}",
            value=str(model),
            path=folder,
            reason=first_line(error),
            again=make_again(folder),
            instead=Setting("model", "compact"),
        ) from error
    if runtime == TORCH:
        return pipe
    from dloral.runtimes.choice import in_runtime

    return in_runtime(pipe, runtime, models_home() / "runtimes")


def _weights_bytes(folder: Path) -> int:
    """A model's size in float32. A small one also has copies from which LoRAs are merged."""
    count = 0
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        count += sum(math.prod(size) for size in sizes)
    return 4 * count


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """A dtype by name. ``auto``: bfloat16 if the device supports it natively, else float16 on a GPU
    and float32 on a CPU (where emulated bfloat16 is slower than float32)."""
    if dtype != AUTO and dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; choose from {', '.join([AUTO, *DTYPES])}")
    if dtype != AUTO:
        return DTYPES[dtype]
    if device.type != "cpu":
        return half_precision(device)
    return torch.bfloat16 if _multiplies(torch.bfloat16) else torch.float32


def _multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies natively in a half precision."""
    has = torch.cpu.get_capabilities()
    names = {
        torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
        torch.float16: ("avx512_fp16", "amx_fp16", "fp16"),
    }[dtype]
    return any(has.get(name, False) for name in names)
