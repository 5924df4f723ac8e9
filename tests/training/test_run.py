"""From a configuration to a model: killed, stopped, resumed, spread over processes, mistaken."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dloral
from dloral.cli import main
from dloral.data.spec import ClipSpec
from dloral.errors import CancelledError, DLoRALError, OptionError, OutputError
from dloral.models.srvgg import SRVGG
from dloral.pipeline import DLoRALPipeline
from dloral.training.checkpoints import BEFORE, CHECKPOINT, load_checkpoint
from dloral.training.config import DataConfig, TrainConfig
from dloral.training.recipes import TINY, load_config
from dloral.training.run import run_training
from dloral.weights.loading import load_pipeline

SETTINGS = ("loop.checkpoint_every=1", "loop.micro_batches=4", "algorithm.crop=32")


@pytest.fixture(scope="module")
def config(photos: Path) -> TrainConfig:
    """Six steps over two stages."""
    schedule = replace(TINY.algorithm.schedule, consistency_steps=2, enhancement_steps=2)
    return replace(
        TINY,
        algorithm=replace(TINY.algorithm, crop=32, schedule=schedule),
        data=DataConfig(ClipSpec((f"photos:{photos}",)), workers=0),
        loop=replace(TINY.loop, steps=6, checkpoint_every=1, log_every=1, evaluate_every=3),
    )


@pytest.fixture(scope="module")
def unbroken(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ``config``, which nothing stopped. Read only."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    run_training(config, run)
    return run


@pytest.fixture
def rarely_saved(config: TrainConfig) -> TrainConfig:
    return replace(config, loop=replace(config.loop, checkpoint_every=100))


def learned(run: Path) -> dict[str, torch.Tensor]:
    """What a run's newest checkpoint holds: weights and their averages."""
    state = load_checkpoint(run)
    assert state is not None
    averages = {f"average.{name}": tensor for name, tensor in state["average"].items()}
    return state["parameters"] | averages


def assert_equal(run: Path, other: Path) -> None:
    expected = learned(other)
    for name, tensor in learned(run).items():
        assert torch.equal(tensor, expected[name]), name


def dloral_train(photos: Path, run: Path, *more: str, launcher: tuple[str, ...] = ()):
    command = [sys.executable, *(launcher or ("-m",)), "dloral", "train", "tiny"]
    command += ["--data", f"photos:{photos}", "--output", str(run), *more]
    root = Path(dloral.__file__).parents[1]  # not installed, and the run is started elsewhere
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=run.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen) -> None:
    """Until the log shows so many steps."""
    for _ in range(1200):
        log = run / "log.jsonl"
        if log.is_file() and len(log.read_text().splitlines()) >= steps:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("the run did not get going")


def test_killed_at_any_moment_and_resumed_equals_unbroken(photos: Path, tmp_path: Path):
    """A real SIGKILL of a real process, then the same call again."""
    more = ("--steps", "14", "--set", "loop.checkpoint_every=1", "loop.log_every=1")
    more += ("algorithm.crop=32",)
    arguments = ["train", "tiny", "--data", f"photos:{photos}", *more]
    assert main([*arguments, "--output", str(tmp_path / "unbroken")]) == 0

    killed = dloral_train(photos, tmp_path / "killed", *more)
    wait_for_steps(tmp_path / "killed", 3, killed)
    killed.kill()
    killed.communicate()
    state = load_checkpoint(tmp_path / "killed")
    assert state is not None
    assert 2 <= state["step"] < 14
    assert main([*arguments, "--output", str(tmp_path / "killed")]) == 0
    assert_equal(tmp_path / "killed", tmp_path / "unbroken")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_the_step_it_is_in(
    kind: signal.Signals, rarely_saved: TrainConfig, unbroken: Path, tmp_path: Path
):

    def stop(step: int, losses: dict[str, float]) -> None:
        if step == 2:
            signal.raise_signal(kind)

    with pytest.raises(CancelledError, match="stopped after step 3; its checkpoint is saved"):
        run_training(rarely_saved, tmp_path / "run", on_step=stop)
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["step"] == 3
    run_training(rarely_saved, tmp_path / "run")
    assert_equal(tmp_path / "run", unbroken)


def test_two_processes_train_what_one_does(photos: Path, tmp_path: Path):
    """Gloo, the same global batch of four micro-batches."""
    more = ("--steps", "4", "--set", *SETTINGS)
    arguments = ["train", "tiny", "--data", f"photos:{photos}", *more]
    assert main([*arguments, "--output", str(tmp_path / "one")]) == 0
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    process = dloral_train(photos, tmp_path / "two", *more, launcher=launcher)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert "on 2 x cpu, mixed precision 'no': 2 micro-batches" in said
    one, two = learned(tmp_path / "one"), learned(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0)
    fresh = load_config("tiny").loop.learning_rate  # each step moves weights by about this
    assert max((tensor - two[name]).abs().max() for name, tensor in one.items()) < 0.02 * fresh


