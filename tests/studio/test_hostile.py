"""Files made to hurt, on the page, through its API, and on the command line."""

import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from starlette.testclient import TestClient

from dloral.cli import main
from dloral.errors import DLoRALError
from dloral.studio.api import Calls
from dloral.studio.models import Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio
from dloral.weights.loading import load_pipeline
from tests.studio.conftest import finish, send
from tests.support.hostile import ROWS, Row, write_all

each = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_all(folder)
    return folder


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    model, queue = Model("bicubic"), JobQueue()
    model.use(load_pipeline("bicubic"))
    models = Models(model)
    made = Studio(Sessions(tmp_path / "s", models, queue), models, queue, Limits(10**7, 100), {})
    yield made
    made.sessions.close_all()


def check(row: Row, error: str, notes: str) -> None:
    assert "\n" not in error
    assert bool(error) != row.is_restored, error
    assert re.search(row.said, error or notes), error or notes


@each
def test_on_the_page(row, files, studio):
    browser, token = TestClient(build_routes(studio), raise_server_exceptions=False), ""
    token = studio.sessions.open()
    state = send(browser, token, files / row.name)
    if "error" in state:
        check(row, state["error"], "")
        return
    settings = {"settings": {"scale": 2}}
    for path in ("thumbnails", "background?frame=0&scale=2"):
        assert browser.get(f"/{token}/{path}").headers["content-type"] == "image/jpeg"
    shown = browser.post(f"/{token}/preview", json={"frame": 0, **settings})
    assert shown.headers["content-type"] == "image/png"
    answer = browser.post(f"/{token}/job", json=settings)
    if row.refused_online:
        assert re.search(row.refused_online, answer.json()["error"])
        return
    state = finish(browser, token)
    job = state["job"]
    check(row, job.get("error") or "", " ".join((state.get("result") or {}).get("notes", [])))


@each
def test_by_the_api(row, files, studio):
    calls, said = Calls(studio), ""
    given = {"clip": str(files / row.name), "scale": 2.0}
    if row.refused_online:
        with pytest.raises(gr.Error, match=row.refused_online):
            calls.upscale(given | {"start": 0.0}, lambda *at, **more: None)
        return
    if row.is_restored:
        assert Path(calls.upscale(given | {"start": 0.0}, lambda *at, **more: None)).stat().st_size
        frame = 0 if row.name.endswith(".tif") else 1
        assert calls.preview_frame(given | {"frame": frame}).endswith(".png")
        return
    for call in (
        lambda: calls.upscale(given | {"start": 0.0}, lambda *at, **more: None),
        lambda: calls.preview_frame(given | {"frame": 1}),
    ):
        with pytest.raises(Exception, match=row.said) as caught:
            call()
        said = str(caught.value)
        assert "\n" not in said
        assert not isinstance(caught.value, DLoRALError)  # as Gradio passes it on


@each
def test_on_the_command_line(row, files, tmp_path, capsys):
    target = tmp_path / ("out.png" if row.name.endswith(("png", "tif")) else "out.mp4")
    call = ["upscale", str(files / row.name), "-o", str(target), "--model", "bicubic", "--quiet"]
    status = main([*call, "--scale", "2"])
    said = capsys.readouterr().err
    assert status == (0 if row.is_restored else 1)
    assert "Traceback" not in said
    assert re.search(row.said, said)
    assert [file.name for file in tmp_path.iterdir()] == [target.name] * row.is_restored
