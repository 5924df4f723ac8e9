"""What a folder of pictures is as a whole: as deep as the deepest, transparent if any is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dloral.errors import InputError
from dloral.files import some_names
from dloral.video.hdr import NAMES
from dloral.video.header import Header
from dloral.video.images import image_header
from dloral.video.see_through import shows_through


def folder_header(path: Path, files: Sequence[Path]) -> Header:
    """The header of the pictures ``files`` of a folder, taken together; ``notes``: what of them is
    not read. InputError where they cannot be frames of one clip."""
    first = image_header(files[0])
    bits, has_alpha = first.bits, False
    of_many: list[str] = []
    noted: dict[str, list[str]] = {}
    for file in files:
        header = image_header(file)
        _check_alike(path, (files[0], first), (file, header))
        bits = max(bits, header.bits)
        has_alpha = has_alpha or shows_through(file, header)
        if header.page_times:
            of_many.append(file.name)
        for note in (*header.notes, *header.unkept):
            noted.setdefault(note, []).append(file.name)
    notes = [f"{note} ({some_names(names)})" for note, names in noted.items()]
    if of_many:
        notes.append(f"only the first picture of a file is read ({some_names(of_many)} hold more)")
    return first._replace(bits=bits, has_alpha=has_alpha, notes=tuple(notes))


def _check_alike(path: Path, first: tuple[Path, Header], other: tuple[Path, Header]) -> None:
    (first_file, one), (other_file, another) = first, other
    is_hdr = bool(NAMES.keys() & {one.transfer, another.transfer})
    if (another.height, another.width) != (one.height, one.width):
        problem = "holds frames of different sizes: {first} is {size}, {other} is {value}"
    elif is_hdr and another.transfer != one.transfer:
        problem = "holds frames of different kinds (SDR, PQ, HLG): {first} and {other}"
    elif is_hdr and another.primaries != one.primaries:
        problem = "holds HDR frames of different primaries: {first} and {other}"
    else:
        return
    raise InputError(
        f"{{path}} {problem}",
        remedy="make them the same",
        path=path,
        first=first_file.name,
        size=f"{one.width}x{one.height}",
        other=other_file.name,
        value=f"{another.width}x{another.height}",
    )
