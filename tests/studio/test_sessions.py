"""Visitors: nobody finds anybody else's, and what is left behind goes."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from dloral.errors import InputError
from dloral.studio.face import worded
from dloral.studio.limits import Limits, Patience
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Sessions, checked_name
from dloral.studio.settings import settings_from
from dloral.studio.studio import Studio
from tests.studio.conftest import files_in, wait_until


@pytest.fixture
def sessions(tmp_path: Path, models) -> Iterator[Sessions]:
    sessions = Sessions(tmp_path, models, JobQueue(), Patience(left=5, silent=50, kept=500))
    yield sessions
    sessions.close_all()


def give(session, path: Path):
    return session.open_clip(path.name, lambda copy: copy.write_bytes(path.read_bytes()))


def test_a_token_finds_its_visitor_and_no_other(sessions):
    tokens = [sessions.open() for _ in range(3)]
    found = [sessions.find(token) for token in tokens]
    assert len({id(session) for session in found}) == 3
    assert all(len(token) >= 32 for token in tokens)
    assert sessions.find("") is None
    assert sessions.find(tokens[0][:-1]) is None
    assert not any(
        token in str(session.folder) for token, session in zip(tokens, found, strict=True)
    )


def test_a_silent_visitor_goes_and_a_heard_one_stays(sessions, tmp_path, clip, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("dloral.studio.sessions.time.monotonic", lambda: now)
    silent, heard, leaving = (sessions.open() for _ in range(3))
    for token in (silent, heard, leaving):
        give(sessions.find(token), clip)
    sessions.leaving(leaving)
    now += 6
    sessions.look(now)
    assert sessions.find(leaving) is None
    now += 30
    sessions.find(heard)
    now += 30
    sessions.look(now)
    assert sessions.find(silent) is None
    assert sessions.find(heard) is not None
    assert files_in(tmp_path) == ["bar.mp4"]
    sessions.close_all()
    assert not files_in(tmp_path)


def test_a_page_that_is_loaded_anew_stays(sessions, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("dloral.studio.sessions.time.monotonic", lambda: now)
    token = sessions.open()
    sessions.leaving(token)
    now += 2
    assert sessions.find(token) is not None
    now += 20
    sessions.look(now)
    assert sessions.find(token) is not None


def test_an_old_result_expires_and_its_clip_stays(sessions, tmp_path, clip, monkeypatch):
    token = sessions.open()
    session = sessions.find(token)
    give(session, clip)
    job = session.start_job(settings_from({"scale": 1}, "compact"))
    assert job.wait(60)
    sessions.look(10.0)
    assert session.result is not None
    session.forget_old_result(500, 600.0)
    assert session.result is None
    assert files_in(tmp_path) == ["bar.mp4"]


def test_a_closed_visitor_stops_its_job(sessions, tmp_path, long_clip):
    token = sessions.open()
    session = sessions.find(token)
    give(session, long_clip)
    job = session.start_job(settings_from({"scale": 1}, "compact"))
    sessions.close(token)
    assert job.has_ended
    assert not files_in(tmp_path)
    assert long_clip.exists()


def test_a_new_clip_removes_the_old_one_and_a_bad_one_does_not(
    sessions, tmp_path, clip, picture, no_clip
):
    session = sessions.find(sessions.open())
    give(session, clip)
    assert session.start_job(settings_from({"scale": 1}, "compact")).wait(60)
    with pytest.raises(InputError) as caught:
        give(session, no_clip)
    assert worded(caught.value).startswith("letter.mp4 is not a readable video or image")
    assert session.clip is not None
    assert session.result is not None
    give(session, picture)
    assert files_in(tmp_path) == ["photo.png"]
    assert session.result is None


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..", ".", "", "a/b.mp4", "..\\..\\boot.ini", "a\0.mp4", "/etc/passwd"],
)
def test_a_name_that_leads_elsewhere_is_refused(name, sessions, tmp_path, clip):
    session = sessions.find(sessions.open())
    with pytest.raises(InputError, match="is not a plain file name") as caught:
        session.open_clip(name, lambda copy: copy.write_bytes(clip.read_bytes()))
    assert "\n" not in str(caught.value)
    assert not files_in(tmp_path)


def test_a_long_name_is_cut_and_keeps_its_kind():
    name = checked_name("ä" * 200 + ".mp4")
    assert name.endswith(".mp4")
    assert len(name.encode()) < 200


def test_a_name_of_two_lines_is_one_that_can_be_fetched(sessions, models, clip):
    studio = Studio(sessions, models, JobQueue(), Limits(10**6), {})
    client = TestClient(Starlette(routes=[Mount("/studio", build_routes(studio))]))
    visit = f"/studio/{sessions.open()}"
    sent = client.post(
        f"{visit}/clip", params={"name": "a\nb\r\u2028c.mp4"}, content=clip.read_bytes()
    )
    assert sent.json()["clip"]["name"] == "a_b__c.mp4"
    client.post(f"{visit}/job", json={"settings": {"scale": 1, "duration": 0.1}})
    state = lambda: client.get(f"{visit}/state").json()  # noqa: E731
    wait_until(lambda: state()["job"]["stage"] == "done")
    assert client.get(f"{visit}/files/{quote(state()['result']['file'])}").status_code == 200
