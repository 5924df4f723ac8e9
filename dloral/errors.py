"""The errors a user can cause, each said in one line: what, what was found, what to do.

Every face of the software (command line, page, HTTP API) shows ``str(error)`` and nothing else,
so a message must stand alone. ``DLoRALError`` is what to catch; the kinds below say whose
turn it is. Mistakes of our own stay ``AssertionError`` and keep their traceback.
:func:`exit_status` is how every command line ends.
"""

import os
import sys
from collections.abc import Callable


class DLoRALError(Exception):
    """Something the user can mend; ``str(error)`` is one line that says how."""


class OptionError(DLoRALError, ValueError):
    """An option is outside its range, or two options contradict each other."""


class InputError(DLoRALError, ValueError):
    """The source is missing, unreadable, empty, or not a clip, image or folder of frames."""


class OutputError(DLoRALError, OSError):
    """The result cannot be written: no permission, no space, a container of no use."""

    def __str__(self) -> str:
        # OSError formats (errno, text) pairs in a way of its own; ours is always one text.
        return str(self.args[0]) if self.args else ""


class WeightsError(DLoRALError):
    """Weights are missing, broken, hostile, or made for another model."""


class ResourceError(DLoRALError):
    """The machine has too little memory for the job, even in its smallest steps."""


class CancelledError(DLoRALError):
    """The job was stopped by whoever started it; nothing was written."""


def exit_status(command: Callable[[], None], name: str = "dloral") -> int:
    """Run a command line's work; what it ended with, an error said in one line ``name: ...``.

    0 done, 1 the job failed, 2 the call was wrong, 130 stopped by Ctrl-C or the like.
    """
    try:
        command()
    except OptionError as error:
        return _fail(name, error, 2)
    except CancelledError as error:
        return _fail(name, error, 130)
    except DLoRALError as error:
        return _fail(name, error, 1)
    except KeyboardInterrupt:
        return _fail(name, "stopped; nothing half written is left", 130)
    except BrokenPipeError:
        # the reader of our output went away (``dloral ... | head``)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _fail(name: str, error: object, status: int) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return status
