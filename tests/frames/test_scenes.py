"""Scene changes: cuts are found, motion and noise are none."""

import torch

from dloral.frames.scenes import CutDetector


def starts(frames: list[torch.Tensor]) -> list[int]:
    cuts = CutDetector()
    return [index for index, frame in enumerate(frames) if cuts.begins(frame)]


def pictures(seed: int, count: int) -> list[torch.Tensor]:
    """A large smooth picture that moves, with noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 8, generator=draw)
    large = torch.nn.functional.interpolate(coarse, (120, 200), mode="bicubic").clamp(0, 1)[0]
    return [
        (large[:, :90, 2 * i : 160 + 2 * i] + 0.05 * torch.randn(3, 90, 160, generator=draw))
        for i in range(count)
    ]


def test_cuts_are_where_pictures_change() -> None:
    assert starts(pictures(0, 5) + pictures(1, 4) + pictures(2, 1)) == [0, 5, 9]


def test_one_scene() -> None:
    assert starts(pictures(3, 12)) == [0]


def test_frame_of_one_pixel() -> None:
    assert starts([torch.zeros(3, 1, 1), torch.zeros(3, 1, 1), torch.ones(3, 1, 1)]) == [0, 2]
