"""All phases of the compact model in turn: one command, killed and resumed, mistaken."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

import dloral
from dloral.cli import main
from dloral.data.sources import sha256
from dloral.errors import DLoRALError, OptionError
from dloral.frames.crisp import crisp
from dloral.models.srvgg import SRVGG
from dloral.training.chain import Chain, run_chain
from dloral.training.plan import PHASES, check_same, find_material, settings_of
from dloral.weights.embed import embed
from dloral.weights.loading import load_pipeline
from dloral.weights.resolve import EMBEDDED
from tests.training.conftest import TINY_CHAIN, teacher_of, tiny_chain

FROM_BASE_ON = ("blocks=None", "drawing=None", "cleaning=None")


@pytest.fixture(scope="module")
def unbroken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps a phase, by the command line."""
    run = tmp_path_factory.mktemp("chain") / "run"
    words = ["train", "compact-cpu", "--data", f"photos:{photos}", "--steps", "24"]
    assert main([*words, "-o", str(run), "--set", *TINY_CHAIN, teacher_of(photos)]) in (None, 0)
    return run


class KilledError(Exception):
    pass


def test_one_command_from_photographs_to_an_embedded_folder(unbroken: Path, tmp_path: Path) -> None:
    assert main(["embed", str(unbroken), "--to", str(tmp_path / "used")]) in (None, 0)
    used = load_pipeline(tmp_path / "used", device="cpu", dtype="float16")
    assert used.unet.has_adapters
    trained = load_pipeline(unbroken / "pipeline", device="cpu", dtype="float32")
    for ours, theirs in zip(used.vae.parameters(), trained.vae.parameters(), strict=True):
        assert torch.equal(ours, theirs.half())
    assert "_name_or_path" not in json.loads((tmp_path / "used/unet/config.json").read_text())
    figures = json.loads((tmp_path / "used/card-figures.json").read_text())
    assert figures["plan"]["steps"] == dict.fromkeys(PHASES, 3)
    assert figures["parameters"]["vae"] == sum(p.numel() for p in trained.vae.parameters())
    assert not list(unbroken.glob("*/checkpoint*.pt"))
    assert str(unbroken.parent) not in (unbroken / "plan.json").read_text()


@torch.no_grad()
def test_what_a_dials_1_means_is_said_when_a_model_is_embedded(
    unbroken: Path, tmp_path: Path
) -> None:
    command = ["embed", str(unbroken), "--to", str(tmp_path / "used"), "--strengths"]
    assert main([*command, "0.5", "0.25"]) in (None, 0)
    trained, used = (
        load_pipeline(folder, device="cpu", dtype="float32")
        for folder in (unbroken / "pipeline", tmp_path / "used")
    )
    frames = torch.rand(2, 3, 32, 32)
    wanted = trained(frames, consistency=0.5, detail=0.25).frames
    torch.testing.assert_close(used(frames).frames, wanted, atol=2e-3, rtol=0)  # float16
    assert not torch.allclose(trained(frames, consistency=0, detail=0).frames, wanted, atol=2e-3)
    assert json.loads((tmp_path / "used/card-figures.json").read_text())["strengths"] == {
        "consistency": 0.5,
        "detail": 0.25,
    }
    with pytest.raises(OptionError, match="more than 0"):
        embed(unbroken, tmp_path / "other", (1.0, 0.0))
    again = ["embed", str(tmp_path / "used"), "--to", str(tmp_path / "crisp"), "--crispness", "0.5"]
    assert main(again) in (None, 0)
    found = load_pipeline(tmp_path / "crisp", device="cpu", dtype="float32")
    torch.testing.assert_close(found(frames).frames, crisp(used(frames).frames, 0.5))
    assert main([*again, "--smoothing", "0.25"]) in (None, 0)
    found = load_pipeline(tmp_path / "crisp", device="cpu", dtype="float32")
    wanted = crisp(used(frames).frames, 0.5, smoothing=0.25)
    torch.testing.assert_close(found(frames).frames, wanted)
    assert json.loads((tmp_path / "crisp/card-figures.json").read_text())["smoothing"] == 0.25
    with pytest.raises(OptionError, match="smoothing is 2; give a number from 0 to 1"):
        embed(unbroken, tmp_path / "other", smoothing=2.0)
    with pytest.raises(OptionError, match="crispness is -1; give 0 or more"):
        embed(unbroken, tmp_path / "other", crispness=-1.0)
    assert main([*again, "--steadying", "0.25"]) in (None, 0)
    assert load_pipeline(tmp_path / "crisp").steadying == 0.25
    with pytest.raises(OptionError, match=r"steadying is 0.75; give a number from 0 to 0.5"):
        embed(unbroken, tmp_path / "other", steadying=0.75)
    assert main([*again, "--grid-period", "4"]) in (None, 0)
    assert load_pipeline(tmp_path / "crisp").grid_period == 4
    with pytest.raises(OptionError, match="grid_period is 3; give 0, 2, 4, 8"):
        embed(unbroken, tmp_path / "other", grid_period=3)
    with pytest.raises(TypeError, match="unknown: crispiness"):
        embed(unbroken, tmp_path / "other", crispiness=1.0)


