"""What the page's JavaScript calls, also as a stranger would call it."""

import io
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from dloral.errors import DLoRALError
from dloral.studio.face import FULL
from dloral.studio.page import configuration
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio
from dloral.video.probe import probe


@pytest.fixture
def studio(tmp_path: Path, models, clip: Path) -> Iterator[Studio]:
    queue = JobQueue()
    studio = Studio(
        sessions=Sessions(tmp_path / "sessions", models, queue),
        models=models,
        queue=queue,
        limits=Limits(max_upload=200_000, max_minutes=1),
        examples={"bar": clip},
    )
    yield studio
    studio.sessions.close_all()


@pytest.fixture
def browser(studio: Studio) -> TestClient:
    return TestClient(build_routes(studio), raise_server_exceptions=False)


@pytest.fixture
def token(studio: Studio) -> str:
    return studio.sessions.open()


def send(browser: TestClient, token: str, path: Path, name: str | None = None) -> dict:
    answer = browser.post(
        f"/{token}/clip", params={"name": name or path.name}, content=path.read_bytes()
    )
    assert answer.status_code == 200
    return answer.json()


def finish(browser: TestClient, token: str) -> dict:
    end = time.monotonic() + 60
    while True:
        state = browser.get(f"/{token}/state").json()
        if state["job"]["stage"] in ("done", "failed", "stopped"):
            return state
        assert time.monotonic() < end
        time.sleep(0.05)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


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


def test_settings_come_back_from_their_file(browser, token, clip):
    send(browser, token, clip)
    settings = {"scale": 1.5, "consistency": 0.25, "tile": 64, "format": "h265", "bit_depth": 10}
    browser.post(f"/{token}/job", json={"settings": settings})
    name = finish(browser, token)["result"]["settings_file"]
    content = browser.get(f"/{token}/files/{name}").content
    found = browser.post(f"/{token}/settings", content=content).json()["settings"]
    assert {key: found[key] for key in settings} == settings


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"kind": "dloral settings"}', b"\xff\xfe", b"[" * 90_000, b"x" * 200_000],
)
def test_what_is_no_settings_file_is_refused_in_one_line(browser, token, content):
    error = browser.post(f"/{token}/settings", content=content).json()["error"]
    assert "\n" not in error
    assert "settings" in error


def test_a_stranger_gets_nothing(browser, studio, token, clip):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    result = finish(browser, token)["result"]
    other = studio.sessions.open()
    for name in (result["file"], result["viewer"]):
        assert browser.get(f"/{token}/files/{name}").status_code == 200
        assert browser.get(f"/{other}/files/{name}").status_code == 404
        assert browser.get(f"/nobody/files/{name}").status_code == 404
    assert browser.get("/nobody/state").json() == {"gone": True}
    assert browser.get(f"/{other}/state").json()["clip"] is None
    for call in ("thumbnails", "still?frame=0", "background?frame=0&scale=2"):
        assert "error" in browser.get(f"/{other}/{call}").json()


@pytest.mark.parametrize(
    "name", ["..%2F..%2Fsecret.txt", "%2Fetc%2Fpasswd", "..", "bar.mp4", "job.json"]
)
def test_no_other_file_can_be_named(browser, token, clip, name):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    finish(browser, token)
    assert browser.get(f"/{token}/files/{name}").status_code in (404, 405)


@pytest.mark.parametrize("name", ["../../../tmp/x.mp4", "..\\x.mp4", "/etc/cron.d/x.mp4"])
def test_an_upload_whose_name_leads_elsewhere_is_refused(
    browser, studio, token, clip, name, tmp_path
):
    found = send(browser, token, clip, name)
    assert "is not a plain file name" in found["error"]
    assert "\n" not in found["error"]
    assert not files_in(tmp_path)


