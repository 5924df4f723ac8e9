"""The live preview: what a run makes, only what is needed computed anew, only the newest call."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dloral.errors import CancelledError, InputError
from dloral.frames.resize import resize_bicubic
from dloral.jobs.spans import enlarged_by
from dloral.options import UpscaleOptions
from dloral.studio.preview import Preview, Region, busiest, part_of
from dloral.studio.sources import Sources
from dloral.video.probe import probe
from dloral.video.reader import read_frames


@pytest.fixture
def preview(clip: Path, model) -> Preview:
    return Preview(probe(clip), model)


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def whole_clip(clip: Path, scale: float) -> torch.Tensor:
    with read_frames(clip) as frames:
        small = torch.stack([frame.pixels for frame in frames])
    height, width = small.shape[-2:]
    return resize_bicubic(small, round(height * scale), round(width * scale))


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("index", [0, 1, 7])
@pytest.mark.parametrize("scale", [2.0, 2.2])  # the second is padded to the latent grid
def test_a_whole_frame_is_what_a_run_makes(preview, clip, tiny_pipe, window, index, scale):
    options = UpscaleOptions(scale=scale, window=window, consistency=0.5, detail=1.5)
    made = preview.render(index, options, most_pixels=10**6)
    assert made.is_whole
    large = whole_clip(clip, scale)
    enlarged = enlarged_by(probe(clip), scale)
    full = tiny_pipe(large, consistency=0.5, detail=1.5, window=window, enlarged=enlarged).frames
    expected = (full[index].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(pixels_of(made.png), expected)


def test_a_part_lies_where_it_says_and_is_close_to_a_run(preview, clip, tiny_pipe):
    bare = UpscaleOptions(scale=4, consistency=0, detail=0)
    made = preview.render(3, bare, most_pixels=64 * 64, centre=(1.0, 0.0))
    region = made.region
    assert not made.is_whole
    assert (region.x + region.width, region.y) == (192, 0)
    full = (
        tiny_pipe(whole_clip(clip, 4), consistency=0, detail=0).frames[3].permute(1, 2, 0).numpy()
        * 255
    )
    rows, columns = slice(region.y, region.y + region.height), slice(region.x, 192)
    part = pixels_of(made.png)
    assert part.shape == (region.height, region.width, 3)
    # CFR and the flow see less of the frame; what they see is the same
    assert np.abs(part - full[rows, columns]).mean() < 3
    bicubic = pixels_of(preview.bicubic(3, 4.0, region))
    expected = whole_clip(clip, 4)[3].permute(1, 2, 0).numpy()[rows, columns] * 255
    assert np.abs(bicubic - expected).max() <= 1


def test_moving_a_scale_runs_only_what_depends_on_it(preview, model, monkeypatch):
    calls: list[str] = []
    pipe = model.pipe()
    for name in ("encode", "retrieve", "refine", "decode"):
        step = getattr(pipe, name)
        monkeypatch.setattr(
            pipe, name, lambda *args, name=name, step=step: calls.append(name) or step(*args)
        )
    options = UpscaleOptions(scale=2)
    first = preview.render(5, options)
    assert calls == ["encode", "encode", "retrieve", "refine", "decode"]
    calls.clear()
    moved = preview.render(5, replace(options, detail=0.2))
    assert calls == ["refine", "decode"]
    assert moved.png != first.png
    calls.clear()
    assert preview.render(5, options).png == first.png  # kept
    assert not calls
    preview.render(6, options)
    assert calls[0] == "encode"


def test_moving_a_scale_reads_nothing_where_frames_are_too_large_to_be_kept(clip, model, tmp_path):
    own = tmp_path / "own.mp4"
    own.write_bytes(clip.read_bytes())
    preview = Preview(probe(own), model, Sources(kept_bytes=0))
    options, middle = UpscaleOptions(scale=2), (0.5, 0.5)
    first = preview.render(5, options, centre=middle)
    own.unlink()
    moved = preview.render(5, replace(options, detail=0.2), centre=middle)
    assert moved.png != first.png
    with pytest.raises(InputError):
        preview.render(6, options, centre=middle)


def test_only_the_newest_of_a_burst_is_computed(preview, model):
    ended: list[str] = []

    def ask(detail: float) -> None:
        try:
            preview.render(2, UpscaleOptions(scale=2, detail=detail))
            ended.append(f"made {detail}")
        except CancelledError:
            ended.append(f"superseded {detail}")

    with model.turns.take():  # somebody else has the model: calls pile up
        threads = []
        for detail in (0.1, 0.2, 0.3, 0.4):
            threads.append(threading.Thread(target=ask, args=(detail,)))
            threads[-1].start()
            threads[-1].join(0.1)
    for thread in threads:
        thread.join(20)
    # the first had begun; of those behind it only the last was of use
    assert sorted(ended) == ["made 0.1", "made 0.4", "superseded 0.2", "superseded 0.3"]


def test_the_part_grows_when_the_machine_is_fast(clip, model):
    preview = Preview(probe(clip), model)
    options = UpscaleOptions(scale=4)
    model.preview_seconds_per_pixel = None
    model.preview_timed(10.0, 1000)  # slow: the least
    assert preview.render(0, options, most_pixels=64 * 64).could_grow
    model.preview_seconds_per_pixel = 1e-9
    made = preview.render(1, options)
    assert made.is_whole
    assert not made.could_grow


def test_frames_are_blended_for_an_api_call_and_not_while_scales_move(
    preview, clip, tiny_pipe, monkeypatch
):
    options = UpscaleOptions(scale=2)
    large, enlarged = whole_clip(clip, 2), enlarged_by(probe(clip), 2)
    plain = tiny_pipe(large, enlarged=enlarged).frames[5]
    monkeypatch.setattr(type(tiny_pipe), "steadying", 0.5)
    blended = tiny_pipe(large, enlarged=enlarged).frames[5]
    expected = [(f.permute(1, 2, 0) * 255).round().byte().numpy() for f in (plain, blended)]
    assert not np.array_equal(*expected)
    assert np.array_equal(pixels_of(preview.render(5, options, 10**6).png), expected[0])
    # Two frames are restored at once there, so that numbers are rounded elsewhere.
    found = np.abs(pixels_of(preview.whole(5, options)).astype(int) - expected[1])
    assert found.max() <= 1
    assert found.mean() < 0.01


def test_strength_mixes_in_the_picture_of_an_api_call(preview, clip):
    options = UpscaleOptions(scale=2, strength=0)
    expected = (whole_clip(clip, 2)[4].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(pixels_of(preview.whole(4, options)), expected)


@pytest.mark.parametrize(
    ("size", "pixels", "centre", "expected"),
    [
        ((100, 200), 10**6, (0.5, 0.5), Region(0, 0, 200, 100)),
        ((800, 1600), 400 * 800, (0.5, 0.5), Region(400, 200, 800, 400)),
        ((800, 1600), 400 * 800, (0, 1), Region(0, 400, 800, 400)),
        ((800, 1600), 400 * 800, (7, -7), Region(800, 0, 800, 400)),
        ((4000, 4), 8000, (0.5, 0.5), Region(0, 584, 4, 2824)),
    ],
)
def test_a_part_has_the_frames_shape_and_stays_inside(size, pixels, centre, expected):
    region = part_of(*size, pixels, centre)
    assert region == expected


def test_the_busiest_part_is_where_brightness_changes_most():
    frame = torch.full((3, 60, 100), 0.5)
    frame[:, 40:52:2, 70:90] = 1
    x, y = busiest(frame, 16, 24)
    assert 0.65 < x < 0.95
    assert 0.6 < y < 0.95
    assert busiest(torch.full((3, 60, 100), 0.5), 16, 24) == (0.5, 0.5)
