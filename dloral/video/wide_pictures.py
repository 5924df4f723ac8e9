"""Still pictures of more than 8 bits a channel: PNG and TIFF, decoded by OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from dloral.errors import InputError
from dloral.video.alpha import fill_hidden
from dloral.video.picture_kinds import SIGNATURES, opened_picture

_JUST_OVER = 1.001
"""Floats up to here are white with a rounding error."""


class WidePicture:
    """A file, read once however many pages it has. ``on_note``: as in
    :func:`dloral.video.images.load_image`."""

    def __init__(self, path: Path, on_note: Callable[[str], None] | None = None) -> None:
        self._path, self._on_note = path, on_note
        # Not imread: OpenCV 5's fails on a TIFF that needs a quarter turn.
        self._data = np.frombuffer(path.read_bytes(), np.uint8)
        is_png = self._data[:8].tobytes().startswith(SIGNATURES[0])
        self._hidden = _hidden_grey(path) if is_png else None

    def page(self, number: int) -> Tensor:
        """(3,H,W) in [0, 1], with alpha (4,H,W), upright if it is a TIFF. Raises whatever a decoder
        does, and InputError for values beyond 1."""
        array = self._codes(number)
        peak = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(array.dtype, 1.0)
        codes = torch.from_numpy((array / peak).astype(np.float32))
        codes = codes[None] if codes.ndim == 2 else codes.permute(2, 0, 1)
        rgb = codes[:3].flip(0) if len(codes) >= 3 else codes[:1].expand(3, -1, -1)
        rgba = torch.cat([rgb, codes[-1:]]) if len(codes) in (2, 4) else rgb.contiguous()
        if self._hidden is not None and array.ndim == 2:
            shown = torch.from_numpy(array != self._hidden)
            rgba = torch.cat([rgb, shown[None].float()])
        return _finite(self._path, rgba, self._on_note) if peak == 1 else rgba

    def _codes(self, number: int) -> np.ndarray[Any, Any]:
        if not number:
            array = cv2.imdecode(self._data, cv2.IMREAD_UNCHANGED)
        else:  # without a range all pages are decoded for each
            wanted = number, number + 1
            _, pages = cv2.imdecodemulti(self._data, cv2.IMREAD_UNCHANGED, range=wanted)
            array = pages[0] if pages else None
        if array is None:
            raise ValueError("OpenCV cannot decode it")
        return array


def _hidden_grey(path: Path) -> int | None:
    """The grey that a PNG says is transparent (its tRNS chunk), which OpenCV does not read."""
    with opened_picture(path) as image:
        hidden = image.info.get("transparency")
    return hidden if isinstance(hidden, int) else None


def _finite(path: Path, rgba: Tensor, on_note: Callable[[str], None] | None) -> Tensor:
    """Floats that can be restored: pixels that are not finite take the colours around them.

    InputError for values beyond 1, since nothing says which value is white.
    """
    known = rgba.isfinite().all(0)
    most = float(rgba[:, known].max()) if bool(known.any()) else 0.0
    if most > _JUST_OVER:
        raise InputError(
            "{path} holds values up to {value:g}, but 1 is white",
            remedy="scale them to 0 to 1, or save it as OpenEXR, which can exceed 1",
            path=path,
            value=most,
        )
    if bool(known.all()):
        return rgba.clamp(0, 1)
    if on_note is not None:
        on_note(f"{int((~known).sum())} pixels are not numbers: filled in from around them")
    seen = known.float()
    rgba = torch.where(known, rgba, 0).clamp(0, 1)
    return torch.cat([fill_hidden(rgba[:3], seen), torch.where(known, rgba[3:], 1)])
