"""Clips from photographs: the flow that comes with them is the true one."""

import cv2
import numpy as np
import torch

from dloral.data.motion import MotionConfig, homography_flow, sample_clip
from dloral.models.flow import warp


def smooth_photo(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return cv2.resize(noise, (512, 384), interpolation=cv2.INTER_CUBIC)


def test_warping_the_previous_frame_by_the_flow_gives_the_current_one():
    config = MotionConfig(still_probability=0.0)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        clip = sample_clip(smooth_photo(seed), None, 3, 96, rng, config)
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float()
        flow = torch.from_numpy(clip.flow)
        inside = warp(torch.ones(2, 1, 96, 96), flow) > 0.999
        error = (warp(frames[:-1], flow, padding="border") - frames[1:]).abs()
        assert flow.abs().max() > 0
        assert (error * inside).mean() < 1.5  # of 255: interpolation and rounding, nothing else


def test_a_shift_has_the_flow_of_a_shift():
    shift = np.array([[1, 0, 3], [0, 1, -2], [0, 0, 1]], float)
    flow = homography_flow(shift, 8)
    assert np.array_equal(flow, np.stack([np.full((8, 8), 3), np.full((8, 8), -2)]))


def test_a_foreground_moves_by_its_own_flow():
    rng = np.random.default_rng(1)
    config = MotionConfig(still_probability=0.0)
    alone = sample_clip(smooth_photo(1), None, 2, 64, np.random.default_rng(1), config)
    both = sample_clip(smooth_photo(1), smooth_photo(2), 2, 64, rng, config)
    behind = (both.flow == alone.flow).all(axis=1)
    assert 0.2 < behind.mean() < 0.95


def test_the_same_draw_gives_the_same_clip():
    first, second = (
        sample_clip(smooth_photo(0), None, 3, 64, np.random.default_rng(9)) for _ in range(2)
    )
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.flow, second.flow)
