"""The whole table of kinds, and what makes their files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kinds_base import Kind, run
from kinds_damaged import damages
from kinds_extras import extras
from kinds_pictures import formats, pictures
from kinds_sound import sounds, troubles
from kinds_times import clocks, times

KINDS = [
    *(*pictures(), *formats(), *sounds(), *times(), *clocks()),
    *(*troubles(), *extras(), *damages()),
]
BY_NAME = {kind.name: kind for kind in KINDS}


def make_all(kinds: Iterable[Kind], folder: Path) -> None:
    """Make the files of ``kinds`` and of those that they need, where they are not there yet."""
    wanted: dict[str, Kind] = {}

    def want(kind: Kind) -> None:
        for name in kind.needs:
            want(BY_NAME[name])
        wanted.setdefault(kind.name, kind)

    for kind in kinds:
        want(kind)
    missing = [kind for kind in wanted.values() if not (folder / kind.name).exists()]
    groups: dict[tuple[str, ...], list[Kind]] = {}
    for kind in missing:
        if kind.made is None:
            groups.setdefault(kind.inputs, []).append(kind)
    for inputs, group in groups.items():
        outputs = [part for kind in group for part in (*kind.output, str(folder / kind.name))]
        run([part.replace("@", f"{folder}/") for part in (*inputs, *outputs)])
    for kind in missing:
        if kind.made is not None:
            kind.made(folder)
