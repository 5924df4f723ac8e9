"""Reading ahead and writing behind: same frames, same errors, nothing left running."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clips import names_in, options

import dloral.jobs.overlap
import dloral.video.writer
from dloral import Progress, UpscaleOptions, upscale_steps, upscale_video
from dloral.errors import CancelledError, InputError, OutputError, Terminated
from dloral.jobs.overlap import Behind, is_worth_it, may_overlap, read_ahead
from dloral.pipeline import DLoRALPipeline
from dloral.stages import READ, REFINE, WRITE, watched_by
from dloral.video.probe import probe
from dloral.video.worker import check_stopped, stopped_by

PATIENCE = 30  # seconds: what is waited for happens at once


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {
        thread for thread in threading.enumerate() if thread.name in ("read", "write")
    } <= before


class Source:
    """Gives 0, 1, 2, ...; ``most_ahead``: how many were begun before they were asked for."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.taken = self.most_ahead = 0
        self.is_open = False

    @contextmanager
    def open(self) -> Iterator[Iterator[int]]:
        self.is_open = True
        try:
            yield self._items()
        finally:
            self.is_open = False

    def _items(self) -> Iterator[int]:
        for number in range(self.count):
            self.most_ahead = max(self.most_ahead, number + 1 - self.taken)
            yield number
        if self.error:
            raise self.error


@pytest.mark.parametrize("most", [1, 3])
def test_items_come_in_order_and_not_too_far_ahead(most: int) -> None:
    source = Source(40)
    with read_ahead(source.open(), most) as items:
        for expected in range(40):
            source.taken += 1
            assert next(items) == expected
        assert next(items, None) is None
    assert source.most_ahead <= most
    assert not source.is_open


def test_an_error_comes_where_its_item_would() -> None:
    source = Source(2, InputError("damaged"))
    with read_ahead(source.open(), 2) as items:
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(InputError, match="damaged"):
            next(items)
        assert next(items, None) is None
    assert not source.is_open


def test_who_stops_early_leaves_the_source_closed() -> None:
    source = Source(40)
    with read_ahead(source.open(), 1) as items:
        next(items)
    assert not source.is_open


def test_a_reader_that_waits_is_stopped() -> None:
    """As it does for a pipe, or for a worker: :func:`check_stopped`."""
    waits, ended = threading.Event(), []

    @contextmanager
    def silent() -> Iterator[Iterator[int]]:
        def items() -> Iterator[int]:
            try:
                while True:
                    waits.set()
                    check_stopped()
            except CancelledError:
                ended.append("stopped")
                raise
            yield 0

        yield items()

    with read_ahead(silent(), 1):
        assert waits.wait(PATIENCE)
    assert ended == ["stopped"]
    outer = stopped_by(lambda: True)
    with outer, read_ahead(silent(), 1) as items, pytest.raises(CancelledError):
        next(items)


def test_what_is_put_is_taken_in_order() -> None:
    taken: list[int] = []
    behind = Behind(lambda item: taken.append(item) or (item if item % 2 else None))
    results = [result for item in range(20) for result in behind.put(item)]
    results += behind.flush()
    behind.close()
    assert taken == list(range(20))
    assert results == list(range(1, 20, 2))


def test_the_thread_has_the_callers_context() -> None:
    name: ContextVar[str] = ContextVar("name", default="nobody")
    name.set("caller")
    behind: Behind[int, str] = Behind(lambda item: name.get())
    assert [*behind.put(0), *behind.flush()] == ["caller"]
    behind.close()


@pytest.mark.parametrize("overlap", [True, False])
def test_an_error_ends_the_taking(overlap: bool) -> None:
    taken = []

    def take(item: int) -> None:
        if item == 2:
            raise OutputError("full")
        taken.append(item)

    behind = Behind(take, overlap)
    with pytest.raises(OutputError, match="full"):
        [behind.put(item) for item in range(9)]
    behind.close(keep=True)
    assert taken == [0, 1]


@pytest.mark.parametrize("keep", [True, False])
def test_what_waits_at_the_end(keep: bool) -> None:
    taken, begun, go = [], threading.Event(), threading.Event()

    def take(item: int) -> None:
        begun.set()
        go.wait(PATIENCE)
        taken.append(item)

    behind = Behind(take)
    behind.put(0)
    assert begun.wait(PATIENCE)
    behind.put(1)  # waits for its turn
    closing = threading.Thread(target=behind.close, args=(keep,))
    closing.start()
    while behind._is_wanted:
        pass
    go.set()
    closing.join()
    assert taken == ([0, 1] if keep else [0])


@pytest.mark.parametrize("changes", [{}, {"batch_size": 3}, {"window": 3}, {"strength": 0.5}])
@pytest.mark.parametrize("resume", [True, False])
def test_results_are_the_same_to_the_bit(
    long_clip: Path,
    chosen: UpscaleOptions,
    loaded: DLoRALPipeline,
    tmp_path: Path,
    changes: dict[str, object],
    resume: bool,
) -> None:
    made = []
    for overlap in (True, False):
        target = tmp_path / f"{overlap}.mp4"
        settings = replace(chosen, resume=resume, **changes)
        for _ in upscale_steps(long_clip, target, settings, loaded, overlap=overlap):
            pass
        made.append(target.read_bytes())
    assert made[0] == made[1]


