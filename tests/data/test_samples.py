"""Samples: drawn from the seed alone, from photographs and videos that are whole, with no cut."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from dloral.data.samples import PixelCache, draw_sample, has_cut, sharp_place, source_of
from dloral.data.sources import Sources, find_sources
from dloral.data.spec import ClipSpec
from dloral.errors import InputError, OptionError


def wanted(*places: str, **settings: Any) -> ClipSpec:
    """64 pixels, a clip every quarter of a second."""
    return ClipSpec(places, **{"size": 64, "video_spacing": 0.25} | settings)


def scene(seed: int, num_frames: int) -> list[np.ndarray]:
    """A coloured pattern (144,192,3) that moves 2 pixels a frame to the left."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (9, 16, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (192 + 2 * num_frames, 144), interpolation=cv2.INTER_CUBIC)
    return [wide[:, 2 * t : 2 * t + 192] for t in range(num_frames)]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 24 frames a second; the scene changes after frame 26."""
    path = tmp_path_factory.mktemp("video") / "two-scenes.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuv420p"
        stream.bit_rate = 4_000_000
        for picture in scene(0, 26) + scene(1, 22):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_sample_is_what_a_pack_of_the_same_seed_holds(photos: Path, packs: Path):
    for name, frames in (("still", 1), ("clips", 3)):
        spec = wanted(f"photos:{photos}", frames=frames, seed=3)
        sources = find_sources(spec)
        for index in (3, 0):  # in any order
            sample = draw_sample(sources, spec, index)
            for ours, theirs in ((sample.hq_frames, "hq"), (sample.lq_frames, "lq")):
                pack = np.load(packs / name / f"{theirs}.npy")[index]
                assert np.array_equal(ours.transpose(0, 3, 1, 2), pack)


def test_shapes(photos: Path):
    spec = wanted(f"photos:{photos}", frames=3)
    clip = draw_sample(find_sources(spec), spec, 0)
    assert (clip.hq_frames.shape, clip.hq_frames.dtype) == ((3, 64, 64, 3), np.uint8)
    assert (clip.lq_frames.shape, clip.lq_frames.dtype) == ((3, 16, 16, 3), np.uint8)
    assert clip.flow is not None
    assert clip.flow.shape == (2, 2, 64, 64)
    assert draw_sample(find_sources(spec), replace(spec, frames=1), 0).flow is None


def test_another_seed_or_index_gives_another_sample(photos: Path):
    spec = wanted(f"photos:{photos}", seed=1)
    sources = find_sources(spec)
    first = draw_sample(sources, spec, 0).hq_frames
    assert not np.array_equal(first, draw_sample(sources, replace(spec, seed=2), 0).hq_frames)
    assert not np.array_equal(first, draw_sample(sources, spec, 2).hq_frames)


def test_truncated_and_small_photographs_are_left_out_with_a_warning(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    whole = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    _, stream = cv2.imencode(".jpg", whole)
    (tmp_path / "cut.jpg").write_bytes(stream.tobytes()[: len(stream) // 2])
    cv2.imwrite(str(tmp_path / "small.png"), whole[:100])
    (tmp_path / "words.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        sources = find_sources(wanted(f"photos:{tmp_path}", f"photos:{photos}"))
    assert [path.name for path in sources.photos] == ["0.png", "1.png"]
    assert sorted(sources.left_out) == ["cut.jpg", "small.png", "words.png"]
    for name in sources.left_out:
        assert any(name in message for message in caplog.messages)


def test_nothing_usable_is_one_line_that_names_the_place(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        find_sources(wanted(f"photos:{tmp_path}"))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_and_exclude_choose_by_name(photos: Path):
    place = f"photos:{photos}"
    sources = find_sources(wanted(place, only=("1.p",)))
    assert [path.name for path in sources.photos] == ["1.png"]
    assert find_sources(wanted(place, exclude=("1.p",))).left_out == {"1.png": "excluded by name"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"size": 100},
        {"video_share": 1.5},
        {"photo_reductions": ()},
        {"photo_reductions": (0.5,)},
        {"video_reduction": 0},
        {"video_spacing": 0.0},
        {"video_from": float("nan")},
        {"video_until": 0},
        {"places": "photos:/data"},
        {"seed": -1},
    ],
)
def test_settings_check_themselves(wrong: dict):
    with pytest.raises(OptionError, match=f"^{next(iter(wrong))} is ") as caught:
        ClipSpec(**wrong)
    assert "; give " in str(caught.value)


def test_a_training_says_itself_how_its_clips_are():
    spec = ClipSpec(("photos:x",)).for_training(3, 128, 7)
    assert (spec.frames, spec.size, spec.seed, spec.turned) == (3, 128, 7, True)
    with pytest.raises(OptionError, match="size is 64 in a training's source"):
        ClipSpec(("photos:x",), size=64).for_training(3, 128, 7)


def test_windows_of_a_video_hold_consecutive_frames_and_no_cut(video: Path):
    spec = wanted(f"videos:{video}", frames=4)
    sources = find_sources(spec)
    assert len(sources.windows) == 8
    for index in range(8):
        sample = draw_sample(sources, spec, index)
        assert sample.flow is None
        assert sample.hq_frames.shape == (4, 64, 64, 3)
        assert not has_cut(sample.hq_frames)
        # The scene moves by one reduced pixel a frame, to the left or, mirrored, to the right.
        first, second = sample.hq_frames[:2].astype(int)
        moved = min(
            np.abs(first[:, 1:] - second[:, :-1]).mean(),
            np.abs(first[:, :-1] - second[:, 1:]).mean(),
        )
        assert moved < np.abs(first - second).mean()


def test_the_window_across_the_cut_is_passed_over(video: Path):
    spec = wanted(f"videos:{video}", frames=4)
    windows = find_sources(spec).windows
    # The window from 1 s on holds frames 24 to 27: the cut is between its second and third.
    across = next(number for number, window in enumerate(windows) if window.start == 1)
    assert not has_cut(draw_sample(Sources(windows=windows), spec, across).hq_frames)
    with pytest.raises(InputError, match="without a cut"):
        draw_sample(Sources(windows=(windows[across],)), spec, 0)


def test_a_span_limits_what_is_taken_from_a_video(video: Path):
    windows = find_sources(wanted(f"videos:{video}", video_from=0.5, video_until=1.5)).windows
    assert [float(window.start) for window in windows] == [0.5, 0.75, 1.0, 1.25]


def test_a_folder_of_frames_is_a_video(tmp_path: Path):
    shot = tmp_path / "shot"
    shot.mkdir()
    for number, picture in enumerate(scene(3, 12)):
        cv2.imwrite(str(shot / f"{number:04}.png"), picture[..., ::-1])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    spec = wanted(f"videos:{tmp_path}", frames=2)
    sources = find_sources(spec)
    assert list(sources.files()) == [shot]
    assert list(sources.left_out) == ["broken.mp4"]
    sample = draw_sample(sources, spec, 0)
    assert sample.hq_frames.std() > 10


def test_videos_take_their_share_evenly(photos: Path, video: Path):
    spec = wanted(f"photos:{photos}", f"videos:{video}", video_share=0.25)
    sources = find_sources(spec)
    kinds = [source_of(sources, spec, index) for index in range(16)]
    assert [kind for kind, _ in kinds[:4]] == ["photo", "photo", "photo", "video"]
    taken = [number for kind, number in kinds if kind == "video"]
    assert max(np.diff(sorted(taken))) <= 3  # four of eight places: spread over the whole video
    assert [number for kind, number in kinds if kind == "photo"] == [0, 1] * 6


@pytest.mark.parametrize("count", [1, 2, 6, 8, 97])
def test_every_place_in_a_video_is_visited(count: int, video: Path):
    window = find_sources(wanted(f"videos:{video}")).windows[0]
    sources = Sources(windows=(window,) * count)
    visited = {source_of(sources, wanted(), index)[1] for index in range(count)}
    assert visited == set(range(count))


def test_sharp_places_are_drawn_more_often():
    picture = np.full((64, 256, 3), 128, np.uint8)
    picture[:, 128:][::2] = 0
    rng = np.random.default_rng(0)
    lefts = [sharp_place(picture, 32, rng)[1].start for _ in range(100)]
    assert sum(left > 112 for left in lefts) > 85
    flat = np.full((64, 64, 3), 9, np.uint8)
    assert len({sharp_place(flat, 32, rng)[0].start for _ in range(30)}) > 8


def test_the_cache_stays_within_its_limit_and_keeps_what_is_in_use():
    cache = PixelCache(2500)
    made: list[int] = []

    def make(key: int) -> np.ndarray:
        made.append(key)
        return np.zeros(1000, np.uint8)

    for key in (0, 1, 0, 2, 0, 1):
        cache.get(key, lambda key=key: make(key))
        assert cache.held <= 2500
    assert made == [0, 1, 2, 1]


def test_a_clip_is_reduced_by_the_scale_asked_for(photos: Path):
    spec = wanted(f"photos:{photos}", scale=2)
    sample = draw_sample(find_sources(spec), spec, 0)
    assert sample.hq_frames.shape == (1, 64, 64, 3)
    assert sample.lq_frames.shape == (1, 32, 32, 3)
