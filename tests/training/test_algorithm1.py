"""Algorithm 1: what each stage changes, and what strategies, branches, orders and windows do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dloral.data.clips import Clips
from dloral.data.packs import Pack, PackClips
from dloral.errors import OptionError
from dloral.models.adapters import add_adapters
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.training.loop import LoopConfig
from dloral.training.phases.algorithm1 import Algorithm1Config, Algorithm1Task, algorithm_1
from dloral.training.schedule import StageSchedule
from dloral.training.trainer import Trainer

SIZES = CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4)
SCHEDULE = StageSchedule(
    4, 3, 2, {"l2": 1.0, "flow": 1.0, "temporal": 1.0}, {"l2": 1.0, "grid": 1.0, "adversarial": 0.1}
)
CONFIG = Algorithm1Config(clips=1, crop=32, schedule=SCHEDULE)
LOOP = LoopConfig(steps=30, warmup_steps=0, ema=0.0, checkpoint_every=100, evaluate_every=100)


def make_task(clips: Pack, config: Algorithm1Config) -> Algorithm1Task:
    pipe = build_pipeline(replace(SIZES, decoder_sees_input=True, direct_head=True, rectified=True))
    torch.manual_seed(1)
    add_adapters(pipe.unet, 2)
    pipe.vae.add_adapters(2, 2)
    # A fresh UNet ends in zeros, and through zeros nothing learns.
    torch.nn.init.normal_(pipe.unet.conv_out.weight, std=0.1)
    source = PackClips(clips, config.clips, config.crop)
    stages = ("consistency", "enhancement", "joint")
    return Algorithm1Task(pipe, dict.fromkeys(stages, source), config)


def weights_of(pipe: DLoRALPipeline) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in pipe.components.items()
        if isinstance(module, torch.nn.Module)
        for name, tensor in module.state_dict().items()
        if not name.endswith(".scales")  # where the dials stand
    }


def changes(task: Algorithm1Task, loop: LoopConfig, run: Path) -> Iterator[tuple[int, set[str]]]:
    """(iteration, names of all weights of the model that it changed to the bit)."""
    found: list[tuple[int, set[str]]] = []
    before = weights_of(task.pipe)

    def compare(step: int, losses: dict[str, float]) -> None:
        nonlocal before
        now = weights_of(task.pipe)
        found.append((step, {n for n, t in now.items() if not torch.equal(t, before[n])}))
        before = now

    algorithm_1(task, Trainer(task.trainable(), loop, run, on_step=compare))
    yield from found


def test_thirty_steps_change_only_what_their_stages_may(clips: Pack, tmp_path: Path):
    """Consistency: C-LoRA and CFR; enhancement: D-LoRA; base, flow and the other LoRA are
    equal to the bit, in the decoder's head too."""
    task = make_task(clips, CONFIG)
    seen = {"consistency": set(), "enhancement": set()}
    for iteration, changed in changes(task, LOOP, tmp_path):
        stage = "consistency" if (iteration - 1) % 7 < 4 else "enhancement"
        may = (".consistency.", "retrieval.") if stage == "consistency" else (".detail.",)
        assert changed, f"iteration {iteration} changed nothing"
        assert all(any(part in name for part in may) for name in changed), iteration
        seen[stage] |= changed
    everything = weights_of(task.pipe)
    assert seen["consistency"] == {
        name for name in everything if ".consistency." in name or name.startswith("retrieval.")
    }
    assert seen["enhancement"] == {name for name in everything if ".detail." in name}
    for place in ("vae.finish.conv.lora_", "vae.decoder.2.conv1.lora_"):
        assert all(any(n.startswith(place) for n in names) for names in seen.values())


def test_stopped_in_the_middle_and_resumed_equals_unbroken(clips: Pack, tmp_path: Path):
    """The discriminator, its spectral norms and its place in the optimizer included."""

    def run(steps: int, folder: str) -> Algorithm1Task:
        task = make_task(clips, CONFIG)
        loop = replace(LOOP, steps=steps, ema=0.9)
        algorithm_1(
            task, Trainer(task.trainable(), loop, tmp_path / folder, buffers=task.buffers())
        )
        return task

    unbroken = run(9, "unbroken")
    run(6, "stopped")
    resumed = run(9, "stopped")
    for one, other in (
        (weights_of(resumed.pipe), weights_of(unbroken.pipe)),
        (
            resumed.objective.adversarial.discriminator.state_dict(),
            unbroken.objective.adversarial.discriminator.state_dict(),
        ),
    ):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("settings", "stages", "learning"),
    [
        ({}, "CCCCEEECC", {"C", "D", "mu"}),
        ({"order": "enhancement-first"}, "EEECCCCEE", {"C", "D", "mu"}),
        ({"strategy": "alternating-one-space"}, "CCCCEEECC", {"C", "mu"}),
        ({"strategy": "joint"}, "JJJJJJJJJ", {"C", "mu"}),
        ({"branches": "C-only"}, "CCCCCCCCC", {"C", "mu"}),
        ({"branches": "D-only"}, "EEEEEEEEE", {"D"}),
        ({"window": 0}, "CCCCEEECC", {"C", "D"}),
    ],
)
def test_each_strategy_has_its_stages_and_its_parameters(
    settings: dict, stages: str, learning: set[str], clips: Pack, tmp_path: Path
):
    config = replace(CONFIG, **settings)
    plan = config.plan()
    assert "".join(plan.stage_at(i)[0].upper() for i in range(1, 10)) == stages
    task = make_task(clips, config)
    changed = set().union(*(names for _, names in changes(task, replace(LOOP, steps=6), tmp_path)))
    kinds = {"C": ".consistency.", "D": ".detail.", "mu": "retrieval."}
    assert {kind for kind, part in kinds.items() if any(part in n for n in changed)} == learning


