"""``--model bicubic``: a second implementation of the protocol, in a model's place."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dloral import load_pipeline
from dloral.errors import OptionError
from dloral.frames.resize import resize_bicubic
from dloral.runtimes.bicubic import BicubicGenerator
from dloral.video.images import encode_image, load_image


@pytest.fixture
def clip() -> Tensor:
    return torch.rand(5, 3, 9, 14, generator=torch.Generator().manual_seed(0))


def test_gives_back_what_it_is_given(clip: Tensor) -> None:
    bicubic = load_pipeline("bicubic", device="cpu")
    assert isinstance(bicubic, BicubicGenerator)
    for options in ({}, {"window": 5, "batch_size": 2}, {"tile": 4, "tile_overlap": 1}):
        torch.testing.assert_close(bicubic(clip, **options).frames, clip, atol=1e-6, rtol=0)
    assert torch.equal(bicubic(clip, output_type="latent").frames, clip)
    assert torch.equal(bicubic.finish(bicubic.prepare(clip[:4], count=2)), clip[2:4])


@pytest.mark.parametrize(
    ("options", "named"),
    [({"detail": 2.5}, "detail is 2.5"), ({"window": 2}, "window"), ({"batch_size": 0}, "batch")],
)
def test_the_same_values_are_refused(clip: Tensor, options: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        BicubicGenerator()(clip, **options)


def test_another_vae_is_refused() -> None:
    with pytest.raises(OptionError, match="has no VAE"):
        load_pipeline("bicubic", device="cpu", vae="tiny")


SCRIPT = """
import sys
import torch
from dloral import UpscaleOptions, upscale_video
torch.set_num_threads(1)
upscale_video(sys.argv[1], sys.argv[2], UpscaleOptions(model="bicubic", scale=2))
print(*sys.modules)
"""


def test_file_to_file_without_the_libraries_that_run_models(tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    small = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(1))
    source.write_bytes(encode_image(small, ".png"))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, target], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert not {"diffusers", "transformers", "peft"} & set(result.stdout.split())
    expected = resize_bicubic(load_image(source)[None], 24, 20)[0]
    torch.testing.assert_close(load_image(target), expected, atol=1 / 255, rtol=0)
