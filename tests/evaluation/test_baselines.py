"""The peers' real networks on a small frame."""

import pytest
import torch
from torch import Tensor

from dloral.errors import OptionError
from dloral.evaluation.baselines import load_baseline
from dloral.evaluation.fidelity import psnr


@pytest.mark.parametrize("name", ["bicubic", "span", "realesr-animevideov3"])
def test_a_peer_enlarges_four_times(name: str, pictures: list[Tensor]) -> None:
    """Results follow the input (a freed buffer would give the same garbage for all).

    Made small again they are within 30 dB of it, the two inputs within 14 dB of one another.
    """
    peer = load_baseline(name, threads=1)
    for picture in (pictures[0], pictures[4]):
        small = torch.nn.functional.avg_pool2d(picture[None], 4)[0]
        large = peer(small)
        assert large.shape == picture.shape
        assert psnr(large, picture) > 17
        back = torch.nn.functional.avg_pool2d(large[None], 4)[0]
        assert psnr(back, small) > 30


def test_an_unknown_peer() -> None:
    with pytest.raises(OptionError, match="choose from bicubic, span"):
        load_baseline("esrgan")
