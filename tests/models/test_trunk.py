"""The decoder around an SR network's trunk."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dloral.frames.resize import resize_bicubic
from dloral.models.srvgg import SRVGG
from dloral.models.trunk import TrunkDecoder, small_of
from dloral.models.vae import CompactVAE


def trunk_vae(depth: int = 4) -> CompactVAE:
    torch.manual_seed(0)
    return CompactVAE(6, 8, 1, 1, decoder_sees_input=True, trunk_depth=depth)


@pytest.mark.parametrize("kernel", ["torch", "pil"])
def test_the_small_frame_is_found_again(kernel: str) -> None:
    """From its bicubic enlargement; Pillow's kernel, a = -0.5, is undone less exactly."""
    torch.manual_seed(0)
    small = torch.rand(2, 3, 12, 20) * 0.8 + 0.1  # what bicubic overshoots is clipped
    enlarged = resize_bicubic(small, 48, 80, kernel)
    found = small_of(F.pixel_unshuffle(2 * enlarged - 1, 4))
    assert (found - small)[..., 2:-2, 2:-2].abs().max() < (0.004 if kernel == "torch" else 0.06)


def test_at_first_it_is_the_network_that_it_starts_from() -> None:
    """Whatever the latents are, and over bicubic, as the pipeline adds it."""
    torch.manual_seed(1)
    network, vae = SRVGG(8, 4), trunk_vae()
    vae.decoder.start_from(network)
    small = torch.rand(1, 3, 8, 12) * 0.8 + 0.1
    enlarged = resize_bicubic(small, 32, 48)
    with torch.no_grad():
        difference = vae.decode(torch.randn(1, 6, 4, 6), lq_frames=2 * enlarged - 1).sample
        error = (enlarged + difference / 2 - network(small))[..., 8:-8, 8:-8]
    assert error.abs().max() < 0.01


def test_a_network_of_other_sizes_is_no_start() -> None:
    with pytest.raises(ValueError, match="other sizes"):
        trunk_vae().decoder.start_from(SRVGG(8, 5))


@pytest.mark.parametrize("depth", [1, 2, 8, 32])
def test_latents_come_in_at_every_depth(depth: int) -> None:
    decoder = TrunkDecoder(6, 8, depth)
    latents, frames = torch.randn(1, 6, 2, 2), torch.rand(1, 3, 16, 16) * 2 - 1
    before = decoder(latents, frames)
    for tap in decoder.taps:
        torch.nn.init.normal_(tap.weight)
        after = decoder(latents, frames)
        assert not torch.equal(after, before)
        before = after


def test_in_half_precision_a_frame_keeps_its_values() -> None:
    """The frame itself is never rounded to bfloat16, which has half a grey level."""
    decoder = TrunkDecoder(6, 8, 4)
    for parameter in decoder.trunk.body[-1].parameters():
        torch.nn.init.zeros_(parameter)
    latents, frames = torch.randn(1, 6, 2, 2), torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        exact = decoder(latents, frames)
        half = decoder.to(torch.bfloat16)(latents.to(torch.bfloat16), frames)
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 1e-6


def test_every_weight_gets_a_gradient() -> None:
    vae = trunk_vae()
    vae(torch.rand(1, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_saved_and_loaded(tmp_path: Path) -> None:
    vae = trunk_vae()
    vae.save_pretrained(tmp_path)
    frames = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(vae(frames), CompactVAE.from_pretrained(tmp_path)(frames))
