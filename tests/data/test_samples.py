"""Samples: drawn from the seed alone, from photographs and videos that are whole, with no cut."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dloral.data.samples import (
    DLoRALDataset,
    PixelCache,
    SampleConfig,
    draw_sample,
    has_cut,
    sharp_place,
    source_of,
)
from dloral.data.sources import Sources, VideoSpan, list_sources
from dloral.errors import InputError, OptionError

SPAN = VideoSpan(spacing=Fraction(1, 4))


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


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_dataset_draws_what_a_pack_of_the_same_seed_holds(photos: Path, packs: Path):
    for name, frames in (("still", 1), ("clips", 3)):
        config = SampleConfig(frames=frames, size=64, seed=3)
        dataset = DLoRALDataset(list_sources([photos], size=64), config, 6)
        for index in (0, 3):
            item = dataset[index]
            for ours, theirs in (("hq_frames", "hq"), ("lq_frames_small", "lq")):
                pack = np.load(packs / name / f"{theirs}.npy")[index]
                assert torch.equal(item[ours], torch.from_numpy(pack).float() / 255)


def test_shapes_and_ranges(photos: Path):
    clip = DLoRALDataset(list_sources([photos], size=64), SampleConfig(3, 64), 1)[0]
    assert {name: tuple(value.shape) for name, value in clip.items()} == {
        "hq_frames": (3, 3, 64, 64),
        "lq_frames_small": (3, 3, 16, 16),
        "flow": (2, 2, 64, 64),
    }
    for value in clip.values():
        assert value.dtype == torch.float32
    assert clip["lq_frames_small"].min() >= 0
    assert clip["lq_frames_small"].max() <= 1
    still = DLoRALDataset(list_sources([photos], size=64), SampleConfig(1, 64), 1)[0]
    assert still.keys() == {"hq_frames", "lq_frames_small"}


def test_workers_and_order_change_nothing(photos: Path):
    dataset = DLoRALDataset(list_sources([photos], size=64), SampleConfig(2, 64, seed=5), 4)
    backwards = [dataset[index] for index in (3, 2, 1, 0)][::-1]
    loaded = DataLoader(dataset, batch_size=None, num_workers=1)
    for alone, by_worker in zip(backwards, loaded, strict=True):
        assert_same(alone, by_worker)


def test_another_seed_or_index_gives_another_sample(photos: Path):
    sources = list_sources([photos], size=64)
    first = DLoRALDataset(sources, SampleConfig(1, 64, seed=1), 3)
    second = DLoRALDataset(sources, SampleConfig(1, 64, seed=2), 3)
    assert not torch.equal(first[0]["hq_frames"], second[0]["hq_frames"])
    assert not torch.equal(first[0]["hq_frames"], first[2]["hq_frames"])
    with pytest.raises(IndexError):
        first[3]


def test_truncated_and_small_photographs_are_left_out_with_a_warning(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    whole = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    _, stream = cv2.imencode(".jpg", whole)
    (tmp_path / "cut.jpg").write_bytes(stream.tobytes()[: len(stream) // 2])
    cv2.imwrite(str(tmp_path / "small.png"), whole[:100])
    (tmp_path / "words.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        sources = list_sources([tmp_path, photos], size=64)
    assert [path.name for path in sources.photos] == ["0.png", "1.png"]
    assert sorted(sources.left_out) == ["cut.jpg", "small.png", "words.png"]
    for name in sources.left_out:
        assert any(name in message for message in caplog.messages)


def test_nothing_usable_is_one_line_that_names_the_place(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        list_sources([tmp_path], size=64)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_and_exclude_choose_by_name(photos: Path):
    sources = list_sources([photos], size=64, only=["1.p"])
    assert [path.name for path in sources.photos] == ["1.png"]
    assert list_sources([photos], ["1.p"], 64).left_out == {"1.png": "excluded by name"}


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": 100}, {"video_share": 1.5}])
def test_settings_check_themselves(wrong: dict):
    with pytest.raises(OptionError):
        SampleConfig(**wrong)


def test_windows_of_a_video_hold_consecutive_frames_and_no_cut(video: Path):
    sources = list_sources([], size=64, videos=[video], span=SPAN)
    assert len(sources.windows) == 8
    config = SampleConfig(frames=4, size=64, seed=0)
    for index in range(8):
        sample = draw_sample(sources, config, index)
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
    windows = list_sources([], size=64, videos=[video], span=SPAN).windows
    # The window from 1 s on holds frames 24 to 27: the cut is between its second and third.
    across = next(number for number, window in enumerate(windows) if window.start == 1)
    config = SampleConfig(frames=4, size=64)
    assert not has_cut(draw_sample(Sources(windows=windows), config, across).hq_frames)
    with pytest.raises(InputError, match="without a cut"):
        draw_sample(Sources(windows=(windows[across],)), config, 0)


def test_a_span_limits_what_is_taken_from_a_video(video: Path):
    span = VideoSpan(Fraction(1, 2), Fraction(3, 2), Fraction(1, 4))
    windows = list_sources([], size=64, videos=[video], span=span).windows
    assert [float(window.start) for window in windows] == [0.5, 0.75, 1.0, 1.25]


def test_a_folder_of_frames_is_a_video(tmp_path: Path):
    shot = tmp_path / "shot"
    shot.mkdir()
    for number, picture in enumerate(scene(3, 12)):
        cv2.imwrite(str(shot / f"{number:04}.png"), picture[..., ::-1])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    sources = list_sources([], size=64, videos=[tmp_path], span=SPAN)
    assert list(sources.files()) == [shot]
    assert list(sources.left_out) == ["broken.mp4"]
    sample = draw_sample(sources, SampleConfig(frames=2, size=64), 0)
    assert sample.hq_frames.std() > 10


def test_videos_take_their_share_evenly(photos: Path, video: Path):
    sources = list_sources([photos], size=64, videos=[video], span=SPAN)
    config = SampleConfig(size=64, video_share=0.25)
    kinds = [source_of(sources, config, index) for index in range(16)]
    assert [kind for kind, _ in kinds[:4]] == ["photo", "photo", "photo", "video"]
    taken = [number for kind, number in kinds if kind == "video"]
    assert max(np.diff(sorted(taken))) <= 3  # four of eight places: spread over the whole video
    assert [number for kind, number in kinds if kind == "photo"] == [0, 1] * 6


@pytest.mark.parametrize("count", [1, 2, 6, 8, 97])
def test_every_place_in_a_video_is_visited(count: int, video: Path):
    window = list_sources([], size=64, videos=[video], span=SPAN).windows[0]
    sources = Sources(windows=(window,) * count)
    visited = {source_of(sources, SampleConfig(size=64), index)[1] for index in range(count)}
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
