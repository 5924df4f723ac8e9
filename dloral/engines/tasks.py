"""Missing segments cut into tasks, and the pipeline with which a worker does one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from dloral.jobs.journal import Gap
from dloral.jobs.spans import Job
from dloral.weights.resolve import known_weights

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

MOST_SEGMENTS = 8
"""Segments per task at most: what is lost when a worker dies."""

TASKS_A_WORKER = 4
"""At least this many if segments suffice, so that all workers end at about the same time."""

MOST_ATTEMPTS = 3
"""How often a task is attempted before the job fails: it may be what kills its workers."""


@dataclass(frozen=True)
class Task:
    """Segments of a job that one worker restores in one go. ``attempt``: 1 for the first."""

    job: Job
    origin: Fraction
    gap: Gap
    attempt: int = 1

    def __str__(self) -> str:
        return f"segments {self.gap.first} to {self.gap.last}"


def cut_into_tasks(job: Job, origin: Fraction, gaps: Sequence[Gap], workers: int) -> list[Task]:
    """Tasks in order. A gap without a known end stays one task: nobody knows where to cut it."""
    count = sum(gap.last - gap.first + 1 for gap in gaps if gap.last is not None)
    most = min(MOST_SEGMENTS, max(1, count // (TASKS_A_WORKER * workers)))
    tasks: list[Task] = []
    for gap in gaps:
        if gap.last is None:
            tasks.append(Task(job, origin, gap))
            continue
        for first in range(gap.first, gap.last + 1, most):
            part = Gap(first, min(first + most - 1, gap.last))
            tasks.append(Task(job, origin, part))
    return tasks


def task_without(task: Task, done: int) -> Task | None:
    """What is left of a task after its first ``done`` segments; None if nothing."""
    first = task.gap.first + done
    if task.gap.last is not None and first > task.gap.last:
        return None
    return replace(task, gap=Gap(first, task.gap.last), attempt=task.attempt + 1)


@lru_cache(maxsize=1)
def loaded(
    model: str, device: str, dtype: str, vae: str, runtime: str, weights: str | None
) -> "FrameGenerator":
    """A pipeline, kept in this process for the next task. ``weights``: distinguishes a model's
    folder from an earlier one of the same name."""
    from dloral.weights.loading import load_pipeline
    from dloral.weights.resolve import fetch_missing

    for _ in fetch_missing(model):
        pass  # one process per machine downloads, the others wait
    return load_pipeline(model, device, dtype, vae, runtime)


def pipe_for(job: Job) -> "FrameGenerator":
    options = job.options
    weights = known_weights(options.model)
    return loaded(
        options.model, options.device, options.dtype, options.vae, options.runtime, weights
    )


def share_cores(workers: int) -> None:
    """Limit this worker to its share of the CPU cores."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
