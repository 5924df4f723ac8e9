"""A writer whose work is done by a worker: a stranger's sound, subtitles and tags are as untrusted
as the picture."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from dloral.video import worker
from dloral.video.encoding import CodedFrame, OutputFormat
from dloral.video.parts import remove_dead
from dloral.video.probe import ClipInfo

_ANSWER_SECONDS = 120
_MOVING_SECONDS = 600
"""For the work after the last frame, plus one second for each second of the source."""


class IsolatedWriter:
    """:class:`dloral.video.writer.Writer`, by a worker."""

    def __init__(self, work: worker.Worker, chosen: OutputFormat) -> None:
        assert work.slots is not None
        self.notes: list[str] = list(work.expect(worker.READY)[1])
        self.chosen = chosen
        self._work, self._slots = work, work.slots
        self._free = deque(range(work.slots.count))

    def write(self, pixels: Tensor, time: Fraction, duration: Fraction) -> None:
        while not self._free or self._work.has_spoken:
            self._free.append(self._work.expect(worker.FREE)[1])
        slot = self._free.popleft()
        shape = self._slots.put(slot, pixels)
        self._work.send((worker.FRAME, slot, shape, Fraction(time), Fraction(duration)))

    def write_coded(
        self, coded: Iterable[CodedFrame], origin: Fraction, end: Fraction | None = None
    ) -> None:
        self._work.send((worker.CODED, list(coded), origin, end))
        while self._work.expect(worker.READY, worker.FREE)[0] != worker.READY:
            pass

    def cut_short(self) -> None:
        self._work.send((worker.SHORT,))

    def finish(self, seconds: float) -> None:
        """All frames are written; wait up to ``seconds`` for the rest of the result."""
        self._work.send((worker.END,))
        while (told := self._work.expect(worker.VALUE, worker.FREE, seconds=seconds))[
            0
        ] != worker.VALUE:
            pass
        self.notes[:] = told[1]


@contextmanager
def isolated_writer(
    path: Path, suffix: str, chosen: OutputFormat, named: dict[str, Any]
) -> Iterator[IsolatedWriter]:
    """``named``: the arguments of :func:`dloral.video.writer.open_writer` except its target, which
    is ``path``. Nothing half-written remains, however the worker ends."""
    source: ClipInfo = named["source"]
    finishing = _ANSWER_SECONDS + _MOVING_SECONDS + float(source.duration or 0)
    target = path.absolute()
    channels = 4 if chosen.alpha else 3
    task = worker.Task(
        "open_writer",
        source.path,
        (target,),
        named | {"source": replace(source, path=source.path.absolute(), isolated=False)},
        memory=worker.memory_to_write(chosen.height, chosen.width),
        seconds=_ANSWER_SECONDS,
        frame_bytes=4 * channels * chosen.height * chosen.width,
        is_writing=True,
    )
    is_done = False
    try:
        with closing(worker.Worker(task)) as work:
            writer = IsolatedWriter(work, chosen)
            yield writer
            writer.finish(finishing)
            is_done = True
    finally:
        if not is_done:
            with contextlib.suppress(OSError):
                remove_dead(target, target if target.is_dir() else target.parent, suffix)
