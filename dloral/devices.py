"""Where networks run: the device kinds that torch knows, which are present, what they can do.

CUDA and the CPU are tested. The others follow torch's and the packages' documentation and have not
been run by the authors (docs/deployment.md says so).
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import psutil
import torch

from dloral.errors import OptionError, Setting

AUTO = "auto"
CPU = "cpu"


@dataclass(frozen=True)
class Kind:
    """``count``: devices of the kind on this machine; ``place``: the n-th as torch names it;
    ``name``: what it calls itself; ``absent``: what to do where there is none."""

    count: Callable[[], int]
    place: Callable[[int | None], torch.device]
    name: Callable[[torch.device], str]
    absent: str


def _of_torch(kind: str) -> Callable[[int | None], torch.device]:
    return lambda index: torch.device(kind) if index is None else torch.device(kind, index)


def _cuda_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _rocm_count() -> int:
    return _cuda_count() if torch.version.hip else 0


def _xpu_count() -> int:
    return torch.xpu.device_count() if torch.xpu.is_available() else 0


@cache
def _directml_module() -> Any:
    """The package ``torch_directml``, which adds its devices to torch; None if not installed."""
    if find_spec("torch_directml") is None:
        return None
    try:
        return import_module("torch_directml")
    except (ImportError, OSError):  # built for another torch
        return None


def _directml_count() -> int:
    module = _directml_module()
    return module.device_count() if module is not None and module.is_available() else 0


def _directml_place(index: int | None) -> torch.device:
    place = _directml_module().device(index or 0)
    assert isinstance(place, torch.device)
    return place


_OF_CUDA = "torch sees none: install its driver and a torch built for it (pytorch.org)"

KINDS = {
    "cuda": Kind(
        _cuda_count,
        _of_torch("cuda"),
        lambda place: torch.cuda.get_device_properties(place).name,
        _OF_CUDA,
    ),
    "rocm": Kind(
        _rocm_count,
        _of_torch("cuda"),
        lambda place: torch.cuda.get_device_properties(place).name,
        "this torch was not built for ROCm, or sees no AMD GPU",
    ),
    "xpu": Kind(
        _xpu_count,
        _of_torch("xpu"),
        lambda place: torch.xpu.get_device_properties(place).name,
        "torch sees no Intel GPU: install its driver and torch's build for XPU",
    ),
    "mps": Kind(
        lambda: int(torch.backends.mps.is_available()),
        _of_torch("mps"),
        lambda place: "Apple GPU",
        "Apple GPUs exist on macOS only",
    ),
    "directml": Kind(
        _directml_count,
        _directml_place,
        lambda place: str(_directml_module().device_name(place.index or 0)),
        "torch-directml is not installed, or does not match this torch",
    ),
}
"""By the name that ``device`` takes. AMD's GPUs are CUDA devices to a torch built for ROCm."""

BY_PREFERENCE = ("cuda", "xpu", "mps", "directml")
"""What auto takes, the first that is here; the CPU where none is."""

DEVICES = (AUTO, CPU, *KINDS)

_DIRECTML = "privateuseone"
_WITH_FLOAT64 = (CPU, "cuda")


def choose_device(device: str) -> torch.device:
    """The device by its name (``cuda``, ``xpu:1``, ...), or the best one for auto.

    Raises :class:`OptionError` for an unknown name, and for a device that is not present.
    """
    if device == AUTO:
        kind = next((kind for kind in BY_PREFERENCE if KINDS[kind].count()), None)
        return torch.device(CPU) if kind is None else KINDS[kind].place(None)
    kind, colon, index = device.partition(":")
    if kind not in (CPU, *KINDS):
        raise _not_usable(device, "is not a device", f"choose from {', '.join(DEVICES)}")
    if colon and not (index.isdecimal() and index.isascii()):
        raise _not_usable(device, "has no number after the colon", f"give {kind} or {kind}:1")
    number = int(index) if index else None
    if kind == CPU:
        return torch.device(CPU)
    count = KINDS[kind].count()
    if not count:
        why = KINDS[kind].absent
        raise _not_usable(device, f"is not on this machine ({why})", "use {cpu} or {auto}")
    if (number or 0) >= count:
        raise _not_usable(
            device, f"is not on this machine, which has {count} of that kind", "use {auto}"
        )
    return KINDS[kind].place(number)


