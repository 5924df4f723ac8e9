"""The compact model's GPU recipe, whole, on small networks and a processor."""

import copy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dloral.data.clips import Clips
from dloral.data.pictures import Pictures
from dloral.data.pool import smooth_pairs
from dloral.errors import OptionError, WeightsError
from dloral.models.adapters import add_adapters
from dloral.models.perceptual import LPIPSLike, VGGTrunk
from dloral.training.compact import CompactSizes, build_pipeline
from dloral.training.live.algorithm1 import LiveAlgorithm1
from dloral.training.live.base import train_base, train_flow
from dloral.training.live.config import LiveConfig, changed_config
from dloral.training.live.recipe import Recipe
from dloral.training.live.smoothing import lose_grids, smoothing_losses
from dloral.training.losses import FeatureDistance
from dloral.training.trainer import NotFiniteError


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Blobs and fine stripes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture[:, : width // 2 : 6] //= 2
    return picture


SIZES = CompactSizes(
    latent_channels=4, vae_width=8, encoder_blocks=1, decoder_blocks=1, unet_channels=(8, 16)
)
CONFIG = LiveConfig(
    size=128,
    crop=32,
    stills_held=8,
    clips_held=8,
    stills_at_a_time=4,
    clips_at_a_time=4,
    warm_refills=1,
    draws=20,
    flow_clips=2,
    base_restored=3,
    base_reconstructed=1,
    lora_rank=2,
    consistency_clips=2,
    enhancement_clips=1,
    discriminator_width=4,
    stages="CDC",
)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    torch.manual_seed(0)
    photos = []
    for seed in range(2):
        photos.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(photos[-1]), photograph(seed, 300, 340))
    film = torch.randint(0, 255, (2, 5, 3, 130, 140), dtype=torch.uint8)
    pictures = Pictures(photos, film, CONFIG.size, "cpu")
    return Recipe(CONFIG, pictures, FeatureDistance(VGGTrunk(1)), tmp_path, SIZES)


def test_every_phase_runs_and_each_trains_its_own_part(recipe: Recipe, tmp_path: Path):
    pipe = recipe.pipe
    at_first = {part: copy.deepcopy(getattr(pipe, part).state_dict()) for part in PARTS}
    train_flow(recipe, 1)
    assert _changed(recipe, at_first) == {"flow"}
    train_base(recipe, 1)
    assert _changed(recipe, at_first) == {"flow", "vae", "unet"}
    recipe.save("base")
    base = {name: t.clone() for name, t in pipe.unet.state_dict().items()}
    vae = {name: t.clone() for name, t in pipe.vae.state_dict().items()}
    LiveAlgorithm1(recipe).train(3)

    after = pipe.unet.state_dict()
    for name, tensor in base.items():
        layer, _, kind = name.rpartition(".")
        now = after.get(f"{layer}.base_layer.{kind}", after.get(name))
        assert torch.equal(now, tensor), name
    assert all(torch.equal(t, vae[name]) for name, t in pipe.vae.state_dict().items())
    for lora in ("consistency", "detail"):
        tensors = load_file(tmp_path / "final" / "unet" / f"{lora}.safetensors")
        assert any(t.abs().max() > 0 for key, t in tensors.items() if "lora_B" in key)
        assert all(np.isfinite(t.float().numpy()).all() for t in tensors.values())


PARTS = ("flow", "vae", "unet", "retrieval")


def _changed(recipe: Recipe, before: dict[str, dict[str, torch.Tensor]]) -> set[str]:
    states = {part: getattr(recipe.pipe, part).state_dict() for part in before}
    return {
        part
        for part, state in states.items()
        if any(not torch.equal(tensor, before[part][name]) for name, tensor in state.items())
    }


@pytest.mark.parametrize("fresh", [True, False])
def test_only_new_loras_are_first_trained_without_d_lora(
    recipe: Recipe, fresh: bool, monkeypatch: pytest.MonkeyPatch
):
    if not fresh:
        add_adapters(recipe.pipe.unet, CONFIG.lora_rank)
    recipe.config = replace(CONFIG, stages="C", detail_share=1.0)
    training, details = LiveAlgorithm1(recipe), []
    restored = training.restored

    def watched(batch: Clips, consistency: float, detail: float) -> torch.Tensor:
        details.append(detail)
        return restored(batch, consistency, detail)

    monkeypatch.setattr(training, "restored", watched)
    monkeypatch.setattr(training, "seconds_a_step", lambda *_: 1.0)  # twelve steps
    training.train(0)
    assert details == 12 * [0.0 if fresh else 1.0]


