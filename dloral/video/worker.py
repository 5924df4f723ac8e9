"""Strangers' files are read and written in a process of their own, with limits.

A decoder that crashes, hangs or exhausts memory becomes a one-line error here, and the page
survives. Isolation is a property of the clip: ``probe(path, isolated=True)`` gives a
:class:`~dloral.video.probe.ClipInfo` whose frames are read, and whose results are written, by
workers. Each file gets a new one, forked within milliseconds from a process that has imported the
readers (:mod:`dloral.video.worker_process`). What a worker may do is defined in
:mod:`dloral.video.sandbox`; frames pass through shared memory (:mod:`dloral.video.sharing`). What a
worker says is not trusted: only values of a few kinds are accepted from it.

Linux only. Elsewhere files are read in this process.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dloral import errors
from dloral.errors import CancelledError, DLoRALError, InputError, ResourceError
from dloral.video.sharing import Slots

IS_POSSIBLE = sys.platform == "linux"

HERE, VALUE, ERROR, BROKEN, FULL = "here", "value", "error", "broken", "full"
FRAME, NOTE, END, READY, FREE, CODED, SHORT = (
    *("frame", "note", "end", "ready", "free", "coded", "short"),
)
"""The first word of each message."""

MOST_FILES = 64
START_SECONDS = 120
"""How long the first worker may take to import what it needs, on a busy machine."""

END_SECONDS = 5
LOOK_SECONDS = 0.2
"""How often a waiting caller checks whether it has been stopped."""

_BASE_MEMORY = 500_000_000
_THREAD_MEMORY = 80_000_000  # of the address space: its stack, its part of the heap

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
"""Environment variables to pass on; tokens and passwords are none of a decoder's business."""

_VALUES = {
    ("fractions", "Fraction"),
    ("pathlib", "PosixPath"),
    ("dloral.errors", "Setting"),
    ("dloral.video.clock", "Clock"),
    ("dloral.video.cropping", "Crop"),
    ("dloral.video.hdr", "Mastering"),
    ("dloral.video.picture_marks", "PictureMarks"),
    ("dloral.video.picture_tags", "PictureTags"),
    ("dloral.video.probe", "ClipInfo"),
    ("dloral.video.scan", "SizeChange"),
    ("dloral.video.side_data", "Orientation"),
}
"""Classes whose values are accepted from a worker, besides numbers, strings, lists and the like."""

_log = logging.getLogger(__name__)
_stopped: ContextVar[Callable[[], bool] | None] = ContextVar("stopped", default=None)


@dataclass(frozen=True)
class Task:
    """What a worker does, once. ``memory``: bytes beyond the program itself; ``seconds``: of
    processor time for each answer, and, times ``patience``, of wall-clock time; ``frame_bytes``: of
    the largest frame, 0 if there are none; ``path``: of the file, for messages."""

    name: str
    path: Path
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    memory: int = 0
    seconds: float = 60
    patience: float = 1
    frame_bytes: int = 0
    is_writing: bool = False


