"""A fresh compact pipeline that takes over an earlier model's weights."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import build_pipeline, take_over
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