@pytest.mark.gpu
def test_loss_scaling_is_part_of_a_checkpoint(config: TrainConfig, tmp_path: Path):
    """fp16: stopped after three steps, the run goes on as the unbroken one (but for the order in
    which a GPU adds)."""
    loop = replace(config.loop, mixed_precision="fp16")
    run_training(replace(config, loop=loop), tmp_path / "unbroken")
    run_training(replace(config, loop=replace(loop, steps=3)), tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["scaler"]["scale"] > 1
    run_training(replace(config, loop=loop), tmp_path / "run")
    expected = learned(tmp_path / "unbroken")
    for name, tensor in learned(tmp_path / "run").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=0, msg=name)


def test_a_run_leaves_all_that_was_promised(config: TrainConfig, photos: Path, tmp_path: Path):
    held_out = ClipSpec((f"photos:{photos}",))
    config = replace(config, data=replace(config.data, held_out=held_out, held_out_clips=2))
    seen: list[float] = []

    def measure(pipe) -> dict[str, float]:
        seen.append(pipe.unet.conv_out.weight.mean().item())
        return {"mine": 1.0}

    folder = run_training(config, tmp_path / "run", measure=measure)
    assert len(seen) == 2
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert '"mine": 1.0' in log
    assert '"psnr_gain 1/1"' in log
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"loss/l2", "learning rate", "held out/mine"} <= set(curves.Tags()["scalars"])
    assert [event.step for event in curves.Scalars("loss/l2")] == [1, 2, 3, 4, 5, 6]
    assert curves.Tags()["images"] == ["samples"]
    grid = Image.open(tmp_path / "run" / "samples" / "step-000006.png")
    assert grid.size == (4 * 32, 14 + 2 * 32)  # input, 1/0, 1/1, truth; a caption, two clips
    assert "C-LoRA (theta_1)" in (tmp_path / "run" / "trainable.txt").read_text()
    # The model folder is one that users run, with the averaged weights.
    pipe = load_pipeline(folder, device="cpu", dtype="float32")
    stored = learned(tmp_path / "run")
    for name, parameter in pipe.retrieval.named_parameters():
        assert torch.equal(parameter, stored[f"average.retrieval.{name}"])
    assert pipe(torch.rand(2, 3, 32, 32)).frames.shape == (2, 3, 32, 32)
    # The resolved configuration repeats the run.
    run_training(load_config(str(tmp_path / "run")), tmp_path / "again")
    assert_equal(tmp_path / "again", tmp_path / "run")


def test_the_number_of_workers_changes_nothing(config: TrainConfig, tmp_path: Path):
    config = replace(config, loop=replace(config.loop, steps=2))  # of one stage: one worker
    run_training(config, tmp_path / "none")
    run_training(replace(config, data=replace(config.data, workers=1)), tmp_path / "one")
    assert_equal(tmp_path / "one", tmp_path / "none")


def test_one_stage_from_a_pack_and_one_from_photographs(
    config: TrainConfig, packs: Path, tmp_path: Path
):
    """Consistency, enhancement, consistency: the streamed stage comes back after the pack's."""
    pack = ClipSpec((f"pack:{packs / 'clips'}",))
    config = replace(config, data=replace(config.data, enhancement=pack))
    run_training(config, tmp_path / "unbroken")
    for steps in (3, 6):
        loop = replace(config.loop, steps=steps)
        run_training(replace(config, loop=loop), tmp_path / "run")
    assert_equal(tmp_path / "run", tmp_path / "unbroken")


def test_figures_that_a_stop_came_before_are_made_when_the_run_goes_on(
    config: TrainConfig, tmp_path: Path
):
    """Step 3 is saved and to be measured; the stop asked for during it comes between the two."""
    seen: list[int] = []

    def stop(step: int, losses: dict[str, float]) -> None:
        seen.append(step)
        if step == 2:
            signal.raise_signal(signal.SIGTERM)

    def measure(pipe: DLoRALPipeline) -> dict[str, float]:
        return {"weight": sum(p.abs().sum().item() for p in pipe.unet.parameters())}

    run_training(config, tmp_path / "unbroken", measure=measure)
    with pytest.raises(CancelledError):
        run_training(config, tmp_path / "run", measure=measure, on_step=stop)
    assert seen == [1, 2, 3]
    assert measured(tmp_path / "run") == []
    for _ in range(2):  # the second time there is nothing left to do
        run_training(config, tmp_path / "run", measure=measure)
        assert measured(tmp_path / "run") == measured(tmp_path / "unbroken")


def measured(run: Path) -> list[dict]:
    entries = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [entry for entry in entries if "held_out" in entry]


