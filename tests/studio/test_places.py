"""Files of this machine, chosen by path: for who sits at it alone."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Address

from dloral.studio.models import EVERYBODY, THIS_MACHINE, Models
from dloral.studio.routes import build_routes
from dloral.studio.routes.place import owner_of
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio

HERE = "http://127.0.0.1:7860"


@pytest.fixture
def studio(tmp_path: Path, model) -> Iterator[Studio]:
    models, queue = Models(model, THIS_MACHINE), JobQueue()
    sessions = Sessions(tmp_path / "sessions", models, queue)
    yield Studio(sessions, models, queue, Limits(1_000_000), {})
    sessions.close_all()


def browser_of(studio: Studio, client: str = "127.0.0.1", address: str = HERE) -> TestClient:
    return TestClient(build_routes(studio), base_url=address, client=(client, 1))


def ask(browser: TestClient, studio: Studio, call: str, path: str, **more) -> dict:
    token = more.pop("token", None) or studio.sessions.open()
    return browser.post(f"/{token}/{call}", json={"path": path}, **more).json()


def test_a_folder_is_listed_and_a_clip_of_it_opened(studio: Studio, clip: Path, tmp_path: Path):
    here = tmp_path / "clips"
    (here / "more").mkdir(parents=True)
    (here / ".hidden").mkdir()
    (here / "notes.txt").write_text("no clip")
    os.link(clip, here / "Bar.MP4")
    browser = browser_of(studio)
    listed = ask(browser, studio, "places", str(here))
    assert (listed["path"], listed["parent"]) == (str(here), str(tmp_path))
    assert listed["folders"] == ["more"]
    assert [file["name"] for file in listed["files"]] == ["Bar.MP4"]
    token = studio.sessions.open()
    opened = ask(browser, studio, "place", listed["files"][0]["path"], token=token)
    assert opened["clip"]["name"] == "Bar.MP4"
    found = studio.sessions.find(token)
    assert found.clip.path.samefile(clip)  # linked, not copied
    studio.sessions.close(token)
    assert clip.is_file()
    assert (here / "Bar.MP4").is_file()


def test_the_result_is_kept_in_a_folder_beside_what_is_there(
    studio: Studio, clip: Path, tmp_path: Path
):
    browser, token = browser_of(studio), studio.sessions.open()
    assert (
        "result no longer exists"
        in ask(browser, studio, "keep", str(tmp_path), token=token)["error"]
    )
    ask(browser, studio, "place", str(clip), token=token)
    settings = {"scale": 1, "duration": 0.2}
    browser.post(f"/{token}/job", json={"settings": settings})
    session = studio.sessions.find(token)
    assert session.job.wait(60)
    kept = [ask(browser, studio, "keep", str(tmp_path), token=token)["file"] for _ in range(2)]
    assert kept == ["bar-restored.mp4", "bar-restored-2.mp4"]
    assert (tmp_path / kept[1]).read_bytes() == session.result.file.read_bytes()
    told = ask(browser, studio, "keep", str(tmp_path / "nowhere"), token=token)["error"]
    assert "cannot be written" in told
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("client", "address", "headers"),
    [
        ("10.0.0.7", HERE, {}),
        ("127.0.0.1", "http://evil.example:7860", {}),
        ("127.0.0.1", HERE, {"x-forwarded-for": "10.0.0.7"}),
    ],
)
def test_who_sits_elsewhere_gets_no_file(studio, clip, client, address, headers):
    browser = browser_of(studio, client, address)
    for call in ("places", "place", "keep"):
        told = ask(browser, studio, call, str(clip), headers=headers)
        assert "only a user at this machine" in told["error"]


def test_a_page_for_others_too_offers_none(studio: Studio, clip: Path):
    studio.models.menu_for = EVERYBODY
    assert (
        "only a user at this machine"
        in ask(browser_of(studio), studio, "place", str(clip))["error"]
    )


def test_a_connection_knows_its_user():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with client:
            host, port = client.getsockname()
            assert owner_of(Address(host, port)) in (None, os.getuid())
            if Path("/proc/net/tcp").is_file():
                assert owner_of(Address(host, port)) == os.getuid()
    assert owner_of(None) is None


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("clips/bar.mp4", "is not an absolute path"),
        ("/nowhere/bar.mp4", "bar.mp4 no longer exists"),
        ("/tmp/a\0b", "has no path"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_line(studio: Studio, path: str, said: str):
    assert said in ask(browser_of(studio), studio, "place", path)["error"]


def test_a_folder_that_is_none_is_one_line(studio: Studio, clip: Path):
    for path in (str(clip), "/nowhere"):
        assert "cannot be opened" in ask(browser_of(studio), studio, "places", path)["error"]
