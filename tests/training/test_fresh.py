"""A fresh compact pipeline that takes over an earlier model's weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dloral.errors import OptionError, WeightsError
from dloral.models.adapters import add_adapters
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline, take_over
from dloral.training.plan import start_digest
from dloral.training.start import TINY_SIZES

SIZES = replace(TINY_SIZES, decoder_sees_input=True, upsample=True)


@torch.no_grad()
def restored(pipe: DLoRALPipeline, frames: Tensor) -> Tensor:
    latents = pipe.encode(frames)
    return pipe.decode(pipe.refine(latents, latents, None), frames)


def test_a_deeper_decoder_starts_as_the_earlier_one(tmp_path: Path) -> None:
    earlier = build_pipeline(SIZES, seed=1)
    with torch.no_grad():
        for parameter in earlier.vae.parameters():
            nn.init.normal_(parameter, std=0.2)
    earlier.save_pretrained(tmp_path)
    deeper = build_pipeline(replace(SIZES, decoder_blocks=SIZES.decoder_blocks + 2), seed=2)
    frames = torch.rand(1, 3, 16, 24)
    assert not torch.allclose(restored(deeper, frames), restored(earlier, frames), atol=1e-3)
    take_over(deeper, str(tmp_path))
    torch.testing.assert_close(restored(deeper, frames), restored(earlier, frames))


def test_latents_of_another_size_say_nothing_at_first(tmp_path: Path) -> None:
    """The decoder then draws as the earlier one does of silent latents."""
    sizes = replace(SIZES, small_picture=True)
    earlier = build_pipeline(sizes, seed=1)
    with torch.no_grad():
        for parameter in earlier.vae.parameters():
            nn.init.normal_(parameter, std=0.2)
        earlier.vae.decoder[0].bias.zero_()
    earlier.save_pretrained(tmp_path)
    smaller = build_pipeline(
        replace(sizes, latent_channels=2, encoder_blocks=0, unet_channels=(16, 8)), seed=2
    )
    take_over(smaller, str(tmp_path))
    frames = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        silent = earlier.vae.silent_latents(2 * frames - 1)
        wanted = earlier.decode(silent, frames)
        torch.testing.assert_close(smaller.decode(smaller.encode(frames), frames), wanted)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_run_starts_from_a_phase_of_an_earlier_one(tmp_path: Path, adapted: bool) -> None:
    """Written as the chain writes it: every tensor by its part and name, LoRAs or not."""
    earlier = build_pipeline(SIZES, seed=1)
    with torch.no_grad():
        for parameter in earlier.vae.parameters():
            nn.init.normal_(parameter, std=0.2)
    frames = torch.rand(1, 3, 16, 24)
    wanted = restored(earlier, frames)
    if adapted:
        add_adapters(earlier.unet, 4)
    path = tmp_path / "base.safetensors"
    parts = {"vae": earlier.vae, "unet": earlier.unet, "flow": earlier.flow}
    tensors = {
        f"{p}.{n}": t.contiguous()
        for p, part in parts.items()
        for n, t in part.state_dict().items()
    }
    save_file(tensors, path)
    later = build_pipeline(SIZES, seed=2)
    take_over(later, str(path))
    torch.testing.assert_close(restored(later, frames), wanted)
    before = start_digest(str(path))
    save_file({**tensors, "flow.more": torch.zeros(1)}, path)
    assert start_digest(str(path)) != before


def test_a_start_that_is_missing_or_broken_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    for start in (take_over, lambda pipe, model: start_digest(model)):
        with pytest.raises(WeightsError, match="does not exist; give the RUN"):
            start(build_pipeline(SIZES), str(path))
    path.write_bytes(b"cut short")
    with pytest.raises(WeightsError, match="is corrupt"):
        take_over(build_pipeline(SIZES), str(path))
    save_file({"vae.decoder.0.bias": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="flow net"):
        take_over(build_pipeline(SIZES), str(path))


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        (CompactSizes(reach=2.0), "a bound on features needs rectified blocks"),
        (CompactSizes(block_rank=4), "LoRAs on the decoder's blocks need rectified blocks"),
        (CompactSizes(head_rank=4), "LoRAs on the decoder's last convolution need a direct head"),
    ],
)
def test_parts_that_a_decoder_has_no_place_for_are_one_line(sizes: CompactSizes, line: str):
    with pytest.raises(OptionError, match=line):
        build_pipeline(sizes)
