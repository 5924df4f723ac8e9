"""Clips that come and go, what is planned of them, and files made to reach others."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator

import imageio_ffmpeg
import pytest

from dloral.studio.face import FULL
from tests.studio.conftest import files_in, finish, send
from tests.studio.routes.conftest import no_space


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
    assert files_in(tmp_path / "sessions") == ["long.mp4"]


def test_closing_the_clip_takes_its_files(browser, token, clip, tmp_path):
    send(browser, token, clip)
    assert files_in(tmp_path / "sessions") == ["bar.mp4"]
    assert browser.delete(f"/{token}/clip").json()["clip"] is None
    assert not files_in(tmp_path / "sessions")


def test_an_example_is_opened(browser, token):
    assert browser.post(f"/{token}/example?name=bar").json()["clip"]["name"] == "bar.mp4"


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


def test_a_disk_that_is_full_while_a_clip_comes_is_said(browser, token, clip, studio, monkeypatch):
    send(browser, token, clip)
    monkeypatch.setattr("dloral.studio.routes.clip.receive", no_space)
    assert send(browser, token, clip, "other.mp4") == {"error": FULL}
    assert browser.get(f"/{token}/state").json()["clip"]["name"] == "bar.mp4"
    assert files_in(studio.sessions.find(token).folder) == ["bar.mp4"]
