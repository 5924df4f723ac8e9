"""Visitors' files: their names, and copies of them."""

import os
import re
import shutil
from pathlib import Path

from dloral.errors import CONTROLS, InputError


def link_or_copy(source: Path, copy: Path) -> None:
    """The same bytes under another name, which remain when the first is deleted."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


def checked_name(name: str) -> str:
    """A file name that stays in its folder, on one line; InputError for one that would lead
    elsewhere."""
    if not name or name.strip(".") == "" or re.search(r"[/\\\0]", name):
        raise InputError(f"{name!r} is not a plain file name; rename the file and drop it again")
    # A result is fetched by its name, and no route matches one of two lines.
    name = re.sub(f"[{CONTROLS}]", "_", name)
    stem, dot, suffix = name.rpartition(".")
    # Disks take 255 bytes; room for what is put before and behind it.
    return stem.encode()[:150].decode(errors="ignore") + dot + suffix[:20] if dot else name[:50]
