"""The compact model's GPU recipe, whole, on small networks and a processor."""

import copy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dloral.models.adapters import add_adapters
from dloral.models.perceptual import VGGTrunk
from dloral.training.compact import CompactSizes
from dloral.training.live.algorithm1 import LiveAlgorithm1
from dloral.training.live.base import train_base, train_flow
from dloral.training.live.config import LiveConfig
from dloral.training.live.pairs import Pictures, smooth_pairs
from dloral.training.live.recipe import Recipe
from dloral.training.live.smoothing import lose_grids, smoothing_losses
from dloral.training.losses import FeatureDistance


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
    train_flow(recipe, 1)
    train_base(recipe, 1)
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
