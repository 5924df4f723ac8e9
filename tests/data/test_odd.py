"""Pictures that no camera takes: in range, of every kind, and the same whenever they are drawn."""

import numpy as np
import pytest
import torch

from dloral.data.odd import LARGEST_PERIOD, PATTERNS, REPEATING, charts, recoloured

CPU = torch.device("cpu")


def test_charts_are_pictures_and_the_same_for_a_seed():
    true, small, repeating = charts(40, 16, np.random.default_rng(3), CPU)
    assert true.shape == (40, 3, 64, 64)
    assert small.shape == (40, 3, 16, 16)
    assert true.dtype == small.dtype == torch.float32
    for part in (true, small):
        assert part.min() >= 0
        assert part.max() <= 1
    again = charts(40, 16, np.random.default_rng(3), CPU)
    assert torch.equal(again[0], true)
    assert torch.equal(again[1], small)
    assert torch.equal(again[2], repeating)
    assert 0 < int(repeating.sum()) < 40
    assert len({tuple(chart.flatten().tolist()) for chart in small}) > 30


def test_most_colours_are_pure():
    _, small, _ = charts(200, 4, np.random.default_rng(0), CPU)
    ends = torch.stack([small.amin((2, 3)), small.amax((2, 3))])
    assert float(((ends == 0) | (ends == 1)).float().mean()) > 0.4


@pytest.mark.parametrize("pattern", dict.fromkeys(PATTERNS))
def test_a_pattern_is_how_much_of_the_second_colour(pattern):
    for seed in range(20):
        strength = pattern(24, np.random.default_rng(seed))
        assert strength.shape[-2:] == (24, 24)
        assert strength.min() >= 0
        assert strength.max() <= 1


def test_stripes_and_checks_reach_single_pixels():
    """The finest patterns that a frame can hold are among them."""
    finest = {
        pattern.__name__: min(
            _period(pattern(2 * LARGEST_PERIOD, np.random.default_rng(seed))) for seed in range(40)
        )
        for pattern in REPEATING
    }
    assert finest == {"_stripes": 2, "_checks": 2}


def _period(strength: np.ndarray) -> int:
    """Pixels after which it comes again, down and across."""

    def comes_again(period: int) -> bool:
        return all(np.array_equal(strength, np.roll(strength, period, axis)) for axis in (0, 1))

    return next(filter(comes_again, range(1, len(strength))), len(strength))


def test_recolouring_keeps_edges_where_they_are_and_frames_alike():
    """The same colours everywhere in a clip, others in another."""
    frame = torch.zeros(3, 8, 8)
    frame[:, :, 4:] = torch.tensor([0.2, 0.6, 0.4])[:, None, None]
    clips = frame.expand(30, 2, 3, 8, 8)
    found = recoloured(clips, np.random.default_rng(0))
    assert found.min() == 0
    assert found.max() == 1
    assert torch.equal(found[:, 0], found[:, 1])
    for half in (slice(4), slice(4, None)):
        assert torch.equal(found[..., half], found[..., half][..., :1, :1].expand(30, 2, 3, 8, 4))
    colours = {tuple(clip[0, :, 0, 0].tolist()) for clip in found}
    assert len(colours) > 20
