"""Several devices of this machine: one process for each, which takes the next task when it is done.

A worker that dies is replaced, and what it had not finished is done by the next one.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from dloral.engines.tasks import (
    MOST_ATTEMPTS,
    Task,
    cut_into_tasks,
    pipe_for,
    share_cores,
    task_without,
)
from dloral.errors import DLoRALError, OptionError, ResourceError, Setting
from dloral.jobs.journal import Gap
from dloral.jobs.progress import Progress
from dloral.jobs.running import Made, make_segments
from dloral.jobs.spans import Job

ALL = "all"


def named_devices(text: str) -> list[str]:
    """``all`` -> every GPU, or the processor; ``cuda:0,cuda:2`` or ``cpu,cpu`` -> those.
    OptionError for a name that is none."""
    from dloral.devices import CPU, KINDS, accelerators

    if text == ALL:
        return accelerators() or [CPU]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        kind, _, index = name.partition(":")
        if kind not in (CPU, *KINDS) or (index and not index.isdigit()):
            raise OptionError(
                "{option} is {value!r}",
                remedy="give all, or names such as cuda:0,cuda:1 or cpu,cpu",
                option=Setting("devices"),
                value=text,
            )
    return names


class DevicesEngine:
    """Restores with one process for each of ``devices``; a device may be named twice."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = tuple(devices)

    def run(
        self, job: Job, origin: Fraction, gaps: Sequence[Gap], folder: Path
    ) -> Generator[Made | Progress, None, None]:
        """See :class:`dloral.upscale.Engine`. Raises what a worker raised, and ResourceError where
        workers keep dying."""
        waiting = deque(cut_into_tasks(job, origin, gaps, len(self._devices)))
        workers: list[_Worker] = []
        try:
            count = min(len(self._devices), len(waiting))
            for number, device in enumerate(self._devices[:count]):
                workers.append(_Worker.start(number, device, count, folder))
            while waiting or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.task is None and waiting:
                        worker.give(waiting.popleft())
                yield from self._hear(workers, waiting)
        finally:
            for worker in workers:
                worker.stop()

    def _hear(self, workers: list["_Worker"], waiting: deque[Task]) -> Generator[Made, None, None]:
        """What workers say next."""
        busy = {worker.connection: worker for worker in workers if worker.task}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            try:
                told = worker.connection.recv()
            except (EOFError, OSError):
                workers[worker.number] = self._replaced(worker, waiting)
                continue
            if isinstance(told, Made):
                worker.made += 1
                yield told
            elif isinstance(told, Exception):
                raise told
            else:
                worker.task = None

    def _replaced(self, worker: "_Worker", waiting: deque[Task]) -> "_Worker":
        """A new worker for one that died; its task goes first."""
        worker.stop()
        task = worker.task
        assert task is not None
        if task.attempt >= MOST_ATTEMPTS:
            raise ResourceError(
                f"{MOST_ATTEMPTS} workers died one after another at {{value}}",
                remedy="the machine may have too little memory: give fewer {devices}, or a smaller "
                "{tile}",
                value=str(task),
                devices=Setting("devices"),
                tile=Setting("tile"),
            )
        left = task_without(task, worker.made)
        if left is not None:
            waiting.appendleft(left)
        return _Worker.start(worker.number, worker.device, worker.count, worker.folder)


@dataclass
class _Worker:
    number: int
    device: str
    count: int
    folder: Path
    process: BaseProcess
    connection: Connection
    task: Task | None = None
    made: int = field(default=0)

    @classmethod
    def start(cls, number: int, device: str, count: int, folder: Path) -> "_Worker":
        context = get_context("spawn")  # CUDA does not survive a fork
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work,
            args=(theirs, number, device, count, folder),
            name=f"dloral-{device}",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that its end is seen when the worker dies
        return cls(number, device, count, folder, process, ours)

    def give(self, task: Task) -> None:
        self.task, self.made = task, 0
        with contextlib.suppress(OSError):  # it has died; that is seen when it is heard next
            self.connection.send(task)

    def stop(self) -> None:
        """Ends it at once: what it has not finished is thrown away anyhow."""
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        for file in self.folder.glob(f"*.segment.device{self.number}.part"):
            file.unlink(missing_ok=True)


def _work(connection: Connection, number: int, device: str, count: int, folder: Path) -> None:
    """The worker's process: tasks come, what was made goes back."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device.startswith("cpu"):
        share_cores(count)
    while True:
        try:
            task: Task = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        job = replace(task.job, options=replace(task.job.options, device=device))
        try:
            pipe = pipe_for(job)
            mark = f"device{number}"
            for made in make_segments(job, task.gap, folder, mark, task.origin, pipe):
                connection.send(made)
            connection.send(None)
        except DLoRALError as error:
            connection.send(type(error)(str(error)))
        except KeyboardInterrupt:
            return


def _end_with_parent() -> None:
    """A worker whose job was killed has nobody to work for."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
