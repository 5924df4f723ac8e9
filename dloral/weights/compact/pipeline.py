"""DLoRAL's pipeline for diffusers: one-step diffusion video super-resolution.

Made by dloral 0.1.0 from its own modules; nothing else of that package is needed. It needs
torch, diffusers, transformers, peft and accelerate. Imports no file and opens no connection but as
diffusers does.
"""

# ruff: noqa
# mypy: ignore-errors

import ctypes
import gc
import json
import numpy as np
import os
import platform
import psutil
import re
import shutil
import struct
import sys
import torch
import torch.nn.functional as F
import warnings
from PIL import Image
from accelerate import init_empty_weights
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from functools import cache, partial, reduce
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from importlib import import_module
from importlib.util import find_spec
from itertools import islice, pairwise, repeat
from math import isfinite
from pathlib import Path, PurePath
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextModel
from typing import Any, Protocol, Self, TYPE_CHECKING


# ---------- dloral.errors ----------

@dataclass(frozen=True)
class Setting:
    """An option as Python names it, with a value where a remedy suggests one."""

    name: str
    value: object = None


class Face:
    """How one face of the software words the facts of an error. This one is Python's."""

    def setting(self, setting: Setting) -> str:
        """``model="compact"``, or the bare name without a value."""
        if setting.value is None:
            return setting.name
        value = f'"{setting.value}"' if isinstance(setting.value, str) else setting.value
        return f"{setting.name}={value}"

    def path(self, path: PurePath) -> str:
        """The path as it stands."""
        return str(path)

    def word(self, fact: object) -> object:
        """A fact as it goes into a message."""
        if isinstance(fact, Setting):
            return self.setting(fact)
        return self.path(fact) if isinstance(fact, PurePath) else fact


class CommandLine(Face):
    """Settings are flags: ``--tile-overlap``, ``--model compact``."""

    def setting(self, setting: Setting) -> str:
        flag = "--" + setting.name.replace("_", "-")
        return flag if setting.value is None else f"{flag} {setting.value}"


PYTHON = Face()
COMMAND_LINE = CommandLine()


class DLoRALError(Exception):
    """Something the user can mend; ``str(error)`` is one line that says how.

    ``problem`` and ``remedy`` are texts that name ``facts`` in braces; without facts and remedy,
    ``problem`` is the whole line as it stands. Facts that code may ask for: ``option``, ``value``,
    ``path``.
    """

    def __init__(self, problem: str = "", /, *, remedy: str = "", **facts: Any) -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.facts = problem, remedy, facts

    @property
    def value(self) -> Any:
        """What was found, or None."""
        return self.facts.get("value")

    @property
    def path(self) -> PurePath | None:
        """The file or folder that this is about, or None."""
        return self.facts.get("path")

    def render(self, face: Face = PYTHON) -> str:
        """One line, as ``face`` words it."""
        text = f"{self.problem}; {self.remedy}" if self.remedy else self.problem
        if not self.facts:
            return text
        return text.format_map({name: face.word(fact) for name, fact in self.facts.items()})

    def __str__(self) -> str:
        return self.render()


class OptionError(DLoRALError, ValueError):
    """An option is outside its range, or two options contradict each other."""


class InputError(DLoRALError, ValueError):
    """The source is missing, unreadable, empty, or not a clip, image or folder of frames."""


class OutputError(DLoRALError, OSError):
    """The result cannot be written: no permission, no space, a container of no use."""


class WeightsError(DLoRALError):
    """Weights are missing, broken, hostile, or made for another model."""


class ResourceError(DLoRALError):
    """The machine has too little memory for the job, even in its smallest steps."""


class MissingPackageError(DLoRALError):
    """An optional package is not installed; the remedy is the command that installs it."""


class CancelledError(DLoRALError):
    """The job was stopped by whoever started it; nothing was written."""


class Terminated(KeyboardInterrupt):
    """The system asks the process to end (SIGTERM): at a shutdown, or by a service manager. Unlike
    Ctrl-C that is not a person's word that the job is not wanted any more."""


def exit_status(command: Callable[[], int | None], name: str = "dloral") -> int:
    """Run a command line's work; what it ended with, an error said in one line ``name: ...``.
    A command that says its own status has said its errors too.

    0 done, 1 the job failed, 2 the call was wrong, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    try:
        return command() or 0
    except OptionError as error:
        return _fail(name, error, 2)
    except CancelledError as error:
        return _fail(name, error, 130)
    except DLoRALError as error:
        return _fail(name, error, 1)
    except Terminated:
        return _fail(name, "stopped; finished parts of a long job are kept beside its target", 143)
    except KeyboardInterrupt:
        return _fail(name, "stopped; nothing half written is left", 130)
    except BrokenPipeError:
        # the reader of our output went away (``dloral ... | head``)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(name: str, error: DLoRALError | str, status: int) -> int:
    text = error.render(COMMAND_LINE) if isinstance(error, DLoRALError) else error
    print(f"{name}: {text}", file=sys.stderr)
    return status


# ---------- dloral.devices ----------

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
    """The package ``torch_directml``, which adds its devices to torch; None without it."""
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


_OF_CUDA = "torch sees none: a driver, and a torch that was built for it (pytorch.org), bring it"

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
        "torch sees no Intel GPU: a driver, and torch's build for XPU, bring it",
    ),
    "mps": Kind(
        lambda: int(torch.backends.mps.is_available()),
        _of_torch("mps"),
        lambda place: "Apple GPU",
        "Apple's GPUs are there on macOS alone",
    ),
    "directml": Kind(
        _directml_count,
        _directml_place,
        lambda place: str(_directml_module().device_name(place.index or 0)),
        "torch-directml is not installed, or does not go with this torch",
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

    Raises :class:`OptionError` for a name that is none, and for a device that is not here.
    """
    if device == AUTO:
        kind = next((kind for kind in BY_PREFERENCE if KINDS[kind].count()), None)
        return torch.device(CPU) if kind is None else KINDS[kind].place(None)
    kind, colon, index = device.partition(":")
    if kind not in (CPU, *KINDS):
        raise _not_usable(device, "is not a device", f"choose from {', '.join(DEVICES)}")
    if colon and not (index.isdecimal() and index.isascii()):
        raise _not_usable(device, "has no number behind the colon", f"say {kind} or {kind}:1")
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
    """``cuda:0``, ``cuda:1``, ``xpu:0``, ...: what this machine has besides the CPU."""
    return [f"{kind}:{index}" for kind in BY_PREFERENCE for index in range(KINDS[kind].count())]


def device_title(place: torch.device) -> str:
    """What a device calls itself; the processor's name for the CPU."""
    kind = "directml" if place.type == _DIRECTML else place.type
    if kind in KINDS:
        return KINDS[kind].name(place)
    name: str = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "CPU"
    return name


def takes_bfloat16(place: torch.device) -> bool | None:
    """Whether a GPU multiplies bfloat16 itself; None for the CPU, whose capabilities say."""
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if place.type == "xpu":
        return torch.xpu.is_bf16_supported()
    return None if place.type == CPU else False


def half_precision(place: torch.device) -> torch.dtype:
    """What auto computes in on a GPU: bfloat16 where it has it, else float16; float32 on DirectML,
    whose kernels lack too much in half precision (our decision, untested)."""
    if place.type == _DIRECTML:
        return torch.float32
    return torch.bfloat16 if takes_bfloat16(place) else torch.float16


def wide_device(place: torch.device) -> torch.device:
    """Where a few numbers in float64 go that belong to features on ``place``: there, or to the CPU
    where the device may have no float64 (MPS has none, many Intel GPUs have none)."""
    return place if place.type in _WITH_FLOAT64 else torch.device(CPU)


def can_offload(place: torch.device) -> bool:
    """Whether parts can wait in the CPU's memory and save some of the device's own."""
    return place.type in ("cuda", "xpu")


def free_on_device(place: torch.device) -> int | None:
    """Free bytes of a GPU, with what torch keeps for itself; None where the system's memory is what
    counts. An Apple GPU shares it, up to the most that Metal recommends."""
    if place.type in ("cuda", "xpu"):
        module = torch.cuda if place.type == "cuda" else torch.xpu
        free, _ = module.mem_get_info(place)
        return int(free + module.memory_reserved(place) - module.memory_allocated(place))
    if place.type == "mps":
        left = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return int(max(0, min(left, psutil.virtual_memory().available)))
    return None


def memory_of(place: torch.device) -> int | None:
    """All of a GPU's memory in bytes, where it says."""
    if place.type in ("cuda", "xpu"):
        module = torch.cuda if place.type == "cuda" else torch.xpu
        return int(module.get_device_properties(place).total_memory)
    return torch.mps.recommended_max_memory() if place.type == "mps" else None


def empty_caches() -> None:
    """Give memory that torch keeps on GPUs back to them."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.xpu.is_available():
        torch.xpu.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


# ---------- dloral.frames.clips ----------

def as_frames(frames: Tensor | np.ndarray | Sequence[Image.Image | np.ndarray | Tensor]) -> Tensor:
    """Any accepted form of a clip -> float32 (T,3,H,W) in [0, 1]."""
    if isinstance(frames, list | tuple):
        pictures = [_as_tensor(picture) for picture in frames]
        if len({picture.shape for picture in pictures}) > 1:
            raise OptionError("frames are of different sizes; give frames of one size")
        clip = torch.stack(pictures) if pictures else torch.empty(0)
    else:
        clip = _as_tensor(frames)
    if clip.ndim == 4 and clip.shape[1] != 3 and clip.shape[-1] == 3:
        clip = clip.permute(0, 3, 1, 2)
    if clip.ndim != 4 or clip.shape[1] != 3 or not clip.numel():
        raise OptionError(
            f"frames have shape {tuple(clip.shape)}; give (T, 3, H, W) with at least one frame"
        )
    if clip.dtype == torch.uint8:
        return clip.float() / 255
    if not clip.is_floating_point():
        raise OptionError(f"frames are {clip.dtype}; give uint8, or float in [0, 1]")
    return clip.float()


def _as_tensor(picture: Any) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGB")
    # A copy where it must be one: arrays of pictures are often read-only or flipped views.
    return torch.from_numpy(np.require(picture, requirements=["C", "W"]))


def as_bytes(frame: Tensor) -> np.ndarray:
    """A frame (3,H,W) in [0, 1], on any device, as uint8 (H,W,3); what lies beyond is cut off."""
    codes = frame.float().clamp(0, 1).mul(255).round().byte()
    return codes.permute(1, 2, 0).contiguous().cpu().numpy()


def as_output(restored: Tensor, output_type: str) -> Any:
    """Restored frames (T,3,H,W) in [0, 1], or latents, as ``output_type``: pt, latent, np, pil."""
    if output_type in ("pt", "latent"):
        return restored
    arrays = restored.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return arrays
    return [Image.fromarray((array * 255).round().astype(np.uint8)) for array in arrays]


# ---------- dloral.frames.colour ----------

WAVELET_LEVELS = 5
REDUCED_LEVELS = 2
"""How many of the levels halve the picture."""

SMALL = 64
"""Pixels a side, below which pictures are not reduced: twice what the coarsest levels reach."""


def fix_colour(restored_frames: Tensor, lq_frames: Tensor, method: str) -> Tensor:
    """Apply one of :data:`COLOUR_FIXES`; raises ``ValueError`` for another name."""
    if method not in COLOUR_FIXES:
        raise ValueError(f"color_fix {method!r} is unknown; choose from {', '.join(COLOUR_FIXES)}")
    fixed = COLOUR_FIXES[method](restored_frames, lq_frames)
    return fixed.clamp(0, 1) if fixed is restored_frames else fixed.clamp_(0, 1)


def match_mean_and_std(restored_frames: Tensor, lq_frames: Tensor) -> Tensor:
    """Adaptive instance normalisation (Huang & Belongie, 2017) of each frame's three channels."""
    mean, std = _mean_and_std(restored_frames)
    wanted_mean, wanted_std = _mean_and_std(lq_frames)
    return (restored_frames - mean) * (wanted_std / std) + wanted_mean


