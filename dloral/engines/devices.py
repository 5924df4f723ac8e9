"""Several devices of this machine: one process for each, which takes the next task when it is done.

A worker that dies is replaced, and its unfinished work goes to whichever worker is free. Tasks are
given only to workers that have loaded the network: one that is still starting holds nothing up.
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
    """``all`` -> every GPU, or else the CPU; ``cuda:0,cuda:2`` or ``cpu,cpu`` -> those.
    OptionError for an unknown name."""
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
        """See :class:`dloral.upscale.Engine`. Raises what a worker raised, and ResourceError if
        workers keep dying."""
        waiting = deque(cut_into_tasks(job, origin, gaps, len(self._devices)))
        workers: list[_Worker] = []
        try:
            count = min(len(self._devices), len(waiting))
            for number, device in enumerate(self._devices[:count]):
                workers.append(_Worker.start(number, device, count, folder, job))
            while waiting or any(worker.task for worker in workers):
                for worker in workers:
                    if worker.is_ready and worker.task is None and waiting:
                        worker.give(waiting.popleft())
                yield from self._hear(workers, waiting)
        finally:
            for worker in workers:
                worker.stop()

    def close(self) -> None:
        """Workers live no longer than a job."""

    def _hear(self, workers: list["_Worker"], waiting: deque[Task]) -> Generator[Made, None, None]:
        """Handle what workers say next."""
        heard = {worker.connection: worker for worker in workers}
        for connection in wait(list(heard)):
            worker = heard[connection]  # type: ignore[index]
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
                worker.task, worker.is_ready = None, True

    def _replaced(self, worker: "_Worker", waiting: deque[Task]) -> "_Worker":
        """A new worker for one that died; its task goes first."""
        worker.stop()
        task = worker.task
        if (worker.vain_starts if task is None else task.attempt) >= MOST_ATTEMPTS:
            raise ResourceError(
                f"{MOST_ATTEMPTS} workers died one after another at {{value}}",
                remedy="the machine may have too little memory: give fewer {devices}, or a smaller "
                "{tile}",
                value="their start" if task is None else str(task),
                devices=Setting("devices"),
                tile=Setting("tile"),
            )
        left = task and task_without(task, worker.made)
        if left is not None:
            waiting.appendleft(left)
        return _Worker.start(
            worker.number,
            worker.device,
            worker.count,
            worker.folder,
            worker.job,
            worker.vain_starts,
        )


@dataclass
class _Worker:
    """``before``: how many died in its place, in succession, before they were ready."""

    number: int
    device: str
    count: int
    folder: Path
    job: Job
    before: int
    process: BaseProcess
    connection: Connection
    is_ready: bool = False
    task: Task | None = None
    made: int = field(default=0)

    @classmethod
    def start(
        cls, number: int, device: str, count: int, folder: Path, job: Job, before: int = 0
    ) -> "_Worker":
        context = get_context("spawn")  # CUDA does not survive a fork
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work,
            args=(theirs, number, device, count, folder, job),
            name=f"dloral-{device}",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that its end is seen when the worker dies
        return cls(number, device, count, folder, job, before, process, ours)

    @property
    def vain_starts(self) -> int:
        return 0 if self.is_ready else self.before + 1

    def again(self) -> "_Worker":
        """Another process to replace this one, which died."""
        place = self.number, self.device, self.count, self.folder, self.job
        return self.start(*place, before=self.vain_starts)

    def give(self, task: Task) -> None:
        self.task, self.made = task, 0
        with contextlib.suppress(OSError):  # it has died; that shows when we next hear from it
            self.connection.send(task)

    def stop(self) -> None:
        """End it at once: unfinished work is thrown away anyway."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()  # only now: a live worker would find it broken
        for file in self.folder.glob(f"*.segment.device{self.number}.part"):
            file.unlink(missing_ok=True)


def _work(
    connection: Connection, number: int, device: str, count: int, folder: Path, job: Job
) -> None:
    """The worker process: it reports ready, then receives tasks and sends back what it made."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device.startswith("cpu"):
        share_cores(count)
    mark = f"device{number}"
    try:
        pipe = pipe_for(_on(device, job))
        connection.send(None)
        while (task := _next_task(connection)) is not None:
            todo = _on(device, task.job)
            for made in make_segments(todo, task.gap, folder, mark, task.origin, pipe):
                connection.send(made)
            connection.send(None)
    except DLoRALError as error:
        connection.send(type(error)(str(error)))
    except KeyboardInterrupt:
        return


def _next_task(connection: Connection) -> Task | None:
    """None if the parent is gone."""
    try:
        task: Task = connection.recv()
    except (EOFError, OSError):
        return None
    return task


def _on(device: str, job: Job) -> Job:
    return replace(job, options=replace(job.options, device=device))


def _end_with_parent() -> None:
    """End with the job if that is killed: the worker has nobody left to work for."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
