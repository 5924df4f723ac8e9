"""A run from its clip to its result, and what can end it."""

import io

import numpy as np
import pytest
from PIL import Image

from dloral.studio.face import FULL
from dloral.video.probe import probe
from tests.studio.conftest import files_in, finish, send
from tests.studio.routes.conftest import no_space


def test_a_clip_is_opened_previewed_restored_and_fetched(browser, token, clip):
    state = send(browser, token, clip)
    assert state["clip"]["facts"][:3] == ["48 × 32", "12 frames", "10 fps"]
    settings = {"scale": 2, "detail": 0.5}
    plan = browser.post(f"/{token}/plan", json={"settings": settings}).json()
    assert (plan["width"], plan["height"], plan["frames"]) == (96, 64, 12)
    made = browser.post(f"/{token}/preview", json={"frame": 3, "settings": settings})
    assert made.headers["content-type"] == "image/png"
    assert made.headers["x-region"] == "0 0 96 64"
    assert Image.open(io.BytesIO(made.content)).size == (96, 64)
    background = browser.get(f"/{token}/background", params={"frame": 3, "scale": 2})
    assert Image.open(io.BytesIO(background.content)).size == (96, 64)
    assert "error" not in browser.post(f"/{token}/job", json={"settings": settings}).json()
    result = finish(browser, token)["result"]
    assert result["times"] == pytest.approx([index / 10 for index in range(12)])
    for name in (result["file"], result["viewer"], result["profile"], result["settings_file"]):
        answer = browser.get(f"/{token}/files/{name}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "private, no-store"
    part = browser.get(f"/{token}/files/{result['viewer']}", headers={"range": "bytes=0-99"})
    assert part.status_code == 206
    assert len(part.content) == 100
    kept = browser.get(f"/{token}/files/{result['file']}", params={"download": 1})
    assert kept.headers["content-disposition"].startswith("attachment")
    pair = np.asarray(Image.open(io.BytesIO(browser.get(f"/{token}/still?frame=5").content)))
    assert pair.shape == (128, 96, 3)


def test_the_result_is_a_clip(browser, token, clip, tmp_path):
    send(browser, token, clip)
    browser.post(
        f"/{token}/job", json={"settings": {"scale": 2, "format": "h265", "bit_depth": 10}}
    )
    name = finish(browser, token)["result"]["file"]
    (out := tmp_path / name).write_bytes(browser.get(f"/{token}/files/{name}").content)
    info = probe(out)
    assert (info.codec, info.bit_depth, info.width, info.has_audio) == ("hevc", 10, 96, True)


@pytest.mark.parametrize(
    ("where", "kept_as"),
    [
        ("restoration.png_of", "h264"),
        ("restoration.write_result", "h264"),
        ("restoration.write_whole", "png"),
    ],
)
def test_a_disk_that_is_full_at_the_end_of_a_run_costs_nothing(
    browser, token, clip, studio, monkeypatch, caplog, where, kept_as
):
    """It is said, and once there is room the frames that were restored become the result."""
    send(browser, token, clip)
    with monkeypatch.context() as patch:
        patch.setattr(f"dloral.studio.{where}", no_space)
        browser.post(f"/{token}/job", json={"settings": {"scale": 1, "format": kept_as}})
        job = finish(browser, token)["job"]
    assert (job["stage"], job["error"]) == ("failed", FULL)
    assert not caplog.records  # nobody has to look for a mistake
    monkeypatch.setattr("dloral.upscale.restore_gap", None)  # nothing is restored anew
    browser.post(f"/{token}/job/retry", json={})
    result = finish(browser, token)["result"]
    assert result is not None
    assert len(result["times"]) == 12
    kept = files_in(studio.sessions.find(token).job.folder)
    assert not [name for name in kept if "resume" in name or "part" in name]


def test_a_clip_that_vanished_before_its_turn_is_named(browser, token, clip, long_clip, studio):
    running = studio.sessions.open()
    send(browser, running, long_clip)
    send(browser, token, clip)
    for one in (running, token):
        browser.post(f"/{one}/job", json={"settings": {"scale": 1}})
    studio.sessions.find(token).clip.path.unlink()
    browser.delete(f"/{running}/job", params={"keep": False})
    said = "bar.mp4 cannot be read: no such file or directory"
    job = finish(browser, token)["job"]
    assert (job["stage"], job["error"]) == ("failed", said)
