"""Results of examples that are made before anybody visits."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import frames_of
from starlette.testclient import TestClient

from dloral.studio.limits import Limits
from dloral.studio.models import Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.stored import CHOSEN, store_result, stored_beside
from dloral.studio.studio import Studio
from space.make import make
from tests.studio.conftest import serving
from tests.studio.pages import PATIENCE, expect, ready


@pytest.fixture
def example(clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(clip, tmp_path / "bar.mp4"))


@pytest.fixture
def studio(tmp_path: Path, models: Models, example: Path) -> Iterator[Studio]:
    queue = JobQueue()
    sessions = Sessions(tmp_path / "sessions", models, queue)
    yield Studio(sessions, models, queue, Limits(200_000), {"bar": example})
    sessions.close_all()


def opened(studio: Studio, token: str) -> dict:
    with TestClient(build_routes(studio)) as browser:
        return browser.post(f"/{token}/example?name=bar").json()


def test_a_stored_result_is_shown_at_once(studio: Studio, example: Path) -> None:
    """It equals a run's, and goes with its visitor, where a run's is kept."""
    folder = store_result(example, studio.model)
    assert [path.name for path in folder.parent.iterdir()] == ["bar"]
    token = studio.sessions.open()
    state = opened(studio, token)
    assert state["job"]["stage"] == "done"
    session = studio.sessions.find(token)
    assert session.result.file.name == state["result"]["file"]
    stored = folder / session.result.file.name
    before = stored.read_bytes()
    assert session.result.file.read_bytes() == before
    assert not session.is_at_work
    job = session.start_job(session.job.settings)
    assert job.wait(60)
    assert frames_of(session.result.file) == frames_of(stored)
    assert session.is_at_work
    assert stored.read_bytes() == before


def test_another_model_shows_none(studio: Studio, example: Path) -> None:
    store_result(example, studio.model)
    studio.model.name = "another"
    assert opened(studio, studio.sessions.open())["job"] is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("viewer.mp4", None),
        ("result.json", "{}"),
        ("result.json", None),
        (CHOSEN, "{"),
        (CHOSEN, "{}"),
        (CHOSEN, "[]"),
        (CHOSEN, json.dumps({"model": None, "vae": "auto", "scale": "much"})),
        (CHOSEN, None),
    ],
)
def test_a_damaged_one_is_not_shown(
    studio: Studio, example: Path, name: str, content: str | None
) -> None:
    folder = store_result(example, studio.model)
    if content is None:
        (folder / name).unlink()
    else:
        model = json.dumps(studio.model.name)
        (folder / name).write_text(content.replace('"model": null', f'"model": {model}'))
    token = studio.sessions.open()
    state = opened(studio, token)
    assert (state["clip"]["name"], state["job"]) == ("bar.mp4", None)
    session = studio.sessions.find(token)
    assert [path.name for path in session.folder.iterdir()] == [session.clip.path.parent.name]


def test_a_run_that_fails_leaves_nothing(studio: Studio, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    with pytest.raises(Exception, match="broken"):
        store_result(broken, studio.model)
    assert not list(stored_beside(broken).parent.iterdir())


@pytest.mark.browser
def test_a_space_shows_an_example_with_its_result(
    browser, tiny_model: Path, model: Model, tmp_path: Path
) -> None:
    """The Space's own page; narrow, where nothing under the result may stand out of its card."""
    space = tmp_path / "space"
    make(space, results=False)
    store_result(space / "examples" / "people.mp4", model)
    with serving(tiny_model, tmp_path / "served", program=space / "app.py", PYTHONPATH="") as at:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(at)
        ready(page)
        page.click("#example-people")
        shown = page.locator("[data-show=result]")
        expect(shown).to_have_attribute("aria-checked", "true", timeout=PATIENCE)
        expect(page.locator("#download")).to_be_visible()
        expect(page.locator("#moved")).to_be_hidden()
        card = page.locator("#results").bounding_box()
        for part in page.locator("#results :is(a, button, select)").all():
            if box := part.bounding_box():
                assert box["x"] + box["width"] <= card["x"] + card["width"], part.inner_text()
        page.close()
