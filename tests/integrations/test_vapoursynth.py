"""Random access is the whole run's frame; the filter itself where VapourSynth is installed."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dloral import UpscaleOptions
from dloral.frames.resize import resize_bicubic
from dloral.integrations.random_access import AHEAD, FrameServer
from dloral.pipeline import DLoRALPipeline

Make = Callable[[], DLoRALPipeline]
FRAMES = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def server(pipe: DLoRALPipeline, read: list[int], window: int) -> FrameServer:
    def frame(number: int) -> Tensor:
        read.append(number)
        return FRAMES[number]

    options = UpscaleOptions(scale=2, window=window)
    return FrameServer(frame, len(FRAMES), pipe, options)


@pytest.mark.parametrize("window", [0, 1, 3])
def test_frame_37_asked_first_is_frame_37_of_the_whole(make_pipeline: Make, window: int) -> None:
    pipe = make_pipeline()
    whole = pipe(resize_bicubic(FRAMES, 8, 8), window=window).frames
    read: list[int] = []
    frames = server(pipe, read, window)
    assert torch.equal(frames.frame(37), whole[37])
    assert read == list(range(37 - window, 38))
    order = random.Random(0).sample(range(40), 12)
    for number in [*order, 0, 39, 37]:
        assert torch.equal(frames.frame(number), whole[number]), number


def test_in_order_nothing_is_done_twice(make_pipeline: Make) -> None:
    read: list[int] = []
    frames = server(make_pipeline(), read, 1)
    for number in range(20):
        frames.frame(number)
        frames.frame(number)
    frames.frame(20 + AHEAD)
    assert read == list(range(21 + AHEAD))
    with pytest.raises(IndexError, match="frame 40 of 40"):
        frames.frame(40)


def test_a_run_that_failed_begins_anew(make_pipeline: Make) -> None:
    pipe = make_pipeline()
    broken = [True]

    def read(number: int) -> Tensor:
        if broken[0] and number == 5:
            raise OSError("the source is away")
        return FRAMES[number]

    frames = FrameServer(read, len(FRAMES), pipe, UpscaleOptions(scale=2))
    frames.frame(4)
    with pytest.raises(OSError, match="away"):
        frames.frame(5)
    broken[0] = False
    whole = pipe(resize_bicubic(FRAMES[:7], 8, 8)).frames
    assert torch.equal(frames.frame(6), whole[6])


@pytest.mark.parametrize("name", ["RGBS", "RGBH"])
def test_the_filter(make_pipeline: Make, name: str) -> None:
    vs = pytest.importorskip("vapoursynth", reason="VapourSynth has wheels from Python 3.12 on")
    from dloral.integrations.vapoursynth import upscale

    source = vs.core.std.BlankClip(format=getattr(vs, name), width=4, height=4, length=40)

    def put(n: int, f: "vs.VideoFrame") -> "vs.VideoFrame":
        made = f.copy()
        for plane in range(3):
            np.copyto(np.asarray(made[plane]), FRAMES[n, plane].numpy(), casting="same_kind")
        made.props["number"] = n
        return made

    pipe = make_pipeline()
    clip = upscale(vs.core.std.ModifyFrame(source, source, put), pipe, scale=2, window=1)
    assert (clip.format.name, clip.width, clip.height, len(clip)) == (name, 8, 8, 40)
    with clip.get_frame(37) as frame:
        first = np.stack([np.asarray(frame[plane]) for plane in range(3)])
        assert frame.props["number"] == 37
    whole = [np.stack([np.asarray(f[p]) for p in range(3)]) for f in clip.frames()]
    assert np.array_equal(first, whole[37])
    expected = pipe(resize_bicubic(FRAMES, 8, 8)).frames[37].numpy()
    assert np.abs(first - expected).max() < (1e-6 if name == "RGBS" else 2e-3)
    grey = vs.core.std.BlankClip(format=vs.GRAY8, length=1)
    with pytest.raises(vs.Error, match="the clip is Gray8; convert it to RGBS or RGBH first"):
        upscale(grey, pipe)
