"""Readers and writers in processes of their own: they die, hang and grow, and we go on."""

import io
import os
import pickle
import signal
import socket
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from dloral.errors import CancelledError, InputError, OutputError, ResourceError, Setting
from dloral.video import isolated_writer, reader, worker
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.seeking import count_frames, read_frames_from
from dloral.video.writer import open_writer

pytestmark = pytest.mark.skipif(not worker.IS_POSSIBLE, reason="workers are for Linux")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """30 frames of 64 x 48 with sound."""
    path = tmp_path_factory.mktemp("worker") / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for index in range(30):
            pixels = np.full((48, 64, 3), 8 * index, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        for at in range(0, 48000, 1024):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            block.sample_rate, block.pts = 16000, at
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    return path


def workers() -> list[psutil.Process]:
    """The processes at work on a file, but for the one that they are forked from."""
    nursery = worker._nursery._process
    return [] if nursery is None else psutil.Process(nursery.pid).children()


def the_worker() -> int:
    (found,) = workers()
    return found.pid


def test_frames_are_those_of_this_process(clip):
    isolated = probe(clip, isolated=True)
    assert replace(isolated, isolated=False) == probe(clip)
    assert count_frames(isolated) == 30
    with read_frames(isolated, 0.5, 1) as apart, read_frames(clip, 0.5, 1) as here:
        pairs = list(zip(apart, here, strict=True))
    assert len(pairs) == 10
    for one, other in pairs:
        assert torch.equal(one.pixels, other.pixels)
        assert (one.index, *one[2:]) == (other.index, *other[2:])
    with read_frames_from(isolated, 27) as frames:
        assert [float(frame.time) for frame in frames] == [2.7, 2.8, 2.9]
    assert not workers()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_reader_that_dies_is_one_line(clip, number):
    isolated = probe(clip, isolated=True)
    with read_frames(isolated) as frames:
        next(frames)
        os.kill(the_worker(), number)
        with pytest.raises(InputError, match=r"a\.mp4 cannot be read: its decoder") as caught:
            list(frames)
    assert "\n" not in str(caught.value)
    assert probe(clip, isolated=True) == isolated  # the next one lives


def test_a_reader_that_hangs_is_given_up(clip, monkeypatch):
    monkeypatch.setattr(reader, "_ANSWER_SECONDS", 0.4)
    isolated = probe(clip, isolated=True)
    with read_frames(isolated) as frames:
        next(frames)
        os.kill(the_worker(), signal.SIGSTOP)
        with pytest.raises(ResourceError, match=r"took more than \S+ s to read"):
            list(frames)
    assert not workers()


def test_a_reader_that_grows_is_one_line(tmp_path, monkeypatch):
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (1500, 2000, 3), np.uint8)).save(
        tmp_path / "a.png"
    )
    isolated = probe(tmp_path / "a.png", isolated=True)
    monkeypatch.setattr(worker, "memory_to_read", lambda height, width: 20_000_000)
    with (
        pytest.raises(ResourceError, match=r"a\.png needs more than 0\.0 GB of memory to read"),
        read_frames(isolated) as frames,
    ):
        next(frames)


def test_who_is_stopped_ends_the_worker_at_once(clip):
    """Whatever that is at: here it would never answer again."""
    stop = threading.Event()
    isolated = probe(clip, isolated=True)
    begin = time.monotonic()
    with worker.stopped_by(stop.is_set), read_frames(isolated) as frames:
        next(frames)
        os.kill(the_worker(), signal.SIGSTOP)
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(CancelledError):
            list(frames)
    assert time.monotonic() - begin < 10
    assert not workers()


