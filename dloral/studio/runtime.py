"""The page's models, taking turns with them, and the queue of jobs."""

import logging
import threading
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from dloral.errors import DLoRALError, InputError
from dloral.options import AUTO, UpscaleOptions
from dloral.studio.face import worded
from dloral.studio.gpu import is_zero_gpu, keep
from dloral.studio.speeds import Effort, Speeds, Watch, work_of
from dloral.weights.resolve import EMBEDDED

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

_log = logging.getLogger(__name__)

WARM_UP_SIDE = 256
"""Pixels a side of the frames that are restored once the model is loaded: the first real picture
then comes as fast as the others, and how fast that is is known before anybody asks."""

SPEED_MEMORY = 0.7
"""How much of the speed known so far stays when another frame was timed."""


class FairLock:
    """One user of the model at a time, first come, first served.

    A job acquires it anew for every frame, so a preview waits for at most one of its frames. Needed
    because both write the LoRAs' scales into the same weights.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given = self._serving = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        with self._changed:
            ticket = self._given
            self._given += 1
            self._changed.wait_for(lambda: self._serving == ticket)
        try:
            yield
        finally:
            with self._changed:
                self._serving += 1
                self._changed.notify_all()


@contextmanager
def if_free(lock: "threading.RLock") -> Iterator[bool]:
    """Hold ``lock`` unless another thread does; whether it is held."""
    is_held = lock.acquire(blocking=False)
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()


class TakingTurns:
    """A pipeline whose :meth:`stream` takes its turn only for the networks' work: others may have
    theirs while frames are read and written."""

    def __init__(self, pipe: "FrameGenerator", turns: FairLock) -> None:
        self._pipe, self._turns = pipe, turns
        self._turn = ExitStack()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def stream(self, frames: Iterable[Tensor], **settings: Any) -> Iterator[Tensor]:
        """As the pipeline's own."""
        restoring = self._pipe.stream(self._read(iter(frames)), **settings)
        while True:
            self._turn.enter_context(self._turns.take())
            with self._turn:
                restored = next(restoring, None)
            if restored is None:
                return
            yield restored

    def _read(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        while True:
            self._turn.close()
            try:
                frame = next(frames, None)
            finally:
                self._turn.enter_context(self._turns.take())
            if frame is None:
                return
            yield frame


def shown_name(name: str) -> str:
    """A model's name for visitors: a folder's last part, since the rest is this machine's business;
    others whole."""
    folder = Path(name)
    return folder.resolve().name or name if folder.is_dir() else name


class Model:
    """A pipeline that is loaded once, in the background from :meth:`start` on.

    ``vae``: as in :class:`UpscaleOptions`. ``turns``: to be taken around every use; the page's
    models share them, and ``speeds``, what past runs took. None before the first measurement:
    ``cost``, seconds at a pace of 1 for each unit of work (:mod:`dloral.studio.speeds`) on what
    was restored without a file; ``preview_seconds_per_pixel`` of what runs again in a preview when
    only the LoRAs' scales change.
    """

    def __init__(
        self,
        name: str,
        turns: FairLock | None = None,
        vae: str = AUTO,
        speeds: Speeds | None = None,
    ) -> None:
        self.name = name
        self.vae = vae
        self.turns = turns or FairLock()
        self.speeds = speeds or Speeds()
        self.cost: float | None = None
        self.preview_seconds_per_pixel: float | None = None
        self._pipe: Future[FrameGenerator] = Future()
        self._loader = threading.Thread(target=self._load, name="load", daemon=True)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the page's other models."""
        return self.name, self.vae

    @property
    def takes_tiny_vae(self) -> bool:
        """Whether another VAE may stand in for its own; no while it is still loading."""
        if not self.is_loaded or self._pipe.exception():
            return False
        return bool(self.pipe().other_vaes)

    def start(self) -> None:
        self._loader.start()

    @property
    def is_loaded(self) -> bool:
        return self._pipe.done()

    @property
    def has_failed(self) -> bool:
        return self.is_loaded and self._pipe.exception() is not None

    def pipe(self) -> "FrameGenerator":
        """Waits until it is loaded; raises what loading raised."""
        return self._pipe.result()

    def use(self, pipe: "FrameGenerator") -> None:
        """Take a pipeline as this model's; done once."""
        self._pipe.set_result(pipe)
        keep(self)

    def reads_prompts(self) -> bool:
        # its text encoder may be out of memory for the moment
        return self.is_loaded and not self._pipe.exception() and self.pipe().reads_prompts

    def timed(self, effort: Effort, work: float) -> None:
        """Frames or parts of ``work`` were restored from their decoded frames on."""
        self.speeds.paced(effort)
        self.cost = _mixed(self.cost, effort.work / work)

    def preview_timed(self, seconds: float, pixels: int) -> None:
        self.preview_seconds_per_pixel = _mixed(self.preview_seconds_per_pixel, seconds / pixels)

    def _load(self) -> None:
        try:
            from dloral.weights.loading import load_pipeline  # seconds; the page is there meanwhile

            # The compact model asks for no GPU that a visitor pays for with a quota.
            device = "cpu" if is_zero_gpu() and self.name in EMBEDDED else AUTO
            pipe = load_pipeline(self.name, device, vae=self.vae)
            if pipe.execution_device.type == "cpu" or not is_zero_gpu():
                self._warm_up(pipe)
            self.use(pipe)
        except DLoRALError as error:  # raised to whoever asks for the pipeline
            _log.warning("%s", error)
            self._pipe.set_exception(type(error)(worded(error)))
        except Exception as error:
            self._pipe.set_exception(error)

    def _warm_up(self, pipe: "FrameGenerator") -> None:
        frames = torch.full((3, 3, WARM_UP_SIDE, WARM_UP_SIDE), 0.5)
        efforts = []
        with self.turns.take():
            watch = Watch()
            for _ in pipe.stream(frames):
                efforts.append(watch.effort)
                watch = Watch()
        work = work_of(UpscaleOptions(), (WARM_UP_SIDE, WARM_UP_SIDE))
        self.timed(efforts[-1], work)  # the first frames are slow


def _mixed(before: float | None, now: float) -> float:
    return now if before is None else SPEED_MEMORY * before + (1 - SPEED_MEMORY) * now


class Runnable(Protocol):
    """What the queue holds."""

    def run(self) -> None:
        """Does the work; raises nothing."""


class JobQueue:
    """Jobs one at a time, in the order of their places: that in which they came, until
    :meth:`arrange` changes it. A job that left keeps its place until :meth:`leave`.

    ``most``: how many may wait, None: any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._places: WeakKeyDictionary[Runnable, int] = WeakKeyDictionary()
        self._numbers = count()
        self._waiting: list[Runnable] = []
        self._running: Runnable | None = None
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    def add(self, job: Runnable, is_let_in: bool = False) -> None:
        """To its place, or behind all others; InputError if too many wait already, unless it was
        let in before, by an earlier server."""
        with self._changed:
            is_full = self._most is not None and len(self._waiting) >= self._most
            if is_full and self._running and not is_let_in:
                raise InputError(
                    f"the queue is full, with {len(self._waiting) + 1} clips ahead of yours; "
                    "try again in a few minutes"
                )
            self.reserve(job)
            insort(self._waiting, job, key=self.place)
            self._changed.notify_all()

    def reserve(self, job: Runnable) -> None:
        """Reserve a place for a job that comes later."""
        with self._changed:
            if job not in self._places:
                self._places[job] = next(self._numbers)

    def remove(self, job: Runnable) -> bool:
        """Whether it was waiting and now is not."""
        with self._changed:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def leave(self, job: Runnable) -> None:
        """Give up its place: when it comes again, it is behind all others."""
        with self._changed:
            self.remove(job)
            self._places.pop(job, None)

    def place(self, job: Runnable) -> int:
        """Its place, lower first; only the order means something."""
        with self._changed:
            return self._places.get(job, -1)

    def arrange(self, jobs: Sequence[Runnable]) -> None:
        """Let ``jobs`` exchange their places so that they are run in this order; those of others
        stay as they are."""
        with self._changed:
            placed = [job for job in dict.fromkeys(jobs) if job in self._places]
            places = sorted(self._places[job] for job in placed)
            self._places.update(zip(placed, places, strict=True))
            self._waiting.sort(key=self.place)

    def before(self, job: Runnable) -> int:
        """How many are run before it; 0 when it runs, has, or does not wait."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def jobs(self) -> list[Runnable]:
        """The one that runs and those that wait."""
        with self._changed:
            return [*([self._running] if self._running else []), *self._waiting]

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._running = self._waiting.pop(0)
            try:
                self._running.run()
            except Exception:  # a bug of ours; the jobs behind it still wait for their turn
                _log.exception("a job did not end as it should")
            with self._changed:
                self._running = None
