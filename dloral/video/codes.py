"""Decoded frames kept as the code values of their codec, and converted to floats when needed.

A frame of 4:2:0 video at 8 bits takes one and a half bytes a pixel as codes, twelve as RGB floats.
The floats are computed from the codes by the steps of :mod:`dloral.video.colour` whenever they are
needed, so they are the same each time. A coded frame is a one-dimensional float32 tensor that holds
a header and the planes, byte by byte: so it can be passed wherever frames can, from a worker too,
and since a worker is not trusted, all of it is checked before use.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from av import VideoFrame
from torch import Tensor

from dloral.video.colour import (
    Meaning,
    is_known_matrix,
    meaning_of,
    planar,
    planes_of,
    planes_to_rgb,
)
from dloral.video.side_data import Orientation

_FAMILIES = ("yuv", "gbr", "gray")
_PLANES = 3
_HEAD = 8 + 2 * _PLANES  # numbers of 32 bits: how to read the planes, then their sizes
_SUBSAMPLED = {"420": 1.5, "411": 1.5, "410": 1.5, "422": 2.0, "440": 2.0}
"""Samples per pixel, by the part of a format's name."""


def coded(frame: VideoFrame, codec: str, turn: Orientation) -> Tensor | None:
    """A decoded frame as codes, one-dimensional float32, to be turned by ``turn`` when converted to
    floats; None if it is packed, transparent or made of floats."""
    frame = planar(frame)
    how = meaning_of(frame, codec)
    if how is None or len(frame.planes) > (1 if how.family == "gray" else _PLANES):
        return None
    planes = [np.ascontiguousarray(plane) for plane in planes_of(frame)]
    sizes = [side for plane in planes for side in plane.shape] + [0] * 2 * (_PLANES - len(planes))
    bits = frame.format.components[0].bits
    kind = _FAMILIES.index(how.family), bits, how.full, how.matrix, how.centred
    head = np.array([*kind, turn.transpose, turn.mirror_x, turn.mirror_y, *sizes], np.int32)
    parts = [part.view(np.uint8).ravel() for part in (head, *planes)]
    filling = np.zeros(-sum(map(len, parts)) % 4, np.uint8)
    return torch.from_numpy(np.concatenate([*parts, filling]).view(np.float32))


def is_coded(frame: Tensor) -> bool:
    """Whether a frame comes from :func:`coded`."""
    return frame.ndim == 1


def shape_of(frame: Tensor) -> tuple[int, int]:
    """Height and width, upright, of a frame of either kind. ValueError if codes are damaged."""
    if not is_coded(frame):
        return frame.shape[1], frame.shape[2]
    _, turn, planes = _parsed(frame)
    height, width = planes[0].shape
    return (width, height) if turn.transpose else (height, width)


def floats_of(frame: Tensor) -> tuple[Tensor, Orientation]:
    """RGB floats (3,H,W) of a coded frame as stored, and how to turn it. ValueError if the codes
    are damaged."""
    how, turn, planes = _parsed(frame)
    floats = [torch.from_numpy(plane.astype(np.float32)) for plane in planes]
    return planes_to_rgb(floats, how), turn


def most_bytes(height: int, width: int, pixel_format: str, bit_depth: int) -> int:
    """The most bytes that a coded frame of this format can take."""
    found = re.search(r"4(\d\d)p", pixel_format)
    samples = _SUBSAMPLED.get(f"4{found[1]}", 3.0) if found else 3.0
    size = 1 if bit_depth <= 8 and found else 2  # other formats may become 16 bits
    return int(size * (samples * height * width + height + width + 1)) + 4 * _HEAD + 4


def _parsed(frame: Tensor) -> tuple[Meaning, Orientation, list[np.ndarray[Any, Any]]]:
    data = frame.numpy().view(np.uint8)
    head = data[: 4 * _HEAD].view(np.int32).tolist()
    if len(head) < _HEAD:
        raise ValueError("a coded frame without its head")
    family, bits, full, matrix, centred, *turns = head[:8]
    count = 1 if family == _FAMILIES.index("gray") else _PLANES
    sizes = [(head[at], head[at + 1]) for at in range(8, 8 + 2 * count, 2)]
    is_known = 0 <= family < len(_FAMILIES) and 8 <= bits <= 16
    if not is_known or (family == 0 and not is_known_matrix(matrix)):
        raise ValueError(f"codes of family {family}, matrix {matrix}, {bits} bits")
    kind: Any = np.dtype("<u2") if bits > 8 else np.uint8
    planes: list[np.ndarray[Any, Any]] = []
    at = 4 * _HEAD
    for height, width in sizes:
        is_whole = family == _FAMILIES.index("yuv") or (height, width) == sizes[0]
        if not (0 < height <= sizes[0][0] and 0 < width <= sizes[0][1] and is_whole):
            raise ValueError(f"a plane of {width}x{height} in a frame of {sizes[0]}")
        end = at + height * width * np.dtype(kind).itemsize
        if end > len(data):
            raise ValueError("a coded frame that is cut")
        planes.append(data[at:end].view(kind).reshape(height, width))
        at = end
    how = Meaning(_FAMILIES[family], float(2**bits - 1), bool(full), matrix, bool(centred))
    return how, Orientation(*map(bool, turns)), planes
