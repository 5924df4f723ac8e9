"""The menu of models: what it says, what it brings, who may use it, what a change leaves alone."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from hub_server import Hub, repo_of
from released import RELEASE
from starlette.testclient import TestClient

from dloral.errors import DLoRALError
from dloral.options import UpscaleOptions
from dloral.studio.models import EVERYBODY, NOBODY, THIS_MACHINE, Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.server import build_parser, menu_for
from dloral.studio.sessions import Sessions
from dloral.studio.settings import settings_from
from dloral.studio.studio import Limits, Studio

Call = Callable[..., dict]


@pytest.fixture
def studio(tmp_path: Path, model: Model, clip: Path):
    models, queue = Models(model, THIS_MACHINE), JobQueue()
    sessions = Sessions(tmp_path / "sessions", models, queue)
    yield Studio(sessions, models, queue, Limits(10**6), {})
    sessions.close_all()


@pytest.fixture
def call(studio: Studio) -> Call:
    """A call of the page, from a browser on this machine: (method, path, body) -> its answer."""
    client = TestClient(
        build_routes(studio), base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000)
    )
    token = studio.sessions.open()

    def ask(method: str, path: str, body: dict | None = None, **headers: str) -> dict:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.request(method, f"/{token}/{path}", json=body, headers=named).json()

    return ask


def ended(call: Call) -> dict:
    """The list once a change is over."""
    end = time.monotonic() + 60
    while True:
        found = call("GET", "models")
        if found["change"]["stage"] in ("done", "failed", "stopped"):
            return found
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_menu_asks_nobody_and_says_what_is_not_here(call: Call, hub: Hub, tiny_model: Path):
    found = call("GET", "models")
    assert found["in_use"] == str(tiny_model)
    assert [entry["name"] for entry in found["models"]] == [str(tiny_model), "compact", "sd21"]
    assert [entry["here"] for entry in found["models"]] == [True, True, False]
    assert found["models"][2]["download"] > 5e9
    assert [companion["name"] for companion in found["models"][2]["companions"]] == ["tagger"]
    assert not hub.log


def test_what_comes_is_said_before_it_comes(call: Call, hub: Hub, home: Path):
    files = [pair for repo in hub.repos.values() for pair in repo.files.items()]
    whole = sum(len(content) for _, content in files)
    tagger = sum(len(content) for name, content in files if name.endswith(".pth"))
    plan = call("POST", "models/plan", {"name": "sd21"})
    assert plan["download"] == f"{whole / 1e6:.1f} MB"
    assert RELEASE in plan["sources"]
    assert any("CreativeML" in licence for licence in plan["licences"])
    bare = call("POST", "models/plan", {"name": "sd21", "without": ["tagger"]})
    assert tagger > 1e6
    assert bare["download"] == f"{(whole - tagger) / 1e6:.1f} MB"
    assert not hub.asked("GET", "/cdn/")
    assert not home.exists()


def test_taking_a_model_fetches_loads_and_uses_it(
    call: Call, hub: Hub, studio: Studio, long_clip: Path, tiny_model: Path
):
    session = studio.sessions.find(studio.sessions.open())
    session.open_clip("long.mp4", lambda copy: copy.write_bytes(long_clip.read_bytes()))
    preview = session.preview
    job = session.start_job(settings_from({"scale": 1, "duration": 60}, studio.model.name))
    call("POST", "models", {"name": "sd21"})
    assert "is being changed to sd21" in call("POST", "models", {"name": "compact"})["error"]
    found = ended(call)
    assert (found["change"]["stage"], found["in_use"]) == ("done", "sd21")
    assert found["change"]["done"] == found["change"]["total"] > 15e6
    assert found["models"][0]["here"]
    assert call("GET", "state")["model"]["prompts"]
    assert session.preview is not preview
    # the job goes on with what it began with, and ends well
    assert job.wait(120)
    assert job.error is None
    assert job.result.settings.options.model == str(tiny_model)
    hub.log.clear()
    call("POST", "models", {"name": "compact"})
    assert ended(call)["in_use"] == "compact"
    assert not hub.log


def test_a_failure_is_one_line_and_the_model_in_use_stays(
    call: Call, hub: Hub, studio: Studio, tiny_model: Path
):
    del hub.repos[RELEASE]
    planned = call("POST", "models/plan", {"name": "sd21"})["error"]
    assert RELEASE in planned
    assert "\n" not in planned
    call("POST", "models", {"name": "sd21"})
    found = ended(call)
    assert found["change"]["stage"] == "failed"
    assert RELEASE in found["change"]["error"]
    assert "\n" not in found["change"]["error"]
    assert found["in_use"] == str(tiny_model)


def test_a_download_is_stopped_and_tried_again(call: Call, hub: Hub, tiny_model: Path):
    call("POST", "models", {"name": "sd21", "without": ["tagger"]})
    assert call("DELETE", "models")["change"]["stage"] in ("stopping", "stopped")
    found = ended(call)
    assert (found["change"]["stage"], found["in_use"]) == ("stopped", str(tiny_model))
    call("POST", "models", {"name": "sd21", "without": ["tagger"]})
    assert ended(call)["in_use"] == "sd21"


def test_the_tiny_autoencoder_takes_the_place_of_the_models_own(
    call: Call, hub: Hub, studio: Studio, cut_clip: Path, tmp_path: Path
):
    torch.manual_seed(0)
    sizes = {f"{part}_block_out_channels": (8,) * 4 for part in ("encoder", "decoder")}
    AutoencoderTiny(**sizes).save_pretrained(tmp_path / "taesd")
    hub.repos["madebyollin/taesd"] = repo_of(tmp_path / "taesd")
    refused = call("POST", "models", {"name": studio.model.name, "vae": "tiny"})["error"]
    assert "has no other vae" in refused
    call("POST", "models", {"name": "sd21", "without": ["tagger"]})
    assert ended(call)["takes_tiny_vae"]
    session = studio.sessions.find(studio.sessions.open())
    session.open_clip("cut.mp4", lambda copy: copy.write_bytes(cut_clip.read_bytes()))
    pictures = []
    for vae in ("auto", "tiny", "tiny-decoder", "auto"):
        if vae != studio.model.vae:
            call("POST", "models", {"name": "sd21", "vae": vae})
            assert ended(call)["vae"] == vae
        pictures.append(session.preview.render(1, UpscaleOptions(scale=1)).png)
    assert pictures[0] == pictures[3]
    assert len(set(pictures)) == 3
    assert len(hub.asked("GET", "/cdn/madebyollin/taesd")) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "/etc"}, "'/etc' is not on the menu"),
        ({"name": "somebody/else"}, "is not on the menu"),
        ({"name": "sd21", "without": ["dloral"]}, "is never fetched with 'dloral'"),
        ({"name": "compact", "vae": "huge"}, "vae is 'huge'"),
        ({"name": 5}, "has no model"),
        ({"name": "sd21", "without": "tagger"}, "has no model"),
    ],
)
def test_only_what_is_on_the_menu_is_taken(call: Call, hub: Hub, body: dict, said: str):
    assert said in call("POST", "models", body)["error"]
    assert not hub.log


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "example.org"},
        {"host": "10.0.0.7:7860"},
        {"x_forwarded_for": "10.0.0.9"},
        {"forwarded": "for=10.0.0.9"},
        {"x_forwarded_proto": "https"},
        {"via": "1.1 proxy"},
    ],
)
def test_who_comes_from_elsewhere_has_no_menu(call: Call, hub: Hub, headers: dict):
    for method, path in (("GET", "models"), ("POST", "models/plan"), ("POST", "models")):
        found = call(method, path, {"name": "sd21"}, **headers)
        assert "only the person running this page" in found["error"]
    assert not hub.log


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        ([], THIS_MACHINE),
        (["--host", "0.0.0.0"], NOBODY),
        (["--share"], NOBODY),
        (["--auth", "ann:secret"], NOBODY),
        (["--auth", "ann:secret", "--host", "0.0.0.0", "--allow-fetch"], EVERYBODY),
    ],
)
def test_whom_the_menu_is_for(arguments: list[str], who: str, monkeypatch):
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert menu_for(build_parser().parse_args(arguments)) == who


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