def test_a_saved_model_takes_the_place_of_the_one_before(recipe: Recipe, tmp_path: Path):
    add_adapters(recipe.pipe.unet, 2)
    recipe.save("final")
    assert (tmp_path / "final" / "unet" / "detail.safetensors").is_file()
    recipe.pipe = build_pipeline(SIZES)
    recipe.save("final")
    assert not (tmp_path / "final" / "unet" / "detail.safetensors").exists()
    assert not list(tmp_path.glob(".*"))
    recipe.pipe.save_pretrained(tmp_path / "own")
    add_adapters(recipe.pipe.unet, 2)
    recipe.pipe.save_pretrained(tmp_path / "own")
    build_pipeline(SIZES).save_pretrained(tmp_path / "own")
    assert not (tmp_path / "own" / "unet" / "detail.safetensors").exists()


def test_a_loss_that_is_not_finite_is_one_line(
    recipe: Recipe,
):
    recipe.config = replace(CONFIG, base_rate=1e20, log_every=1)
    with pytest.raises(NotFiniteError, match="base, step"):
        train_base(recipe, 1)


@pytest.mark.parametrize(
    "setting",
    [
        "crop=500",
        "crop=100",
        "crop=128.5",
        "refill_every=0",
        "stills_held=8",
        "smooth_crops=1",
        "film_share=2",
        "seed=-1",
        "lora_rate=nan",
        "stages=XY",
        "post_init=1",
        "__doc__=1",
    ],
)
def test_a_setting_that_cannot_be_is_one_line(setting: str):
    with pytest.raises(OptionError) as caught:
        changed_config([setting])
    assert setting.partition("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_features_from_a_file(tmp_path: Path):
    path = tmp_path / "features.safetensors"
    for text in (None, "no weights"):
        if text:
            path.write_text(text)
        with pytest.raises(WeightsError, match="holds no LPIPS-like weights of 2 blocks"):
            LPIPSLike(path, blocks=2)
    stored = LPIPSLike(blocks=2)
    stored.store(path)
    frames = torch.rand(2, 2, 3, 32, 32)
    torch.testing.assert_close(
        LPIPSLike(path, blocks=2)(*frames), stored(*frames), rtol=0.02, atol=0
    )
    with pytest.raises(WeightsError, match="of 3 blocks"):
        LPIPSLike(path, blocks=3)


def test_smoothing_trains_the_decoder_alone_and_takes_its_grid(recipe: Recipe, tmp_path: Path):
    recipe.config = replace(CONFIG, smoothing_rate=3e-3, smoothing_keep=1.0)
    pipe = recipe.pipe
    add_adapters(pipe.unet, 2)
    with torch.no_grad():  # a dot in every cell of four pixels
        pipe.vae.decoder[-2].bias[5] += 0.5
    parts = {"unet": pipe.unet, "encoder": pipe.vae.encoder, "flow": pipe.flow}
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    teacher = copy.deepcopy(pipe.vae)

    def drawn() -> float:
        recipe.rng = np.random.default_rng(3)
        with torch.no_grad():
            return smoothing_losses(recipe, teacher)["clean"].item()

    recipe.fill(1)
    at_first = drawn()
    lose_grids(recipe, 4)
    assert drawn() < 0.5 * at_first
    for name, part in parts.items():
        after = part.state_dict()
        assert all(torch.equal(tensor, after[key]) for key, tensor in before[name].items()), name


def test_smooth_pairs_are_smooth_and_alike():
    hq, lq = smooth_pairs(6, 64, np.random.default_rng(0), torch.device("cpu"))
    assert hq.shape == lq.shape == (6, 3, 64, 64)
    assert (hq[..., 1:] - hq[..., :-1]).abs().max() < 0.05
    assert (hq - lq).abs().mean() < 0.01
