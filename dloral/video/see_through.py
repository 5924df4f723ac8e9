"""Whether pictures let anything show through: many have a channel of transparency without use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dloral.video.exr import load_exr
from dloral.video.header import Header
from dloral.video.picture_kinds import opened_picture, reading_picture

OPAQUE = 0.99
"""Alpha from here on is a rounding error."""

_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
"""Pillow's modes with transparency; not LAB."""


def has_transparency(image: Image.Image) -> bool:
    """Whether Pillow reads transparency of the open picture."""
    return image.mode in _WITH_ALPHA or "transparency" in image.info


def may_show_through(image: Image.Image) -> bool:
    """Whether the open picture has a way to say what is transparent. Of a TIFF of 16 bits only its
    tag ExtraSamples does."""
    return has_transparency(image) or bool(getattr(image, "tag_v2", {}).get(338, ()))


def shows_through(path: Path, header: Header) -> bool:
    """Whether a pixel of the picture, or of one of its pages, is transparent. All are decoded that
    may have one, up to the first that does. InputError if one cannot be decoded."""
    if not header.has_alpha:
        return False
    with reading_picture(path, "cannot be decoded"):
        if header.kind == "exr":
            return bool(load_exr(path, keep_alpha=True)[3].min() < OPAQUE)
        with opened_picture(path) as image:
            for page in range(max(len(header.page_times), 1)):
                if page:
                    image.seek(page)
                if may_show_through(image) and _is_transparent_somewhere(image):
                    return True
    return False


def _is_transparent_somewhere(image: Image.Image) -> bool:
    image.load()
    hidden = image.info.get("transparency")
    if image.mode in _WITH_ALPHA:
        alpha = image.getchannel("A")
    elif image.mode.startswith("I") and isinstance(hidden, int):  # one grey of 65536
        return bool((np.asarray(image) == hidden).any())
    elif hidden is not None:
        alpha = image.convert("RGBA").getchannel("A")
    else:
        return True  # samples that Pillow does not read
    least, _ = alpha.getextrema()
    return float(least) < OPAQUE * 255  # type: ignore[arg-type]  # a pair for each of many channels