def test_frames_are_read_and_written_while_one_is_restored(
    long_clip: Path, chosen: UpscaleOptions, loaded: DLoRALPipeline, tmp_path: Path
) -> None:
    """The UNet of a frame waits until the next frame is read and the one two before is written."""
    done = dict.fromkeys((READ, REFINE, WRITE), 0)
    changed = threading.Condition()
    in_vain = []

    @contextmanager
    def watcher(name: str) -> Iterator[None]:
        with changed:
            if name == REFINE:
                number = done[REFINE]
                wanted = {READ: min(number + 2, 20), WRITE: number - 1}
                if not changed.wait_for(
                    lambda: all(done[one] >= least for one, least in wanted.items()), PATIENCE
                ):
                    in_vain.append(number)
        yield
        with changed:
            if name in done:
                done[name] += 1
                changed.notify_all()

    settings = replace(chosen, resume=False)
    with watched_by(watcher):
        for _ in upscale_steps(long_clip, tmp_path / "out.mp4", settings, loaded, overlap=True):
            pass
    assert not in_vain
    assert done[REFINE] == 20


def test_a_stopped_job_keeps_the_frames_that_were_on_their_way(
    long_clip: Path, chosen: UpscaleOptions, loaded: DLoRALPipeline, tmp_path: Path
) -> None:
    """Ended as the last frame of the second segment is handed over."""
    target = tmp_path / "out.mp4"
    steps = upscale_steps(long_clip, target, chosen, loaded, overlap=True)
    for progress in steps:
        if progress.frame == 16:
            break
    with pytest.raises(Terminated):
        steps.throw(Terminated)
    assert names_in(target.with_name("out.mp4.resume")) == [
        "00000000.segment",
        "00000001.segment",
        "journal.jsonl",
    ]


def test_a_disk_that_is_full_ends_the_job(
    long_clip: Path,
    chosen: UpscaleOptions,
    loaded: DLoRALPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = dloral.video.writer._VideoWriter.write

    def full(writer: object, pixels: object, time: float, duration: float) -> None:
        if time > 0.2:
            raise OutputError("no space left on device")
        write(writer, pixels, time, duration)

    monkeypatch.setattr(dloral.video.writer._VideoWriter, "write", full)
    told: list[Progress] = []
    settings = replace(chosen, resume=False)
    with pytest.raises(OutputError, match="no space left"):
        told.extend(upscale_steps(long_clip, tmp_path / "out.mp4", settings, loaded, overlap=True))
    assert 5 <= told[-1].frame <= 8  # frame 6 is the first after 0.2 s; at most two wait behind it
    assert names_in(tmp_path) == []


def test_without_memory_for_frames_that_wait(
    long_clip: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = probe(long_clip)
    size = (4 * clip.height, 4 * clip.width)
    waiting = 3 * 4 * (clip.height * clip.width + 3 * size[0] * size[1])
    for free, expected in ((10 * waiting, True), (10 * waiting - 20, False)):
        monkeypatch.setattr(dloral.jobs.overlap, "free_memory", lambda place, free=free: free)
        assert may_overlap(clip, size, 1) is expected
    assert not may_overlap(replace(clip, num_frames=1), size, 1)


def test_little_memory_makes_the_same_result(
    long_clip: Path,
    model: Path,
    loaded: DLoRALPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = options(model, scale=1, resume=False)
    made = []
    for free in (2**40, 0):
        monkeypatch.setattr(dloral.jobs.overlap, "free_memory", lambda place, free=free: free)
        target = tmp_path / f"{free}.mp4"
        for _ in upscale_steps(long_clip, target, chosen, loaded, overlap=True):
            pass
        made.append(target.read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("place", "threads", "cores", "is_alone", "expected"),
    [
        ("cpu", 2, 2, True, False),  # the network has all of them
        ("cpu", 1, 1, True, False),
        ("cpu", 1, 2, True, True),
        ("cpu", 4, 8, True, True),
        ("cpu", 1, 2, False, False),  # the others are another worker's
        ("cuda", 2, 2, True, True),
        ("cuda", 2, 2, False, True),
    ],
)
def test_frames_are_read_ahead_where_the_network_leaves_a_core(
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    threads: int,
    cores: int,
    is_alone: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(dloral.jobs.overlap, "available_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert is_worth_it(torch.device(place), is_alone) is expected


@pytest.mark.parametrize(("threads", "reader"), [(1, "read"), (2, "MainThread")])
def test_a_job_reads_ahead_where_that_is_worth_it(
    long_clip: Path,
    chosen: UpscaleOptions,
    loaded: DLoRALPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    reader: str,
) -> None:
    monkeypatch.setattr(dloral.jobs.overlap, "available_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    readers = set()

    @contextmanager
    def watcher(name: str) -> Iterator[None]:
        if name == READ:
            readers.add(threading.current_thread().name)
        yield

    with watched_by(watcher):
        upscale_video(long_clip, tmp_path / "out.mp4", replace(chosen, resume=False), pipe=loaded)
    assert readers == {reader}