def test_loras_of_a_start_are_kept(unbroken: Path, photos: Path, tmp_path: Path) -> None:
    """From a folder and from a phase's file, to the bit; of other sizes they are one line."""
    rates = [f"{phase}_loop.learning_rate=0" for phase in ("base", "decoder", "algorithm1")]
    had = load_file(unbroken / "detail.safetensors")
    learnt = {n for n in had if ".lora_" in n or n.startswith("retrieval.")}
    assert learnt
    for number, start in enumerate(("pipeline", "detail.safetensors")):
        config = tiny_chain(
            photos,
            f"start={unbroken / start}",
            "keep_loras=all",
            *FROM_BASE_ON,
            *rates,
        )
        run = tmp_path / str(number)
        run_chain(config, run, steps=6)
        found = load_file(run / "algorithm1.safetensors")
        assert all(torch.equal(found[name], had[name]) for name in learnt)
    with pytest.raises(DLoRALError, match="no LoRAs of these sizes"):
        run_chain(replace(config, rank=3), tmp_path / "other", steps=6)
    for wrong in (["keep_loras=all"], ["keep_loras=some", f"start={unbroken / 'pipeline'}"]):
        with pytest.raises(OptionError, match="keep_loras"):
            tiny_chain(photos, *wrong)


def test_loras_of_the_decoder_are_kept_alone(unbroken: Path, photos: Path, tmp_path: Path) -> None:
    """Beside a UNet of other sizes; C-LoRA's stay as they were if it learns in the UNet alone."""
    config = tiny_chain(
        photos,
        f"start={unbroken / 'pipeline'}",
        "keep_loras=decoder",
        "sizes.unet_channels=(16,8)",
        "algorithm1.decoder_loras=('detail',)",
        *FROM_BASE_ON,
    )
    run_chain(config, tmp_path / "run", steps=12)
    had = load_file(unbroken / "algorithm1.safetensors")
    found = load_file(tmp_path / "run" / "algorithm1.safetensors")
    kept = {n for n in had if n.startswith("vae.") and ".lora_" in n and ".consistency." in n}
    assert kept
    assert all(torch.equal(found[name], had[name]) for name in kept)
    assert any(".consistency." in name and found[name].any() for name in found if "unet." in name)


