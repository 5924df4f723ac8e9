"""Several processes make what one makes, also when one of them is killed."""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from clips import frames_of, names_in, sound_of, write_clip

from dloral import UpscaleOptions, upscale_video
from dloral.engines import choose_engine, cluster, devices, engine_of
from dloral.engines.devices import DevicesEngine, named_devices
from dloral.engines.tasks import Task, cut_into_tasks, pipe_for, task_without
from dloral.errors import OptionError, ResourceError, WeightsError
from dloral.jobs.journal import Gap
from dloral.jobs.progress import Progress
from dloral.jobs.spans import Job
from dloral.models.adapters import add_adapters
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.video.encoding import OutputFormat
from dloral.video.probe import probe

OPTIONS = UpscaleOptions("bicubic", scale=1, device="cpu", resume=False)
JOB = None  # tasks carry it and do not look at it


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """200 frames: four segments of 48 and one of 8."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", 200)


@pytest.fixture(scope="module")
def whole(clip, tmp_path_factory) -> Path:
    return upscale_video(clip, tmp_path_factory.mktemp("whole") / "out.mp4", OPTIONS)


def test_gaps_are_cut_into_tasks_for_all_workers():
    tasks = cut_into_tasks(JOB, Fraction(0), [Gap(0, 15), Gap(20, 20)], 2)
    assert [task.gap for task in tasks] == [
        *(Gap(first, first + 1) for first in range(0, 16, 2)),
        Gap(20, 20),
    ]
    many = cut_into_tasks(JOB, Fraction(0), [Gap(0, 999)], 2)
    assert len(many) == 125
    assert cut_into_tasks(JOB, Fraction(0), [Gap(3, None)], 4) == [
        Task(JOB, Fraction(0), Gap(3, None))
    ]


def test_what_is_left_of_a_task():
    task = Task(JOB, Fraction(0), Gap(4, 7))
    assert task_without(task, 0) == replace(task, attempt=2)
    assert task_without(task, 3) == replace(task, gap=Gap(7, 7), attempt=2)
    assert task_without(task, 4) is None


def test_devices_are_named():
    assert named_devices("cpu,cpu") == ["cpu", "cpu"]
    assert named_devices("cuda:0, cuda:2") == ["cuda:0", "cuda:2"]
    for wrong in ("", "gpu", "cuda:x", "cpu,,cpu"):
        with pytest.raises(OptionError, match="devices is"):
            named_devices(wrong)


def test_engines_are_chosen_in_one_line():
    assert choose_engine() is None
    assert isinstance(choose_engine(devices="cpu"), DevicesEngine)
    with pytest.raises(OptionError, match="engine is 'spark'"):
        choose_engine("spark")
    with pytest.raises(OptionError, match="ray_address is for Ray"):
        choose_engine(ray_address="host:1")


def test_a_killed_worker_is_replaced(clip, whole, tmp_path):
    """Two workers; one dies by SIGKILL when the first segment is there."""
    killed = []

    def kill(progress: Progress) -> None:
        if progress.stage == "restoring" and not killed:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
                        killed.append(child.pid)
                        break

    engine = DevicesEngine(["cpu", "cpu"])
    target = upscale_video(clip, tmp_path / "out.mp4", OPTIONS, kill, engine=engine)
    assert killed
    assert frames_of(target) == frames_of(whole)
    assert sound_of(target) == sound_of(whole)
    assert names_in(tmp_path) == ["out.mp4"]


def test_a_worker_that_is_starting_holds_nothing_up(clip, whole, tmp_path, monkeypatch):
    """The second of two workers never comes to itself: the first does all of it."""
    started = []
    start = devices._Worker.start

    def half(number: int, *more: object, **kept: object) -> devices._Worker:
        worker = start(number, *more, **kept)
        if number == 1:
            psutil.Process(worker.process.pid).suspend()
            started.append(worker)
        return worker

    monkeypatch.setattr(devices._Worker, "start", half)
    target = upscale_video(
        clip, tmp_path / "out.mp4", OPTIONS, engine=DevicesEngine(["cpu", "cpu"])
    )
    assert frames_of(target) == frames_of(whole)
    assert not started[0].process.is_alive()


def test_workers_that_die_at_their_start_end_the_job_in_one_line(clip, tmp_path, monkeypatch):
    start = devices._Worker.start

    def dead(*given: object, **kept: object) -> devices._Worker:
        worker = start(*given, **kept)
        worker.process.kill()
        return worker

    monkeypatch.setattr(devices._Worker, "start", dead)
    with pytest.raises(ResourceError, match="3 workers died one after another at their start;"):
        upscale_video(clip, tmp_path / "out.mp4", OPTIONS, engine=DevicesEngine(["cpu"]))
    assert names_in(tmp_path) == []


def test_a_worker_without_weights_says_so(clip, tmp_path):
    """The model goes between the start of the job and that of its workers."""
    options = replace(OPTIONS, model=str(tmp_path / "gone"), tagger="none")
    from dloral.prompts import Scene

    with pytest.raises(WeightsError) as caught:
        upscale_video(
            clip,
            tmp_path / "out.mp4",
            options,
            scenes=[Scene(Fraction(0), "")],
            engine=DevicesEngine(["cpu"]),
        )
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


CALL = ["-m", "dloral", "upscale", "--model", "bicubic", "--scale", "1", "--quiet"]


@pytest.mark.slow
def test_two_launched_processes(clip, whole, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    call = [*launcher, "--nproc-per-node", "2", *CALL, str(clip), "-o", str(tmp_path / "out.mp4")]
    subprocess.run(call, check=True)
    assert frames_of(tmp_path / "out.mp4") == frames_of(whole)
    assert names_in(tmp_path) == ["out.mp4"]


@pytest.mark.slow
def test_ray_on_this_machine(clip, whole, tmp_path):
    pytest.importorskip("ray")
    call = [sys.executable, *CALL, str(clip), "-o", str(tmp_path / "out.mp4"), "--engine", "ray"]
    subprocess.run(call, check=True)
    assert frames_of(tmp_path / "out.mp4") == frames_of(whole)
    assert names_in(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_one_line(address):
    pytest.importorskip("ray")
    with pytest.raises(OptionError, match=rf"^Ray does not answer at {re.escape(address)};"):
        choose_engine("ray", ray_address=address)


def test_what_answers_and_is_not_ray_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray")
    waiting = threading.Event()
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(ray, "init", lambda **_: waiting.wait(10))  # as it does, for ever
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OptionError, match=f"Ray does not answer at {address}"):
            choose_engine("ray", ray_address=address)
    waiting.set()


def test_a_ray_that_is_too_slow_to_start_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray")

    def slow(**_: object) -> None:
        raise Exception("The node timed out during startup. This could be\nfor many reasons.")

    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(ResourceError, match="on this machine: The node timed out during startup;"):
        choose_engine("ray")


def test_a_ray_that_was_started_ends_with_its_agents(monkeypatch):
    """The raylet's children are ended, and nobody else's."""
    ray = pytest.importorskip("ray")
    sleeping = "import subprocess; subprocess.run(['sleep', '600'])"
    raylet = subprocess.Popen([sys.executable, "-c", sleeping])
    mine = subprocess.Popen(["sleep", "600"])
    try:
        while not (agents := psutil.Process(raylet.pid).children()):
            time.sleep(0.01)
        name = psutil.Process.name
        monkeypatch.setattr(
            psutil.Process, "name", lambda one: "raylet" if one.pid == raylet.pid else name(one)
        )
        for made in ("init", "shutdown"):
            monkeypatch.setattr(ray, made, lambda **_: None)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2})
        with engine_of("ray") as (engine, is_first):
            assert (engine.workers, is_first) == (2, True)
        assert not any(agent.is_running() for agent in agents)
        assert mine.poll() is None
    finally:
        raylet.kill()
        mine.kill()
        raylet.wait()
        mine.wait()


def test_a_worker_loads_a_model_again_once_its_folder_holds_another(clip, tmp_path):
    folder = tmp_path / "model"
    chosen = OutputFormat(".mp4", 64, 48)
    options = UpscaleOptions(str(folder), scale=1, device="cpu", dtype="float32")
    job = Job(probe(clip), options, (), chosen, "")
    found = []
    for crispness in (0.25, 0.5):
        pipe = build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))
        add_adapters(pipe.unet, 2)
        pipe.register_to_config(crispness=crispness)
        shutil.rmtree(folder, ignore_errors=True)
        pipe.save_pretrained(folder)
        found.append(pipe_for(job))
        assert pipe_for(job) is found[-1]
    assert [pipe.config.crispness for pipe in found] == [0.25, 0.5]
