"""Frames as codes: the same floats, a fraction of the memory, and nothing of them trusted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from av import VideoFrame
from torch import Tensor

from dloral.errors import InputError
from dloral.video.codes import coded, floats_of, is_coded, most_bytes, shape_of
from dloral.video.colour import frame_to_rgb
from dloral.video.probe import probe
from dloral.video.reader import floats_of as floats_of_clip
from dloral.video.reader import read_frames
from dloral.video.side_data import Orientation

UPRIGHT = Orientation()


def frame_of(pixel_format: str, height: int = 21, width: int = 35) -> VideoFrame:
    frame = VideoFrame(width, height, pixel_format)
    draw = np.random.default_rng(height)
    for plane in frame.planes:
        wide = frame.format.components[0].bits > 8 and "rgb" not in pixel_format
        most = 2 ** min(frame.format.components[0].bits, 16)
        count = plane.buffer_size // (2 if wide else 1)
        plane.update(draw.integers(0, most, count, np.uint16 if wide else np.uint8).tobytes())
    return frame


CODED = (
    *("yuv420p", "yuvj420p", "yuv422p10le", "yuv444p", "yuv444p16le", "yuv410p", "yuv440p", "nv12"),
    *("p010le", "yuyv422", "gray", "gray10le", "gbrp", "gbrp10le"),
)


@pytest.mark.parametrize("pixel_format", CODED)
@pytest.mark.parametrize("size", [(21, 35), (1, 1), (700, 1001)])
def test_floats_are_the_same_by_way_of_codes(pixel_format, size):
    frame = frame_of(pixel_format, *size)
    kept = coded(frame, "mjpeg", UPRIGHT)
    assert is_coded(kept)
    assert shape_of(kept) == size
    assert 4 * len(kept) <= most_bytes(*size, pixel_format, frame.format.components[0].bits)
    rgb, _ = floats_of(kept)
    assert torch.equal(rgb, frame_to_rgb(frame, "mjpeg"))


def test_a_frame_is_read_the_same_each_time():
    frame = frame_of("p010le", 21, 36)
    first = frame_to_rgb(frame)
    for _ in range(40):
        assert torch.equal(frame_to_rgb(frame), first)


@pytest.mark.parametrize("pixel_format", ["rgb24", "yuva420p", "gbrap", "gbrpf32le"])
def test_packed_transparent_and_float_frames_have_no_codes(pixel_format):
    assert coded(frame_of(pixel_format), "h264", UPRIGHT) is None


def test_how_a_frame_is_turned_goes_with_it():
    turn = Orientation(True, False, True)
    kept = coded(frame_of("yuv420p"), "h264", turn)
    assert shape_of(kept) == (35, 21)
    assert floats_of(kept)[1] == turn


def test_codes_of_a_video_take_an_eighth():
    assert most_bytes(2160, 3840, "yuv420p", 8) < 3 * 4 * 2160 * 3840 / 7.9


def head_with(kept: Tensor, at: int, value: int) -> Tensor:
    changed = kept.clone()
    changed.view(torch.int32)[at] = value
    return changed


def test_codes_that_a_worker_made_up_are_no_frame():
    kept = coded(frame_of("yuv420p"), "h264", UPRIGHT)
    wrong = [head_with(kept, 0, 9), head_with(kept, 0, -1), head_with(kept, 1, 40)]
    wrong += [head_with(kept, 3, 99), head_with(kept, 8, 2**30), head_with(kept, 8, 0)]
    wrong += [head_with(kept, 10, -5), head_with(kept, 13, 36), head_with(kept, 0, 1)]
    for codes in (*wrong, kept[:5], kept[:-1]):
        with pytest.raises(ValueError):
            floats_of(codes)
    for codes in wrong[:3]:
        with pytest.raises(ValueError):
            shape_of(codes)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_clip_read_as_codes_is_the_clip(clips, isolated):
    for name in ("plain.mp4", "rotated.mp4"):
        clip = replace(probe(clips(name)), isolated=isolated)
        with read_frames(clip) as frames:
            plain = [frame.pixels for frame in frames]
        with read_frames(replace(clip, as_codes=True)) as frames:
            kept = [frame.pixels for frame in frames]
        assert all(map(is_coded, kept))
        for one, other in zip(kept, plain, strict=True):
            assert torch.equal(floats_of_clip(one, clip), other)
        with pytest.raises(InputError, match=f"{clip.path.name} cannot be read"):
            floats_of_clip(kept[0], replace(clip, width=clip.width + 2))
