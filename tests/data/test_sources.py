"""Places: photographs, videos, lists, and the public data sets as they are laid out."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dloral.data.pack_maker import make_pack
from dloral.data.samples import draw_sample, reduced
from dloral.data.sources import Sources, find_sources, split_place
from dloral.data.spec import ClipSpec
from dloral.errors import InputError, OptionError


def wanted(*places: str, **settings: Any) -> ClipSpec:
    """32 pixels at full size."""
    plain = {"size": 32, "photo_reductions": (1.0,), "video_reduction": 1}
    return ClipSpec(places, **plain | settings)


def picture(path: Path, seed: int = 0, side: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
    return path


def frames(folder: Path, count: int = 30) -> Path:
    for number in range(count):
        picture(folder / f"{number:08}.png", seed=3)
    return folder


def clips_of(sources: Sources) -> list[str]:
    return [path.name for path in sources.files()]


def test_reds_gives_sharp_training_clips_but_reds4(tmp_path: Path):
    for name in ("000", "001", "011", "239"):
        frames(tmp_path / "train" / "train_sharp" / name)
    frames(tmp_path / "train" / "train_sharp_bicubic" / "X4" / "001")
    frames(tmp_path / "val" / "val_sharp" / "002")
    sources = find_sources(wanted(f"reds:{tmp_path}"))
    assert clips_of(sources) == ["001", "239"]
    assert not sources.photos
    assert sources.left_out == {
        "train/train_sharp/000": "one of REDS4, which results are reported on",
        "train/train_sharp/011": "one of REDS4, which results are reported on",
        "train/train_sharp_bicubic/X4/001": "not in train_sharp",
        "val/val_sharp/002": "not in train_sharp",
    }


def test_lsdir_gives_full_size_training_pictures(tmp_path: Path):
    picture(tmp_path / "HR" / "train" / "0001000" / "0000001.png")
    picture(tmp_path / "HR" / "train" / "0002000" / "0001001.png")
    picture(tmp_path / "HR" / "val" / "0000001.png")
    picture(tmp_path / "X4" / "train" / "0001000" / "0000001x4.png")
    sources = find_sources(wanted(f"lsdir:{tmp_path}"))
    assert [path.name for path in sources.photos] == ["0000001.png", "0001001.png"]
    assert set(sources.left_out.values()) == {"for validation", "a reduced copy"}


def test_pexels_gives_videos_and_folders_of_frames(tmp_path: Path):
    frames(tmp_path / "1234567-hd_1920_1080_25fps")
    (tmp_path / "7654321-uhd_3840_2160_25fps.mp4").write_bytes(b"cut off")
    sources = find_sources(wanted(f"pexels:{tmp_path}"))
    assert clips_of(sources) == ["1234567-hd_1920_1080_25fps"]
    assert list(sources.left_out) == ["7654321-uhd_3840_2160_25fps.mp4"]


def test_a_list_names_photographs_and_folders_of_frames(tmp_path: Path):
    picture(tmp_path / "data" / "one.png")
    frames(tmp_path / "data" / "000")
    elsewhere = picture(tmp_path / "else" / "two.png")
    text = f"# mine\none.png\n\n000 30 (64,64,3)\n{elsewhere}\nmissing.png  # was here\n"
    (tmp_path / "data" / "list.txt").write_text(text)
    sources = find_sources(wanted(f"list:{tmp_path / 'data' / 'list.txt'}"))
    assert clips_of(sources) == ["one.png", "two.png", "000"]
    assert sources.left_out == {"missing.png": "missing, damaged or absurdly large"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\xd8"])
def test_a_list_that_is_none_is_one_line(content: bytes | None, tmp_path: Path):
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    else:
        (tmp_path / "list").mkdir()
    with pytest.raises(InputError, match="give list:FILE") as caught:
        find_sources(wanted(f"list:{tmp_path / 'list'}"))
    assert "\n" not in str(caught.value)


def test_a_good_photograph_stays_though_another_of_its_name_is_left_out(tmp_path: Path):
    picture(tmp_path / "first" / "one.png", side=20)
    good = picture(tmp_path / "second" / "one.png")
    picture(tmp_path / "third" / "one.png", side=20)
    places = [f"photos:{tmp_path / name}" for name in ("first", "second", "third")]
    sources = find_sources(wanted(*places))
    assert sources.photos == (good,)
    assert list(sources.left_out) == ["one.png", "third/one.png"]
    assert sources.name(good) == "second/one.png"


def test_places_of_several_kinds_are_joined(tmp_path: Path):
    picture(tmp_path / "photos" / "one.png")
    frames(tmp_path / "videos" / "shot")
    places = [f"photos:{tmp_path / 'photos'}", f"videos:{tmp_path / 'videos'}"]
    assert clips_of(find_sources(wanted(*places))) == ["one.png", "shot"]


def test_too_small_says_what_is_needed(tmp_path: Path):
    picture(tmp_path / "photos" / "small.png", side=40)
    frames(tmp_path / "videos" / "shot")
    places = [f"photos:{tmp_path / 'photos'}", f"videos:{tmp_path / 'videos'}"]
    with pytest.raises(InputError) as caught:
        find_sources(wanted(*places, photo_reductions=(2.0, 3.2), video_reduction=3))
    assert "2 left out: " in str(caught.value)
    assert "40x40 is smaller than 64 pixels a side" in str(caught.value)
    assert "64 pixels a side or more, or videos of 96" in str(caught.value)


def test_no_place_at_all_says_how_to_give_one():
    with pytest.raises(InputError, match="no data is given; give places such as photos:DIR"):
        find_sources(ClipSpec(()))


def test_a_place_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="absent does not exist") as caught:
        find_sources(wanted(f"photos:{tmp_path / 'absent'}"))
    assert caught.value.path == tmp_path / "absent"


@pytest.mark.parametrize("place", ["/data/photos", "pictures:/data", "photos:"])
def test_a_place_has_a_kind_and_a_path(place: str):
    with pytest.raises(OptionError, match="KIND:PATH"):
        split_place(place)


def test_a_photograph_damaged_inside_gives_way_to_the_next(tmp_path: Path):
    """Its header and its end are whole, so that listing takes it; drawing passes it over."""
    good = picture(tmp_path / "b.png", seed=1)
    broken = bytearray(picture(tmp_path / "a.png").read_bytes())
    broken[len(broken) // 2 : len(broken) // 2 + 60] = bytes(60)
    (tmp_path / "a.png").write_bytes(broken)
    sources = find_sources(wanted(f"photos:{tmp_path}"))
    assert clips_of(sources) == ["a.png", "b.png"]
    spec = wanted(f"photos:{tmp_path}")
    whole = reduced(good, 1.0, 1.0).astype(int)
    sample = draw_sample(sources, spec, 0)  # it would be of a.png
    crop = sample.hq_frames[0].astype(int)
    assert sample.source == good
    make_pack(sources, spec, 2, tmp_path / "pack")
    assert json.loads((tmp_path / "pack" / "manifest.json").read_text())["clips"] == ["b.png"] * 2
    places = ((r, c) for r in range(33) for c in range(33))
    either = (crop, crop[:, ::-1])
    assert any((whole[r : r + 32, c : c + 32] == side).all() for r, c in places for side in either)
    with pytest.raises(InputError, match="none of 1 photographs"):
        draw_sample(Sources(photos=(tmp_path / "a.png",)), spec, 0)


def test_turned_samples_keep_flow_and_frames_together(tmp_path: Path):
    """In every one of the eight positions the flow still leads to the previous frame."""
    picture(tmp_path / "a.png", side=200)
    sources = find_sources(wanted(f"photos:{tmp_path}"))
    spec = wanted(frames=2, size=64, turned=True)
    x, y = np.meshgrid(np.arange(64, dtype=np.float32), np.arange(64, dtype=np.float32))
    better = 0
    for index in range(24):
        sample = draw_sample(sources, spec, index)
        assert sample.flow is not None
        dx, dy = np.ascontiguousarray(sample.flow[0], np.float32)
        previous, current = sample.hq_frames.astype(np.float32)
        warped = cv2.remap(previous, x + dx, y + dy, cv2.INTER_LINEAR)
        inside = (x + dx > 0) & (x + dx < 63) & (y + dy > 0) & (y + dy < 63)
        error, change = (np.abs(p - current).mean(axis=2)[inside] for p in (warped, previous))
        if change.size and np.median(change) > 2:
            assert np.median(error) < 0.5 * np.median(change), index
            better += 1
    assert better > 8