def test_what_is_embedded_brings_no_code(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package around it has that; its index names the package's classes."""
    place = tmp_path / "package"
    monkeypatch.setitem(EMBEDDED, "compact", place)
    assert main(["embed", str(unbroken)]) in (None, 0)
    assert not list(place.rglob("*.py"))
    index = json.loads((place / "model_index.json").read_text())
    assert index["_class_name"] == "DLoRALPipeline"
    assert index["flow"] == ["dloral.models.flow", "SPyNet"]
    assert load_pipeline(place, device="cpu", dtype="float16").unet.has_adapters


def test_killed_in_each_phase_and_resumed_elsewhere_equals_unbroken(
    unbroken: Path, photos: Path, tmp_path: Path
) -> None:
    config, run = tiny_chain(photos), tmp_path / "run"
    for killed in PHASES:

        def on_step(phase: str, step: int, losses: dict[str, float], killed: str = killed) -> None:
            if (phase, step) == (killed, 3):  # the checkpoint is of step 2
                raise KilledError

        with pytest.raises(KilledError):
            run_chain(config, run, steps=24, on_step=on_step)
        elsewhere = tmp_path / f"moved-{killed}"
        shutil.move(run, elsewhere)
        run = elsewhere
    run_chain(config, run)
    expected = load_file(unbroken / "detail.safetensors")
    found = load_file(run / "detail.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.slow
def test_kill_9_in_each_phase(unbroken: Path, photos: Path, tmp_path: Path) -> None:
    """The same with processes that die; ten seconds and more for each to start."""
    run = tmp_path / "run"
    words = [
        sys.executable,
        "-m",
        "dloral",
        "train",
        "compact-cpu",
        "--steps",
        "24",
        "-o",
        str(run),
    ]
    words += ["--data", f"photos:{photos}", "--set", *TINY_CHAIN, teacher_of(photos)]
    root = str(Path(dloral.__file__).parents[1])
    for phase in PHASES:
        process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": root})
        while not (run / phase / "checkpoint.pt").is_file():
            assert process.poll() is None, f"ended before {phase} could be killed"
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (run / "pipeline").exists()
    subprocess.run(words, env={**os.environ, "PYTHONPATH": root}, check=True)
    expected = load_file(unbroken / "detail.safetensors")
    found = load_file(run / "detail.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_each_phase_changes_its_own_parts_alone(unbroken: Path) -> None:
    after = [load_file(unbroken / f"{phase}.safetensors") for phase in PHASES]
    parts = {name: {"vae"} for name in PHASES[1:6]}
    parts |= {"cleaning": {"retrieval", "unet"}, "base": {"retrieval", "unet", "vae"}}
    drawn = ("decoder", "enter", "finish", "join", "look")
    for before, now, phase in zip(after, after[1:6], PHASES[1:6], strict=False):
        changed = {n for n in now if not torch.equal(now[n], before[n])}
        assert {name.split(".")[0] for name in changed} == parts[phase]
        if parts[phase] == {"vae"}:
            assert {n.split(".")[1] for n in changed} <= {*drawn}
        if "retrieval" in parts[phase]:
            assert all(n.startswith(("retrieval.gate.", "unet.", "vae.")) for n in changed)
    assert all(torch.equal(after[6][n], t) for n, t in after[5].items() if n.startswith("vae."))
    came = {n for n in after[6] if n.startswith("vae.")} - after[5].keys()
    assert came
    assert all(".lora_" in n or n.endswith(".scales") for n in came)
    assert {n.split(".")[1] for n in came} == {"decoder", "finish"}
    changed = {n for n in after[7] if not torch.equal(after[7][n], after[6][n])}
    changed -= {n for n in changed if n.endswith(".scales")}  # where the dials stand
    assert changed
    assert all(n.startswith("vae.") and ".detail." in n for n in changed)


def test_a_start_gives_its_flow_net_and_what_fits(
    unbroken: Path, photos: Path, tmp_path: Path
) -> None:
    """The flow phase is left out; weights of other shapes stay fresh; another start is noticed."""
    start, run = tmp_path / "start", tmp_path / "run"
    shutil.copytree(unbroken / "pipeline", start)
    other = tiny_chain(
        photos,
        f"start={start}",
        "sizes.decoder_blocks=2",
        "sizes.rectified=False",
        "sizes.head_rank=0",
        "sizes.block_rank=0",
        "sizes.reach=0",
        "sizes.direct_head=False",
        "sizes.finish_channels=4",
        "detail=None",
        *FROM_BASE_ON,
        "base_loop.learning_rate=0",
    )
    run_chain(other, run, steps=6)
    had = load_file(unbroken / "algorithm1.safetensors")  # LoRAs apart, what the pipeline holds
    had = {name.replace(".base_layer.", "."): tensor for name, tensor in had.items()}
    base = load_file(run / "base.safetensors")
    same = {name for name, tensor in base.items() if torch.equal(tensor, had.get(name, tensor + 1))}
    parts = ("flow.", "unet.", "vae.encoder.", "vae.join.", "vae.decoder.0.", "vae.decoder.2.")
    assert {name for name in base if name.startswith(parts)} <= same
    assert "vae.finish.weight" in base
    assert "vae.finish.weight" not in same
    assert not (run / "flow").exists()
    assert json.loads((run / "plan.json").read_text())["steps"].keys() == set(PHASES[4:7])
    weights = start / "flow" / "diffusion_pytorch_model.safetensors"
    changed = {n: t + 1 for n, t in load_file(weights).items()}
    save_file(changed, weights)
    with pytest.raises(DLoRALError, match="was started with start_sha256"):
        run_chain(other, run)


def test_a_start_of_another_kind_is_one_line(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DLoRALError, match="flow net of compact has different sizes"):
        run_chain(tiny_chain(photos, "start=compact"), tmp_path / "run", steps=6)


def test_other_data_or_settings_are_one_line(unbroken: Path, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(unbroken / "plan.json", run)
    with pytest.raises(DLoRALError, match=r"base\.crop=32, but it is now 64") as caught:
        run_chain(tiny_chain(photos, "base.crop=64"), run)
    assert "\n" not in str(caught.value)
    older = json.loads((run / "plan.json").read_text())
    now = json.loads(json.dumps(older))
    assert older["settings"].pop("base.own_reconstructed") is False
    check_same(run, older, now)  # a setting that came later, at its default
    check_same(run, {**older, "settings": older["settings"] | {"shares": [1, 1, 1, 1]}}, now)
    now["settings"]["base.own_reconstructed"] = True
    with pytest.raises(DLoRALError, match=r"own_reconstructed=False, but it is now True"):
        check_same(run, older, now)
    other = tmp_path / "photos"
    shutil.copytree(photos, other)
    (other / "0.png").unlink()
    with pytest.raises(DLoRALError, match="1 of its 2 sources are gone and 0 are new"):
        run_chain(tiny_chain(other), run)
    (run / "plan.json").write_text("{")
    with pytest.raises(DLoRALError, match=r"plan\.json is damaged"):
        run_chain(tiny_chain(photos), run)


def test_a_budget_becomes_step_counts_that_are_written_once(photos: Path, tmp_path: Path) -> None:
    def on_step(phase: str, step: int, losses: dict[str, float]) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run_chain(tiny_chain(photos), tmp_path, budget=3600, on_step=on_step)
    plan = json.loads((tmp_path / "plan.json").read_text())
    for phase in PHASES:
        assert plan["steps"][phase] * plan["seconds"][phase] <= 3600 / len(PHASES)
        assert plan["steps"][phase] >= 1
    with pytest.raises(KilledError):
        run_chain(tiny_chain(photos), tmp_path, budget=1e6, on_step=on_step)
    assert json.loads((tmp_path / "plan.json").read_text()) == plan


def test_a_missing_teacher_is_one_line(photos: Path, tmp_path: Path) -> None:
    weights = "base.weights={'teacher_charbonnier':1.0}"
    for run, asking in (("a", ()), ("c", (*FROM_BASE_ON, weights))):
        with pytest.raises(DLoRALError, match="teacher is required") as caught:
            run_chain(tiny_chain(photos, "teacher=", *asking), tmp_path / run, steps=5)
        assert "\n" not in str(caught.value)
    with pytest.raises(DLoRALError, match="does not exist"):
        run_chain(tiny_chain(photos, "teacher=ABSENT"), tmp_path / "b", steps=5)


def test_algorithm1_may_have_a_teacher_of_its_own(photos: Path, tmp_path: Path) -> None:
    """Which is known by its contents, as the other is; without it, it has the other's."""
    own, teacher = tmp_path / "own.safetensors", Path(teacher_of(photos).removeprefix("teacher="))
    save_file(SRVGG(width=8, depth=1).state_dict(), own)
    weights = "algorithm1.schedule.enhancement_weights={'turned_charbonnier':1.0}"
    config = tiny_chain(photos, weights, f"detail_teacher={own}")
    material = find_material(config, None, PartialState(cpu=True))
    chain = Chain(config, material)
    assert chain.teacher is not None
    assert chain.detail_teacher is not None
    assert (len(chain.teacher.body), len(chain.detail_teacher.body)) == (7, 5)
    assert settings_of(config)["detail_teacher_sha256"] == sha256(own)
    assert settings_of(config)["teacher_sha256"] == sha256(teacher)
    same = Chain(tiny_chain(photos, weights), material)
    assert same.detail_teacher is same.teacher
    alone = [*FROM_BASE_ON, "teacher=", weights]
    Chain(tiny_chain(photos, *alone, f"detail_teacher={own}"), material)
    with pytest.raises(DLoRALError, match="teacher is required"):
        Chain(tiny_chain(photos, *alone), material)
