"""``--vae tiny``: TAESD's format (a small random one) in the VAE's place, or its decoder alone."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from hub_server import Hub, repo_of
from huggingface_hub import constants

from dloral.errors import OptionError, WeightsError
from dloral.weights.loading import load_pipeline


@pytest.fixture
def tiny(hub: Hub, tmp_path: Path) -> AutoencoderTiny:
    """On the Hub, under TAESD's name."""
    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).eval()
    tiny.save_pretrained(tmp_path / "taesd")
    hub.repos["madebyollin/taesd"] = repo_of(tmp_path / "taesd")
    return tiny


@torch.no_grad()
def test_whole(tiny: AutoencoderTiny, converted: Path, hub: Hub) -> None:
    """Its latents are Stable Diffusion's scaled ones, so nothing is scaled on the way."""
    pipe = load_pipeline(converted, device="cpu", dtype="float32", vae="tiny")
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pipe.encode(frames), tiny.encode(2 * frames - 1).latents)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    decoded = (tiny.decode(latents).sample.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(pipe.decode(latents, frames), decoded)
    assert pipe(frames).frames.shape == frames.shape
    hub.log.clear()
    load_pipeline(converted, device="cpu", dtype="float32", vae="tiny")
    assert not hub.log  # kept


@torch.no_grad()
def test_decoder_alone(tiny: AutoencoderTiny, converted: Path) -> None:
    own = load_pipeline(converted, device="cpu", dtype="float32")
    pipe = load_pipeline(converted, device="cpu", dtype="float32", vae="tiny-decoder")
    frames = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pipe.encode(frames), own.encode(frames))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    decoded = (tiny.decode(latents).sample.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(pipe.decode(latents, frames), decoded)


def test_not_for_other_latents(tiny: AutoencoderTiny) -> None:
    with pytest.raises(OptionError, match="latents"):
        load_pipeline("compact", device="cpu", vae="tiny")


def test_not_there(converted: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"python -m dloral fetch taesd") as caught:
        load_pipeline(converted, device="cpu", vae="tiny")
    assert 'vae="auto"' in str(caught.value)
