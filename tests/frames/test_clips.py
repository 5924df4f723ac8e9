"""Clips in memory: what is taken, and what is said of the rest."""

import numpy as np
import pytest
import torch
from PIL import Image

from dloral import load_pipeline
from dloral.errors import OptionError
from dloral.frame_generator import FrameGenerator
from dloral.frames.clips import as_frames


@pytest.fixture(scope="module")
def pipe() -> FrameGenerator:
    return load_pipeline("bicubic")


def red(mode: str = "RGB", side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, 8), (255, 0, 0)).convert(mode)


RAMP = np.linspace(0, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
NAN = RAMP.copy()
NAN[1, 2, 3, 4] = np.nan

REFUSED = {
    "codes": (255 * RAMP, "frames hold values from 0 to 255; give uint8, or float in [0, 1]"),
    "from -1 to 1": (2 * RAMP - 1, "frames hold values from -1 to 1; give"),
    "NaN": (NAN, "frames hold values from nan to nan; give"),
    "infinite": (np.where(RAMP > 0.5, np.inf, RAMP), "frames hold values from 0 to inf; give"),
    "uint16": (np.zeros((2, 8, 8, 3), np.uint16), "frames are uint16; give uint8, or float"),
    "int64": (np.zeros((2, 8, 8, 3), np.int64), "frames are int64; give"),
    "bool": (np.zeros((2, 8, 8, 3), bool), "frames are bool; give"),
    "complex": (torch.zeros(2, 3, 8, 8, dtype=torch.complex64), "frames are complex64; give"),
    "none": ([], "frames are an empty list; give at least one frame"),
    "no frames": (
        np.zeros((0, 8, 8, 3), np.uint8),
        "(0, 8, 8, 3), which holds no pixels; give",
    ),
    "sizes": ([red(), red(side=9)], "different sizes: (3, 8, 8) and (3, 8, 9); give"),
    "types": ([RAMP[0], RAMP[1].astype(np.uint8)], "different types: float64 and uint8; give"),
    "grey": (RAMP[:, 0], "frames have shape (2, 8, 8), which may be grey: repeat"),
    "grey in a list": ([RAMP[0, 0]] * 2, "shape (2, 8, 8), which may be grey"),
    "one array": (RAMP[0], "shape (3, 8, 8), of one frame: put it in a list; give"),
    "RGBA": (np.zeros((2, 8, 8, 4), np.uint8), "shape (2, 8, 8, 4), with transparency: leave"),
    "16 bits": (Image.new("I;16", (8, 8), 30000), "mode I;16, of more than 8 bits; give float"),
    "floats of PIL": ([Image.new("F", (8, 8), 0.5)], "mode F, of more than 8 bits; give float"),
    "a name": ("clip.mp4", "frames are of type str; give float (T, 3, H, W)"),
    "names": (["1.png", "2.png"], "frames are of type str; give"),
    "objects": (np.array([None]), "frames are object; give"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_a_clip(pipe: FrameGenerator, kind: str) -> None:
    frames, told = REFUSED[kind]
    with pytest.raises(OptionError) as refusal:
        pipe(frames)
    assert told in str(refusal.value)
    assert "torch." not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_a_clip(pipe: FrameGenerator) -> None:
    expected = pipe([red()]).frames
    for one in (red(), red("RGBA"), red("P"), (red(),), [np.asarray(red())]):
        assert torch.equal(pipe(one).frames, expected)
    assert pipe(red("L")).frames.shape == pipe(red("1")).frames.shape == (1, 3, 8, 8)
    for dtype in (np.float16, np.float32, np.float64):
        assert pipe(RAMP.astype(dtype)).frames.shape == (2, 3, 8, 8)
    assert pipe(1.6 * RAMP - 0.3).frames.shape == (2, 3, 8, 8)  # as bicubic overshoots


def test_the_other_ways_in_look_too(pipe: FrameGenerator) -> None:
    codes = torch.from_numpy(255 * RAMP)
    with pytest.raises(OptionError, match="values from 0 to 255"):
        pipe.prepare(codes)
    with pytest.raises(OptionError, match=r"values from 127\.8 to 255"):
        list(pipe.stream(codes.flip(0)))


def test_pictures_three_pixels_high() -> None:
    """A PIL image is never mistaken for channels first."""
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    frames = as_frames([Image.fromarray(array)])
    assert frames.shape == (1, 3, 3, 5)
    assert torch.equal(frames[0], torch.from_numpy(array).permute(2, 0, 1) / 255)


def test_flipped_and_read_only_arrays_are_taken() -> None:
    array = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    array.flags.writeable = False
    flipped = as_frames(array[:, :, ::-1])
    assert torch.equal(flipped.flip(-1), as_frames(array.copy()))