class Listener:
    """A web server on the loopback address that counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.calls = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.socket.close()


HOSTILE = {
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXTINF:9,\n{file}\n"
    "#EXT-X-ENDLIST\n",
    "hls_concat.mp4": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nconcat:{address}|file://{file}\n",
    "script.mp4": "ffconcat version 1.0\nfile '{file}'\nfile '{address}'\n",
    "dash.mp4": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation>'
    "<BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
    "picture.png": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>',
    "address.mov": "{address}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_playlist_named_as_a_clip_touches_nothing(browser, token, clip, listener, tmp_path, name):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    address = f"http://127.0.0.1:{listener.port}/secret.ts"
    text = HOSTILE[name].format(address=address, file=secret, port=listener.port)
    (hostile := tmp_path / "upload").write_text(text)
    secret.touch()
    os.utime(secret, (1, 1))  # an access time that any reading would move on
    found = send(browser, token, hostile, name)
    assert name in found["error"]
    assert "\n" not in found["error"]
    assert secret.stat().st_atime == 1
    assert listener.calls == 0
    assert not files_in(tmp_path / "sessions")


def test_a_reference_movie_opens_no_other_file(browser, token, clip, tmp_path):
    """A MOV whose samples lie in another file (ISO/IEC 14496-12, 8.7.2)."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    content = clip.read_bytes()
    at = content.index(b"url \0\0\0\1")
    changed = content[:at] + b"url \0\0\0\0" + content[at + 8 :]  # not in this file
    (hostile := tmp_path / "dref.mov").write_bytes(changed)
    os.utime(secret, (1, 1))
    send(browser, token, hostile)
    assert secret.stat().st_atime == 1


def test_limits_are_kept(browser, studio, token, long_clip, tmp_path):
    state = send(browser, token, long_clip)
    assert state["clip"]["suggested"]["duration"] == 5
    for call in ("plan", "job"):
        error = browser.post(f"/{token}/{call}", json={"settings": {"scale": 1}}).json()["error"]
        assert "4:00 min exceeds the limit of 1:00 min" in error
    fine = browser.post(f"/{token}/plan", json={"settings": {"scale": 1, "duration": 60}}).json()
    assert fine["frames"] == 600
    (large := tmp_path / "large.mp4").write_bytes(b"\0" * 300_000)
    assert "exceeds the limit of 0.2 MB" in send(browser, token, large)["error"]
    assert "large.mp4" not in files_in(tmp_path / "sessions")


@pytest.mark.parametrize(
    ("call", "body", "said"),
    [
        ("preview", {"frame": 0, "settings": {"scale": 99}}, "scale is 99"),
        ("preview", {"frame": 0, "settings": {"colour": 1}}, "'colour' is not a setting"),
        ("preview", {"frame": "x", "settings": {}}, "frame is 'x'"),
        ("preview", {"frame": float("inf"), "settings": {}}, "frame is 'inf'"),
        ("preview", {"pixels": float("nan"), "settings": {}}, "pixels is 'nan'"),
        ("preview", {"frame": 10**400, "settings": {}}, "frame is '1000"),
        ("preview", {"settings": 5}, "has no settings"),
        ("preview", [1], "not a JSON object"),
        ("plan", {"settings": {"detail": "much"}}, "detail is much"),
        ("plan", {"settings": {"start": float("1e400")}}, "start is inf"),
        ("plan", {"settings": {"start": 10**400}}, "start is 1000"),
        ("job", {"settings": {"format": "avi"}}, "format is 'avi'"),
        ("plan", {"settings": {"tile": -5}}, "is -5; give latent cells"),
        ("comparison?layout=x", {}, "'x' is not a layout"),
        ("comparison", {}, "the request has no layout"),
        ("example?name=../bar", {}, "is not an example"),
    ],
)
def test_nonsense_is_answered_in_one_line(browser, token, clip, call, body, said):
    send(browser, token, clip)
    headers = {"content-type": "application/json"}
    answer = browser.post(f"/{token}/{call}", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("background?scale=2&frame=a", "frame is 'a'; give a whole number"),
        ("background?frame=0&scale=much", "scale is 'much'; give a number"),
        ("still", "the request has no frame"),
    ],
)
def test_nonsense_in_an_address_is_answered_in_one_line(browser, token, clip, call, said):
    answer = browser.get(f"/{token}/{call}")
    assert (answer.status_code, answer.json()) == (200, {"error": said})


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


