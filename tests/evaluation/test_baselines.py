"""The baselines' real networks on a small frame."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dloral.cli import main
from dloral.errors import OptionError, WeightsError
from dloral.evaluation.baselines import load_baseline
from dloral.evaluation.fidelity import psnr
from dloral.models.srvgg import SRVGG
from dloral.video.images import encode_image, load_image


@pytest.mark.parametrize("name", ["bicubic", "span", "realesr-animevideov3"])
def test_a_baseline_enlarges_four_times(name: str, pictures: list[Tensor]) -> None:
    """Results follow the input (a freed buffer would give the same garbage for all).

    Made small again they are within 30 dB of it, the two inputs within 14 dB of one another.
    """
    upscaler = load_baseline(name, threads=1)
    for picture in (pictures[0], pictures[4]):
        small = torch.nn.functional.avg_pool2d(picture[None], 4)[0]
        large = upscaler(small)
        assert large.shape == picture.shape
        assert psnr(large, picture) > 17
        back = torch.nn.functional.avg_pool2d(large[None], 4)[0]
        assert psnr(back, small) > 30


def test_an_unknown_baseline() -> None:
    with pytest.raises(OptionError, match="choose from bicubic, span"):
        load_baseline("esrgan")


def test_a_network_from_a_file(pictures: list[Tensor], tmp_path: Path) -> None:
    """Any name may be given a file; the command writes a clip four times as large."""
    torch.manual_seed(0)
    network = SRVGG(width=4, depth=1)
    save_file(network.state_dict(), tmp_path / "small.safetensors")
    networks = {"mine": tmp_path / "small.safetensors"}
    small = pictures[0][:, :12, :16]
    expected = network(small[None])[0].clamp(0, 1)
    assert torch.allclose(load_baseline("mine", networks)(small), expected, atol=1e-6)
    clip = tmp_path / "clip"
    clip.mkdir()
    (clip / "0.png").write_bytes(encode_image(small, ".png"))
    call = ["baseline", "mine", str(clip), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*call, "--network", f"mine={networks['mine']}"]) == 0
    written = load_image(next((tmp_path / "out").glob("*.png")))
    assert (written - expected).abs().max() < 0.02  # 8 bits, in and out


def test_a_network_that_enlarges_twice(tmp_path: Path) -> None:
    save_file(SRVGG(width=4, depth=1, scale=2).state_dict(), tmp_path / "x2.safetensors")
    with pytest.raises(WeightsError, match="enlarges 2 times"):
        load_baseline("x2", {"x2": tmp_path / "x2.safetensors"})