def _mean_and_std(frames: Tensor) -> tuple[Tensor, Tensor]:
    # correction=0, for a frame of one pixel has no unbiased variance; in the ratio both are one.
    variance, mean = torch.var_mean(frames, dim=(-2, -1), correction=0, keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def match_low_frequencies(restored_frames: Tensor, lq_frames: Tensor) -> Tensor:
    """Keep the restored frame's detail, take everything coarser from the input.

    An undecimated wavelet of five levels; its low pass is all that has to be exchanged.
    """
    return low_pass(lq_frames - restored_frames).add_(restored_frames)


def low_pass(frames: Tensor) -> Tensor:
    """What five levels of the kernel [1, 2, 1] / 4 at 1, 2, 4, 8 and 16 pixels leave of frames
    (T,3,H,W), the border repeated at each level.

    What they leave is so smooth that every fourth pixel is enough: two levels are computed there
    alone, the others on that reduced picture, and it is enlarged again. It differs from
    all levels at full size by 1e-4 in the mean and at most 2e-3 at a border, for differences of
    about 0.1 (tested), except in small
    pictures, where borders are everywhere: those get all levels at full size.
    """
    height, width = frames.shape[-2:]
    if min(height, width) < SMALL or frames.requires_grad:
        return plain_low_pass(frames)
    reduced = frames
    for _ in range(2):  # along the height, then along the width
        reduced = _halve_rows(_halve_rows(reduced))
        for level in range(WAVELET_LEVELS - REDUCED_LEVELS):
            reduced = _smooth_rows(reduced, 2**level)
        reduced = reduced.transpose(-1, -2).contiguous()
    size = [2**REDUCED_LEVELS * (side - 1) + 1 for side in reduced.shape[-2:]]
    enlarged = F.interpolate(reduced, size, mode="bilinear", align_corners=True)
    return enlarged[..., :height, :width]


def plain_low_pass(frames: Tensor) -> Tensor:
    """:func:`low_pass` as it is defined: every level at full size."""
    channels = frames.shape[-3]
    taps = torch.tensor([0.25, 0.5, 0.25], device=frames.device, dtype=frames.dtype)
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    for level in range(WAVELET_LEVELS):
        padded = F.pad(frames, (2**level,) * 4, mode="replicate")
        frames = F.conv2d(padded, kernel, dilation=2**level, groups=channels)
    return frames


def _halve_rows(frames: Tensor) -> Tensor:
    """One level at 1 row, for rows 0, 2, 4 ... of H; where H is even, the last row too."""
    height = frames.shape[-2]
    count = height // 2 + 1
    halved = frames.new_empty(*frames.shape[:-2], count, frames.shape[-1])
    before = frames[..., 1 : 2 * count - 4 : 2, :]
    after = frames[..., 3 : 2 * count - 2 : 2, :]
    inner = halved[..., 1 : count - 1, :]
    torch.add(before, after, out=inner)
    inner.mul_(0.25).add_(frames[..., 2 : 2 * count - 2 : 2, :], alpha=0.5)
    for edge, next_to_it in ((0, 1), (-1, -2)):
        halved[..., edge, :] = 0.75 * frames[..., edge, :] + 0.25 * frames[..., next_to_it, :]
    return halved


def _smooth_rows(frames: Tensor, radius: int) -> Tensor:
    """One level at ``radius`` rows."""
    height = frames.shape[-2]
    padded = F.pad(frames, (0, 0, radius, radius), mode="replicate")
    smoothed = padded[..., :height, :] + padded[..., 2 * radius :, :]
    return smoothed.mul_(0.25).add_(frames, alpha=0.5)


COLOUR_FIXES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "adain": match_mean_and_std,
    "wavelet": match_low_frequencies,
    "none": lambda restored_frames, lq_frames: restored_frames,
}
"""By name: restored frames and low-quality frames -> fixed frames, which are clamped afterwards."""


# ---------- dloral.frames.resize ----------

LATENT_STRIDE = 8
"""Pixels a side of a latent cell in both models that there are, and in packs of training data. Of a
loaded model ask :attr:`dloral.generator.Generator.latent_stride`."""


BICUBICS = ("torch", "pil")
"""Kernels of :func:`resize_bicubic`: a = -0.75 as in torch and OpenCV, a = -0.5 as in Pillow."""


def resize_bicubic(frames: Tensor, height: int, width: int, kernel: str = "torch") -> Tensor:
    """Bicubic, pixel centres kept, clamped to [0, 1]; ``kernel``: one of :data:`BICUBICS`.

    torch's is both the generator's input and the enlargement every result is compared with. It has
    no antialiasing; Pillow's has, which counts where a frame becomes smaller.
    """
    if frames.shape[-2:] == (height, width):
        return frames
    resized = F.interpolate(
        frames,
        (height, width),
        mode="bicubic",
        align_corners=False,
        antialias=kernel == "pil",  # in torch this is Pillow's kernel, a = -0.5
    )
    return resized.clamp(0, 1) if resized.requires_grad else resized.clamp_(0, 1)


def resize_bicubic_part(
    frames: Tensor, height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """The rows from ``rows[0]`` to before ``rows[1]``, and such columns, of what
    :func:`resize_bicubic` gives, to 1e-5, without the rest: it takes memory for the part alone."""
    if (rows, columns) == ((0, height), (0, width)):
        return resize_bicubic(frames, height, width)
    if frames.shape[-2:] != (height, width):
        frames = _resized(frames, -1, width, *columns)
        return _resized(frames, -2, height, *rows).clamp_(0, 1)
    return frames[..., rows[0] : rows[1], columns[0] : columns[1]]


def _resized(frames: Tensor, axis: int, size: int, first: int, end: int) -> Tensor:
    """One axis of a bicubic resize to ``size``: the results from ``first`` to before ``end``."""
    old = frames.shape[axis]
    at = (torch.arange(first, end, dtype=torch.float64) + 0.5) * old / size - 0.5
    below = at.floor()
    part = (at - below).to(frames)
    shape = (-1, 1) if axis == -2 else (-1,)
    made = None
    for tap in (-1, 0, 1, 2):
        weight = _cubic((part - tap).abs()).view(shape)
        index = (below.long() + tap).clamp(0, old - 1).to(frames.device)
        term = frames.index_select(axis, index) * weight
        made = term if made is None else made.add_(term)
    assert made is not None
    return made


def _cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """Keys' kernel of a distance from 0 to 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, far)


def shrink_for_flow(frames: Tensor, stride: int = LATENT_STRIDE) -> Tensor:
    """Frames (T,3,H,W), H and W multiples of ``stride``, at latent resolution
    (T,3,H/stride,W/stride), unclamped.

    Bicubic without antialiasing, as the released flow weights were trained (notes, step 2).
    """
    if stride == 1:
        return frames
    return F.interpolate(frames, scale_factor=1 / stride, mode="bicubic", align_corners=False)


def pad_to_latent_grid(frames: Tensor, stride: int = LATENT_STRIDE) -> Tensor:
    """Repeat the last row and column until H and W are multiples of ``stride``."""
    height, width = frames.shape[-2:]
    bottom, right = -height % stride, -width % stride
    if not bottom and not right:
        return frames
    return F.pad(frames, (0, right, 0, bottom), mode="replicate")


# ---------- dloral.frames.tiles ----------

VARIANCE = 0.01  # of the window, in units of the tile's size squared


def tile_size(height: int, width: int, tile: int, overlap: int) -> tuple[int, int]:
    """Rows and columns of a tile: the reference's square of ``min(tile, height, width)``, except
    where one side is no longer than the overlap: there a square could not advance (our decision).
    """
    side = min(tile, height, width)
    if side > overlap:
        return side, side
    return min(tile, height), min(tile, width)


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """First cells of the tiles along one side; the last tile lies flush with the border."""
    if tile >= size:
        return [0]
    return [*range(0, size - tile, tile - overlap), size - tile]


def tile_window(height: int, width: int) -> Tensor:
    """Blending weights (height, width), float32; x is centred on (width-1)/2, y on height/2."""
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) / width
    y = (torch.arange(height, dtype=torch.float64) - height / 2) / height
    bells = [torch.exp(-(side**2) / (2 * VARIANCE)) for side in (y, x)]
    return torch.outer(*bells).float()


def tiles_of(height: int, width: int, tile: int | None, overlap: int) -> list[tuple[slice, slice]]:
    """(rows, columns) of every tile of height x width cells, row by row; the whole as one where
    ``tile`` is None or has no fewer cells."""
    if tile is None or height * width <= tile**2:
        return [(slice(0, height), slice(0, width))]
    rows, columns = tile_size(height, width, tile, overlap)
    return [
        (slice(top, top + rows), slice(left, left + columns))
        for top in tile_starts(height, rows, overlap)
        for left in tile_starts(width, columns, overlap)
    ]


def blend_tiles(
    compute: Callable[[slice, slice], Sequence[Tensor]],
    height: int,
    width: int,
    tile: int | None,
    overlap: int,
) -> list[Tensor]:
    """Blend what ``compute(rows, columns)`` returns for each tile into whole (B,C,height,width).

    ``tile`` and ``overlap`` are in latent cells. With ``tile=None``, or latents of no more cells
    than a tile has, ``compute`` is called once and nothing is blended.
    """
    areas = tiles_of(height, width, tile, overlap)
    if len(areas) == 1:
        return list(compute(*areas[0]))
    rows, columns = (side.stop - side.start for side in areas[0])
    window = tile_window(rows, columns)
    sums: list[Tensor] = []
    weight: Tensor | None = None
    for area in areas:
        parts = compute(*area)
        place = (..., *area)
        if weight is None:
            window = window.to(parts[0].device)
            weight = window.new_zeros(height, width)
            sums = [window.new_zeros(*part.shape[:-2], height, width) for part in parts]
        weight[place] += window
        for total, part in zip(sums, parts, strict=True):
            total[place] += part.float() * window
    assert weight is not None
    return [(total / weight).to(parts[0].dtype) for total in sums]


# ---------- dloral.frames.window ----------

@dataclass(frozen=True)
class _Remembered:
    latents: Tensor  # (C,h,w)
    small_frame: Tensor  # (3,h,w), for the flow net


class Window:
    """Remembers the latents and small frames of the last ``size`` frames of a clip."""

    def __init__(self, size: int) -> None:
        self._frames: deque[_Remembered] = deque(maxlen=size)

    def copy(self) -> Self:
        """One that goes its own way; the tensors are shared."""
        other = type(self)(self._frames.maxlen or 0)
        other._frames.extend(self._frames)
        return other

    def remember(self, lq_latents: Tensor, small_frames: Tensor) -> None:
        """Take in frames that nothing is asked of: (B,C,h,w) and (B,3,h,w)."""
        pairs = zip(lq_latents, small_frames, strict=True)
        self._frames.extend(_Remembered(*pair) for pair in pairs)

    def recall(self, lq_latents: Tensor, small_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (K,B,C,h,w) and small frames (K,B,3,h,w) before each of B consecutive frames.

        ``lq_latents`` (B,C,h,w) and ``small_frames`` (B,3,h,w) are those frames' own and are
        remembered. At the start of a clip the oldest frame stands in for those that never were
        (frame 0: itself). K is the window's size.
        """
        frames = [_Remembered(*pair) for pair in zip(lq_latents, small_frames, strict=True)]
        known = [*self._frames, *frames]
        first, size = len(self._frames), self._frames.maxlen
        self._frames.extend(frames)
        if not size:
            return lq_latents[None][:0], small_frames[None][:0]
        earlier = [
            known[max(first + index - offset, 0)]
            for offset in range(1, size + 1)
            for index in range(len(frames))
        ]
        shape = (size, len(frames))
        return (
            torch.stack([frame.latents for frame in earlier]).unflatten(0, shape),
            torch.stack([frame.small_frame for frame in earlier]).unflatten(0, shape),
        )


# ---------- dloral.memory ----------

VAE_TILES = (64, 32)
"""Latent cells a side; 64 is 512 pixels."""

UNET_TILES = (96, 64, 48)

SHARE = 0.9
"""Of the free memory, what an estimate may take."""

KEPT_MEMORY = 2**28
"""Bytes of freed memory that stay with the process; see :func:`keep_freed_memory`."""

_MOST_ON_HEAP = 2**25  # the most that glibc allows
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a memory",
    "could not create a primitive",  # oneDNN, where an allocation of its own fails
)


