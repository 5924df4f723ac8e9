"""The processes of ``accelerate launch``: each takes the next free task.

They share the journal's folder (beside the target; on several machines that is shared storage). A
task is taken by creating a file with its name, which only one process can do. The first process
also enters in the journal what the others have made, and joins the segments.
"""

import json
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from dloral.engines.tasks import Task, cut_into_tasks, pipe_for
from dloral.errors import DLoRALError
from dloral.jobs.journal import Gap, Segment, sync_folder
from dloral.jobs.progress import Progress
from dloral.jobs.running import Made, make_segments
from dloral.jobs.spans import Job

_LOOK_SECONDS = 0.2
_PATIENCE = timedelta(days=30)
"""How long a process waits for the next job while another joins the last one's segments."""


def is_launched() -> bool:
    """Whether this is one of several processes that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


class LaunchedEngine:
    """Every process creates one; :meth:`run` is for the first, :meth:`assist` for the others."""

    def __init__(self) -> None:
        from accelerate import PartialState

        from dloral.devices import AUTO, choose_device

        on_cpu = choose_device(AUTO).type == "cpu"
        self._state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
        self._device = str(self._state.device)

    @property
    def is_first(self) -> bool:
        return bool(self._state.is_main_process)

    def run(
        self, job: Job, origin: Fraction, gaps: Sequence[Gap], folder: Path
    ) -> Generator[Made | Progress, None, None]:
        """See :class:`dloral.upscale.Engine`."""
        tasks = cut_into_tasks(job, origin, gaps, self._state.num_processes)
        self._share((tasks, folder))
        entered: set[int] = set()
        for made in self._work(tasks, folder):
            entered.add(made.segment.number)
            yield made
            yield from self._made_by_others(folder, entered)
        while not self._all_ended(folder):
            time.sleep(_LOOK_SECONDS)
            yield from self._made_by_others(folder, entered)
        yield from self._made_by_others(folder, entered)
        for file in folder.glob("*.segment.*.part"):
            file.unlink(missing_ok=True)

    def assist(self) -> None:
        """Work for the first process until it says that there is nothing left to do."""
        while (shared := self._share(None)) is not None:
            tasks, folder = shared
            error = ""
            try:
                for made in self._work(tasks, folder):
                    part = made.path.with_suffix(".json.part")
                    told = made.segment.as_dict() | {"path": str(made.path)}
                    part.write_text(json.dumps(told), encoding="utf-8")
                    sync_folder(folder)
                    part.replace(made.path.with_suffix(".made.part"))
            except (DLoRALError, OSError) as found:
                error = str(found)
            self._end_file(folder, self._state.process_index).write_text(error)

    def close(self) -> None:
        """The first process no longer needs the others."""
        self._share(None)
        self._state.destroy_process_group()

    def _work(self, tasks: Sequence[Task], folder: Path) -> Generator[Made, None, None]:
        mark = f"rank{self._state.process_index}"
        for task in tasks:
            if not _take(folder, task):
                continue
            job = replace(task.job, options=replace(task.job.options, device=self._device))
            yield from make_segments(job, task.gap, folder, mark, task.origin, pipe_for(job))

    def _share(self, content: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([content])[0]

    def _made_by_others(self, folder: Path, entered: set[int]) -> Generator[Made, None, None]:
        for file in sorted(folder.glob("*.segment.*.made.part")):
            told = json.loads(file.read_text(encoding="utf-8"))
            segment = Segment.from_dict(told)
            if segment.number not in entered:
                entered.add(segment.number)
                yield Made(segment, Path(told["path"]))
            file.unlink(missing_ok=True)

    def _all_ended(self, folder: Path) -> bool:
        for index in range(1, self._state.num_processes):
            file = self._end_file(folder, index)
            if not file.is_file():
                return False
            if error := file.read_text():
                raise DLoRALError(error)
        return True

    @staticmethod
    def _end_file(folder: Path, index: int) -> Path:
        return folder / f"{index:08d}.segment.ended.part"


def _take(folder: Path, task: Task) -> bool:
    """Take the task; False if another process already has."""
    place = folder / f"{task.gap.first:08d}.segment.taken.part"
    try:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
