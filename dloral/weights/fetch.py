"""Fetching a model: announce the download, download, convert once, keep the result.

Results are stored in ``models_home()``: one folder per model, safetensors only. Downloads are kept
there until they are converted, so that an interrupted fetch can be resumed.
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile, disk_usage, rmtree

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from dloral.errors import CancelledError, OptionError, OutputError, Setting
from dloral.weights.checkpoint_io import BROKEN, first_line
from dloral.weights.fetch_plan import (
    FetchPlan,
    PlannedFile,
    check_names,
    downloads_folder,
    plan_fetch,
    sources_gave_nothing,
)
from dloral.weights.hub import (
    Found,
    Refused,
    download,
    locate,
    no_space,
)
from dloral.weights.registry import (
    MODELS,
    SD21,
    TAGGER,
    TINY_VAE,
    fetched,
    models_home,
)

HALF = "float16"
"""The default dtype of a fetched model: it halves the disk space, and such weights lose less
precision in it than in bfloat16."""

KEPT_DTYPES = {HALF: torch.float16, "bfloat16": torch.bfloat16, "float32": None}
"""float32: as stored in the releases, bit for bit."""


@dataclass(frozen=True)
class FetchProgress:
    """``stage``: waiting (for another fetch on this machine), downloading, converting or done;
    ``done`` of ``total`` bytes are downloaded."""

    stage: str
    what: str
    done: int
    total: int


OnFetch = Callable[[FetchProgress], None]
"""Shows progress. Raising from it stops the fetch; the next one resumes the download."""


@dataclass(frozen=True)
class Offer:
    """A model as shown in a menu. ``download``: known size in bytes; 0 if already present."""

    name: str
    text: str
    is_here: bool
    download: int
    licences: tuple[str, ...]


def offers() -> list[Offer]:
    """The models that can be fetched and run, without any network request."""
    shown = []
    for name in (SD21,):
        needed = [name, *MODELS[name].companions]
        parts = [part for model in needed for part in MODELS[model].parts.values()]
        left = [
            file.size or file.about
            for model in needed
            if not fetched(model)
            for part in MODELS[model].parts.values()
            for file in part.files
        ]
        licences = tuple(dict.fromkeys(part.licence for part in parts))
        shown.append(Offer(name, MODELS[name].text, bool(fetched(name)), sum(left), licences))
    return shown


def fetch(
    name: str,
    *,
    without: Collection[str] = (),
    dtype: str = HALF,
    keep_downloads: bool = False,
    on_progress: OnFetch | None = None,
    on_plan: Callable[[FetchPlan], None] | None = None,
) -> Path:
    """The folder of the model ``name`` in :func:`models_home`, fetched if missing.

    ``without``: companions to leave out (sd21 comes with its tagger). ``dtype``: how its weights
    are stored. ``on_plan`` is called first, with what will be fetched. Raises :class:`WeightsError`
    if no source provides a file or it does not match, :class:`OutputError` if the disk is full.
    """
    if dtype not in KEPT_DTYPES:
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"choose from {', '.join(KEPT_DTYPES)}",
            option=Setting("dtype"),
            value=dtype,
        )
    check_names(name, without)
    with _alone(name, on_progress):
        plan = plan_fetch(name, without)
        if on_plan is not None:
            on_plan(plan)
        if plan.models:
            _check_space(plan)
            counter = _Counter(plan, on_progress)
            for model in plan.models:
                _fetch_one(name, model, plan, dtype, keep_downloads, counter)
            counter.say("done", name)
    folder = fetched(name)
    assert folder is not None
    return folder


def _fetch_one(
    name: str, model: str, plan: FetchPlan, dtype: str, keep_downloads: bool, counter: "_Counter"
) -> None:
    """Download and convert one of a plan's models; its folder appears whole or not at all."""
    files = [planned for planned in plan.files if planned.model == model]
    paths = [_get(name, planned, counter) for planned in files]
    counter.say("converting", model)
    try:
        with tempfile.TemporaryDirectory(dir=downloads_folder(), prefix="assembled-") as folder:
            for planned, path in zip(files, paths, strict=True):
                _place(path, Path(folder, planned.part, planned.file.target))
            _convert(model, Path(folder), models_home() / model, KEPT_DTYPES[dtype])
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            "{path} cannot be written: {reason}",
            remedy="free up space, or set HF_HOME to another disk",
            path=models_home(),
            reason=error.strerror or first_line(error),
        ) from error
    if not keep_downloads:
        for path in paths:
            if path.parent == downloads_folder():
                with suppress(OSError):  # some systems do not let go of a mapped file
                    path.unlink()


def _get(name: str, planned: PlannedFile, counter: "_Counter") -> Path:
    """A planned file's bytes, from the planned source or the ones after it."""
    part = MODELS[planned.model].parts[planned.part]
    reasons: dict[str, str] = {}
    found: Found | None = planned.found
    while found is not None:
        counter.what = found.name
        if found.cached:
            return found.cached
        try:
            return download(found, downloads_folder(), counter.add)
        except Refused as reason:
            reasons[found.source.repo] = str(reason)
            found = locate(planned.file, part.sources, reasons)
    raise sources_gave_nothing(name, planned.part, reasons)