@dataclass(frozen=True)
class Limits:
    """How frames are restored. ``batch_size`` frames at a time; ``tile``, ``tile_overlap`` of the
    UNet and ``vae_tile`` of the VAE in latent cells, None for whole frames; ``keep_text``: the text
    encoder stays after a prompt was read; ``offload``: a part is on the GPU only while it runs.
    """

    batch_size: int = 1
    tile: int | None = None
    tile_overlap: int = 32
    vae_tile: int | None = None
    keep_text: bool = True
    offload: bool = False

    def lower(self, cells: int, can: Collection[str]) -> "Limits | None":
        """One step down for frames of ``cells`` latent cells on the longer side; None on the last.

        ``can``: what the model and its device allow of "text", "vae_tile", "offload" and "tile".
        First what costs nothing but time, last what can be seen: a tile of the UNet estimates its
        own flow.
        """
        if self.batch_size > 1:
            return replace(self, batch_size=1)
        if self.keep_text and "text" in can:
            return replace(self, keep_text=False)
        for vae_tile in VAE_TILES if "vae_tile" in can else ():
            if vae_tile < min(self.vae_tile or cells, cells):
                return replace(self, vae_tile=vae_tile)
        if not self.offload and "offload" in can:
            return replace(self, offload=True)
        for tile in UNET_TILES if "tile" in can else ():
            if tile < min(self.tile or cells, cells):
                return replace(self, tile=tile, tile_overlap=min(self.tile_overlap, tile // 3))
        return None

    def told(self, than: "Limits", stride: int) -> str:
        """In words, what is less than in ``than``; ``stride`` is pixels a latent cell."""
        words = []
        if self.batch_size != than.batch_size:
            words.append("one frame at a time")
        if self.keep_text != than.keep_text:
            words.append("the text encoder unloaded")
        if self.vae_tile != than.vae_tile:
            words.append(f"the VAE in tiles of {stride * (self.vae_tile or 0)} pixels")
        if self.offload != than.offload:
            words.append("parts moved to the GPU one by one")
        if self.tile != than.tile:
            words.append(f"the UNet in tiles of {stride * (self.tile or 0)} pixels")
        return ", ".join(words)


class NeedsMemory(Protocol):
    """What a model says of its memory; part of :class:`dloral.generator.Generator`."""

    @property
    def execution_device(self) -> torch.device:
        """Where frames and latents go for a step."""

    @property
    def latent_stride(self) -> int:
        """Pixels a side of one latent cell."""

    @property
    def steps_down(self) -> Collection[str]:
        """What may be done to need less of it; see :meth:`Limits.lower`."""

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """Bytes, roughly, that frames of ``height`` x ``width`` take beyond the weights."""


def fit(model: NeedsMemory, asked: Limits, height: int, width: int) -> tuple[Limits, str] | None:
    """The first limits below ``asked`` that frames of ``height`` x ``width`` pixels should fit
    with, and what to tell; None where ``asked`` will do, or where no step down is left."""
    free, limits = free_memory(model.execution_device), asked
    while model.needed_memory(limits, height, width) > SHARE * free:
        lower = _lower(model, limits, height, width)
        if lower is None:
            break  # an estimate is no reason to refuse
        limits = lower
    if limits == asked:
        return None
    words = limits.told(asked, model.latent_stride)
    return limits, f"{free / 1e9:.1f} GB of memory are free: {words}"


def step_down(model: NeedsMemory, limits: Limits, height: int, width: int) -> tuple[Limits, str]:
    """One step below ``limits``, after memory ran out, and what to tell.

    Raises :class:`ResourceError` on the last step.
    """
    lower = _lower(model, limits, height, width)
    if lower is None:
        raise ResourceError(
            "frames of {width}x{height} do not fit the memory of {device}, not even in the "
            "smallest steps",
            remedy="use a smaller {scale}, {dtype}, or {model}",
            width=width,
            height=height,
            device=str(model.execution_device),
            scale=Setting("scale"),
            dtype=Setting("dtype", "bfloat16"),
            model=Setting("model", "compact"),
        )
    return lower, f"memory ran out; going on with {lower.told(limits, model.latent_stride)}"


def _lower(model: NeedsMemory, limits: Limits, height: int, width: int) -> Limits | None:
    return limits.lower(max(height, width) // model.latent_stride, model.steps_down)


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take on ``device``; a container's limit counts."""
    on_device = free_on_device(device)
    if on_device is not None:
        return on_device
    available: int = psutil.virtual_memory().available
    left = _left_in_container()
    return available if left is None else min(available, left)


def _left_in_container(control: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the limit of this process's control group leaves; None without one."""
    try:
        most = (control / "memory.max").read_text().strip()
        used = int((control / "memory.current").read_text())
        reclaimable = 0
        for line in (control / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                reclaimable = int(line.split()[1])
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used + reclaimable)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; a CPU's has no error class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release_memory() -> None:
    """Give what is no longer used back to the device, and to the system."""
    gc.collect()
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)
    empty_caches()


def keep_freed_memory() -> None:
    """Let the C library keep ``KEPT_MEMORY`` of freed memory for the next frame (glibc alone).

    It gives the end of its heap back when a frame's features are freed, and the next frame takes
    the same pages anew, each a fault of the processor and filled with zeros first: ten thousands
    of them for a frame of 512 x 512.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_MEMORY)
        mallopt(_M_MMAP_THRESHOLD, _MOST_ON_HEAP)  # the first call froze it at 128 KiB
        # Heaps of threads end at 64 MiB and are given back whole: new threads use the main one.
        mallopt(_M_ARENA_MAX, 1)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of glibc; None where the C library is another or has no such function."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)


# ---------- dloral.generator ----------

class Generator(NeedsMemory, Protocol):
    """What a model declares of itself, and its steps; all from its own configuration."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The precision that its largest part computes in."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def max_window(self) -> int:
        """The most earlier frames that it can use."""

    @property
    def reads_prompts(self) -> bool: ...

    @property
    def default_color_fix(self) -> str:
        """What ``color_fix="auto"`` stands for."""

    @property
    def scale_range(self) -> tuple[float, float] | None:
        """The enlargements that it is meant for; None for any."""

    @property
    def other_vaes(self) -> Collection[str]:
        """Which of :data:`dloral.options.VAES` may stand in for its own."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from; None for one that was built in memory."""

    def adopt(self, limits: Limits) -> None:
        """Do to the parts what lower limits ask for."""

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """Embeddings (1, tokens, D); None for a model that reads no prompts."""

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0) -> None:
        """The scales of both LoRAs from now on, each in [0, MAX_LORA_SCALE]."""

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """Step 1: frames (B,3,H,W), sides multiples of the stride -> latents (B,C,h,w)."""

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Step 2: (B,C,h,w), (B,3,h,w) and the same of K earlier frames, nearest first
        (K,B,.,h,w) -> (retrieved, aligned), each (B,C,h,w)."""

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """Step 3: what is wrong with the retrieved latents, eps (B,C,h,w). The only step that the
        LoRA scales change."""

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """Step 4: latents (B,C,h,w) and padded input (B,3,H,W) -> frames (B,3,H,W), unclamped."""


@dataclass(frozen=True)
class Prepared:
    """B consecutive frames up to where the LoRA scales come in; see
    :meth:`dloral.frame_generator.FrameGenerator.prepare`.

    ``frames``: the input (B,3,H,W). ``parts``: (retrieved, aligned) latents of each tile, in the
    order of :func:`dloral.frames.tiles.tiles_of`; one pair without tiles. ``cells``: h and w.
    """

    frames: Tensor
    parts: tuple[tuple[Tensor, Tensor], ...]
    cells: tuple[int, int]
    prompt_embeds: Tensor | None
    limits: Limits

    def to(self, device: torch.device | str) -> "Prepared":
        """The same on ``device``; a CPU is a good place to keep many."""
        embeds = self.prompt_embeds
        return replace(
            self,
            frames=self.frames.to(device),
            parts=tuple((kept.to(device), near.to(device)) for kept, near in self.parts),
            prompt_embeds=embeds.to(device) if embeds is not None else None,
        )


# ---------- dloral.options ----------

SCALE_RANGE = (1.0, 4.0)
MAX_LORA_SCALE = 2.0
"""Twice what a LoRA was trained at; beyond that pictures fall apart."""

WINDOWS = (0, 1, 3, 5)
"""How many earlier frames CFR may look at (Table A3)."""

CODECS = ("h264", "h265", "av1", "vp9", "prores", "ffv1")
HARDWARE_CODECS = (
    *("h264-nvenc", "h265-nvenc", "av1-nvenc", "h264-qsv", "h265-qsv", "av1-qsv"),
    *("h264-videotoolbox", "h265-videotoolbox"),
)
"""Encoders of graphics cards, where there are any."""

AUTO = "auto"
BIT_DEPTHS = (AUTO, 8, 10)
"""Auto: 10 for a source of more than 8 bits, where the codec can."""

DEINTERLACING = (AUTO, "off", "frame", "field", "film")
"""Auto: a whole frame for each, where the clip is interlaced. Field: one for each field, at twice
the rate. Film: an inverse telecine."""

HDR = ("keep", "sdr")
CHROMA = (AUTO, "420", "422", "444")
AUDIO = (AUTO, "copy", "aac", "none")
PIPE_FORMATS = ("y4m", "rawvideo")
MAX_TARGET = 16384
"""Pixels a side that can be asked for."""

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

SIZE_CHANGES = ("scale", "refuse")
"""What becomes of frames of another size than the first: scaled to it, or the clip is refused."""

VAES = (AUTO, "tiny", "tiny-decoder")
"""Whose encoder and decoder: the model's own, the tiny autoencoder's, or its decoder alone."""

TAGGERS = (AUTO, "dape", "ram", "none")
"""Who writes the prompt: auto is DAPE where it has been fetched and the model reads prompts."""

AUTO_TILE = 96
"""The reference's tile, in latent cells: ``tile="auto"`` tiles frames of more cells than that."""


@dataclass(frozen=True)
class UpscaleOptions:
    """Options of :func:`dloral.upscale_video`; raises :class:`OptionError` in one line.

    ``model``: a registry name, a folder, or a Hub id. ``scale``: enlargement, 1 to 4, fractions
    allowed. ``consistency``, ``detail``: scales of C-LoRA and D-LoRA, 0 to 2. ``strength``: how
    much of the restored frame is in the result, 0 (the bicubic frame) to 1. ``window``: how many
    earlier frames are looked at (0, 1, 3, 5). ``vae``: ``"tiny"`` for TAESD in the VAE's place,
    ``"tiny-decoder"`` in its decoder's alone. ``prompt``: what the clip shows, added to what
    ``tagger`` sees in each scene: dape, ram, none, or ``"auto"`` for DAPE where it is there.
    ``tile``: latent cells a side, None for no tiles, ``"auto"`` for tiles only where a frame has
    more cells than the reference's 96 x 96. ``color_fix``: one of :data:`COLOUR_FIXES`, or
    ``"auto"`` for the model's own. ``bicubic``: the kernel of the enlargement that the model is
    given, torch's or Pillow's (``"pil"``). ``start``, ``duration``: seconds of the source.
    ``codec``, ``crf``, ``bit_depth``: of the written video. ``resume``: keep finished parts beside
    the target until it is written, and go on from those that are there; ``"auto"`` for jobs of more
    than two minutes.
    ``size_changes``: ``"scale"`` frames of another size to the first one's, or ``"refuse"`` such a
    clip. ``height``, ``width``, ``fit``: a target size in ``scale``'s place: the shape is kept, and
    ``fit`` (``"3840x2160"``) is as large as fits inside. ``deinterlace``: auto, off, frame, field
    or film. ``hdr``: ``"keep"`` PQ and HLG, or tone-map to ``"sdr"``. ``fps``: of a folder of
    frames. ``preset``, ``encoder_options`` (``"name=value"``), ``chroma``: of the encoder.
    ``audio``: ``"copy"`` it or refuse, all as ``"aac"``, ``"none"``, or ``"auto"``: copied where
    possible. ``keep_names``: frames in a folder are named as the source's. ``size``
    (``"640x360"``), ``pixel_format`` (FFmpeg's name) and ``fps``: of raw video on standard input.
    ``pipe_format``: y4m or rawvideo on standard output.
    """

    model: str = "compact"
    scale: float = 4.0
    consistency: float = 1.0
    detail: float = 1.0
    strength: float = 1.0
    window: int = 1
    vae: str = AUTO
    prompt: str = ""
    tagger: str = AUTO
    color_fix: str = AUTO
    bicubic: str = "torch"
    device: str = AUTO
    dtype: str = AUTO
    tile: int | str | None = AUTO
    tile_overlap: int = 32
    batch_size: int = 1
    start: float = 0.0
    duration: float | None = None
    codec: str = "h264"
    crf: int | None = None
    bit_depth: int | str = AUTO
    resume: bool | str = AUTO
    size_changes: str = "scale"
    height: int | None = None
    width: int | None = None
    fit: str | None = None
    deinterlace: str = AUTO
    hdr: str = "keep"
    fps: float | None = None
    preset: str | None = None
    encoder_options: tuple[str, ...] = ()
    chroma: str = AUTO
    audio: str = AUTO
    keep_names: bool = True
    size: str | None = None
    pixel_format: str | None = None
    pipe_format: str = "y4m"

    def __post_init__(self) -> None:
        _within("scale", self.scale, *SCALE_RANGE)
        _within("consistency", self.consistency, 0, MAX_LORA_SCALE)
        _within("detail", self.detail, 0, MAX_LORA_SCALE)
        _within("strength", self.strength, 0, 1)
        _one_of("window", self.window, WINDOWS)
        _one_of("color_fix", self.color_fix, (AUTO, *COLOUR_FIXES))
        _one_of("bicubic", self.bicubic, BICUBICS)
        _one_of("vae", self.vae, VAES)
        _one_of("tagger", self.tagger, TAGGERS)
        _one_of("codec", self.codec, (*CODECS, *HARDWARE_CODECS))
        _one_of("bit_depth", self.bit_depth, BIT_DEPTHS)
        _one_of("resume", self.resume, (AUTO, True, False))
        _one_of("size_changes", self.size_changes, SIZE_CHANGES)
        _within("start", self.start, 0)
        if self.duration is not None:
            _within("duration", self.duration, 0)
            if not self.duration:
                raise OptionError("duration is 0; give a number of seconds above 0")
        if self.crf is not None:
            _within("crf", self.crf, 0, 63)
        _whole("batch_size", self.batch_size, 1)
        self._check_tile()
        self._check_output()

    def _check_output(self) -> None:
        _one_of("deinterlace", self.deinterlace, DEINTERLACING)
        _one_of("hdr", self.hdr, HDR)
        _one_of("chroma", self.chroma, CHROMA)
        _one_of("audio", self.audio, AUDIO)
        _one_of("keep_names", self.keep_names, (True, False))
        _one_of("pipe_format", self.pipe_format, PIPE_FORMATS)
        if self.fps is not None:
            _within("fps", self.fps, 0.001, 1000)
        given = [name for name in ("height", "width", "fit") if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionError(
                "{first} and {second} are both given",
                remedy="give one of them: the clip keeps its shape",
                first=Setting(given[0]),
                second=Setting(given[1]),
            )
        for name in ("height", "width"):
            if (side := getattr(self, name)) is not None:
                _whole(name, side, 1)
                _within(name, side, 1, MAX_TARGET)
        for name, example in (("fit", "3840x2160"), ("size", "640x360")):
            value = getattr(self, name)
            if value is not None and _sides(value) is None:
                raise OptionError(
                    "{option} is {value!r}",
                    remedy=f"give width x height, such as {example}",
                    option=Setting(name),
                    value=value,
                )

    @property
    def fit_size(self) -> tuple[int, int] | None:
        """Width and height of ``fit``; None where there is none."""
        return _sides(self.fit)

    @property
    def raw_size(self) -> tuple[int, int] | None:
        """Width and height of ``size``; None where there is none."""
        return _sides(self.size)

    def _check_tile(self) -> None:
        _whole("tile_overlap", self.tile_overlap, 0)
        if self.tile is None:
            return
        tile = AUTO_TILE if self.tile == AUTO else self.tile
        if not isinstance(tile, int) or tile < 1:
            raise OptionError(f"tile is {tile!r}; give latent cells (8 pixels each), or auto")
        if self.tile_overlap >= tile:
            raise OptionError(
                f"tile_overlap is {self.tile_overlap} with a tile of {tile} latent cells; "
                "the overlap must be smaller than the tile"
            )


def _sides(text: Any) -> tuple[int, int] | None:
    """Width and height of ``WxH``; None for what is none."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    width, height = int(found[1]), int(found[2])
    return (width, height) if 0 < width <= MAX_TARGET and 0 < height <= MAX_TARGET else None


NO_NUMBER = 1e15
"""Seconds or whatever else: nobody means it, and a whole number may be too long for a float."""


def _within(name: str, value: float, least: float, most: float = float("inf")) -> None:
    is_number = isinstance(value, int | float) and abs(value) < NO_NUMBER
    if not is_number or not least <= value <= most:
        bounds = f"from {least:g} to {most:g}" if isfinite(most) else f"of at least {least:g}"
        raise OptionError(f"{name} is {value}; give a number {bounds}")


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise OptionError(f"{name} is {value!r}; give a whole number of at least {least}")


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    # By type too: 1.0 equals 1 and would pass, and then fail where a count is needed.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise OptionError(f"{name} is {value!r}; choose from {', '.join(map(str, choices))}")


# ---------- dloral.frame_generator ----------

OUTPUT_TYPES = ("pt", "np", "pil", "latent")

Parts = Sequence[tuple[Tensor, Tensor]]
"""(retrieved, aligned) latents of each tile, in the order of :func:`tiles_of`."""


@dataclass(frozen=True)
class RestoredFrames:
    """``frames``, in the form that was asked for."""

    frames: Any


class FrameGenerator(Generator):
    """Whole clips, windows, tiles, previews and lower limits for whatever has the four steps."""

    def refine(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """Restored latents (B,C,h,w): ``retrieved - eps`` (notes, steps 5 and 6)."""
        return retrieved_latents - self.predict(aligned_latents, retrieved_latents, prompt_embeds)

    def restore(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
        prompt_embeds: Tensor | None = None,
        tile: int | None = None,
        tile_overlap: int = 32,
    ) -> Tensor:
        """:meth:`retrieve` and :meth:`refine`, tile by tile where ``tile`` is given."""
        seen = (lq_latents, small_frames, previous_latents, previous_small_frames)
        parts = self._retrieve_tiles(seen, tile, tile_overlap)
        height, width = lq_latents.shape[-2:]
        return self._refine_tiles(parts, (height, width), prompt_embeds, tile, tile_overlap)

    @torch.no_grad()
    def prepare(
        self,
        frames: Tensor,
        window: int = 1,
        prompt: str = "",
        count: int | None = None,
        tile: int | None = None,
        tile_overlap: int = 32,
    ) -> Prepared:
        """The last ``count`` (default: all) of consecutive frames (T,3,H,W) in [0, 1], with all
        that does not depend on the LoRA scales: latents, flow, retrieval, the prompt.

        The frames before those are only looked at. ``finish(prepare(frames))`` is what
        :meth:`stream` gives for frames that begin a clip. Raises :class:`OptionError`.
        """
        _check_layout(window, tile, tile_overlap)
        clip = as_frames(frames).to(self.execution_device)
        chosen = len(clip) if count is None else count
        if not 0 < chosen <= len(clip):
            raise OptionError(
                "{option} is {value!r}", remedy=f"give 1 to {len(clip)}, the number of frames",
                option="count", value=count,
            )  # fmt: skip
        before, first = Window(min(window, self.max_window)), len(clip) - chosen
        for frame in clip[:first]:
            before.remember(*self._encoded(frame[None], None))
        encoded = [self._encoded(frame[None], None) for frame in clip[first:]]
        latents, small = (torch.cat(tensors) for tensors in zip(*encoded, strict=True))
        limits = Limits(chosen, tile, tile_overlap)
        embeds = self.encode_prompt(prompt)
        return self._prepare(clip[first:], latents, small, before, embeds, limits)

    @torch.no_grad()
    def finish(
        self,
        prepared: Prepared,
        consistency: float = 1.0,
        detail: float = 1.0,
        color_fix: str = AUTO,
    ) -> Tensor:
        """The restored frames (B,3,H,W) in [0, 1] at these scales of the LoRAs, on the model's
        device. May be asked any number of times. Raises :class:`OptionError`."""
        _check_look(consistency, detail, color_fix)
        prepared = prepared.to(self.execution_device)
        return self._decode(prepared, self._refine(prepared, consistency, detail), color_fix)

    @torch.no_grad()
    def __call__(
        self,
        frames: Tensor | np.ndarray | list[Image.Image],
        prompt: str = "",
        consistency: float = 1.0,
        detail: float = 1.0,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        output_type: str = "pt",
        batch_size: int = 1,
    ) -> Any:
        """Restore a clip that has been brought to its output size. T frames in, T frames out.

        ``frames``: float (T,3,H,W) in [0, 1], uint8 (T,3,H,W) or (T,H,W,3), or PIL images, of any
        size from 1 x 1 on. Frame 0 is its own predecessor. ``window`` is how many earlier frames
        CFR looks at (0, 1, 3 or 5; 0: each frame alone). ``tile`` and ``tile_overlap`` are in
        latent cells (96 and 32 are the reference's); ``tile=None`` does not tile.
        ``color_fix``: one of :data:`COLOUR_FIXES`, or auto for the model's own.
        Raises :class:`OptionError` for a value outside its range.
        """
        if output_type not in OUTPUT_TYPES:
            raise OptionError(
                f"output_type is {output_type!r}; choose from {', '.join(OUTPUT_TYPES)}"
            )
        clip = as_frames(frames)
        results = self.stream(
            clip,
            prompt=prompt,
            consistency=consistency,
            detail=detail,
            window=window,
            tile=tile,
            tile_overlap=tile_overlap,
            color_fix=color_fix,
            batch_size=batch_size,
            latents_only=output_type == "latent",
        )
        restored = torch.stack(list(self._watched(results, len(clip))))
        return self._output(as_output(restored, output_type))

    @torch.no_grad()
    def stream(
        self,
        frames: Iterable[Tensor],
        prompt: str | Iterable[str] = "",
        consistency: float = 1.0,
        detail: float = 1.0,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        batch_size: int = 1,
        latents_only: bool = False,
        on_note: Callable[[str], None] | None = None,
    ) -> Iterator[Tensor]:
        """Restored frames (3,H,W) in [0, 1], one for each of ``frames`` (3,H,W), as they are ready.

        What is kept between frames is ``window`` latents and small frames, so memory does not
        grow with the clip. Arguments as in :meth:`__call__`; ``prompt`` may be one for each frame,
        read as frames are; ``latents_only`` yields restored latents (C,h,w).

        Where memory is short, frames are restored in smaller steps than asked (see
        :class:`dloral.memory.Limits`), from the start where that can be foreseen, and
        ``on_note`` is told. Raises :class:`ResourceError` where the smallest do not fit.
        """
        look = _Look(consistency, detail, color_fix, latents_only)
        _check_look(consistency, detail, color_fix)
        _check_layout(window, tile, tile_overlap, batch_size)
        limits = Limits(batch_size, tile, tile_overlap)
        before = Window(min(window, self.max_window))
        waiting = _Waiting(frames, prompt)
        embeds: dict[str, Tensor | None] = {}
        begun = False
        while waiting.fill(limits.batch_size):
            height, width = waiting.frames(1).shape[-2:]
            if not begun:
                begun = True
                if fitting := fit(self, limits, height, width):
                    limits = self._adopt(*fitting, on_note)
            after = before.copy()
            results = self._attempt(waiting, after, embeds, limits, look)
            if results is None:
                release_memory()
                limits = self._adopt(*step_down(self, limits, height, width), on_note)
                continue
            before = after
            waiting.drop(len(results))
            yield from results

    def _attempt(
        self,
        waiting: "_Waiting",
        before: Window,
        known: dict[str, Tensor | None],
        limits: Limits,
        look: "_Look",
    ) -> Tensor | None:
        """The next batch restored, on the CPU; None where memory ran out."""
        count = limits.batch_size
        try:
            embeds = self._embeds(waiting.prompts(count), known, limits)
            given = waiting.frames(count).to(self.execution_device)
            latents, small = self._encoded(given, limits.vae_tile)
            prepared = self._prepare(given, latents, small, before, embeds, limits)
            del latents, small
            restored = self._refine(prepared, look.consistency, look.detail)
            if look.latents_only:
                return restored.float().cpu()
            return self._decode(prepared, restored, look.color_fix).cpu()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None  # outside of the handler, which holds on to what it caught

    def _encoded(self, frames: Tensor, vae_tile: int | None) -> tuple[Tensor, Tensor]:
        """Frames (B,3,H,W) -> latents (B,C,h,w) and small frames (B,3,h,w) for the flow."""
        padded = pad_to_latent_grid(frames, self.latent_stride)
        return self.encode(padded, vae_tile), shrink_for_flow(padded, self.latent_stride)

    def _prepare(
        self,
        frames: Tensor,
        lq_latents: Tensor,
        small_frames: Tensor,
        before: Window,
        prompt_embeds: Tensor | None,
        limits: Limits,
    ) -> Prepared:
        """``before`` is brought up to date."""
        seen = (lq_latents, small_frames, *before.recall(lq_latents, small_frames))
        parts = self._retrieve_tiles(seen, limits.tile, limits.tile_overlap)
        height, width = lq_latents.shape[-2:]
        return Prepared(frames, tuple(parts), (height, width), prompt_embeds, limits)

    def _retrieve_tiles(
        self, seen: tuple[Tensor, Tensor, Tensor, Tensor], tile: int | None, tile_overlap: int
    ) -> Parts:
        """:meth:`retrieve` tile by tile; as in the reference, a tile estimates its own flow."""
        height, width = seen[0].shape[-2:]
        areas = tiles_of(height, width, tile, tile_overlap)
        return [
            self.retrieve(*(whole[..., rows, columns] for whole in seen)) for rows, columns in areas
        ]

    def _refine_tiles(
        self,
        parts: Parts,
        cells: tuple[int, int],
        prompt_embeds: Tensor | None,
        tile: int | None,
        tile_overlap: int,
    ) -> Tensor:
        """:meth:`refine` tile by tile. As in the reference, ``retrieved`` and ``eps`` are both
        blended before they are subtracted."""
        if len(parts) == 1:
            ((retrieved, aligned),) = parts
            return self.refine(aligned, retrieved, prompt_embeds)
        coming = iter(parts)

        def one_tile(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
            retrieved, aligned = next(coming)
            return retrieved, self.predict(aligned, retrieved, prompt_embeds)

        blended, eps = blend_tiles(one_tile, *cells, tile, tile_overlap)
        return blended - eps

    def _refine(self, prepared: Prepared, consistency: float, detail: float) -> Tensor:
        # Every time, for another stream may have set others; costs nothing where none has.
        self.set_scales(consistency, detail)
        limits, embeds = prepared.limits, prepared.prompt_embeds
        return self._refine_tiles(
            prepared.parts, prepared.cells, embeds, limits.tile, limits.tile_overlap
        )

    def _decode(self, prepared: Prepared, restored_latents: Tensor, color_fix: str) -> Tensor:
        height, width = prepared.frames.shape[-2:]
        padded = pad_to_latent_grid(prepared.frames, self.latent_stride)
        decoded = self.decode(restored_latents, padded, prepared.limits.vae_tile)
        method = self.default_color_fix if color_fix == AUTO else color_fix
        return fix_colour(decoded[..., :height, :width], prepared.frames, method)

    def _embeds(
        self, prompts: list[str], known: dict[str, Tensor | None], limits: Limits
    ) -> Tensor | None:
        """Embeddings (B,tokens,D) of a batch's prompts, or (1,tokens,D) where they are one."""
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = self.encode_prompt(prompt)
        if not limits.keep_text:
            self.adopt(limits)  # reading a prompt has brought the text encoder back
        distinct = [known[prompt] for prompt in dict.fromkeys(prompts)]
        if len(distinct) == 1 or distinct[0] is None:
            return distinct[0]
        return torch.cat([known[prompt] for prompt in prompts])  # type: ignore[misc]

    def _adopt(self, limits: Limits, note: str, on_note: Callable[[str], None] | None) -> Limits:
        self.adopt(limits)
        if on_note is not None:
            on_note(note)
        return limits

    def _watched(self, results: Iterator[Tensor], total: int) -> Iterable[Tensor]:
        """``results`` as they come, for an implementation that shows how far it is."""
        return results

    def _output(self, frames: Any) -> Any:
        return RestoredFrames(frames)


@dataclass(frozen=True)
class _Look:
    """What a result looks like, apart from how it is computed."""

    consistency: float
    detail: float
    color_fix: str
    latents_only: bool


class _Waiting:
    """Frames that were read and not yet restored, each with its prompt; read when needed."""

    def __init__(self, frames: Iterable[Tensor], prompt: str | Iterable[str]) -> None:
        prompts = repeat(prompt) if isinstance(prompt, str) else iter(prompt)
        self._source = zip(frames, prompts, strict=False)
        self._pairs: deque[tuple[Tensor, str]] = deque()

    def fill(self, most: int) -> bool:
        """Read until ``most`` are here, as far as there are any; whether one is."""
        self._pairs.extend(islice(self._source, max(0, most - len(self._pairs))))
        return bool(self._pairs)

    def frames(self, most: int) -> Tensor:
        """The first ``most`` of those that are here: float (B,3,H,W) in [0, 1]."""
        return as_frames([frame for frame, _ in islice(self._pairs, most)])

    def prompts(self, most: int) -> list[str]:
        return [prompt for _, prompt in islice(self._pairs, most)]

    def drop(self, count: int) -> None:
        for _ in range(count):
            self._pairs.popleft()


def check_lora_scales(consistency: float, detail: float) -> None:
    """Raise :class:`OptionError` for a scale outside [0, MAX_LORA_SCALE]."""
    for name, scale in (("consistency", consistency), ("detail", detail)):
        if not 0 <= scale <= MAX_LORA_SCALE:
            raise OptionError(
                "{option} is {value}",
                remedy=f"give a scale from 0 to {MAX_LORA_SCALE:g}, 1 is the usual",
                option=Setting(name),
                value=scale,
            )


def _check_layout(window: int, tile: int | None, tile_overlap: int, batch_size: int = 1) -> None:
    if window not in WINDOWS:
        raise OptionError(f"window is {window}; choose from {', '.join(map(str, WINDOWS))}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size is {batch_size!r}; give a whole number of 1 or more")
    if tile is not None and not isinstance(tile, int):
        raise OptionError(f"tile is {tile!r}; give whole latent cells, or None")
    if tile is not None and not 0 <= tile_overlap < tile:
        raise OptionError(
            f"tile is {tile} with an overlap of {tile_overlap} latent cells; "
            "the overlap must be smaller than the tile and not negative"
        )


def _check_look(consistency: float, detail: float, color_fix: str) -> None:
    check_lora_scales(consistency, detail)
    if color_fix not in (AUTO, *COLOUR_FIXES):
        choices = ", ".join((AUTO, *COLOUR_FIXES))
        raise OptionError(f"color_fix is {color_fix!r}; choose from {choices}")


# ---------- dloral.hub_folder ----------

CODE = "pipeline"
PARTS = "dloral_parts"
PIPELINE = "DLoRALPipeline"
MODULES = {
    "SPyNet": "dloral.models.flow",
    "CrossFrameRetrieval": "dloral.models.cfr",
    "TwoLoRAUNet": "dloral.models.unet",
    "CompactVAE": "dloral.models.vae",
}
"""Classes of parts that neither diffusers nor transformers has: where this package has them."""

SHIM = '''"""The classes of this folder's weights, which are in the repository's pipeline.py.

diffusers looks for them here once it has loaded that file.
"""

import sys


def __getattr__(name):
    return getattr(sys.modules[__name__.rpartition(".")[0] + ".pipeline"], name)
'''

_LONGEST_HEADER = 2**27
"""Bytes, as in the safetensors library."""


def is_package() -> bool:
    """Whether this is the package, and not a model's own ``pipeline.py``."""
    return __name__ == "dloral.hub_folder"


def pipeline_source() -> str:
    """The text of ``pipeline.py``."""
    if is_package():
        # by its name: diffusers takes every import statement of ``pipeline.py`` for a requirement
        text: str = import_module("dloral.bundle").pipeline_source()
        return text
    return Path(__file__).read_text(encoding="utf-8")


def write_code(folder: Path) -> None:
    """Give a folder that was saved its code, and name that in its index."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["_class_name"] = [CODE, PIPELINE]
    for name, entry in index.items():
        if not name.startswith("_") and isinstance(entry, list) and entry[1:] in _ours():
            index[name] = [PARTS, entry[1]]
            (folder / name / f"{PARTS}.py").write_text(SHIM, encoding="utf-8")
    (folder / f"{CODE}.py").write_text(pipeline_source(), encoding="utf-8")
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _ours() -> list[list[str]]:
    return [[name] for name in MODULES]


def named_as_here(index: dict[str, Any]) -> dict[str, Any]:
    """An index with the classes of this package in the place of those of ``pipeline.py``."""
    kind = index.get("_class_name")
    if isinstance(kind, list) and kind[:1] == [CODE]:
        index = {**index, "_class_name": kind[-1]}
    for name, entry in index.items():
        if isinstance(entry, list) and entry[:1] == [PARTS] and entry[-1] in MODULES:
            index = {**index, name: [MODULES[entry[-1]], entry[-1]]}
    return index


def write_headers(folder: Path, architecture: str, licence: str) -> None:
    """Say in each safetensors file of a model's folder what it is."""
    for path in sorted(folder.glob("*/*.safetensors")):
        part = path.parent.name
        is_lora = part == "unet" and not path.name.startswith("diffusion")
        what = f"{path.stem} LoRA" if is_lora else part.replace("_", " ")
        told = {
            "sai_model_spec": "1.0.1",
            "architecture": f"{architecture}/{'lora' if is_lora else part}",
            "implementation": "diffusers",
            "title": f"DLoRAL ({architecture.removeprefix('dloral-')}), {what}",
            "description": "One-step diffusion video super-resolution, arXiv 2506.15591",
            "license": licence,
        }
        add_metadata(path, {f"modelspec.{key}": value for key, value in told.items()})


def add_metadata(path: Path, told: dict[str, str]) -> None:
    """Add to the header of a safetensors file, which is written anew; nothing if it is there."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path.name} has no header of safetensors")
        header = json.loads(file.read(length))
        known = header.get("__metadata__", {})
        if known.items() >= told.items():
            return
        header["__metadata__"] = {**known, **told}
        text = json.dumps(header, separators=(",", ":")).encode()
        # Tensors begin at a multiple of 64: mapped ones are then aligned for any kernel.
        text += b" " * (-(len(text) + 8) % 64)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as anew:
            anew.write(struct.pack("<Q", len(text)) + text)
            shutil.copyfileobj(file, anew, 2**22)
    part.replace(path)


# ---------- dloral.models.adapters ----------

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


def add_adapters(unet: UNet2DConditionModel, rank: Mapping[str, int] | int) -> None:
    """Add both LoRAs, gaussian A and zero B, so that at first they change nothing.

    ``rank``: one for both, or one each by adapter name.
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
        # PEFT asks whether a second adapter is meant; it is.
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
            # Only once: PEFT makes what it activates trainable, which is for the training to say.
            layer.set_adapter(list(ADAPTERS))
        for name, scale in scales.items():
            layer.set_scale(name, scale)


def adapter_parameters(unet: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """Name -> parameter of one LoRA (A and B matrices)."""
    return {
        name: parameter
        for name, parameter in unet.named_parameters()
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
    """The tensors of one LoRA file, as :func:`save_adapter` names them."""
    return load_file(path)


# ---------- dloral.models.unet ----------

# diffusers looks for this name in the module of every component it loads.


TIMESTEP = 1
"""The one step's timestep (notes, step 5)."""


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
        # Made on the device: a number would be copied there, and the processor would wait for it.
        timestep = torch.full((1,), TIMESTEP, device=sample.device)
        return self(sample, timestep, encoder_hidden_states=prompt_embeds).sample

    def set_scales(self, *, consistency: float, detail: float, merge: bool = True) -> None:
        """Run with ``W + consistency * dC + detail * dD``.

        ``merge`` writes that sum into the layers, for speed; without it both branches run live
        beside the layers and keep gradients.
        """
        if not self.has_adapters:
            return
        if merge:
            if self._merged is None:
                self._merged = MergedScales(self)
            self._merged.apply(consistency=consistency, detail=detail)
        else:
            self.unmerge()
            set_scales(self, consistency=consistency, detail=detail)

    def bytes_to_merge(self) -> int:
        """What the pristine copies will take that :meth:`set_scales` makes; 0 once it has."""
        if self._merged is not None:
            return 0
        weights = (layer.get_base_layer().weight for layer in lora_layers(self))
        return sum(weight.numel() * weight.itemsize for weight in weights)

    def keep_pristine_on(self, device: torch.device | str) -> None:
        """Where the copies lie that scales are merged from."""
        if self._merged is not None:
            self._merged.to(device)

    def unmerge(self) -> None:
        """Pristine base weights back in the layers, adapters live."""
        if self._merged is not None:
            self._merged.restore()
            self._merged = None

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
            else:  # of a model that was there before: the next load would take it for this one's
                path.unlink(missing_ok=True)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """A folder that :meth:`save_pretrained` wrote, LoRAs included where they are beside it."""
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
    """``file``, fetched where its folder is part of a Hub snapshot: diffusers brings no file whose
    name is not that of a model's weights."""
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
    """Another LoRA, of any rank, in the place of ``adapter``; tensors are named as in its file.

    ValueError, and nothing is changed, for one that does not fit this UNet.
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
    """``model.to(dtype)`` without the warning diffusers gives for every model of its own."""
    nn.Module.to(model, dtype)


def plain_state_dict(unet: nn.Module) -> dict[str, Tensor]:
    """The UNet's own weights under the names they have without adapters."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in unet.state_dict().items()
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


# ---------- dloral.models.tiled_vae ----------

DECODER_MARGIN, ENCODER_MARGIN = 13, 9
"""Cells that the outer blocks see on each side: their 3x3 convolutions, by their resolution. The
sums, 6 + 3 + 1.5 ... and 4 + 2 + 1 ..., stay below these for any number of resolutions."""

Area = tuple[slice, slice]


def cell_of(vae: AutoencoderKL) -> int:
    """Pixels a side of a latent cell: each resolution but the last halves the frame."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


@apply_forward_hook  # for CPU offloading, as the VAE's own method has it
def decode_in_tiles(vae: AutoencoderKL, latents: Tensor, tile: int) -> Tensor:
    """``vae.decode(latents).sample``, (B,C,h,w) -> (B,3,H,W), ``tile`` cells a side at a time."""
    decoder = vae.decoder
    inner = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
    inner = decoder.mid_block(decoder.conv_in(inner))

    def outer(features: Tensor) -> Tensor:
        for block in decoder.up_blocks:
            features = block(features)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(features)))

    norms = [*_norms(decoder.up_blocks), decoder.conv_norm_out]
    return _tiled(outer, norms, inner, tile, DECODER_MARGIN, 1, cell_of(vae))


@apply_forward_hook
def encode_in_tiles(vae: AutoencoderKL, frames: Tensor, tile: int) -> Tensor:
    """``vae.encode(frames).latent_dist.mode()``, (B,3,H,W) -> (B,C,h,w), tile by tile."""
    encoder = vae.encoder

    def outer(pixels: Tensor) -> Tensor:
        features = encoder.conv_in(pixels)
        for block in encoder.down_blocks:
            features = block(features)
        return features

    norms = _norms(encoder.down_blocks)
    inner = _tiled(outer, norms, frames, tile, ENCODER_MARGIN, cell_of(vae), 1)
    inner = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(inner)))
    moments = encoder.conv_out(inner)
    if vae.quant_conv is not None:
        moments = vae.quant_conv(moments)
    return moments.chunk(2, dim=1)[0]


def _norms(blocks: nn.Module) -> list[nn.GroupNorm]:
    return [part for part in blocks.modules() if isinstance(part, nn.GroupNorm)]


def _tiled(
    outer: Callable[[Tensor], Tensor],
    norms: list[nn.GroupNorm],
    whole: Tensor,
    tile: int,
    margin: int,
    scale_in: int,
    scale_out: int,
) -> Tensor:
    """``outer(whole)`` tile by tile; scales are pixels a cell, of what goes in and comes out."""
    height, width = (side // scale_in for side in whole.shape[-2:])
    areas = [
        (slice(top, min(top + tile, height)), slice(left, min(left + tile, width)))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    with _shared(norms) as statistics:
        for rows, columns in areas:
            outer(_cut(whole, (rows, columns), scale_in))
        statistics.settle()
        result: Tensor | None = None
        for area in areas:
            wide = tuple(
                slice(max(side.start - margin, 0), min(side.stop + margin, length))
                for side, length in zip(area, (height, width), strict=True)
            )
            done = outer(_cut(whole, (wide[0], wide[1]), scale_in))
            inside = tuple(
                slice(side.start - larger.start, side.stop - larger.start)
                for side, larger in zip(area, wide, strict=True)
            )
            if result is None:
                size = (height * scale_out, width * scale_out)
                result = done.new_empty(*done.shape[:2], *size)
            _cut(result, area, scale_out).copy_(_cut(done, (inside[0], inside[1]), scale_out))
    assert result is not None
    return result


def _cut(picture: Tensor, area: Area, scale: int) -> Tensor:
    rows, columns = (slice(side.start * scale, side.stop * scale) for side in area)
    return picture[..., rows, columns]


class _Statistics:
    """Sums over all tiles, then mean and deviation, of each normalisation's groups."""

    def __init__(self) -> None:
        self._sums: dict[nn.GroupNorm, list[Tensor]] = {}
        self.settled = False

    def settle(self) -> None:
        self.settled = True

    def normalise(self, norm: nn.GroupNorm, features: Tensor) -> Tensor:
        """In place of ``norm(features)``, (B,F,.,.)."""
        if not self.settled:
            self._add(norm, features)
            return F.group_norm(features, norm.num_groups, norm.weight, norm.bias, norm.eps)
        total, squares, count = self._sums[norm]
        mean = total / count
        deviation = (squares / count - mean**2).clamp(min=0).add(norm.eps).sqrt()
        each = features.shape[1] // norm.num_groups
        mean, deviation = (
            value.repeat_interleave(each, dim=1)[..., None, None] for value in (mean, deviation)
        )
        weight = norm.weight[:, None, None].to(deviation.device) / deviation
        shift = norm.bias[:, None, None].to(deviation.device) - mean * weight
        return features * weight.to(features) + shift.to(features)

    def _add(self, norm: nn.GroupNorm, features: Tensor) -> None:
        groups = features.unflatten(1, (norm.num_groups, -1)).flatten(2)
        # One number a row at a time in double precision, not a double copy of the features.
        place = wide_device(features.device)
        mean = groups.mean(dim=2, dtype=torch.float32).to(place).double()
        variance = groups.float().var(dim=2, correction=0).to(place).double()
        count = torch.tensor(float(groups.shape[2]), dtype=torch.float64, device=place)
        new = [mean * count, (variance + mean**2) * count, count]
        old = self._sums.get(norm)
        self._sums[norm] = new if old is None else [a + b for a, b in zip(old, new, strict=True)]


@contextmanager
def _shared(norms: list[nn.GroupNorm]) -> Iterator[_Statistics]:
    """While it lasts, ``norms`` use statistics that all tiles have in common."""
    statistics = _Statistics()
    for norm in norms:
        norm.forward = partial(statistics.normalise, norm)  # type: ignore[method-assign]
    try:
        yield statistics
    finally:
        for norm in norms:
            del norm.forward


# ---------- dloral.models.vae ----------

PATCH = 4  # pixels a side that pixel-unshuffle folds into channels


class PlainBlock(nn.Module):
    """Two 3x3 convolutions around a SiLU, added to their input; no normalisation.

    Normalisation would tie every pixel to the statistics of its tile.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():  # a block starts as no change
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(x)))


class CompactVAE(ModelMixin, ConfigMixin):
    """Encoder (B,3,H,W) in [-1,1] -> (B,C,H/8,W/8); decoder back to (B,3,H,W).

    The decoder's output is the difference to the bicubic frame: the pipeline that holds this VAE
    has ``decoder_adds_input`` set and adds it (without that, training starts far below bicubic).

    ``decoder_sees_input``: the decoder is also handed the bicubic frame, folded to 1/4 size, so
    that latents need not carry what the input shows anyway. ``upsample``: the last enlargement is
    shuffle by 2, convolution, nearest by 2, convolution instead of one shuffle by 4, which is
    meant to draw less of a grid (not measured yet) and computes less (both our decision).
    """

    latent_stride = 2 * PATCH
    """Pixels a side of a latent cell: two pixel-unshuffles, of ``PATCH`` and of 2."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        width: int = 64,
        encoder_blocks: int = 2,
        decoder_blocks: int = 4,
        finish_channels: int = 8,
        scaling_factor: float = 1.0,
        decoder_sees_input: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(PATCH),
            nn.Conv2d(3 * PATCH**2, width, 3, padding=1),
            *(PlainBlock(width) for _ in range(encoder_blocks)),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * width, latent_channels, 3, padding=1),
        )
        shuffle = 2 if upsample else PATCH
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            *(PlainBlock(width) for _ in range(decoder_blocks)),
            nn.SiLU(),
            nn.Conv2d(width, finish_channels * shuffle**2, 3, padding=1),
            nn.PixelShuffle(shuffle),
        )
        if decoder_sees_input:
            self.join = nn.Conv2d(3 * PATCH**2, width, 3, padding=1)
        # Convolutions across the shuffled pixels: they join neighbours that came from different
        # channels, where a bare pixel-shuffle leaves a dot grid.
        last = nn.Conv2d(finish_channels, 3, *((3, 1, 1) if upsample else (5, 1, 2)))
        self.finish: nn.Module = last
        if upsample:
            inner = nn.Conv2d(finish_channels, finish_channels, 3, padding=1)
            self.finish = nn.Sequential(
                nn.SiLU(), inner, nn.SiLU(), nn.Upsample(scale_factor=PATCH // shuffle), last
            )
        shuffled = self.decoder[-2]
        assert isinstance(shuffled, nn.Conv2d)
        _start_without_grid(shuffled, shuffle)
        with torch.no_grad():
            for parameter in last.parameters():  # start near bicubic
                parameter.mul_(0.1)

    # The two hooks: CPU offloading otherwise moves a module for its forward() alone.
    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[Tensor]:
        """(B,3,H,W) in [-1,1] -> (B,C,H/8,W/8), not yet scaled by ``scaling_factor``."""
        latent = self.encoder(x)
        return EncoderOutput(latent=latent) if return_dict else (latent,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, lq_frames: Tensor | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """(B,C,h,w), no longer scaled -> (B,3,8h,8w), the difference to the bicubic frame.

        ``lq_frames`` (B,3,8h,8w) in [-1,1] is that frame, for a decoder that sees it.
        """
        features = self.decoder[:2](z)
        if self.config.decoder_sees_input:
            assert lq_frames is not None, "this decoder sees the bicubic frame"
            features = features + self.join(F.pixel_unshuffle(lq_frames.to(z.dtype), PATCH))
        sample = self.finish(self.decoder[2:](features))
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encoder(x), return_dict=False, lq_frames=x)[0]


def _start_without_grid(conv: nn.Conv2d, factor: int) -> None:
    """ICNR (Aitken et al., 2017): before training, pixel-shuffle acts as nearest enlargement."""
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter[:: factor**2].repeat_interleave(factor**2, dim=0))


# ---------- dloral.models.vae_kinds ----------

VAE_FEATURES = 3.5
"""How often the widest layer at full size is held at a time: input, normalised, activated, output
of a convolution. Measured on Stable Diffusion's decoder in float32 on a CPU: resident memory grew
by 5.0 of it at 256 x 256 pixels and by 4.1 at 384 x 384, which is 3.4 and 0.1 GB."""

STABLE_DIFFUSION = "Stable Diffusion"

Tiled = Callable[[Any, Tensor, int], Tensor]


@dataclass(frozen=True)
class VAEKind:
    """``latents``: the space that its latents are of; a VAE of the same one may stand in.

    ``stride``: pixels a latent cell. ``widths``: channels at full size on the way in, and out.
    ``encode_in_tiles``, ``decode_in_tiles``: (vae, picture or latents, cells of a tile), None where
    it is only run whole.
    """

    latents: str
    stride: Callable[[Any], int]
    widths: Callable[[Any], tuple[int, int]]
    encode_in_tiles: Tiled | None = None
    decode_in_tiles: Tiled | None = None

    @property
    def has_tiles(self) -> bool:
        return self.encode_in_tiles is not None

    def needed_memory(
        self, vae: Any, height: int, width: int, vae_tile: int | None, encodes_only: bool
    ) -> int:
        """Bytes, roughly, that a frame of ``height`` x ``width`` pixels takes at the most."""
        if not self.has_tiles:
            return height * width * 64 * 4
        if vae_tile:
            side = self.stride(vae) * (vae_tile + 2 * DECODER_MARGIN)
            height, width = min(height, side), min(width, side)
        way_in, way_out = self.widths(vae)
        widest = way_in if encodes_only else way_out
        return int(VAE_FEATURES * height * width * widest * vae.dtype.itemsize)


def _widths(vae: AutoencoderKL) -> tuple[int, int]:
    # Full size holds the second width on the way out, and the first on the way in.
    widths = vae.config.block_out_channels
    return widths[0], widths[min(1, len(widths) - 1)]


KINDS: dict[type, VAEKind] = {
    AutoencoderKL: VAEKind(
        STABLE_DIFFUSION,
        stride=cell_of,
        widths=_widths,
        encode_in_tiles=encode_in_tiles,
        decode_in_tiles=decode_in_tiles,
    ),
    AutoencoderTiny: VAEKind(
        STABLE_DIFFUSION,
        stride=lambda vae: 2 ** (len(vae.config.encoder_block_out_channels) - 1),
        widths=lambda vae: (vae.config.encoder_block_out_channels[0],) * 2,
    ),
    CompactVAE: VAEKind(
        "compact",
        stride=lambda vae: vae.latent_stride,
        widths=lambda vae: (vae.config.width,) * 2,
    ),
}


def kind_of(vae: Any) -> VAEKind:
    """The row of a VAE's class, or of the nearest class that it is derived from."""
    for kind in type(vae).__mro__:
        if kind in KINDS:
            return KINDS[kind]
    raise TypeError(f"a {type(vae).__name__} is no VAE that this version knows")


def encode(vae: Any, pictures: Tensor, tile: int | None = None) -> Tensor:
    """Pictures (B,3,H,W) in [-1, 1] -> latents (B,C,H/s,W/s), scaled; the distribution's mean."""
    in_tiles = kind_of(vae).encode_in_tiles
    if tile and in_tiles:
        return in_tiles(vae, pictures, tile) * vae.config.scaling_factor
    encoded = vae.encode(pictures)
    latents = encoded.latent_dist.mode() if "latent_dist" in encoded else encoded[0]
    return latents * vae.config.scaling_factor


def decode(
    vae: Any, latents: Tensor, lq_frames: Tensor | None = None, tile: int | None = None
) -> Tensor:
    """Scaled latents -> what the decoder gives, float32 (B,3,H,W) in about [-1, 1].

    ``lq_frames`` (B,3,H,W) in [0, 1]: the bicubic frame, for a decoder whose own configuration says
    that it sees it.
    """
    in_tiles = kind_of(vae).decode_in_tiles
    unscaled = latents / vae.config.scaling_factor
    if tile and in_tiles:
        return in_tiles(vae, unscaled, tile).float()
    if lq_frames is not None and vae.config.get("decoder_sees_input"):
        return vae.decode(unscaled, lq_frames=2 * lq_frames - 1).sample.float()
    return vae.decode(unscaled).sample.float()


# ---------- dloral.hub_pipeline ----------

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline as _Base
else:
    _Base = object  # no pipeline: diffusers looks for the only one in a model's own code


class HubPipeline(_Base):
    """The part of :class:`dloral.pipeline.DLoRALPipeline` that is not about restoring."""

    unet: TwoLoRAUNet
    vae: Any
    reads_prompts: Any
    _adapter_scales: dict[str, float]
    _vae_tile: int | None

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Sequence[float] | None = None,
    ) -> None:
        """The scales that a call uses where it is given none: ``"consistency"`` and ``"detail"``,
        1 each if no weights are given. One that is not named is off, as in diffusers."""
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
        """Those that a call uses where it is given no scales."""
        return [name for name, scale in self._adapter_scales.items() if scale]

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | dict[str, Tensor],
        adapter_name: str = DETAIL,
        weight_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Another C-LoRA or D-LoRA, by ``adapter_name``, of any rank, in the place of this one.

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

    def enable_vae_tiling(self, tile: int = 64) -> None:
        """Encode and decode in tiles of so many latent cells, where the VAE has tiles."""
        self._vae_tile = tile if kind_of(self.vae).has_tiles else None

    def disable_vae_tiling(self) -> None:
        """Encode and decode frames whole."""
        self._vae_tile = None

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; the folder carries its own code, for environments without dloral."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self._complete(Path(save_directory))

    def _upload_folder(self, working_dir: str | Path, *args: Any, **kwargs: Any) -> Any:
        self._complete(Path(working_dir))
        return super()._upload_folder(working_dir, *args, **kwargs)

    def _complete(self, folder: Path) -> None:
        # Whatever reads prompts stands on Stable Diffusion 2.1, and is under its licence.
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


# ---------- dloral.models.cfr ----------

CPU_TILE = (512, 256)
"""Queries and keys of a tile on processors: half a megabyte of similarities for each head, whatever
the number of positions. Tiles of all keys took as long at 4,096 positions, and twice as long where
the C library gives freed memory back (see :func:`dloral.memory.keep_freed_memory`)."""

GPU_ELEMENTS = 2**23
"""Similarities of a tile (all heads and frames together) on a GPU, where few large products are
faster; a tile has all keys."""


class CrossFrameRetrieval(ModelMixin, ConfigMixin):
    """``retrieved = current + proj(weights V)``; queries from current, the rest from aligned.

    ``temperature=3000`` is the released model's constant (notes, step 4). The sum over positions
    grows with their number, so a constant suits pictures as large as those of training; with
    ``temperature=None`` the weights are divided by the number of positions (our decision, for
    the compact model, which trains on small crops).
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        num_heads: int = 9,
        head_dim: int = 64,
        temperature: float | None = 3000.0,
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.to_q = nn.Conv2d(latent_channels, inner, 1)
        self.to_k = nn.Conv2d(latent_channels, inner, 1)
        self.to_v = nn.Conv2d(latent_channels, inner, 1)
        self.threshold = nn.Linear(head_dim, 1)
        self.proj = nn.Conv2d(inner, latent_channels, 1)

    def forward(self, current_latents: Tensor, aligned_latents: Tensor) -> Tensor:
        """(B,C,h,w), (B,C,h,w) -> retrieved latents (B,C,h,w)."""
        return current_latents + self.retrieve(current_latents, aligned_latents)

    @apply_forward_hook  # CPU offloading otherwise moves a module for its forward() alone
    def retrieve(self, current_latents: Tensor, aligned_latents: Tensor) -> Tensor:
        """The addition alone, so that a window of several predecessors can average it."""
        height, width = current_latents.shape[-2:]
        query = self._heads(self.to_q(current_latents))
        key = self._heads(self.to_k(aligned_latents))
        value = self._heads(self.to_v(aligned_latents))
        found = thresholded_attention(
            query, key, value, self.threshold(query), self.config.temperature or height * width
        )
        # (B,n,N,d) -> (B,n*d,h,w)
        return self.proj(found.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width)))

    def _heads(self, features: Tensor) -> Tensor:
        """(B,n*d,h,w) -> (B,n,N,d)."""
        split = features.flatten(2).unflatten(1, (self.config.num_heads, -1))
        return split.transpose(2, 3).contiguous()


def thresholded_attention(
    query: Tensor, key: Tensor, value: Tensor, threshold: Tensor, temperature: float
) -> Tensor:
    """``relu((Q K^T / sqrt(d) - threshold) / temperature) V`` in tiles of queries and keys.

    query, key, value (B,n,N,d), threshold (B,n,N,1) -> (B,n,N,d).
    """
    # relu(x / t) = relu(x) / t: scale the small matrices once, not every tile. The threshold is
    # one more channel of the query, against ones: taking it away costs no pass of its own.
    scaled_query = torch.cat([query * query.shape[-1] ** -0.5, -threshold], dim=-1).flatten(0, 1)
    key = torch.cat([key, torch.ones_like(key[..., :1])], dim=-1).flatten(0, 1).transpose(1, 2)
    scaled_value = (value / temperature).flatten(0, 1)
    recompute = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (scaled_query, key, value)
    )
    queries, keys = _tile(query)
    sums = torch.promote_types(query.dtype, torch.float32)
    sources = list(zip(key.split(keys, dim=2), scaled_value.split(keys, dim=1), strict=True))
    outputs = []
    for rows in scaled_query.split(queries, dim=1):
        parts = (
            checkpoint(_attend, rows, *source, use_reentrant=False)
            if recompute
            else _attend(rows, *source)
            for source in sources
        )
        outputs.append(reduce(torch.add, (part.to(sums) for part in parts)).to(query.dtype))
    return torch.cat(outputs, dim=1).unflatten(0, query.shape[:2])


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.relu_(torch.bmm(query, key)).bmm(value)


def _tile(query: Tensor) -> tuple[int, int]:
    """How many queries and keys to take at once."""
    if query.device.type == "cpu":
        return CPU_TILE
    batch, heads, positions, _ = query.shape
    return max(64, GPU_ELEMENTS // (batch * heads * positions)), positions


# ---------- dloral.models.flow ----------

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def warp(previous: Tensor, flow_current_to_previous: Tensor, padding: str = "zeros") -> Tensor:
    """Sample ``previous`` (B,C,H,W) where the flow (B,2,H,W), in cells, points; bilinear.

    Places outside the picture read as 0 (``padding="zeros"``, what step 3 of the generator uses)
    or as the nearest edge cell (``"border"``, inside SPyNet). Coordinates are float32 whatever
    the pictures are: bfloat16 would round a position in the hundreds to whole cells.
    """
    height, width = previous.shape[-2:]
    flow = flow_current_to_previous.float()
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    x = columns + flow[:, 0]
    y = rows[:, None] + flow[:, 1]
    # grid_sample with align_corners=True puts cell 0 at -1 and cell size-1 at +1.
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    sampled = F.grid_sample(
        previous.float(), grid, "bilinear", padding_mode=padding, align_corners=True
    )
    return sampled.to(previous.dtype)


class FlowLevel(nn.Sequential):
    """One level: (current, warped previous, flow so far) (B,8,H,W) -> correction (B,2,H,W)."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        widths = (8, *channels, 2)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 7, padding=3), nn.ReLU()]
        super().__init__(*layers[:-1])  # the correction itself is signed: no ReLU at the end
        for layer in layers[:-2:2]:
            # With torch's smaller start the correction is lost in the biases, and training stays
            # at "no motion" for thousands of steps.
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]


class SPyNet(ModelMixin, ConfigMixin):
    """Coarse-to-fine flow from current to previous, for pictures (B,3,H,W) of any size.

    ``levels=6`` and ``channels=(32, 64, 32, 16)`` are the published network; the compact model is
    narrower. The pyramid halves ``levels - 1`` times, so inputs are resized (bilinear) to a
    multiple of ``2 ** (levels - 1)`` and the flow is scaled back.
    """

    @register_to_config
    def __init__(self, levels: int = 6, channels: tuple[int, ...] = (32, 64, 32, 16)) -> None:
        super().__init__()
        self.pyramid = nn.ModuleList(FlowLevel(tuple(channels)) for _ in range(levels))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Flow (B,2,H,W) in cells of the given pictures (B,3,H,W).

        The generator passes pictures in [-1, 1] although the normalisation is the one for [0, 1]:
        the released weights were trained so, and the compact ones are too.
        """
        height, width = current.shape[-2:]
        current, previous = current.float(), previous.float()
        multiple = 2 ** (len(self.pyramid) - 1)
        padded_height = -(-height // multiple) * multiple
        padded_width = -(-width // multiple) * multiple
        size = (padded_height, padded_width)
        flow = self.coarse_to_fine(
            F.interpolate(current, size, mode="bilinear", align_corners=False),
            F.interpolate(previous, size, mode="bilinear", align_corners=False),
        )[-1]
        flow = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor([width / padded_width, height / padded_height]).view(
            1, 2, 1, 1
        )

    def coarse_to_fine(self, current: Tensor, previous: Tensor) -> list[Tensor]:
        """The flow after every level, coarsest first, each in cells of its own level; training
        teaches all of them. Sizes must be multiples of ``2 ** (levels - 1)``."""
        currents = [self.normalise(current)]
        previouses = [self.normalise(previous)]
        for _ in range(len(self.pyramid) - 1):
            currents.append(F.avg_pool2d(currents[-1], 2))
            previouses.append(F.avg_pool2d(previouses[-1], 2))
        batch, _, height, width = currents[-1].shape
        flow = current.new_zeros(batch, 2, height, width)
        flows: list[Tensor] = []
        steps = zip(self.pyramid, reversed(currents), reversed(previouses), strict=True)
        for depth, (level, now, before) in enumerate(steps):
            if depth:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            aligned = warp(before, flow, padding="border")
            flow = flow + self.correct(level, now, aligned, flow)
            flows.append(flow)
        return flows

    def correct(self, level: nn.Module, current: Tensor, aligned: Tensor, flow: Tensor) -> Tensor:
        """One level's correction; convolutions in the weights' dtype, flow in float32."""
        seen = torch.cat([current, aligned, flow], dim=1)
        return level(seen.to(self.dtype)).float()

    def normalise(self, pictures: Tensor) -> Tensor:
        """By ImageNet's mean and deviation, as the levels expect pictures."""
        return (pictures.float() - self.mean.float()) / self.std.float()


# ---------- dloral.pipeline ----------

StepCallback = Callable[[Any, int, int, dict[str, Any]], dict[str, Any] | None]

UNET_FEATURES = 60
"""How many times the UNet's first width is held at a time, for each latent cell."""


@dataclass
class DLoRALOutput(BaseOutput):
    """``frames``: float tensor (T,3,H,W) in [0, 1], the same as an array (T,H,W,3), a list of PIL
    images, or latents (T,C,h,w), by ``output_type``."""

    frames: Any


class DLoRALPipeline(HubPipeline, DiffusionPipeline, FrameGenerator):
    """One-step video super-resolution with C-LoRA (consistency) and D-LoRA (detail).

    What differs between models is in its configuration, ``model_index.json`` (where a key is
    absent, its default is meant). ``decoder_adds_input``: the VAE's decoder gives the difference to
    the low-quality frame (the compact model) rather than the frame itself (Stable Diffusion's).
    ``color_fix``: what the model is best used with (the full one: AdaIN, as released).
    ``scale_range``: the enlargements it is meant for, None for any. ``max_window``: the most
    earlier frames it can use. Latent stride and channels are the VAE's. ``tiny_decoder``: decodes
    in the VAE's place where it is given.
    """

    _optional_components = [  # noqa: RUF012 (diffusers)
        "tokenizer",
        "text_encoder",
        "scheduler",
        "tiny_decoder",
    ]
    model_cpu_offload_seq = "text_encoder->vae->flow->retrieval->unet->tiny_decoder"

    def __init__(
        self,
        vae: AutoencoderKL | CompactVAE | AutoencoderTiny,
        unet: TwoLoRAUNet,
        flow: SPyNet,
        retrieval: CrossFrameRetrieval,
        tokenizer: Any = None,
        text_encoder: Any = None,
        scheduler: Any = None,
        tiny_decoder: AutoencoderTiny | None = None,
        decoder_adds_input: bool = False,
        color_fix: str = "adain",
        scale_range: tuple[float, float] | None = None,
        max_window: int = max(WINDOWS),
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            flow=flow,
            retrieval=retrieval,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            scheduler=scheduler,
            tiny_decoder=tiny_decoder,
        )
        self.register_to_config(
            decoder_adds_input=decoder_adds_input,
            color_fix=color_fix,
            scale_range=scale_range,
            max_window=max_window,
        )
        # No bar unless asked for: every face of the software shows its own.
        self.set_progress_bar_config(disable=True)
        self._adapter_scales = dict.fromkeys(ADAPTERS, 1.0)
        self._vae_tile: int | None = None
        self._callback: StepCallback | None = None
        self._interrupt = False

    # The four steps --------------------------------------------------------------------------

    def encode(self, lq_frames: Tensor, vae_tile: int | None = None) -> Tensor:
        """Frames (B,3,H,W) in [0, 1], sides multiples of the stride -> latents (B,C,h,w).

        The mean of the VAE's distribution times its scaling factor (notes, step 1). ``vae_tile``:
        latent cells of a tile where memory is short, for a VAE that has tiles.
        """
        # Contiguous, for arrays of pictures are channels-last when they come (see channels_last).
        pictures = (2 * lq_frames - 1).to(self.vae.dtype).contiguous()
        return encode(self.vae, pictures, vae_tile or self._vae_tile)

    def retrieve(
        self,
        lq_latents: Tensor,
        small_frames: Tensor,
        previous_latents: Tensor,
        previous_small_frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What K earlier frames know of the current ones: (retrieved, aligned), (B,C,h,w) each.

        ``lq_latents`` (B,C,h,w) and ``previous_latents`` (K,B,C,h,w), nearest first, come from
        :meth:`encode`; ``small_frames`` (B,3,h,w) and ``previous_small_frames`` (K,B,3,h,w) are
        the same frames by :func:`shrink_for_flow`. Every predecessor is warped to the current
        frame; retrieval is averaged over them, ``aligned`` is the nearest (notes, steps 2 to 4).
        With K = 0 a frame stands alone: both are the current latents.
        """
        window, batch = previous_latents.shape[:2]
        if not window:
            return lq_latents, lq_latents
        flow_current_to_previous = self.estimate_flow(
            small_frames.expand(window, -1, -1, -1, -1).flatten(0, 1),
            previous_small_frames.flatten(0, 1),
        )
        aligned = warp(previous_latents.flatten(0, 1), flow_current_to_previous)
        aligned_window = aligned.unflatten(0, (window, batch))
        found = [self.retrieval.retrieve(lq_latents, aligned) for aligned in aligned_window]
        return lq_latents + torch.stack(found).mean(dim=0), aligned_window[0]

    def estimate_flow(self, small_frames: Tensor, previous_small_frames: Tensor) -> Tensor:
        """Flow (B,2,h,w), in latent cells, from frames (B,3,h,w) to earlier ones (B,3,h,w)."""
        return self.flow(2 * small_frames - 1, 2 * previous_small_frames - 1)

    def predict(
        self, aligned_latents: Tensor, retrieved_latents: Tensor, prompt_embeds: Tensor | None
    ) -> Tensor:
        """One UNet step with both LoRAs at their scales -> eps (B,C,h,w) (notes, step 5)."""
        return self.unet.predict(aligned_latents, retrieved_latents, prompt_embeds)

    def decode(
        self, restored_latents: Tensor, lq_frames: Tensor, vae_tile: int | None = None
    ) -> Tensor:
        """Latents (B,C,h,w) and the padded input (B,3,H,W) -> frames (B,3,H,W), unclamped."""
        decoded = decode(
            self.tiny_decoder or self.vae, restored_latents, lq_frames, vae_tile or self._vae_tile
        )
        if self.config.decoder_adds_input:
            return decoded / 2 + lq_frames
        return (decoded.clamp(-1, 1) + 1) / 2

    # What callers must know ------------------------------------------------------------------

    @property
    def execution_device(self) -> torch.device:
        return self._execution_device

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def latent_stride(self) -> int:
        return kind_of(self.vae).stride(self.vae)

    @property
    def latent_channels(self) -> int:
        return self.vae.config.latent_channels

    @property
    def max_window(self) -> int:
        return self.config.max_window

    @property
    def default_color_fix(self) -> str:
        return self.config.color_fix

    @property
    def scale_range(self) -> tuple[float, float] | None:
        return self.config.scale_range and tuple(self.config.scale_range)

    @property
    def other_vaes(self) -> Collection[str]:
        of_the_same_latents = kind_of(self.vae).latents == STABLE_DIFFUSION
        return ("tiny", "tiny-decoder") if of_the_same_latents else ()

    @property
    def reads_prompts(self) -> bool:
        return self.tokenizer is not None

    @property
    def folder(self) -> Path | None:
        """Where the model was loaded from; None for one that was built in memory."""
        name = self.config.get("_name_or_path")
        return Path(name) if name and Path(name).is_dir() else None

    def encode_prompt(self, prompt: str) -> Tensor | None:
        """Embeddings (1, tokens, D) of the text encoder's last layer; None for a model without."""
        if not self.reads_prompts:
            return None
        if self.text_encoder is None:
            self._load_text_encoder()
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]

    def unload_text_encoder(self) -> None:
        """Give its memory back; :meth:`encode_prompt` loads it again. Only for a loaded model."""
        if self.folder is not None and self.text_encoder is not None:
            self.text_encoder: Any = None
            release_memory()

    def _load_text_encoder(self) -> None:
        assert self.folder is not None, "a text encoder is unloaded only where it can come back"
        on_cpu = self.device.type == "cpu"  # which may have no half precision
        text_encoder = CLIPTextModel.from_pretrained(
            self.folder,
            subfolder="text_encoder",
            dtype=torch.float32 if on_cpu else self.unet.dtype,
            local_files_only=True,
        )
        self.text_encoder = text_encoder.requires_grad_(False).eval().to(self.execution_device)

    def set_scales(self, consistency: float = 1.0, detail: float = 1.0) -> None:
        """How much of C-LoRA and D-LoRA is in the UNet's weights from now on, each in
        [0, MAX_LORA_SCALE]; raises :class:`OptionError` beyond."""
        check_lora_scales(consistency, detail)
        self.unet.set_scales(consistency=consistency, detail=detail)

    # What people call ------------------------------------------------------------------------

    def __call__(
        self,
        frames: Any,
        prompt: str = "",
        consistency: float | None = None,
        detail: float | None = None,
        window: int = 1,
        tile: int | None = None,
        tile_overlap: int = 32,
        color_fix: str = AUTO,
        output_type: str = "pt",
        batch_size: int = 1,
        callback_on_step_end: StepCallback | None = None,
    ) -> Any:
        """Restore a clip that has been brought to its output size, as
        :meth:`FrameGenerator.__call__` says.

        ``consistency``, ``detail``: as :meth:`set_adapters` left them where they are not given.
        ``callback_on_step_end``: called with (pipeline, index of the frame, timestep,
        ``{"frame": restored}``) after each frame; a frame that it returns in such a dictionary
        takes the place of that one. One that sets ``pipe._interrupt = True`` ends the clip there.
        """
        kept = self._adapter_scales
        self._callback, self._interrupt = callback_on_step_end, False
        try:
            return super().__call__(
                frames,
                prompt,
                kept[CONSISTENCY] if consistency is None else consistency,
                kept[DETAIL] if detail is None else detail,
                window,
                tile,
                tile_overlap,
                color_fix,
                output_type,
                batch_size,
            )
        finally:
            self._callback = None

    # Memory ----------------------------------------------------------------------------------

    @property
    def steps_down(self) -> Collection[str]:
        can = {"tile"}
        if kind_of(self.vae).has_tiles:
            can.add("vae_tile")
        if self.reads_prompts and self.folder is not None:
            can.add("text")
        if can_offload(self.execution_device):
            can.add("offload")
        return can

    def needed_memory(self, limits: Limits, height: int, width: int) -> int:
        """Bytes, roughly, that frames of ``height`` x ``width`` take beyond the weights."""
        # With offloading everything but the UNet leaves, and its copies are kept elsewhere.
        adapted = 0 if limits.offload else self.unet.bytes_to_merge()
        vae = kind_of(self.vae).needed_memory(
            self.vae, height, width, limits.vae_tile, self.tiny_decoder is not None
        )
        cells = height * width // self.latent_stride**2
        if limits.tile:
            cells = min(cells, limits.tile**2)
        unet = UNET_FEATURES * cells * self.unet.config.block_out_channels[0]
        text = 0 if limits.keep_text else _bytes_of(self.text_encoder)
        return adapted + limits.batch_size * (vae + unet * self.unet.dtype.itemsize) - text

    def adopt(self, limits: Limits) -> None:
        """Do to the parts what lower limits ask for."""
        if not limits.keep_text:
            self.unload_text_encoder()
        if limits.offload and not self._is_offloaded:
            self.unet.keep_pristine_on("cpu")
            self.enable_model_cpu_offload(device=self.execution_device)

    @property
    def _is_offloaded(self) -> bool:
        return bool(getattr(self, "_all_hooks", None))

    def _watched(self, results: Iterator[Tensor], total: int) -> Iterable[Tensor]:
        with self.progress_bar(total=total) as bar:
            for index, result in enumerate(results):
                if self._callback is not None:
                    changed = self._callback(self, index, TIMESTEP, {"frame": result}) or {}
                    result = changed.get("frame", result)
                yield result
                bar.update()
                if self._interrupt:
                    return

    def _output(self, frames: Any) -> DLoRALOutput:
        return DLoRALOutput(frames=frames)

    def channels_last(self) -> Self:
        """Lay out the convolutions' weights for the fastest CPU and GPU kernels.

        Not a VAE with group normalisation on a CPU: torch's channels-last kernel there takes the
        variance as a difference of large sums. At 512 x 512 that is a thousand times the usual
        rounding error, and the flow net makes more of it; in the UNet's small maps it is harmless.
        """
        for module in (self.vae, self.unet, self.flow):
            if module is self.vae and module.device.type == "cpu" and _has_group_norm(module):
                continue
            module.to(memory_format=torch.channels_last)
        return self


def _has_group_norm(module: torch.nn.Module) -> bool:
    return any(isinstance(part, torch.nn.GroupNorm) for part in module.modules())


def _bytes_of(module: torch.nn.Module | None) -> int:
    return sum(p.numel() * p.itemsize for p in module.parameters()) if module is not None else 0
