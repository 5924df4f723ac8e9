"""Files of this machine, chosen by path: for who sits at it alone."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dloral.studio.models import EVERYBODY, THIS_MACHINE, Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio

PORTS: dict[str, int] = {}
"""Of both ends of a connection of this user, which calls are said to come by."""


@pytest.fixture(scope="module", autouse=True)
def connection() -> Iterator[None]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        PORTS.update(client=client.getsockname()[1], server=server.getsockname()[1])
        yield


@pytest.fixture
def studio(tmp_path: Path, model) -> Iterator[Studio]:
    models, queue = Models(model, THIS_MACHINE), JobQueue()
    sessions = Sessions(tmp_path / "sessions", models, queue)
    yield Studio(sessions, models, queue, Limits(1_000_000), {})
    sessions.close_all()


def browser_of(studio: Studio, client: str = "127.0.0.1", name: str = "127.0.0.1") -> TestClient:
    """A browser at ``client`` that calls the page by ``name``."""
    ends = (client, PORTS["client"]), f"127.0.0.1:{PORTS['server']}"
    browser = TestClient(build_routes(studio), client=ends[0], base_url=f"http://{ends[1]}")
    browser.headers["host"] = f"{name}:{PORTS['server']}"
    return browser


def ask(browser: TestClient, studio: Studio, call: str, path: str, **more) -> dict:
    token = more.pop("token", None) or studio.sessions.open()
    body = json.dumps({"path": path})  # in ASCII, as JSON can hold every name
    headers = {"content-type": "application/json"} | more.pop("headers", {})
    return browser.post(f"/{token}/{call}", content=body, headers=headers, **more).json()


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


def test_names_and_entries_that_cannot_be_read_do_not_close_a_folder(
    studio: Studio, clip: Path, tmp_path: Path
):
    """A name in an older encoding, and a link that leads round in a circle, whose stat fails as
    that of a mount does whose server is gone."""
    here = tmp_path / "clips"
    here.mkdir()
    os.link(clip, here / "bar.mp4")
    try:
        os.link(clip, here / os.fsdecode(b"caf\xe9.mp4"))
        (here / os.fsdecode(b"\xe9t\xe9")).mkdir()
    except OSError:
        pytest.skip("names are UTF-8 on this disk")
    (here / os.fsdecode(b"\xe9.txt")).write_text("no clip")
    (here / "round.mp4").symlink_to("round.mp4")
    browser = browser_of(studio)
    listed = ask(browser, studio, "places", str(here))
    assert [file["name"] for file in listed["files"]] == ["bar.mp4"]
    assert listed["folders"] == []
    assert listed["more"] == 3


def test_a_file_that_cannot_be_read_is_one_line(studio: Studio):
    unreadable = "/proc/self/mem"
    if not Path(unreadable).is_file():
        pytest.skip("not Linux")
    told = ask(browser_of(studio), studio, "place", unreadable)["error"]
    assert told == "mem cannot be read: input/output error; choose another file"


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
    ("client", "name", "headers"),
    [
        ("10.0.0.7", "127.0.0.1", {}),
        ("127.0.0.1", "evil.example", {}),
        ("127.0.0.1", "127.0.0.1", {"x-forwarded-for": "10.0.0.7"}),
    ],
)
def test_who_sits_elsewhere_gets_no_file(studio, clip, client, name, headers):
    browser = browser_of(studio, client, name)
    for call in ("places", "place", "keep"):
        told = ask(browser, studio, call, str(clip), headers=headers)
        assert "only a user at this machine" in told["error"]


@pytest.mark.skipif(
    not Path("/proc/net/tcp").is_file(), reason="Linux says whose sockets are whose"
)
@pytest.mark.parametrize("way", ["another user", "closed since"])
def test_another_user_of_this_machine_gets_no_file(studio, clip, monkeypatch, way):
    """Nor who closes the connection at once, and would see the file by other calls of the visit."""
    if way == "closed since":
        monkeypatch.setitem(PORTS, "client", 1)
    else:
        monkeypatch.setattr("dloral.studio.routes.place._own_user", lambda: os.getuid() + 1)
    browser, token = browser_of(studio), studio.sessions.open()
    for call in ("places", "place", "keep"):
        told = ask(browser, studio, call, str(clip), token=token)
        assert "only a user at this machine" in told["error"]
    assert studio.sessions.find(token).clip is None


def test_a_page_for_others_too_offers_none(studio: Studio, clip: Path):
    studio.models.menu_for = EVERYBODY
    assert (
        "only a user at this machine"
        in ask(browser_of(studio), studio, "place", str(clip))["error"]
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("clips/bar.mp4", "is not an absolute path"),
        ("/nowhere/bar.mp4", "bar.mp4 no longer exists"),
        ("/tmp/a\0b", "has no path"),
        ("/tmp/\udce9.mp4", "is not valid UTF-8"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_line(studio: Studio, path: str, said: str):
    assert said in ask(browser_of(studio), studio, "place", path)["error"]


def test_a_folder_that_is_none_is_one_line(studio: Studio, clip: Path):
    for path in (str(clip), "/nowhere"):
        assert "cannot be opened" in ask(browser_of(studio), studio, "places", path)["error"]
