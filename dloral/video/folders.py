"""What a folder of pictures is as a whole: transparent if one of them is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dloral.errors import InputError
from dloral.video.header import Header
from dloral.video.images import image_header
from dloral.video.see_through import shows_through


def folder_header(path: Path, files: Sequence[Path]) -> Header:
    """The header of the pictures ``files`` of a folder, taken together. InputError where they cannot be frames of one clip."""
    first = image_header(files[0])
    has_alpha = False
    for file in files:
        header = image_header(file)
        _check_alike(path, (files[0], first), (file, header))
        has_alpha = has_alpha or shows_through(file, header)
    return first._replace(has_alpha=has_alpha)


def _check_alike(path: Path, first: tuple[Path, Header], other: tuple[Path, Header]) -> None:
    (first_file, one), (other_file, another) = first, other
    if (another.height, another.width) != (one.height, one.width):
        raise InputError(
            "{path} holds frames of different sizes: {first} is {size}, {other} is {value}",
            remedy="make them the same",
            path=path,
            first=first_file.name,
            size=f"{one.width}x{one.height}",
            other=other_file.name,
            value=f"{another.width}x{another.height}",
        )
    if another.transfer != one.transfer:
        raise InputError(
            "{path} holds frames of different brightness: {first} and {other} are not both SDR "
            "or HDR",
            remedy="make them the same",
            path=path,
            first=first_file.name,
            other=other_file.name,
        )