def test_a_teacher_teaches_on_a_pack(config: TrainConfig, packs: Path, tmp_path: Path):
    """The losses that ask a teacher; its file may move, and another one is another training."""
    places = []
    for seed in range(2):
        torch.manual_seed(seed)
        places.append(tmp_path / f"teacher-{seed}.safetensors")
        save_file(SRVGG(8, 2).state_dict(), places[-1])
    weights = {"l2": 1.0, "teacher_charbonnier": 1.0}
    schedule = replace(config.algorithm.schedule, enhancement_weights=weights)
    config = replace(
        config,
        algorithm=replace(config.algorithm, schedule=schedule),
        data=replace(config.data, consistency=ClipSpec((f"pack:{packs / 'clips'}",))),
    )
    with pytest.raises(OptionError, match="needs a teacher"):
        run_training(config, tmp_path / "without")

    def taught(place: Path) -> TrainConfig:
        return replace(config, model=replace(config.model, teacher=str(place)))

    losses: list[dict[str, float]] = []
    run_training(taught(places[0]), tmp_path / "run", on_step=lambda _, found: losses.append(found))
    assert any(found.get("teacher_charbonnier", 0) > 0 for found in losses)
    moved = places[0].rename(tmp_path / "moved.safetensors")
    run_training(taught(moved), tmp_path / "run")
    with pytest.raises(DLoRALError, match=r"model\.teacher"):
        run_training(taught(places[1]), tmp_path / "run")


# A person's mistakes, and the world's ------------------------------------------------------


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file may grow past ``free`` bytes: the system itself refuses to write on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_keeps_the_last_good_checkpoint(
    config: TrainConfig, unbroken: Path, tmp_path: Path
):
    run_training(replace(config, loop=replace(config.loop, steps=3)), tmp_path / "run")
    with full_disk(20_000), pytest.raises(OutputError) as caught:
        run_training(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "step 4 could not be written" in str(caught.value)
    assert not list((tmp_path / "run").glob("*.tmp"))
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["step"] == 3
    run_training(config, tmp_path / "run")
    assert_equal(tmp_path / "run", unbroken)


def test_a_log_line_that_finds_no_room_costs_no_progress(
    rarely_saved: TrainConfig, unbroken: Path, tmp_path: Path
):
    log = tmp_path / "run" / "log.jsonl"
    log.parent.mkdir()
    full = 4_000_000  # bytes, more than a checkpoint; of the next line only half finds room
    log.write_text("{}".ljust(full - 11) + "\n")
    with full_disk(full), pytest.raises(OutputError) as caught:
        run_training(rarely_saved, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "log.jsonl cannot be written" in str(caught.value)
    assert "the checkpoint of step 1 is saved" in str(caught.value)
    assert log.stat().st_size == full - 10  # no half of a line
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["step"] == 1
    run_training(rarely_saved, tmp_path / "run")
    assert_equal(tmp_path / "run", unbroken)


def test_a_sample_grid_that_cannot_be_written_costs_no_progress(
    rarely_saved: TrainConfig, unbroken: Path, photos: Path, tmp_path: Path
):
    """What is saved are the weights, not the averages that the grid was made with."""
    held_out = ClipSpec((f"photos:{photos}",))
    data = replace(rarely_saved.data, held_out=held_out, held_out_clips=1)
    config = replace(rarely_saved, data=data)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_text("in the way")
    with pytest.raises(OutputError, match=r"000003\.png cannot.*checkpoint of step 3 is saved"):
        run_training(config, tmp_path / "run")
    (tmp_path / "run" / "samples").unlink()
    run_training(config, tmp_path / "run")
    assert_equal(tmp_path / "run", unbroken)


def test_a_broken_checkpoint_is_one_line_and_the_one_before_it_is_good(
    config: TrainConfig, unbroken: Path, tmp_path: Path
):
    shutil.copytree(unbroken, tmp_path / "run")
    newest = tmp_path / "run" / CHECKPOINT
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(DLoRALError) as caught:
        run_training(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert BEFORE in str(caught.value)
    newest.unlink()
    run_training(config, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["step"] == 6


def test_a_checkpoint_of_another_configuration_names_the_setting(
    config: TrainConfig, unbroken: Path, tmp_path: Path
):
    shutil.copytree(unbroken, tmp_path / "run")
    kept = (tmp_path / "run" / CHECKPOINT).read_bytes()
    told = (tmp_path / "run" / "config.py").read_text()
    other_source = ClipSpec(config.data.consistency.places, exclude=("1",))
    others = {
        "data.enhancement": replace(config, data=replace(config.data, enhancement=other_source)),
        "algorithm.window": replace(config, algorithm=replace(config.algorithm, window=3)),
        "loop.seed": replace(config, loop=replace(config.loop, seed=1)),
        "lora_A": replace(config, model=replace(config.model, detail_rank=3)),
    }
    for name, other in others.items():
        with pytest.raises(DLoRALError, match=f"another configuration.*{name}") as caught:
            run_training(other, tmp_path / "run")
        assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == kept
    assert (tmp_path / "run" / "config.py").read_text() == told


def test_a_broken_picture_in_the_middle_is_passed_over(
    config: TrainConfig, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for path in photos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = bytearray((photos / "0.png").read_bytes())
    broken[len(broken) // 2 :][:400] = b""
    middle = len(broken) // 2
    broken[middle : middle + 400] = os.urandom(400)
    (tmp_path / "0b.png").write_bytes(broken)
    data = DataConfig(ClipSpec((f"photos:{tmp_path}",)), workers=0)
    run_training(replace(config, data=data), tmp_path / "run")
    assert [m for m in caplog.messages if "passed over" in m and "0b.png" in m]
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["step"] == 6