def test_what_it_may_not_do(clip):
    """What a decoder that was taken over would try, in a confined process."""
    ours, its = socket.socketpair()
    child = os.fork()
    if child == 0:
        from dloral.video.sandbox import confine

        said = [confine(100_000_000, 64, may_write=False)]
        for attempt in (
            lambda: socket.socket(),
            lambda: os.execv("/bin/true", ["true"]),
            lambda: os.fork() or os._exit(0),
            lambda: os.kill(os.getppid(), 0),
            lambda: bytearray(4_000_000_000),  # more than a long run has freed and kept
        ):
            try:
                attempt()
                said.append("done")
            except (OSError, MemoryError) as error:
                said.append(type(error).__name__)
        its.send("\n".join(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = ours.recv(1000).decode().split("\n")
    if told[0] != "seccomp":
        pytest.skip("this kernel has no seccomp")
    # fork() is clone() to the C library, which threads need too
    assert [*told[1:3], *told[4:]] == ["PermissionError"] * 3 + ["MemoryError"]


def test_a_worker_cannot_have_code_run_here():
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    with pytest.raises(pickle.UnpicklingError, match="system is not a value"):
        worker._Values(io.BytesIO(pickle.dumps(Evil()))).load()


@pytest.mark.parametrize(
    "said",
    [
        ("error", "InputError", "{path.__class__} {value[0]}", "{0}", {"path": Path("a")}),
        ("error", "Terminated", "{path.__class__} {value[0]}", "{0}", {"remedy": "x", "self": 1}),
    ],
)
def test_an_error_of_a_worker_is_words_and_facts_never_more(said):
    error = worker._error_of(worker._Values(io.BytesIO(pickle.dumps(said))).load())
    assert type(error) is InputError
    assert str(error) == "{path.__class__} {value[0]}; {0}"


@pytest.mark.parametrize(
    "said",
    [
        ("error", "InputError"),
        ("error", "InputError", "a", "b", ["path"]),
        ("error", "InputError", 1, "b", {}),
        ("error", "InputError", "{n}", "", {"n": 10**5000}),
        ("error", "InputError", "{at}", "", {"at": Setting(7)}),
    ],
)
def test_an_error_of_a_worker_that_makes_no_sense_is_none(said):
    assert worker._error_of(worker._Values(io.BytesIO(pickle.dumps(said))).load()) is None


@pytest.mark.parametrize("name", ["out.mp4", "frames"])
def test_results_are_those_of_this_process(clip, tmp_path, name):
    made = {}
    for source in (probe(clip), probe(clip, isolated=True)):
        target = tmp_path / f"{source.isolated}-{name}"
        with (
            read_frames(source, duration=1) as frames,
            open_writer(target, width=64, height=48, source=source, duration=1) as writer,
        ):
            for frame in frames:
                writer.write(frame.pixels, frame.time, frame.duration)
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        made[source.isolated] = [file.read_bytes() for file in files], writer.notes
    assert made[True] == made[False]


def test_a_writer_that_dies_or_is_not_wanted_leaves_nothing(clip, tmp_path):
    source = probe(clip, isolated=True)

    def write(then):
        with (
            read_frames(source) as frames,
            open_writer(tmp_path / "out.mp4", width=64, height=48, source=source) as writer,
        ):
            for frame in frames:
                writer.write(frame.pixels, frame.time, frame.duration)
            frames.close()
            then()

    def die():
        for process in workers():
            process.send_signal(signal.SIGSEGV)

    def leave():
        raise KeyboardInterrupt

    with pytest.raises(InputError, match="crashed"):
        write(die)
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        write(leave)
    assert not list(tmp_path.iterdir())


def test_a_writers_errors_come_over(clip, tmp_path, monkeypatch):
    source = probe(clip, isolated=True)
    (tmp_path / "out.mp4").mkdir()
    (tmp_path / "out.mp4" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="holds other files"):
        open_writer(tmp_path / "out.mp4", width=64, height=48, source=source)
    monkeypatch.setattr(isolated_writer, "_MOVING_SECONDS", 1)
    with (
        pytest.raises(OutputError, match="no frames were written"),
        open_writer(tmp_path / "b.mp4", width=64, height=48, source=source),
    ):
        pass


def test_a_worker_records_the_shape_of_pixels(clips, tmp_path):
    source, target = probe(clips("anamorphic.mp4"), isolated=True), tmp_path / "out.mkv"
    with (
        open_writer(target, width=64, height=48, source=source, codec="ffv1") as writer,
        read_frames(source, duration=0.1) as frames,
    ):
        for frame in frames:
            writer.write(frame.pixels, frame.time, frame.duration)
    assert writer.notes == []
    assert probe(target).sample_aspect_ratio == Fraction(16, 11)
