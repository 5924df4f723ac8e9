"""What telephones and cameras put into a picture's file beside the picture: an HDR gain map, a
depth map, a second view, a short video. None of it is restored, which is said."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from PIL import Image

_GAIN_MAP = b"http://ns.adobe.com/hdr-gain-map/1.0/"
_CLAIMS = {
    _GAIN_MAP: rb"\w+",
    b"http://ns.google.com/photos/1.0/camera/": rb"(?:MotionPhoto|MicroVideo)\w*",
    b"http://ns.google.com/photos/1.0/container/": rb"\w+",
}
"""Namespace -> the names in it that say what else the file holds, and where."""

_MOST_NAMES = 16
"""Only a file made to keep the search busy has more."""

_VIDEO = re.compile(rb"(?:MotionPhoto|MicroVideo)(?:\s*=\s*[\"']|>)\s*1")


def companion_notes(image: Image.Image) -> list[str]:
    """A line for each thing beside the open picture that is left out. Of HEIC and AVIF only the
    video: :func:`auxiliary_notes` tells the rest."""
    xmp = xmp_of(image)
    others = _other_pictures(image)
    notes = []
    if others and _GAIN_MAP in xmp:
        notes += _left_out(["hdrgainmap"])
        others -= 1
    if others:
        notes.append(more_pictures(others))
    if _VIDEO.search(xmp):
        notes.append("the video of this motion photo left out: only its picture is restored")
    return notes


def auxiliary_notes(info: dict[str, Any]) -> list[str]:
    """The same for what a HEIC or AVIF holds beside its pictures, by libheif's names."""
    return _left_out([*info.get("aux", ()), *("depth" for _ in info.get("depth_images", ())[:1])])


def more_pictures(count: int) -> str:
    left_out = "1 more picture" if count == 1 else f"{count} more pictures"
    return f"{left_out} in the file left out: only the main one is restored"


def xmp_of(image: Image.Image) -> bytes:
    """The open picture's XMP, empty if there is none."""
    xmp = image.info.get("xmp") or getattr(image, "tag_v2", {}).get(700) or b""
    return xmp.encode() if isinstance(xmp, str) else bytes(xmp)


def without_claims(xmp: bytes) -> bytes:
    """XMP that says nothing of companions, which a result does not have: a viewer would look for
    a video or a gain map at its end."""
    for space, names in _CLAIMS.items():
        declared = re.findall(rb"xmlns:(\w+)\s*=\s*[\"']" + re.escape(space), xmp)
        for prefix in sorted(set(declared))[:_MOST_NAMES]:
            name = re.escape(prefix) + b":" + names
            xmp = re.sub(rb"\s" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", xmp)
            elements = sorted(set(re.findall(rb"<(" + name + rb")[\s/>]", xmp)))
            for element in elements[:_MOST_NAMES]:
                xmp = _without_element(xmp, element)
    return xmp


def _without_element(xmp: bytes, name: bytes) -> bytes:
    opening, closing = re.compile(rb"<" + name + rb"(?=[\s/>])[^>]*>"), b"</" + name + b">"
    kept, end = [], 0
    while (begin := opening.search(xmp, end)) is not None:
        after = begin.end()
        if not begin.group().endswith(b"/>"):
            at = xmp.find(closing, after)
            if at < 0:
                break
            after = at + len(closing)
        kept.append(xmp[end : begin.start()])
        end = after
    return b"".join(kept) + xmp[end:]


def _other_pictures(image: Image.Image) -> int:
    """How many a JPEG holds after its first one, but for smaller versions of that one (CIPA
    DC-007: MPType)."""
    if image.format not in ("JPEG", "MPO"):
        return 0
    try:
        entries = (image._getmp() or {}).get(0xB002, ())  # type: ignore[attr-defined]
        kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    except Exception:  # damaged bytes can lead the parser into any error there is
        return 0
    return sum("Thumbnail" not in kind for kind in kinds[1:])


def _left_out(kinds: Iterable[str]) -> list[str]:
    named = {"hdrgainmap": "HDR gain map", "depth": "depth map"}
    named |= {"disparity": named["depth"], "matte": "segmentation masks"}
    told = [said for kind in kinds for part, said in named.items() if part in kind.lower()]
    what = " and ".join(dict.fromkeys(told))
    return [f"{what} left out: only the picture is restored"] if what else []
