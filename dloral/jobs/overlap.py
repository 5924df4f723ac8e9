"""Reading ahead and writing behind, so that the networks need not wait for files.

A thread reads the next frames while one is restored, another writes those that are done. Each has a
queue of a few places, so memory does not grow with the clip. Order and results are those of one
thread, and so are errors: what a thread raises is raised where its frame would have come or gone.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from typing import Generic, TypeVar

import torch

from dloral.memory import free_memory
from dloral.threads import available_cores
from dloral.video.probe import ClipInfo
from dloral.video.worker import stopped_by

Item = TypeVar("Item")
Result = TypeVar("Result")

WRITTEN_BEHIND = 1
"""Frames that wait to be written, beside the one that is being written."""

SHARE = 0.1
"""Of the free memory, what frames that wait may take: else nothing is read ahead, or written
behind."""

_LOOK_SECONDS = 0.2
"""How often a thread that waits wakes up: on Windows, Ctrl-C reaches no thread that waits for a
lock."""


def is_worth_it(place: torch.device, is_alone: bool = True) -> bool:
    """Whether frames are done sooner: where threads that read and write find a core that the
    network on ``place`` leaves them. ``is_alone``: False for one of several workers.

    Each operation of a network on a CPU waits for the slowest of its threads; where they have every
    core, whoever takes one for a while holds up all of them. The encoder has threads of its own and
    works beside the network either way.
    """
    if place.type != "cpu":
        return True
    return is_alone and torch.get_num_threads() < available_cores()


def may_overlap(clip: ClipInfo, size: tuple[int, int], batch_size: int) -> bool:
    """Whether there is something to overlap and room for it; ``size``: height and width of the
    result."""
    if clip.num_frames == 1 or (clip.stream is not None and sys.platform == "win32"):
        return False  # nobody can wait there for a pipe and for the end of a job at once
    frame, enlarged = (3 * 4 * one * other for one, other in ((clip.height, clip.width), size))
    waiting = batch_size * (frame + enlarged) + (1 + WRITTEN_BEHIND) * enlarged
    return waiting <= SHARE * free_memory(torch.device("cpu"))


class _Side:
    """What both sides are: a thread and the one that it works for."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._is_wanted = True
        self._has_ended = False
        self._error: BaseException | None = None
        # A context of its own, with the values of this one: who may stop whom is among them.
        run = copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name=name, daemon=True)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with stopped_by(lambda: not self._is_wanted):
                self._work()
        except BaseException as found:
            error = found
        with self._changed:
            self._error, self._has_ended = error, True
            self._changed.notify_all()

    def _work(self) -> None:
        raise NotImplementedError

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """The lock is held when this begins and when it ends."""
        while not condition():
            self._changed.wait(_LOOK_SECONDS)

    def _raise(self) -> None:
        """What the thread raised, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _join(self) -> None:
        # While the interpreter ends, a thread never comes back.
        if not sys.is_finalizing():
            self._thread.join()


class _Reading(_Side, Generic[Item]):
    def __init__(self, source: AbstractContextManager[Iterator[Item]], most: int) -> None:
        super().__init__("read")
        self._source, self._most = source, most
        self._items: deque[Item] = deque()
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            self._wait_for(lambda: bool(self._items) or self._has_ended)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            self._raise()
            raise StopIteration

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._changed:
            self._is_wanted = False
            self._items.clear()
            self._changed.notify_all()
        self._join()

    def _work(self) -> None:
        with self._source as items:
            while self._has_room():
                try:
                    item = next(items)
                except StopIteration:
                    return
                with self._changed:
                    self._items.append(item)
                    self._changed.notify_all()
                del item  # while this waits, it has none

    def _has_room(self) -> bool:
        """Waits for it; False where nothing more is wanted."""
        with self._changed:
            self._wait_for(lambda: len(self._items) < self._most or not self._is_wanted)
            return self._is_wanted


@contextmanager
def read_ahead(
    source: AbstractContextManager[Iterator[Item]], most: int
) -> Iterator[Iterator[Item]]:
    """What ``source`` gives, up to ``most`` items before they are asked for. It is entered, read
    and left by a thread of its own."""
    reading = _Reading(source, most)
    try:
        yield reading
    finally:
        reading.close()


class Behind(_Side, Generic[Item, Result]):
    """Hands items to ``take``, in order, in a thread of its own; in this one where not
    ``overlap``. To be closed."""

    def __init__(self, take: Callable[[Item], Result | None], overlap: bool = True) -> None:
        super().__init__("write")
        self._take, self._overlap = take, overlap
        self._items: deque[Item] = deque()
        self._results: list[Result] = []
        self._is_busy = False
        if overlap:
            self._thread.start()

    def put(self, item: Item) -> list[Result]:
        """Waits for a place. What ``take`` gave meanwhile, without its Nones; raises what it
        raised, after which nothing is taken."""
        if not self._overlap:
            result = self._take(item)
            return [] if result is None else [result]
        with self._changed:
            self._wait_for(lambda: len(self._items) < WRITTEN_BEHIND or self._has_ended)
            self._raise()
            self._items.append(item)
            self._changed.notify_all()
            return self._given()

    def flush(self) -> list[Result]:
        """Waits until everything is taken; as :meth:`put`."""
        with self._changed:
            self._wait_for(lambda: not (self._items or self._is_busy) or self._has_ended)
            self._raise()
            return self._given()

    def close(self, keep: bool = False) -> None:
        """No more comes. ``keep``: what waits is still taken, whatever it raises."""
        if not self._overlap:
            return
        with self._changed:
            if not keep:
                self._items.clear()
            self._is_wanted = False
            self._changed.notify_all()
        self._join()

    def _given(self) -> list[Result]:
        given, self._results = self._results, []
        return given

    def _work(self) -> None:
        while True:
            with self._changed:
                self._wait_for(lambda: bool(self._items) or not self._is_wanted)
                if not self._items:
                    return
                item = self._items.popleft()
                self._is_busy = True
                self._changed.notify_all()
            result = self._take(item)
            del item
            with self._changed:
                self._is_busy = False
                if result is not None:
                    self._results.append(result)
                self._changed.notify_all()
