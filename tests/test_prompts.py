"""One prompt a scene: cuts, the tagger, the person's words; and that they reach the UNet."""

import gc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from dloral.errors import OptionError, WeightsError
from dloral.models.tagger import Tagger
from dloral.options import UpscaleOptions
from dloral.pipeline import DLoRALPipeline
from dloral.prompts import Scene, find_scenes, prompt_at, tagger_folder
from dloral.upscale import upscale_steps, upscale_video
from dloral.video.probe import probe
from dloral.video.writer import open_writer
from dloral.weights.loading import load_pipeline
from dloral.weights.tagger import convert_tagger

RAM = Path(__file__).parent / "data" / "ram_tiny"


@pytest.fixture(scope="module")
def model(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny full model with the tiny tagger in its folder."""
    import shutil

    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(converted, folder)
    convert_tagger(
        RAM / "ram_tiny.pth",
        RAM / "DAPE_tiny.pth",
        RAM / "ram_tag_list.txt",
        RAM / "ram_tag_list_threshold.txt",
        folder / "tagger",
    )
    return folder


@pytest.fixture(scope="module")
def full(model: Path) -> DLoRALPipeline:
    return load_pipeline(model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cut_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 x 48, 6 frames at 5 frames/s: three of one picture, a cut, three of another."""
    source = tmp_path_factory.mktemp("source") / "cut.png"
    from PIL import Image

    Image.new("RGB", (64, 48)).save(source)
    target = source.with_suffix(".mp4")
    draw = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, 6, 8, generator=draw) for _ in range(2)]
    with open_writer(target, width=64, height=48, source=probe(source), crf=10) as writer:
        for index in range(6):
            picture = pictures[index // 3].repeat_interleave(8, 1).repeat_interleave(8, 2)
            writer.write(picture, Fraction(index, 5), Fraction(1, 5))
    return target


def options(model: Path, **changes: object) -> UpscaleOptions:
    chosen = {"model": str(model), "scale": 1.0, "device": "cpu", "dtype": "float32"}
    return UpscaleOptions(**(chosen | changes))  # type: ignore[arg-type]


def test_asked_at_every_cut(cut_clip: Path, full: DLoRALPipeline, model: Path) -> None:
    scenes = list(find_scenes(probe(cut_clip), options(model, prompt="at night"), full))
    assert [scene.start for scene in scenes] == [0, Fraction(3, 5)]
    names = set((RAM / "ram_tag_list.txt").read_text().splitlines())
    for scene in scenes:
        assert scene.prompt.endswith(", at night,")
        tags = scene.prompt.removesuffix(", at night,").split(", ")
        assert tags
        assert set(tags) <= names
    assert scenes[0].prompt != scenes[1].prompt


def test_taggers_memory_is_given_back(cut_clip: Path, full: DLoRALPipeline, model: Path) -> None:
    scenes = find_scenes(probe(cut_clip), options(model), full)
    next(scenes)
    assert [one for one in gc.get_objects() if type(one) is Tagger]
    list(scenes)
    assert not [one for one in gc.get_objects() if type(one) is Tagger]


def test_only_what_is_restored_is_looked_at(
    cut_clip: Path, full: DLoRALPipeline, model: Path
) -> None:
    (scene,) = find_scenes(probe(cut_clip), options(model, start=0.6), full)
    assert scene.start == Fraction(3, 5)


def test_the_persons_prompt_alone(cut_clip: Path, full: DLoRALPipeline, model: Path) -> None:
    chosen = options(model, prompt="a cat", tagger="none")
    assert list(find_scenes(probe(cut_clip), chosen, full)) == [Scene(Fraction(0), "a cat")]


def test_ram_and_dape_differ(cut_clip: Path, full: DLoRALPipeline, model: Path) -> None:
    ram, dape = (
        list(find_scenes(probe(cut_clip), options(model, tagger=name), full))
        for name in ("ram", "dape")
    )
    assert ram != dape


def test_model_that_reads_no_prompts(cut_clip: Path, pipe: DLoRALPipeline) -> None:
    assert tagger_folder(UpscaleOptions(prompt="a cat"), pipe) is None
    with pytest.raises(OptionError, match="reads no prompts"):
        tagger_folder(UpscaleOptions(tagger="dape"), pipe)


def test_tagger_that_is_not_there(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    bare = load_pipeline(converted, device="cpu", dtype="float32")
    assert tagger_folder(options(converted), bare) is None
    with pytest.raises(WeightsError, match=r'python -m dloral fetch tagger.*tagger="none"'):
        tagger_folder(options(converted, tagger="dape"), bare)


def test_prompt_at() -> None:
    scenes = [Scene(Fraction(1), "a"), Scene(Fraction(2), "b"), Scene(Fraction(5), "c")]
    times = [Fraction(0), Fraction(1), Fraction(19, 10), Fraction(2), Fraction(9)]
    assert [prompt_at(scenes, time) for time in times] == ["a", "a", "a", "b", "c"]


def test_a_prompt_a_frame(full: DLoRALPipeline) -> None:
    """Frames of one stream may have prompts of their own, alone or in batches."""
    frames = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = ["a cat,", "a cat,", "grass,", "grass,"]
    one, other = (
        torch.stack(list(full.stream(frames, prompt=prompt))) for prompt in ("a cat,", "grass,")
    )
    for size in (1, 4):
        mixed = torch.stack(list(full.stream(frames, prompt=iter(prompts), batch_size=size)))
        torch.testing.assert_close(mixed[:2], one[:2], atol=1e-4, rtol=0)
        torch.testing.assert_close(mixed[2:], other[2:], atol=1e-4, rtol=0)
    assert (one - other).abs().max() > 1e-3


@pytest.fixture
def restored(
    cut_clip: Path, full: DLoRALPipeline, model: Path, tmp_path: Path
) -> Callable[..., torch.Tensor]:
    """Restores the clip with the given scenes or tagger into a folder and reads that."""
    from dloral.video.reader import read_frames

    def restore(scenes: list[Scene] | None = None, **changes: object) -> torch.Tensor:
        target = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        upscale_video(cut_clip, target, options(model, **changes), pipe=full, scenes=scenes)
        with read_frames(target) as frames:
            return torch.stack([frame.pixels for frame in frames])

    return restore


def test_scenes_reach_the_frames(restored: Callable[..., torch.Tensor]) -> None:
    """An edited prompt of the second scene changes its frames and no other."""
    cut = Fraction(3, 5)
    first = restored([Scene(Fraction(0), "a cat,"), Scene(cut, "a cat,")])
    second = restored([Scene(Fraction(0), "a cat,"), Scene(cut, "grass, tree,")])
    assert torch.equal(first[:3], second[:3])
    assert not torch.equal(first[3:], second[3:])
    assert torch.equal(first, restored(prompt="a cat,", tagger="none"))


def test_progress_shows_the_prompts(
    cut_clip: Path, full: DLoRALPipeline, model: Path, tmp_path: Path
) -> None:
    events = list(upscale_steps(cut_clip, tmp_path / "out", options(model), full))
    looking = [event for event in events if event.stage == "looking"]
    assert [len(event.scenes) for event in looking] == [1, 2]
    assert events[-1].stage == "done"
    assert events[-1].scenes == looking[-1].scenes