def _not_usable(device: str, what: str, remedy: str) -> OptionError:
    return OptionError(
        "{option} {value!r} " + what,
        remedy=remedy,
        option=Setting("device"),
        value=device,
        cpu=Setting("device", CPU),
        auto=Setting("device", AUTO),
    )


def accelerators() -> list[str]:
    """``cuda:0``, ``cuda:1``, ``xpu:0``, ...: this machine's devices besides the CPU."""
    return [f"{kind}:{index}" for kind in BY_PREFERENCE for index in range(KINDS[kind].count())]


def device_title(place: torch.device) -> str:
    """What a device calls itself; the processor's name for the CPU."""
    kind = "directml" if place.type == _DIRECTML else place.type
    if kind in KINDS:
        return KINDS[kind].name(place)
    name: str = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "CPU"
    return name


def takes_bfloat16(place: torch.device) -> bool | None:
    """Whether a GPU multiplies bfloat16 natively; None for the CPU, whose capabilities tell."""
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if place.type == "xpu":
        return torch.xpu.is_bf16_supported(including_emulation=False)
    return None if place.type == CPU else False


def half_precision(place: torch.device) -> torch.dtype:
    """What auto computes in on a GPU: bfloat16 if supported, else float16; float32 on DirectML,
    which lacks too many half-precision kernels (our decision, untested)."""
    if place.type == _DIRECTML:
        return torch.float32
    return torch.bfloat16 if takes_bfloat16(place) else torch.float16


def wide_device(place: torch.device) -> torch.device:
    """Where to keep the few float64 numbers that belong to features on ``place``: there, or on the
    CPU where the device may lack float64 (MPS has none, many Intel GPUs have none)."""
    return place if place.type in _WITH_FLOAT64 else torch.device(CPU)


def can_offload(place: torch.device) -> bool:
    """Whether idle parts can wait in the CPU's memory to save the device's own."""
    return place.type in ("cuda", "xpu")


def free_on_device(place: torch.device) -> int | None:
    """Free bytes of a GPU, including what torch has cached; None where system memory is what
    counts. An Apple GPU shares it, up to Metal's recommended maximum."""
    if place.type in ("cuda", "xpu"):
        module = torch.cuda if place.type == "cuda" else torch.xpu
        free, _ = module.mem_get_info(place)
        return int(free + module.memory_reserved(place) - module.memory_allocated(place))
    if place.type == "mps":
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return int(max(0, min(left, psutil.virtual_memory().available)))
    return None


def memory_of(place: torch.device) -> int | None:
    """A GPU's total memory in bytes, if it reports it."""
    if place.type in ("cuda", "xpu"):
        module = torch.cuda if place.type == "cuda" else torch.xpu
        return int(module.get_device_properties(place).total_memory)
    return torch.mps.recommended_max_memory() if place.type == "mps" else None


def synchronize(place: torch.device) -> None:
    """Wait until a GPU has finished its work; a CPU always has."""
    if place.type in ("cuda", "xpu", "mps"):
        getattr(torch, place.type).synchronize()


def forget_peak(place: torch.device) -> None:
    """Restart :func:`peak_on_device` from now."""
    if place.type in ("cuda", "xpu"):
        getattr(torch, place.type).reset_peak_memory_stats(place)


def peak_on_device(place: torch.device) -> int | None:
    """Peak bytes of GPU memory taken by tensors; None where torch does not count them."""
    if place.type in ("cuda", "xpu"):
        return int(getattr(torch, place.type).max_memory_allocated(place))
    return None


def empty_caches() -> None:
    """Release the GPU memory that torch has cached."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.xpu.is_available():
        torch.xpu.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
