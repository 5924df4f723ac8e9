"""The batched degradation against OpenCV's pieces and the one-clip process it stands for."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from dloral.data import degradation
from dloral.data.batch_degradation import DegradationBank, blur, jpeg
from dloral.frames.resize import resize_bicubic


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Blobs, edges and stripes, float32 (96,96,3) in [0, 1]."""
    rng = np.random.default_rng(0)
    blobs = cv2.resize(rng.random((9, 9, 3), np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    blobs[20:60:4, 30:70] = 0.1
    return np.clip(blobs, 0, 1)


def as_clip(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None, None].contiguous()


def as_picture(clip: Tensor) -> np.ndarray:
    return clip[0, 0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("quality", [30, 60, 75, 95])
def test_jpeg_is_opencvs_but_for_rounding(picture: np.ndarray, quality: int):
    theirs = degradation._jpeg(picture, quality)
    ours = as_picture(jpeg(as_clip(picture), torch.tensor([float(quality)])))
    lost = np.abs(theirs - np.round(255 * picture) / 255).mean()
    assert np.abs(ours - theirs).mean() < 1.2 / 255
    assert np.abs(ours - theirs).mean() < 0.5 * lost


def test_jpeg_takes_sizes_that_no_block_divides():
    clip = torch.rand(2, 1, 3, 19, 35)
    assert jpeg(clip, torch.tensor([50.0, 90.0])).shape == clip.shape


def test_blur_is_filter2d_inside_the_border(picture: np.ndarray):
    rng = np.random.default_rng(3)
    config = degradation.DegradationConfig().first
    kernels = [degradation._sample_kernel(rng, config) for _ in range(3)]
    framed = np.stack([np.pad(k, (21 - len(k)) // 2) for k in kernels])
    clips = as_clip(picture).expand(3, -1, -1, -1, -1)
    ours = blur(clips, torch.from_numpy(framed))
    for index, kernel in enumerate(kernels):
        theirs = degradation._filter(picture, kernel)
        inner = np.s_[11:-11, 11:-11]
        assert np.abs(as_picture(ours[index : index + 1]) - theirs)[inner].max() < 1e-5


def test_as_much_is_lost_as_by_the_one_clip_process(picture: np.ndarray):
    """Medians over 60 draws of the PSNR after enlarging; the two differ by 0.9 dB in the spread
    of such medians at most (20 repetitions)."""

    def loss(lq: Tensor) -> list[float]:
        error = (resize_bicubic(lq, 96, 96) - as_clip(picture)[0]).square().mean(dim=(1, 2, 3))
        return (-10 * error.log10()).tolist()

    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    bank = DegradationBank(60, seed=2)
    ours: list[float] = []
    for _ in range(15):
        ours += loss(bank.degrade(as_clip(picture).expand(4, -1, -1, -1, -1), rng)[:, 0])
    theirs: list[float] = []
    for _ in range(60):
        lq = degradation.degrade_clip([picture], degradation.sample_degradation(rng), rng)
        theirs += loss(torch.from_numpy(lq).permute(0, 3, 1, 2).float() / 255)
    assert abs(np.median(ours) - np.median(theirs)) < 1.5


def test_frames_of_a_clip_share_all_but_noise(picture: np.ndarray):
    torch.manual_seed(0)
    clip = as_clip(picture).expand(1, 2, -1, -1, -1)
    lq = DegradationBank(4, seed=5).degrade(clip, np.random.default_rng(0))
    assert lq.shape == (1, 2, 3, 24, 24)
    assert not torch.equal(lq[0, 0], lq[0, 1])
    assert torch.equal((255 * lq).round() / 255, lq)


def test_same_seeds_same_result(picture: np.ndarray):
    def once() -> Tensor:
        torch.manual_seed(7)
        bank = DegradationBank(5, seed=5)
        return bank.degrade(as_clip(picture), np.random.default_rng(3))

    assert torch.equal(once(), once())