def test_one_space_learns_from_both_groups_of_losses(clips: Pack, tmp_path: Path):
    heard: list[set[str]] = []
    task = make_task(clips, replace(CONFIG, strategy="joint"))
    trainer = Trainer(
        task.trainable(),
        replace(LOOP, steps=1),
        tmp_path,
        on_step=lambda step, losses: heard.append(set(losses)),
    )
    algorithm_1(task, trainer)
    assert heard == [{"l2", "flow", "temporal", "grid", "adversarial", "discriminator"}]


def test_loss_weights_move_after_a_switch(clips: Pack, tmp_path: Path):
    """Over s_t = 2 steps: enhancement losses come in, consistency losses go."""
    names: list[list[str]] = []
    task = make_task(clips, CONFIG)
    trainer = Trainer(
        task.trainable(),
        replace(LOOP, steps=7),
        tmp_path,
        on_step=lambda step, losses: names.append(sorted(losses)),
    )
    algorithm_1(task, trainer)
    assert names[3] == ["flow", "l2", "temporal"]
    assert names[4] == ["discriminator", "flow", "l2", "temporal"]
    assert names[5] == ["adversarial", "discriminator", "flow", "grid", "l2", "temporal"]
    assert names[6] == ["adversarial", "discriminator", "grid", "l2"]


@pytest.mark.parametrize("window", [0, 1, 3, 5])
@torch.no_grad()
def test_training_sees_what_inference_gives(window: int, pipe: DLoRALPipeline):
    """The forward pass of lines 7 to 10 is the pipeline's, for every window."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.rand(7, 3, 32, 40, generator=draw)
    config = replace(CONFIG, window=window, outputs=2, schedule=StageSchedule(1, 1, 0, {"l2": 1.0}))
    task = Algorithm1Task(pipe, {}, config)
    batch = Clips(frames[None], frames[None], torch.zeros(1, 6, 2, 32, 40))
    pipe.unet.set_scales(consistency=1.0, detail=1.0, merge=False)
    ours = task.restore(batch).frames[0].clamp(0, 1)
    theirs = pipe(frames, window=window, color_fix="none", output_type="pt").frames[-2:]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_share_of_the_clips_stands_alone(pipe: DLoRALPipeline):
    """As first frames do: each its own predecessor."""
    frames = torch.rand(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, first_frame_share=1.0, schedule=StageSchedule(1, 1, 0, {"l2": 1.0}))
    task = Algorithm1Task(pipe, {}, config)
    batch = Clips(frames, frames, torch.zeros(1, 2, 2, 32, 32))
    with torch.no_grad():
        alone = task.restore(batch, np.random.default_rng(0)).frames[0, 1]
        first = pipe.stream([frames[0, 2]], color_fix="none")
        torch.testing.assert_close(alone.clamp(0, 1), next(first), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "both"},
        {"order": "detail-first"},
        {"branches": "C"},
        {"window": 2},
        {"strategy": "joint", "branches": "C-only"},
        {"clips": 0},
        {"crop": 36},
        {"scale_choices": ()},
        {"first_frame_share": 1.5},
        {"outputs": 1, "schedule": StageSchedule(1, 1, 1, {"flow": 1.0}, {})},
        {"outputs": 1, "schedule": StageSchedule(1, 1, 1, {}, {"temporal": 1.0})},
        {"schedule": StageSchedule(1, 1, 1, {"hints": 1.0}, {})},
        {"schedule": "fast"},
        {"schedule": StageSchedule(1, 1, 1, {"beauty": 1.0}, {})},
    ],
)
def test_settings_check_themselves(wrong: dict):
    with pytest.raises(OptionError) as caught:
        Algorithm1Config(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": StageSchedule(1, 1, 1, {"l2": 1.0, "flow": 0.0}, {"grid": 1.0})},
        {"schedule": StageSchedule(1, 1, 1, {"flow": 1.0}, {"l2": 1.0}), "branches": "D-only"},
    ],
)
def test_one_output_is_enough_where_no_loss_compares_two(
    settings: dict, clips: Pack, tmp_path: Path
):
    task = make_task(clips, replace(CONFIG, outputs=1, **settings))
    heard: list[float] = []
    trainer = Trainer(
        task.trainable(),
        replace(LOOP, steps=3),
        tmp_path,
        on_step=lambda step, losses: heard.extend(losses.values()),
    )
    algorithm_1(task, trainer)
    assert heard
    assert np.isfinite(heard).all()
