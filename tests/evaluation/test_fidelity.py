"""PSNR and SSIM against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from dloral.errors import OptionError
from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.fidelity import Fidelity, Sharpness, gradient_energy, luma, psnr, ssim
from dloral.evaluation.measures import FrameSet

Pairs = list[tuple[Tensor, Tensor]]


def arrays(pair: tuple[Tensor, Tensor]) -> list[np.ndarray]:
    return [frame.permute(1, 2, 0).double().numpy() for frame in pair]


def skimage_ssim(x: np.ndarray, y: np.ndarray, **options: object) -> float:
    return structural_similarity(
        x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, **options
    )


def test_psnr_is_scikit_images(picture_pairs: Pairs) -> None:
    for pair in picture_pairs:
        restored, true = arrays(pair)
        assert psnr(*pair) == pytest.approx(
            peak_signal_noise_ratio(true, restored, data_range=1), abs=1e-4
        )


def test_ssim_is_scikit_images(picture_pairs: Pairs) -> None:
    values = []
    for pair in picture_pairs:
        values.append(ssim(*pair))
        assert values[-1] == pytest.approx(skimage_ssim(*arrays(pair), channel_axis=2), abs=1e-4)
    assert min(values) < 0.7 < 0.9 < max(values), "the pairs must differ to tell anything"


def test_luma_is_scikit_images(picture_pairs: Pairs) -> None:
    for restored, true in picture_pairs:
        wanted = [rgb2ycbcr(array)[..., 0] / 255 for array in arrays((restored, true))]
        assert np.abs(luma(restored)[0].numpy() - wanted[0]).max() < 1e-6
        frame_set = FrameSet(restored, true)
        for name, value in (
            ("psnr_y", peak_signal_noise_ratio(wanted[1], wanted[0], data_range=1)),
            ("ssim_y", skimage_ssim(*wanted)),
        ):
            assert Fidelity(METRIC_SPECS[name]).update(frame_set)[name] == pytest.approx(
                value, abs=1e-4
            )


def test_crop_leaves_the_border_out() -> None:
    true = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    restored = true.clone()
    restored[:, 4:-4, 4:-4] = (restored[:, 4:-4, 4:-4] + 0.1).clamp(0, 1)
    spoilt = restored.clone()
    spoilt[:, :4] = 0
    spoilt[:, :, -4:] = 1
    cropped = Fidelity(METRIC_SPECS["psnr"], crop=4)
    assert cropped.update(FrameSet(spoilt, true)) == cropped.update(FrameSet(restored, true))
    assert psnr(spoilt, true) < psnr(restored, true)


def test_a_crop_that_leaves_nothing_is_refused() -> None:
    frames = FrameSet(torch.zeros(3, 8, 12), torch.zeros(3, 8, 12))
    assert Fidelity(METRIC_SPECS["psnr"], crop=3).update(frames) == {"psnr": 100.0}
    with pytest.raises(OptionError, match="crop is 4, which leaves nothing of frames of 12x8"):
        Fidelity(METRIC_SPECS["psnr"], crop=4).update(frames)


def test_equal_frames_are_100_db(pictures: list[Tensor]) -> None:
    assert psnr(pictures[0], pictures[0]) == 100
    assert ssim(pictures[0], pictures[0]) == pytest.approx(1)
    assert np.isnan(ssim(pictures[0][:, :8, :8], pictures[0][:, :8, :8]))


def test_sharpness_is_gradient_energy_over_the_truths() -> None:
    """Halved contrast halves it; a ramp's energy is known; a flat truth has no figure."""
    ramp = torch.linspace(0, 1, 11).expand(3, 6, 11)
    assert gradient_energy(ramp) == pytest.approx(0.1)
    measure = Sharpness(METRIC_SPECS["sharpness"])
    truth = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    assert measure.update(FrameSet(truth, truth)) == {"sharpness": 1.0}
    assert measure.update(FrameSet(truth / 2, truth))["sharpness"] == pytest.approx(0.5)
    assert measure.update(FrameSet(truth, torch.zeros(3, 8, 9))) == {}
    assert [METRIC_SPECS["sharpness"].badness(v) for v in (0.5, 1.0, 1.25)] == [0.5, 0.0, 0.25]
