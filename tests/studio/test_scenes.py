"""Scenes before a run: found, edited, used by preview and run, kept in the settings file."""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dloral import load_pipeline
from dloral.errors import OptionError
from dloral.prompts import Scene
from dloral.studio.models import Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.settings import settings_from
from dloral.studio.studio import Limits, Studio
from dloral.weights.tagger import convert_tagger

RAM = Path(__file__).parents[1] / "data" / "ram_tiny"


@pytest.fixture(scope="module")
def reading(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny full model, which reads prompts, with the tiny tagger."""
    import shutil

    folder = tmp_path_factory.mktemp("reading") / "model"
    shutil.copytree(converted, folder)
    lists = (RAM / "ram_tag_list.txt", RAM / "ram_tag_list_threshold.txt")
    convert_tagger(RAM / "ram_tiny.pth", RAM / "DAPE_tiny.pth", *lists, folder / "tagger")
    model = Model(str(folder))
    model.use(load_pipeline(folder, device="cpu", dtype="float32"))
    return model


@pytest.fixture
def studio(tmp_path: Path, reading: Model):
    models, queue = Models(reading), JobQueue()
    studio = Studio(Sessions(tmp_path / "s", models, queue), models, queue, Limits(10**6, 1), {})
    yield studio
    studio.sessions.close_all()


@pytest.fixture
def call(studio: Studio, cut_clip: Path):
    client = TestClient(build_routes(studio))
    token = studio.sessions.open()
    client.post(f"/{token}/clip?name=cut.mp4", content=cut_clip.read_bytes())

    def ask(method: str, path: str, body: dict | None = None):
        return client.request(method, f"/{token}/{path}", json=body)

    return ask


def until(call, part: str, stages: tuple[str, ...]) -> dict:
    end = time.monotonic() + 60
    while (state := call("GET", "state").json())[part]["stage"] not in stages:
        assert time.monotonic() < end
        time.sleep(0.05)
    return state


def test_scenes_are_found_edited_and_used(call):
    chosen = {"scale": 1, "prompt": "at night"}
    assert call("POST", "scenes", {"settings": chosen}).json()["search"]["stage"] == "looking"
    search = until(call, "search", ("done", "failed"))["search"]
    assert search["error"] is None
    assert [scene["start"] for scene in search["scenes"]] == ["0", "3/5"]
    assert all(scene["prompt"].endswith("at night,") for scene in search["scenes"])

    def pictures(scenes: list[dict]) -> list[bytes]:
        settings = chosen | {"scenes": scenes}
        return [
            call("POST", "preview", {"frame": frame, "settings": settings}).content
            for frame in (1, 4)
        ]

    edited = [search["scenes"][0], {"start": "3/5", "prompt": "a cat"}]
    before, after = pictures(search["scenes"]), pictures(edited)
    assert before[0] == after[0]
    assert before[1] != after[1]
    call("POST", "job", {"settings": chosen | {"scenes": edited}})
    state = until(call, "job", ("done", "failed"))
    assert state["job"]["error"] is None
    assert state["result"]["scenes"] == edited
    kept = call("GET", f"files/{state['result']['settings_file']}").content
    assert json.loads(kept)["settings"]["scenes"] == edited
    assert call("POST", "settings", json.loads(kept)).json()["settings"]["scenes"] == edited


def test_a_run_asks_for_itself_and_says_what_it_was_told(call):
    call("POST", "job", {"settings": {"scale": 1}})
    state = until(call, "job", ("done", "failed"))
    assert [scene["start"] for scene in state["result"]["scenes"]] == ["0", "3/5"]
    assert "scenes" not in state["job"]["settings"]


def test_a_search_ends_with_the_clip(call, studio):
    call("POST", "scenes", {"settings": {"scale": 1}})
    assert call("DELETE", "scenes").json()["search"] is None
    call("POST", "scenes", {"settings": {"scale": 1}})
    assert call("DELETE", "clip").json()["search"] is None
    assert "error" in call("POST", "scenes", {"settings": {"scale": 1}}).json()


@pytest.mark.parametrize(
    "scenes",
    [
        "all",
        [1],
        [{"start": "0"}],
        [{"start": 0, "prompt": ""}],
        [{"start": "1e999999999", "prompt": ""}],
        [{"start": "1/0", "prompt": ""}],
        [{"start": "-1", "prompt": ""}],
        [{"start": "0", "prompt": "x" * 2000}],
    ],
)
def test_what_are_no_scenes_is_refused_in_one_line(scenes):
    with pytest.raises(OptionError, match="scene") as caught:
        settings_from({"scenes": scenes}, "compact")
    assert "\n" not in str(caught.value)


def test_scenes_come_in_order_and_a_frame_gets_its_own():
    told = [{"start": "3/2", "prompt": "b"}, {"start": "0", "prompt": "a"}]
    settings = settings_from({"scenes": told, "prompt": "c"}, "compact")
    assert settings.scenes == (Scene(Fraction(0), "a"), Scene(Fraction(3, 2), "b"))
    assert [settings.at(Fraction(time)).prompt for time in (0, 1, 2)] == ["a", "a", "b"]
    assert settings_from({"prompt": "c"}, "compact").at(Fraction(1)).prompt == "c"
