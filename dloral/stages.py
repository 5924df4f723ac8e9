"""The stages that a frame goes through, and a hook to observe them.

The code of a stage declares it, ``with stage(DECODE): ...``; ``dloral bench`` watches, so that it
times the code that really runs, not a copy. Without a watcher a stage costs a function call.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

STAGES = (
    *("read", "enlarge", "encode", "flow", "retrieve", "refine", "decode"),
    *("colour", "crisp", "steady", "write"),
)
"""In the order in which a frame meets them. ``flow`` has the warp too."""

READ, ENLARGE, ENCODE, FLOW, RETRIEVE, REFINE, DECODE, COLOUR, CRISP, STEADY, WRITE = STAGES

Watcher = Callable[[str], AbstractContextManager[None]]
"""Is told a stage's name; what it gives is entered for as long as the stage lasts, in the thread
that does it."""

StagedItem = TypeVar("StagedItem")

_UNWATCHED: AbstractContextManager[None] = nullcontext()
_watcher: Watcher | None = None


def stage(name: str) -> AbstractContextManager[None]:
    """A context for one of :data:`STAGES`."""
    watcher = _watcher  # another thread may remove it meanwhile
    return _UNWATCHED if watcher is None else watcher(name)


def each_in_stage(name: str, items: Iterator[StagedItem]) -> Iterator[StagedItem]:
    """``items``, each produced within the stage."""
    while True:
        with stage(name):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Watch every stage in this process, in any thread, while the context is open."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before
