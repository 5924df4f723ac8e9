"""What the command lines take: numbers, rates and paths, and one line for what is none of these.

Each function is a ``type`` of argparse: it takes a text and returns a value, or raises
ArgumentTypeError with what was found and what to give.
"""

import argparse
import os
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from dloral.errors import one_line

_SHOWN = 80
"""Characters of a text that can be of any length."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a call in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"{self.prog}: {message}; see {self.prog} --help") + "\n")


def refused(text: str, what: str, remedy: str) -> argparse.ArgumentTypeError:
    """The error that ``text`` is not ``what``."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return argparse.ArgumentTypeError(f"{shown!r} {what}; {remedy}")


def whole(text: str) -> int:
    """An integer, of either sign."""
    try:
        return int(text)
    except ValueError:
        raise refused(text, "is not a whole number", "give one, such as 4") from None


def number(text: str) -> float:
    """A real number; its range is checked by whoever uses it."""
    try:
        return float(text)
    except ValueError:
        raise refused(text, "is not a number", "give one, such as 1.5") from None


def rate(text: str) -> float:
    """Frames per second: 25, 23.976 or 24000/1001."""
    try:
        return float(Fraction(text))
    except (ValueError, ArithmeticError):
        remedy = "give 25, 23.976 or 24000/1001"
        raise refused(text, "is not a number of frames per second", remedy) from None


def exact_seconds(text: str) -> Fraction:
    """Seconds as they were typed: 12, 1.5 or 1/3."""
    try:
        return Fraction(text)
    except (ValueError, ArithmeticError):
        raise refused(text, "is not a number of seconds", "give 12, 1.5 or 1/3") from None


def path_text(text: str) -> str:
    """A path as it was typed, for what may also be ``-`` or a pattern. It need not exist, but the
    system must be able to look for it."""
    if not text:
        raise refused(text, "is not a name", "give a file or a folder")
    if "://" in text:
        return text  # an address may be longer than a name; whoever reads it says that it is one
    try:
        Path(text).stat()
    except (FileNotFoundError, NotADirectoryError):  # whoever reads or writes it says so
        return text
    except (OSError, ValueError) as error:  # ValueError: a NUL
        found = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it holds a NUL"
        what = f"cannot be used ({found.lower()})"
        raise refused(text, what, "give another file or folder") from None
    return text


def path_of(text: str) -> Path:
    """:func:`path_text` as a path."""
    return Path(path_text(text))


def place(text: str) -> str:
    """``KIND:PATH``, or a path alone, as it was typed; :func:`path_text` says what is no path."""
    path_text(text.partition(":")[2] if ":" in text else text)
    return text
