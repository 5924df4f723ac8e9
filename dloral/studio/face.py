"""How the page and its API word an error: a visitor learns a file's name, never its folder."""

import errno
import os
import re
from pathlib import PurePath

from dloral.errors import DLoRALError, Face, Setting

OUR_MISTAKE = "Internal error; see the server's terminal. You can keep using this page."
FULL = "The disk is full; free some space on the server, then try again."

_WORDS = {
    "model": "the model",
    "tile": "tiles",
    "tile_overlap": "the tiles' overlap",
    "crf": "quality",
    "start": "the start",
    "duration": "the length",
}
"""Settings as the page's controls name them; others as they are."""

_ABSOLUTE = re.compile(r"(?<![\w.:/])(?:/[^\s/'\"]+){2,}/?|\b[A-Za-z]:\\[^\s'\"]+")


class Page(Face):
    """Settings are the page's words, paths their last part."""

    def setting(self, setting: Setting) -> str:
        name = _WORDS.get(setting.name, setting.name.replace("_", " "))
        return name if setting.value is None else f"{name} {setting.value}"

    def path(self, path: PurePath) -> str:
        return path.name or "the folder"


PAGE = Page()


def worded(error: BaseException) -> str:
    """The error's one line for visitors. Paths that a library put into the text are shortened in
    the same way."""
    text = error.render(PAGE) if isinstance(error, DLoRALError) else str(error)
    return _ABSOLUTE.sub(lambda found: PurePath(found[0].replace("\\", "/")).name, text)


def told(error: BaseException) -> str:
    """One line for whatever went wrong: a bug of ours is called one, and a full disk is nobody's
    fault, wherever it is encountered."""
    if is_full(error):
        return FULL
    return worded(error) if isinstance(error, DLoRALError) else OUR_MISTAKE


def is_full(error: BaseException) -> bool:
    """Whether a disk had no room. Errors of other processes bring the system's words alone."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    named = error.value if isinstance(error, DLoRALError) else None
    if getattr(error, "errno", None) in codes or named in [os.strerror(c).lower() for c in codes]:
        return True
    return error.__cause__ is not None and is_full(error.__cause__)