@contextmanager
def stopped_by(is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Waiting for a worker or a pipe in this block raises CancelledError soon after ``is_stopped``
    says so, or that of an enclosing block does; a worker is ended, whatever it is doing."""
    outer = _stopped.get()
    before = _stopped.set(is_stopped if outer is None else lambda: is_stopped() or outer())
    try:
        yield
    finally:
        _stopped.reset(before)


def check_stopped() -> None:
    """Raise CancelledError if :func:`stopped_by` says so."""
    stopped = _stopped.get()
    if stopped is not None and stopped():
        raise CancelledError("Stopped.")


def warm_up() -> None:
    """Start the process that workers are forked from, so that the first file need not wait."""
    if IS_POSSIBLE:
        _nursery.start()


def call(task: Task) -> Any:
    """The task's result. Whatever goes wrong is a DLoRALError in one line."""
    with contextlib.closing(Worker(task)) as worker:
        _, value = worker.expect(VALUE)
        return value


class _Nursery:
    """The process that workers are forked from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None

    def start(self) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def fork(self, files: list[int]) -> None:
        """Fork a new worker, which receives the open files."""
        for is_last in (False, True):
            self.start()
            try:
                assert self._orders is not None
                socket.send_fds(self._orders, [b"+"], files)
                return
            except OSError:  # it was killed for memory; the next one may live
                if is_last:
                    raise
                with self._lock:
                    if self._process is not None:
                        self._process.kill()
                        self._process.wait()

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            package = Path(__file__).parents[2]
            environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
            environment["PYTHONPATH"] = os.pathsep.join([str(package), *filter(None, sys.path)])
            call = [sys.executable, "-m", "dloral.video.worker_process", str(its.fileno())]
            self._process = subprocess.Popen(
                call,
                pass_fds=[its.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
            )
        if self._orders is not None:
            self._orders.close()
        self._orders = ours


_nursery = _Nursery()


class Worker:
    """One task under way. Must be closed, which ends the process if it has not ended by itself."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.slots = Slots(task.frame_bytes) if task.frame_bytes else None
        self._process: int | None = None
        ours, its = socket.socketpair()
        with its:
            self._connection = Connection(ours.detach())
            files = [its.fileno(), *([self.slots.file] if self.slots else [])]
            try:
                _nursery.fork(files)
                _, number = self.expect(HERE, seconds=START_SECONDS * task.patience)
                # It is waiting for its task, so the PID is still its own.
                self._process = os.pidfd_open(number)
                self.send(task)
            except BaseException:
                self.close()
                raise

    def send(self, message: Any) -> None:
        """Send to the worker; if it has ended, its last words are raised."""
        try:
            self._connection.send(message)
        except OSError:
            self.expect(END)

    @property
    def has_spoken(self) -> bool:
        """Whether an answer is already waiting."""
        return self._connection.poll()

    def expect(self, *kinds: str, seconds: float | None = None) -> tuple[Any, ...]:
        """The next answer, of one of ``kinds``; anything else the worker says is raised."""
        usual = self._task.seconds * self._task.patience
        answer = self._receive(usual if seconds is None else seconds)
        kind = answer[0] if isinstance(answer, tuple) and answer else None
        if kind in kinds:
            return tuple(answer)
        if kind == ERROR:
            raise _error_of(answer) or self._unreadable()
        if kind == FULL:
            raise self._too_large()
        if kind == BROKEN:
            _log.warning("a reader failed: %s at %s", *answer[1:])
        raise self._unreadable()

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(OSError):
            self._connection.close()
        if self.slots is not None:
            self.slots.close()
            self.slots = None

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
                select.select([self._process], [], [], END_SECONDS)  # readable once it has ended
            os.close(self._process)
            self._process = None

    def _receive(self, seconds: float) -> Any:
        end = time.monotonic() + seconds
        try:
            while not self._connection.poll(LOOK_SECONDS):
                check_stopped()
                if time.monotonic() > end:
                    self.kill()
                    raise ResourceError(
                        "{path} took more than {value:g} s to read and was given up",
                        remedy="convert it to MP4 first",
                        path=self._task.path,
                        value=seconds,
                    )
            return _Values(io.BytesIO(self._connection.recv_bytes())).load()
        except (EOFError, OSError) as error:
            if isinstance(error, DLoRALError):
                raise
            _log.warning("a worker ended while it was at %s", self._task.name)
            raise self._unreadable() from None
        except (pickle.UnpicklingError, ValueError, TypeError, AttributeError) as error:
            if isinstance(error, DLoRALError):
                raise
            _log.warning("a worker said what is not understood: %s", type(error).__name__)
            raise self._unreadable() from None

    def _unreadable(self) -> InputError:
        return InputError(
            "{path} cannot be read: its decoder crashed, as happens with damaged files",
            remedy="convert it to MP4 first",
            path=self._task.path,
        )

    def _too_large(self) -> ResourceError:
        return ResourceError(
            "{path} needs more than {value:.1f} GB of memory to read",
            remedy="convert it to a smaller one first",
            path=self._task.path,
            value=self._task.memory / 1e9,
        )


class _Values(pickle.Unpickler):
    """Reads what a worker says without letting it choose what code runs here."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _VALUES:
            raise pickle.UnpicklingError(f"{module}.{name} is not a value")
        return super().find_class(module, name)


def _error_of(answer: tuple[Any, ...]) -> DLoRALError | None:
    """The worker's own error, with its facts; None if it makes no sense."""
    match answer:
        case (_, str(name), str(problem), str(remedy), dict(facts)):
            kind = getattr(errors, name, InputError)
        case _:
            return None
    if not (isinstance(kind, type) and issubclass(kind, DLoRALError)):
        kind = InputError
    error: DLoRALError = kind(problem, remedy=remedy)
    error.facts.update(facts)
    try:
        error.render(errors.COMMAND_LINE)
    except Exception:  # a setting without a name, a number of a million digits
        return None
    return error


def memory_to_probe(path: Path) -> int:
    """Bytes that probing a file may take: less for a small file."""
    size = path.stat().st_size if path.is_file() else 0
    return min(_BASE_MEMORY + 100 * size, 8 * _BASE_MEMORY)


def seconds_to_probe(path: Path) -> float:
    """Wall-clock seconds; every packet of a video is examined."""
    size = path.stat().st_size if path.is_file() else 0
    return 60 + size / 10e6


def memory_to_read(height: int, width: int) -> int:
    """Bytes that decoding such frames may take: a decoder keeps up to 16 frames plus one per core,
    and the newest one becomes floats."""
    return _BASE_MEMORY + (os.cpu_count() or 1) * _THREAD_MEMORY + 250 * height * width


def memory_to_write(height: int, width: int) -> int:
    """Bytes that encoding such frames may take; SVT-AV1 and x265 look far ahead."""
    return 5 * _BASE_MEMORY + (os.cpu_count() or 1) * _THREAD_MEMORY + 700 * height * width
