"""A Ray cluster, or Ray on this machine alone: tasks with retry, results through the object store.

Segments are small (a few hundred kilobytes to some megabytes of encoded video), so they come back
through Ray's object store, and only the source has to be readable by every node (shared storage).
The weights are loaded once per worker process and kept there; a node downloads them once.
"""

import contextlib
import logging
import os
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil

from dloral.engines.tasks import MOST_ATTEMPTS, Task, cut_into_tasks, pipe_for, share_cores
from dloral.errors import DLoRALError, InputError, OptionError, ResourceError, Setting
from dloral.jobs.journal import Gap, Segment
from dloral.jobs.progress import Progress
from dloral.jobs.running import Made, make_segments
from dloral.jobs.spans import Job
from dloral.packages import needs_extra

TASKS_AHEAD = 2
"""Tasks handed out per worker at a time: enough to keep it busy, and no more results can arrive at
once than the writer has room for."""


CONNECT_SECONDS = 60
"""How long a cluster may take to answer once something listens at its address."""


class RayEngine:
    """Restores on the cluster at ``address``, or on a Ray instance started on this machine, which
    ends with :meth:`close`, or at the latest with this process.

    Raises MissingPackageError if Ray is not installed, OptionError if the address does not
    answer.
    """

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Read when Ray is imported: it repeats over and over what we say once.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        logging.getLogger("ray").setLevel(logging.ERROR)
        with needs_extra("ray", "the engine ray"):
            import ray
        self._ray = ray
        self._is_mine = not ray.is_initialized()
        if self._is_mine:
            self._connect(address)
        resources = ray.cluster_resources()
        self._gpus = int(resources.get("GPU", 0))
        self.workers = self._gpus or max(1, int(resources.get("CPU", 1)))

    def _connect(self, address: str | None) -> None:
        wanted = address or os.environ.get("RAY_ADDRESS") or "local"
        if wanted == "local":
            self._initialize(wanted)
            return
        # Ray itself retries an address for ever.
        if not _listens(wanted):
            raise _silent(wanted)
        failed: list[OptionError] = []

        def connect() -> None:
            try:
                self._initialize(wanted)
            except OptionError as error:
                failed.append(error)

        connecting = threading.Thread(target=connect, name="connect", daemon=True)
        connecting.start()
        connecting.join(CONNECT_SECONDS)
        if failed or connecting.is_alive():
            raise failed[0] if failed else _silent(wanted)

    def _initialize(self, address: str) -> None:
        try:
            self._ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=False if address == "local" else None,
                configure_logging=False,
            )
        except Exception as error:  # exactly this class if its processes are too slow to start
            raise _silent(address) if address != "local" else _not_started(error) from error

    def close(self) -> None:
        """Leave the cluster; a Ray instance started for this engine ends, with all its processes.
        One that existed before the engine stays as it is."""
        if not self._is_mine:
            return
        # The raylet has a second to end its agents. Any still starting by then, as they may be on a
        # busy machine, would live on for minutes before they notice.
        started = _below_raylets()
        self._ray.shutdown()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=10)

    def run(
        self, job: Job, origin: Fraction, gaps: Sequence[Gap], folder: Path
    ) -> Generator[Made | Progress, None, None]:
        """See :class:`dloral.upscale.Engine`."""
        ray = self._ray
        clip = job.clip.path.absolute()
        waiting = deque(cut_into_tasks(job, origin, gaps, self.workers))
        needs: dict[str, Any] = {"num_gpus": 1} if self._gpus else {"num_cpus": 1}
        # Ray itself retries a task when its worker or node dies.
        remote = ray.remote(max_retries=MOST_ATTEMPTS, **needs)(_restore)
        running: dict[Any, Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < TASKS_AHEAD * self.workers:
                    task = waiting.popleft()
                    running[remote.remote(task, str(clip), bool(self._gpus))] = task
                ready, _ = ray.wait(list(running), num_returns=1, timeout=5)
                for reference in ready:
                    task = running.pop(reference)
                    for segment, content in self._result(reference, task):
                        path = folder / f"{segment.number:08d}.segment.ray.part"
                        _write(path, content)
                        yield Made(segment, path)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _result(self, reference: Any, task: Task) -> list[tuple[Segment, bytes]]:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, DLoRALError):
                raise error.cause from None
            raise
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise ResourceError(
                f"workers died {MOST_ATTEMPTS} times at {{value}}",
                remedy="the nodes may have too little memory: give a smaller {tile}",
                value=str(task),
                tile=Setting("tile"),
            ) from error


def _below_raylets() -> list[psutil.Process]:
    """Agents and workers of a Ray instance that this process started."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() == "raylet":
                found += child.children(recursive=True)
    return found


def _listens(address: str) -> bool:
    """Whether something accepts connections at ``HOST:PORT`` or ``ray://HOST:PORT``; other forms
    are left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return address == "auto"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError):
        return False
    return True


def _not_started(error: Exception) -> ResourceError:
    said = str(error).partition("\n")[0].partition(". ")[0]
    return ResourceError(
        "Ray does not start on this machine: {value}",
        remedy="the machine may be too busy: try again, or leave {option} out",
        value=said or type(error).__name__,
        option=Setting("engine"),
    )


def _silent(address: str) -> OptionError:
    return OptionError(
        "Ray does not answer at {value}",
        remedy="start it there (ray start --head), or leave {option} out for one on this machine",
        value=address,
        option=Setting("ray_address"),
    )


def _restore(task: Task, clip: str, on_gpu: bool) -> list[tuple[Segment, bytes]]:
    """A worker's task: every segment with its file's content."""
    from dataclasses import replace

    path = Path(clip)
    if not path.exists():
        raise InputError(
            "{path} cannot be read by a worker",
            remedy="put the source on storage that all nodes share",
            path=path,
        )
    if not on_gpu:
        share_cores(os.cpu_count() or 1)
    options = replace(task.job.options, device="cuda" if on_gpu else "cpu")
    job = replace(task.job, options=options, clip=replace(task.job.clip, path=path))
    with tempfile.TemporaryDirectory(prefix="dloral-") as folder:
        made = make_segments(job, task.gap, Path(folder), "ray", task.origin, pipe_for(job))
        return [(one.segment, one.path.read_bytes()) for one in made]


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
