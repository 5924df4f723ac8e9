"""The stages that a frame goes through, and who watches them.

The code that does a stage says so, ``with stage(DECODE): ...``; ``dloral bench`` watches, so that
it times what runs and not a copy of it. Without a watcher a stage costs a function call.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

STAGES = (
    *("read", "enlarge", "encode", "flow", "retrieve", "refine", "decode"),
    *("colour", "crisp", "write"),
)
"""In the order in which a frame meets them. ``flow`` has the warp too."""

READ, ENLARGE, ENCODE, FLOW, RETRIEVE, REFINE, DECODE, COLOUR, CRISP, WRITE = STAGES

Watcher = Callable[[str], AbstractContextManager[None]]
"""Is told a stage's name; what it gives is entered for as long as the stage lasts, in the thread
that does it."""

StagedItem = TypeVar("StagedItem")

_UNWATCHED: AbstractContextManager[None] = nullcontext()
_watcher: Watcher | None = None


def stage(name: str) -> AbstractContextManager[None]:
    """To be entered around one of :data:`STAGES`."""
    watcher = _watcher  # which another thread may take away meanwhile
    return _UNWATCHED if watcher is None else watcher(name)


def each_in_stage(name: str, items: Iterator[StagedItem]) -> Iterator[StagedItem]:
    """``items``, each of them made within the stage."""
    while True:
        with stage(name):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Have every stage in this process watched, whatever thread does it, while this lasts."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before