def test_where_the_model_lies_is_told_to_nobody(browser, token, studio, tiny_model):
    told = browser.get(f"/{token}/state").text + json.dumps(configuration(studio))
    assert tiny_model.name in told
    assert str(tiny_model.parent) not in told


def test_a_model_that_cannot_be_loaded_is_named_without_its_place(tmp_path: Path):
    folder = tmp_path / "broken-model"
    folder.mkdir()
    (folder / "model_index.json").write_text("{")
    broken = Model(str(folder))
    broken.start()
    with pytest.raises(DLoRALError) as caught:
        broken.pipe()
    assert "broken-model" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_frames_out_of_range_are_the_nearest(browser, token, clip):
    send(browser, token, clip)
    last = browser.get(f"/{token}/background?frame=11&scale=1").content
    assert browser.get(f"/{token}/background?frame=999&scale=1").content == last


def test_closing_the_clip_takes_its_files(browser, token, clip, tmp_path):
    send(browser, token, clip)
    assert files_in(tmp_path / "sessions") == ["bar.mp4"]
    assert browser.delete(f"/{token}/clip").json()["clip"] is None
    assert not files_in(tmp_path / "sessions")


def test_an_example_is_opened(browser, token):
    assert browser.post(f"/{token}/example?name=bar").json()["clip"]["name"] == "bar.mp4"


def test_the_result_is_a_clip(browser, token, clip, tmp_path):
    send(browser, token, clip)
    browser.post(
        f"/{token}/job", json={"settings": {"scale": 2, "format": "h265", "bit_depth": 10}}
    )
    name = finish(browser, token)["result"]["file"]
    (out := tmp_path / name).write_bytes(browser.get(f"/{token}/files/{name}").content)
    info = probe(out)
    assert (info.codec, info.bit_depth, info.width, info.has_audio) == ("hevc", 10, 96, True)


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


def test_a_visit_is_forked_so_that_its_result_stays(browser, token, clip):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    first = finish(browser, token)["result"]
    other = browser.post(f"/{token}/fork", json={}).json()["token"]
    assert browser.get(f"/{other}/state").json()["clip"]["name"] == "bar.mp4"
    assert browser.get(f"/{other}/state").json()["result"] is None
    browser.delete(f"/{other}/clip")
    assert browser.get(f"/{token}/files/{first['file']}").status_code == 200
    assert browser.get(f"/{token}/thumbnail").headers["content-type"] == "image/jpeg"


def test_a_result_can_be_asked_about_and_fetched_in_parts(browser, token, clip):
    """As download managers and players do."""
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    address = f"/{token}/files/{finish(browser, token)['result']['file']}"
    whole, asked = browser.get(address), browser.head(address)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-length"] == str(len(whole.content))
    assert asked.headers["accept-ranges"] == "bytes"
    part = browser.get(address, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert browser.head(address + "x").status_code == 404


@pytest.mark.parametrize("kept_as", ["gif", "webp"])
def test_a_comparison_is_a_short_loop(browser, token, clip, kept_as):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 2}})
    finish(browser, token)
    made = browser.post(f"/{token}/comparison?layout=side&format={kept_as}").json()["file"]
    assert made == f"bar-comparison-side-loop.{kept_as}"
    with Image.open(io.BytesIO(browser.get(f"/{token}/files/{made}").content)) as loop:
        assert loop.size == (192, 64)
        assert loop.n_frames >= 10
        assert loop.info["loop"] == 0


