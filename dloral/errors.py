"""The errors a user can cause: what, what was found, what to do. One line each.

An error carries facts, and every face of the software words them in its own way: ``str(error)`` is
Python's wording, :meth:`DLoRALError.render` any other's. A message names its facts in braces::

    raise InputError("{path} is not a directory", remedy="give a folder of frames", path=path)
    raise OptionError(
        "{option} is {value!r}", remedy="give a number above 0", option=Setting("fps"), value=fps
    )
    raise WeightsError("{value} is damaged", remedy="use {instead}", value=name,
                       instead=Setting("model", "compact"))

Below the command line nothing names a flag, and nothing hides a folder by replacing text: the face
decides how a :class:`Setting` is spelled and a path is shown. Names, and whatever else comes from a
user, a file or a library, are facts and never part of a message. ``DLoRALError`` is what to catch;
the kinds below say who has to act. Our own bugs stay ``AssertionError`` and keep their traceback.
Every command line ends through :func:`exit_status`.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True)
class Setting:
    """An option as Python names it, with a value where a remedy suggests one."""

    name: str
    value: object = None


class Face:
    """How one face of the software words an error's facts. This one is Python's."""

    def setting(self, setting: Setting) -> str:
        """``model="compact"``, or the bare name without a value."""
        if setting.value is None:
            return setting.name
        value = f'"{setting.value}"' if isinstance(setting.value, str) else setting.value
        return f"{setting.name}={value}"

    def path(self, path: PurePath) -> str:
        """The path as it stands."""
        return str(path)

    def word(self, fact: object) -> object:
        """A fact as it goes into a message."""
        if isinstance(fact, Setting):
            return self.setting(fact)
        return self.path(fact) if isinstance(fact, PurePath) else fact


class CommandLine(Face):
    """Settings are flags: ``--tile-overlap``, ``--model compact``."""

    def setting(self, setting: Setting) -> str:
        flag = "--" + setting.name.replace("_", "-")
        return flag if setting.value is None else f"{flag} {setting.value}"


PYTHON = Face()
COMMAND_LINE = CommandLine()

_FIELD = re.compile(r"\{([a-zA-Z_]\w*)(!r)?(?::([,.\d]{0,4}[a-zA-Z%]?))?\}")
"""A fact in a message: ``{value}``, ``{value!r}``, ``{value:.1f}``."""


def filled(text: str, facts: Mapping[str, Any]) -> str:
    """``text`` with ``facts`` where it names them in braces; all other braces stand as they are.

    Unlike ``str.format``, this reads no attribute or item of a fact, whatever the text is.
    """

    def worded(field: re.Match[str]) -> str:
        name, is_quoted, how = field.groups()
        if name not in facts:
            return field[0]
        fact = repr(facts[name]) if is_quoted else facts[name]
        try:
            return format(fact, how or "")
        except (TypeError, ValueError):  # a text where a number was to be
            return str(fact)

    return _FIELD.sub(worded, text)


_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text around them (Unicode's Bidi_Control)."""

CONTROLS = "\0-\x1f\x7f-\x9f\u2028\u2029"
"""Control characters and line breaks, for a class of a regular expression."""

_UNSEEN = re.compile(f"[{CONTROLS}{_BIDI}]")


def one_line(text: str) -> str:
    """``text`` with each character that would break its line, move a terminal's cursor or turn
    the reading direction as an escape: a file name may hold a newline."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class DLoRALError(Exception):
    """Something the user can fix; ``str(error)`` is one line that says how.

    ``problem`` and ``remedy`` are texts that name ``facts`` in braces (:func:`filled`). Facts that
    code may read: ``option``, ``value``, ``path``.
    """

    def __init__(self, problem: str = "", /, *, remedy: str = "", **facts: Any) -> None:
        super().__init__(problem)
        self.problem, self.remedy, self.facts = problem, remedy, facts

    @property
    def value(self) -> Any:
        """What was found, or None."""
        return self.facts.get("value")

    @property
    def path(self) -> PurePath | None:
        """The file or folder that this is about, or None."""
        return self.facts.get("path")

    def render(self, face: Face = PYTHON) -> str:
        """One line, as ``face`` words it."""
        text = f"{self.problem}; {self.remedy}" if self.remedy else self.problem
        return one_line(filled(text, {name: face.word(fact) for name, fact in self.facts.items()}))

    def __str__(self) -> str:
        return self.render()


class OptionError(DLoRALError, ValueError):
    """An option is outside its range, or two options contradict each other."""


class InputError(DLoRALError, ValueError):
    """The source is missing, unreadable, empty, or not a clip, image or folder of frames."""


class OutputError(DLoRALError, OSError):
    """The result cannot be written: no permission, no space, an unsuitable container."""


class WeightsError(DLoRALError):
    """Weights are missing, broken, hostile, or made for another model."""


class ResourceError(DLoRALError):
    """The machine has too little memory for the job, even in its smallest steps; or an untrusted
    file takes too much memory or time."""


class MissingPackageError(DLoRALError):
    """An optional package is not installed; the remedy is the command that installs it."""


class CancelledError(DLoRALError):
    """The job was stopped by whoever started it; nothing was written."""


class Terminated(KeyboardInterrupt):
    """The system asks the process to end (SIGTERM): at a shutdown, or by a service manager. Unlike
    Ctrl-C, it does not mean that the user no longer wants the job."""


def exit_status(command: Callable[[], int | None], name: str = "dloral") -> int:
    """Run a command line's work and return its status, reporting an error as ``name: ...``.
    A command that returns its own status has reported its own errors.

    0 done, 1 the job failed, 2 the call was wrong, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    try:
        return command() or 0
    except OptionError as error:
        return _fail(name, error, 2)
    except CancelledError as error:
        return _fail(name, error, 130)
    except DLoRALError as error:
        return _fail(name, error, 1)
    except Terminated:
        return _fail(name, "stopped; finished parts of a long job are kept beside its target", 143)
    except KeyboardInterrupt:
        return _fail(name, "stopped; no partial files are left", 130)
    except BrokenPipeError:
        # the reader of our output has gone (``dloral ... | head``)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _fail(name: str, error: DLoRALError | str, status: int) -> int:
    text = error.render(COMMAND_LINE) if isinstance(error, DLoRALError) else error
    print(f"{name}: {text}", file=sys.stderr)
    return status
