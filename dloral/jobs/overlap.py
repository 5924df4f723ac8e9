"""Reading ahead and writing behind, so that the networks need not wait for files.

One thread reads the next frames while one is restored, another writes those that are done. Each has
a short queue, so memory does not grow with the clip. Order and results are those of a single
thread, and so are errors: what a thread raises is raised where its frame would be read or written.
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
"""Frames waiting to be written, besides the one being written."""

SHARE = 0.1
"""The share of free memory that waiting frames may take; beyond it nothing is read ahead or written
behind."""

_LOOK_SECONDS = 0.2
"""How often a waiting thread wakes up: on Windows, Ctrl-C does not reach a thread that waits for a
lock."""


def is_worth_it(place: torch.device, is_alone: bool = True) -> bool:
    """Whether overlapping is faster: whether the network on ``place`` leaves a core free for the
    threads that read and write. ``is_alone``: False for one of several workers.

    Each operation of a network on a CPU waits for the slowest of its threads; if they use every
    core, anything that takes one for a while holds up all of them. The encoder has its own threads
    and runs alongside the network either way.
    """
    if place.type != "cpu":
        return True
    return is_alone and torch.get_num_threads() < available_cores()


def may_overlap(clip: ClipInfo, size: tuple[int, int], batch_size: int) -> bool:
    """Whether there is anything to overlap, and memory for it; ``size``: height and width of the
    result."""
    if clip.num_frames == 1 or (clip.stream is not None and sys.platform == "win32"):
        return False  # no way there to wait for a pipe and for the end of a job at once
    frame, enlarged = (3 * 4 * one * other for one, other in ((clip.height, clip.width), size))
    waiting = batch_size * (frame + enlarged) + (1 + WRITTEN_BEHIND) * enlarged
    return waiting <= SHARE * free_memory(torch.device("cpu"))


class _Side:
    """What both sides share: a thread, and the thread it works for."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._is_wanted = True
        self._has_ended = False
        self._error: BaseException | None = None
        # A copy of this thread's context, whose values include who may stop whom.
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
        """Call with the lock held; it is held again on return."""
        while not condition():
            self._changed.wait(_LOOK_SECONDS)

    def _raise(self) -> None:
        """Raise what the thread raised, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _join(self) -> None:
        # A thread never returns while the interpreter is shutting down.
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
                del item  # hold no item while waiting

    def _has_room(self) -> bool:
        """Wait for room; False if nothing more is wanted."""
        with self._changed:
            self._wait_for(lambda: len(self._items) < self._most or not self._is_wanted)
            return self._is_wanted


@contextmanager
def read_ahead(
    source: AbstractContextManager[Iterator[Item]], most: int
) -> Iterator[Iterator[Item]]:
    """What ``source`` yields, up to ``most`` items before they are asked for. It is entered, read
    and left in a thread of its own."""
    reading = _Reading(source, most)
    try:
        yield reading
    finally:
        reading.close()


class Behind(_Side, Generic[Item, Result]):
    """Hands items to ``take``, in order, in a thread of its own, or in this one without
    ``overlap``. Must be closed."""

    def __init__(self, take: Callable[[Item], Result | None], overlap: bool = True) -> None:
        super().__init__("write")
        self._take, self._overlap = take, overlap
        self._items: deque[Item] = deque()
        self._results: list[Result] = []
        self._is_busy = False
        if overlap:
            self._thread.start()

    def put(self, item: Item) -> list[Result]:
        """Wait for a place; return what ``take`` has returned since, without its Nones. Raises what
        it raised, after which nothing more is taken."""
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
        """Wait until everything is taken; returns and raises as :meth:`put`."""
        with self._changed:
            self._wait_for(lambda: not (self._items or self._is_busy) or self._has_ended)
            self._raise()
            return self._given()

    def close(self, keep: bool = False) -> None:
        """No more items follow. ``keep``: those waiting are still taken, whatever that raises."""
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