def test_what_a_format_loses_is_said_before_the_run_and_after_it_alike(browser, token, tmp_path):
    lines = tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,200 --> 00:00:00,600\na line\n")
    source = tmp_path / "film.mkv"
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=32x24:r=5:d=1", "-f", "lavfi", "-i", "sine=d=1"]
    codecs = ["-c:v", "libx264", "-c:a", "flac", "-c:s", "srt", "-attach", str(lines)]
    kind = ["-metadata:s:t", "mimetype=text/plain"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *inputs]
    subprocess.run([*command, "-i", str(lines), *codecs, *kind, str(source)], check=True)
    send(browser, token, source)

    def notes(kept_as: str) -> list[str]:
        settings = {"scale": 1, "format": kept_as}
        return browser.post(f"/{token}/plan", json={"settings": settings}).json()["notes"]

    assert notes("ffv1") == []
    assert notes("png") == ["a folder of frames keeps no sound, subtitles or attachments"]
    said = notes("vp9")
    assert said == [
        "sound re-encoded as opus: .webm cannot hold flac",
        "subtitles converted to webvtt: .webm cannot hold subrip",
        "attachments such as fonts, which .webm cannot hold, left out",
    ]
    browser.post(f"/{token}/job", json={"settings": {"scale": 1, "format": "vp9"}})
    assert finish(browser, token)["result"]["notes"] == said


def test_a_call_that_is_no_json_is_refused(browser, token, clip):
    send(browser, token, clip)
    for headers in ({"content-type": "text/plain"}, {}):  # a foreign page may send both
        answer = browser.post(f"/{token}/plan", content=b'{"settings": {}}', headers=headers)
        assert "send application/json" in answer.json()["error"]


def test_the_pages_modules_are_served_and_looked_at_anew(browser, token):
    for name in ("page.js", "pictures/wipe.mp4"):
        answer = browser.get(f"/web/{name}")
        assert answer.status_code == 200
    assert browser.get(f"/{token}/web/../page.py").status_code == 404


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_while_a_clip_comes_is_said(browser, token, clip, studio, monkeypatch):
    send(browser, token, clip)
    monkeypatch.setattr("dloral.studio.routes.clip.receive", no_space)
    assert send(browser, token, clip, "other.mp4") == {"error": FULL}
    assert browser.get(f"/{token}/state").json()["clip"]["name"] == "bar.mp4"
    assert files_in(studio.sessions.find(token).folder) == ["bar.mp4"]


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


def test_a_disk_that_is_full_for_a_comparison_is_said(browser, token, clip, monkeypatch):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    finish(browser, token)
    monkeypatch.setattr("dloral.studio.comparison.open_writer", no_space)
    made = browser.post(f"/{token}/comparison?layout=side")
    assert made.json() == {"error": FULL}


@pytest.mark.parametrize("how", ["too old", "removed"])
def test_a_result_that_is_gone_is_said_by_every_call(browser, token, clip, studio, how):
    send(browser, token, clip)
    browser.post(f"/{token}/job", json={"settings": {"scale": 1}})
    result = finish(browser, token)["result"]
    session = studio.sessions.find(token)
    if how == "too old":
        session.forget_old_result(10, 1)
        session.forget_old_result(10, 12)
    else:
        session.result.file.unlink()
    gone = {"error": "The result no longer exists; restore the clip again."}
    assert browser.get(f"/{token}/still?frame=0").json() == gone
    assert browser.get(f"/{token}/thumbnail").json() == gone
    assert browser.post(f"/{token}/comparison?layout=wipe").json() == gone
    assert browser.get(f"/{token}/files/{result['file']}").status_code == 404
    state = browser.get(f"/{token}/state").json()
    assert (state["result"], state["clip"]["name"]) == (None, "bar.mp4")
    shown = browser.post("/visits", json={"tokens": [token]}).json()["visits"][token]
    assert shown["result"] is None


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
