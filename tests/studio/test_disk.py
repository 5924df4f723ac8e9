"""The disk is bounded as a whole."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dloral.errors import InputError
from dloral.studio.disk import Disk
from dloral.studio.hygiene import Hygiene
from dloral.studio.limits import Limits
from dloral.studio.models import Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Studio


def test_all_files_and_what_was_promised_count(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("dloral.studio.disk.LOOK_SECONDS", 0)
    visits, calls = tmp_path / "visits", tmp_path / "calls"
    for folder in (visits / "one", calls):
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(bytes(1000))
    promised = [0]
    disk = Disk([visits, calls, tmp_path / "not yet"], 5000, lambda: promised[0])
    assert (disk.used, disk.room) == (2000, 3000)
    disk.check(3000, "make it shorter")
    promised[0] = 500
    with pytest.raises(
        InputError, match=r"about 0 MB, but only 0 MB of disk space .*make it shorter"
    ):
        disk.check(3000, "make it shorter")
    promised[0] = 10_000
    assert disk.room == 0


def upload(limits: Limits, tmp_path: Path, content) -> dict:
    model, queue = Model("bicubic"), JobQueue()
    models = Models(model)
    sessions = Sessions(tmp_path / "visits", models, queue)
    browser = TestClient(build_routes(Studio(sessions, models, queue, limits, {})))
    token = sessions.open()
    try:
        return browser.post(f"/{token}/clip", params={"name": "a.mp4"}, content=content).json()
    finally:
        left = list((tmp_path / "visits").rglob("*.part"))
        sessions.close_all()
        assert left == []


@pytest.mark.parametrize("says_its_length", [True, False])
def test_uploads_without_room_are_refused_in_one_line(says_its_length, tmp_path, monkeypatch):
    monkeypatch.setattr("dloral.studio.routes.calls.LOOK_BYTES", 10_000)
    monkeypatch.setattr("dloral.studio.disk.LOOK_SECONDS", 0)
    limits = Limits(10**6, disk=Disk([tmp_path / "visits"], 30_000))
    parts = (bytes(20_000) for _ in range(3))
    answer = upload(limits, tmp_path, bytes(60_000) if says_its_length else parts)
    assert "not enough disk space for this file: only 0 MB is free; try again" in answer["error"]


def test_what_gradio_takes_in_needs_room_too(tmp_path: Path):
    async def take(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/gradio_api/upload", take, methods=["POST"])])
    browser = TestClient(Hygiene(app, disk=Disk([tmp_path], 1500)))
    assert browser.post("/gradio_api/upload", content=bytes(1400)).text == "1400"
    refused = browser.post("/gradio_api/upload", content=bytes(1600))
    assert refused.status_code == 507
    assert "not enough disk space" in refused.json()["error"]