def _convert(model: str, parts: Path, target: Path, dtype: torch.dtype | None) -> None:
    from dloral.weights.convert import convert  # only here, where the models' libraries are needed
    from dloral.weights.tagger import convert_tagger

    if model == SD21:
        convert(parts / "dloral" / "model.pkl", parts / "sd21-base", target, dtype)
    elif model == TAGGER:
        convert_tagger(
            parts / "ram" / "ram_swin_large_14m.pth",
            parts / "dape" / "DAPE.pth",
            parts / "tag-lists" / "ram_tag_list.txt",
            parts / "tag-lists" / "ram_tag_list_threshold.txt",
            target,
            dtype,
        )
    else:
        assert model == TINY_VAE
        _copy_folder(parts / TINY_VAE, target)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy ``source``, following its links, to ``target``, whole or not at all."""
    unfinished = target.with_name(f".{target.name}-unfinished")
    rmtree(unfinished, ignore_errors=True)
    try:
        for path in (path for path in source.rglob("*") if path.is_file()):
            place = unfinished / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            copyfile(path, place)
        unfinished.rename(target)
    except BROKEN as error:
        rmtree(unfinished, ignore_errors=True)
        raise OutputError(
            "{path} could not be written: {reason}", path=target, reason=first_line(error)
        ) from error


def _place(path: Path, place: Path) -> None:
    """Make ``path`` appear at ``place``, for a converter that expects a certain layout."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(path.resolve())
    except OSError:  # a system without links
        copyfile(path, place)


def _check_space(plan: FetchPlan) -> None:
    home = models_home()
    if disk_usage(home).free < plan.disk_needed:
        raise no_space(home, plan.disk_needed)


LOOK_SECONDS = 0.5
"""How often a waiting fetch checks whether it may start or was stopped."""

_LEFTOVERS = (".convert-*", ".*-unfinished", "downloads/assembled-*")
"""What a killed fetch leaves in :func:`models_home`, besides its downloads."""


@contextmanager
def _alone(name: str, on_progress: OnFetch | None) -> Iterator[None]:
    """Allow one fetch at a time in this home; a second one waits, then finds the work done."""
    home = models_home()
    try:
        downloads_folder().mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / ".lock")
        while not _acquired(lock):
            if on_progress is not None:
                on_progress(FetchProgress("waiting", name, 0, 0))
        for pattern in _LEFTOVERS:
            for folder in home.glob(pattern):
                rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            "{path} cannot be written ({reason})",
            remedy="set HF_HOME to a writable folder, or use {instead}",
            path=home,
            reason=error.strerror or first_line(error),
            instead=Setting("model", "compact"),
        ) from error
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=LOOK_SECONDS)
    except Timeout:
        return False
    return True


class _Counter:
    """Adds up the bytes of a plan for ``on_progress``."""

    def __init__(self, plan: FetchPlan, on_progress: OnFetch | None) -> None:
        self.what = ""
        self._total = plan.total_bytes
        self._done = self._total - plan.bytes_left
        self._on_progress = on_progress

    def add(self, count: int) -> None:
        self._done = max(0, self._done + count)
        self.say("downloading", self.what)

    def say(self, stage: str, what: str) -> None:
        if self._on_progress is not None:
            self._on_progress(FetchProgress(stage, what, min(self._done, self._total), self._total))


class TerminalFetch:
    """Shows a fetch on stderr: the plan, then a progress bar if it is a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._has_waited = False

    def show(self, step: FetchPlan | FetchProgress) -> None:
        if isinstance(step, FetchPlan):
            self.plan(step)
        else:
            self.progress(step)

    def plan(self, plan: FetchPlan) -> None:
        if plan.models:
            print("\n".join(plan.lines()), file=sys.stderr, flush=True)

    def progress(self, progress: FetchProgress) -> None:
        if progress.stage == "waiting":
            if not self._has_waited:
                print(f"waiting for another fetch into {models_home()} to finish", file=sys.stderr)
            self._has_waited = True
            return
        if self._bar is None:
            self._bar = tqdm(
                total=progress.total,
                unit="B",
                unit_scale=True,
                dynamic_ncols=True,
                disable=not sys.stderr.isatty(),
            )
        self._bar.set_description_str(f"{progress.stage} {Path(progress.what).name}")
        self._bar.update(progress.done - self._bar.n)
        if progress.stage == "done":
            self._bar.close()


def fetch_steps(name: str, without: Sequence[str] = ()) -> Iterator[FetchPlan | FetchProgress]:
    """A fetch as a generator: its plan, then progress; closing it stops the download."""
    waiting: list[FetchPlan | FetchProgress] = []
    changed, stopped, failed = threading.Condition(), threading.Event(), []

    def tell(value: FetchPlan | FetchProgress) -> None:
        if stopped.is_set():
            raise CancelledError("stopped; the next fetch will resume the download")
        with changed:
            # only the latest progress matters
            waiting[:] = [old for old in waiting if isinstance(old, FetchPlan)] + [value]
            changed.notify()

    def work() -> None:
        try:
            fetch(name, without=without, on_plan=tell, on_progress=tell)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="fetch", daemon=True)
    thread.start()
    try:
        while thread.is_alive() or waiting:
            with changed:
                changed.wait_for(lambda: waiting or not thread.is_alive(), timeout=0.2)
                values, waiting[:] = list(waiting), []
            yield from values
        if failed:
            raise failed[0]
    finally:
        stopped.set()
        thread.join()
