"""Frames and parts of them, before anything is run."""

import io

import pytest
from PIL import Image

from dloral.video.probe import probe
from tests.studio.conftest import send


@pytest.mark.parametrize("corner", [(9999, 9999), (95, 63), (2**52, 0)])
def test_a_moving_part_beyond_the_frame_is_its_corner(browser, token, clip, corner):
    send(browser, token, clip)
    ask = {"frame": 0, "settings": {"scale": 2}, "x": corner[0], "y": corner[1], "width": 64}
    made = browser.post(f"/{token}/motion", json={**ask, "height": 64})
    x, y, width, height = map(int, made.headers["x-region"].split())
    assert x + width <= 96
    assert y + height <= 64
    assert width >= 2 <= height


def test_a_preview_of_less_than_no_pixels_is_of_as_many_as_suit(browser, token, clip):
    send(browser, token, clip)
    ask = {"frame": 0, "settings": {"scale": 2}, "pixels": -1}
    assert browser.post(f"/{token}/preview", json=ask).headers["x-region"] == "0 0 96 64"


def test_a_part_beyond_the_frame_is_its_last_pixel(browser, token, clip):
    send(browser, token, clip)
    answer = browser.get(
        f"/{token}/bicubic?frame=0&scale=1&x=9999&y={10**30}&width={10**30}&height=5"
    )
    whole = browser.get(f"/{token}/bicubic?frame=0&scale=1&x=0&y=0&width=48&height=32")
    part, frame = (Image.open(io.BytesIO(got.content)) for got in (answer, whole))
    assert (part.size, frame.size) == ((1, 1), (48, 32))
    assert part.getpixel((0, 0)) == frame.getpixel((47, 31)) != frame.getpixel((0, 0))


def test_frames_out_of_range_are_the_nearest(browser, token, clip):
    send(browser, token, clip)
    last = browser.get(f"/{token}/background?frame=11&scale=1").content
    assert browser.get(f"/{token}/background?frame=999&scale=1").content == last


def test_the_busiest_part_is_previewed_first_and_the_rest_can_be_filled(browser, token, cut_clip):
    send(browser, token, cut_clip)
    ask = {"frame": 0, "settings": {"scale": 2}, "pixels": 32 * 24, "busiest": True}
    made = browser.post(f"/{token}/preview", json=ask)
    x, y, width, height = map(int, made.headers["x-region"].split())
    assert (width, height) == (32, 24)
    assert 0 <= x <= 96
    assert 0 <= y <= 72
    box = {"x": 64, "y": 40, "width": 64, "height": 56}
    part = browser.post(f"/{token}/fill", json={"frame": 0, "settings": {"scale": 2}, **box})
    assert Image.open(io.BytesIO(part.content)).size == (64, 56)


def test_a_second_of_a_part_is_a_clip_of_both(browser, token, clip, tmp_path):
    send(browser, token, clip)
    ask = {"frame": 5, "settings": {"scale": 2}, "x": 9, "y": 4, "width": 40, "height": 31}
    made = browser.post(f"/{token}/motion", json=ask)
    assert (made.headers["x-first"], made.headers["x-count"]) == ("2", "10")
    (out := tmp_path / "motion.mp4").write_bytes(made.content)
    info = probe(out)
    assert (info.width, info.height, info.num_frames) == (40, 60, 10)
    assert not list((tmp_path / "sessions").glob("*/*.mp4"))
