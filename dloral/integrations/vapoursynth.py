"""A VapourSynth filter: RGBS or RGBH in, the same format out, larger::

    from dloral.integrations.vapoursynth import upscale
    clip = core.resize.Bicubic(clip, format=vs.RGBS, matrix_in=1)
    clip = upscale(clip, scale=2, consistency=1.0, detail=0.5)

Frames may be asked for in any order. VapourSynth is asked for when the filter is made; this module
needs numpy alone until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

FORMATS = ("RGBS", "RGBH")


class Frames(Protocol):
    """Where restored frames come from."""

    def frame(self, number: int) -> np.ndarray:
        """Frame ``number``, float32 (3,H,W) in [0, 1]."""
        ...


def upscale(clip: Any, pipe: FrameGenerator | None = None, **options: Any) -> Any:
    """The restored clip, ``options`` as :class:`dloral.UpscaleOptions` has them (model, scale or
    height or width, consistency, detail, strength, window, prompt, tile, ...); ``pipe``: a loaded
    pipeline. Raises :class:`dloral.DLoRALError` for a wrong choice, ``vapoursynth.Error`` for a
    clip of another format, of variable size or format, or too large.
    """
    check_clip(clip)
    from dloral import UpscaleOptions, load_pipeline
    from dloral.integrations.memory_clips import size_of_result
    from dloral.integrations.random_access import FrameServer

    chosen = UpscaleOptions(**options)
    height, width = size_of_result(clip.height, clip.width, chosen)
    if pipe is None:
        pipe = load_pipeline(chosen.model, chosen.device, chosen.dtype, chosen.vae, chosen.runtime)

    def make_frames(read: Any) -> Frames:
        return _Served(FrameServer(read, len(clip), pipe, chosen))

    return serve(clip, make_frames, height, width)


class _Served:
    """Tensors as arrays."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def frame(self, number: int) -> np.ndarray:
        array: np.ndarray = self._server.frame(number).float().cpu().numpy()
        return array


def check_clip(clip: Any) -> None:
    """``vapoursynth.Error``, one line, for what is not RGBS or RGBH of one size."""
    import vapoursynth as vs

    name = getattr(clip.format, "name", "") if clip.format else ""
    if name not in FORMATS:
        raise vs.Error(
            f"dloral: the clip is {name or 'of variable format'}; convert it to RGBS or RGBH first "
            "(resize.Bicubic(format=vs.RGBS, matrix_in=...))"
        )
    if not (clip.width and clip.height):
        raise vs.Error("dloral: the clip is of variable size; make it one size first")


def serve(clip: Any, make_frames: Any, height: int, width: int) -> Any:
    """A clip of ``height`` x ``width`` whose frames come from ``make_frames(read)``, where
    ``read(n)`` gives frame n of ``clip`` as float32 (3,h,w); properties are those of ``clip``."""
    import vapoursynth as vs

    dtype = np.float32 if clip.format.name == "RGBS" else np.float16

    def read(number: int) -> Any:
        with clip.get_frame(number) as frame:
            pixels = np.stack([np.asarray(frame[plane]) for plane in range(3)])
        return _as_tensor(np.clip(np.nan_to_num(pixels.astype(np.float32)), 0, 1))

    frames: Frames = make_frames(read)
    blank = vs.core.std.BlankClip(clip, width=width, height=height, keep=True)

    def put(n: int, f: Any) -> Any:
        restored = frames.frame(n)
        made = f[0].copy()
        for plane in range(3):
            np.copyto(np.asarray(made[plane]), restored[plane].astype(dtype))
        made.props.update(f[1].props)
        return made

    return vs.core.std.ModifyFrame(blank, [blank, clip], put)


def _as_tensor(pixels: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(pixels)
