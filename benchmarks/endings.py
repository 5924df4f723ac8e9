"""What the scripts that end jobs and servers share: a disk that can be full, and a table."""

import contextlib
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """``folder`` with room for ``size`` bytes, in memory; a function that gives it another size.
    Needs the right to mount."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)

    def resize(size: int) -> None:
        call = ["mount", "-o", f"remount,size={size}", str(folder)]
        subprocess.run(call, check=True, capture_output=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        folder.rmdir()


def used_of(folder: Path) -> int:
    """Bytes of a :func:`small_disk` that are taken."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def table_of(
    rows: Counter[tuple[str, str, str]], names: Sequence[str], kinds: Sequence[str]
) -> str:
    """``rows``: how often (name, kind, outcome) was seen. Names down, kinds across: how many of how
    many outcomes end with "equal"."""
    shown = [kind for kind in kinds if any(row[1] == kind for row in rows)]
    lines = [f"| job | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for name in names:
        cells = []
        for kind in shown:
            found = {row: n for row, n in rows.items() if row[:2] == (name, kind)}
            good = sum(n for row, n in found.items() if row[2].endswith("equal"))
            cells.append(f"{good} of {sum(found.values())}" if found else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
