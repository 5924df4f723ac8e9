"""One visitor's slow call, and everybody else; a visit whose file takes long to come."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from dloral.studio import sessions as sessions_module
from dloral.studio.limits import Limits, Patience
from dloral.studio.models import Models
from dloral.studio.routes import build_routes, calls
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Session, Sessions
from dloral.studio.studio import Studio
from tests.studio.conftest import wait_until

SLOW = 3.0


@pytest.fixture
def studio(tmp_path: Path, models: Models) -> Iterator[Studio]:
    queue = JobQueue()
    visits = Sessions(tmp_path / "sessions", models, queue, Patience(left=5, silent=30, kept=50))
    yield Studio(visits, models, queue, Limits(10**6), {})
    visits.close_all()


def visit_with(studio: Studio, clip: Path) -> tuple[str, Session]:
    token = studio.sessions.open()
    session = studio.sessions.find(token)
    assert session is not None
    session.open_clip(clip.name, lambda copy: copy.write_bytes(clip.read_bytes()))
    return token, session


@contextmanager
def at_work(session: Session) -> Iterator[None]:
    """A call of this visit has its lock for :data:`SLOW` seconds, as the look at a file may."""
    is_held = threading.Event()

    def hold() -> None:
        with session.lock:
            is_held.set()
            time.sleep(SLOW)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    yield
    thread.join()


SETTINGS = {"settings": {"scale": 2}, "frame": 0}
PART = SETTINGS | {"x": 0, "y": 0, "width": 32, "height": 32}


@pytest.mark.parametrize(
    ("method", "call", "body"),
    [
        ("POST", "preview", SETTINGS),
        ("POST", "fill", PART),
        ("POST", "motion", PART),
        ("POST", "job", SETTINGS),
        ("PUT", "job", SETTINGS),
        ("POST", "job/retry", SETTINGS),
        ("POST", "job/resume", {}),
        ("POST", "scenes", SETTINGS),
        ("DELETE", "scenes", None),
        ("POST", "plan", SETTINGS),
        ("GET", "state", None),
        ("GET", "background?frame=0&scale=2", None),
        ("POST", "fork", {}),
    ],
)
def test_nobody_waits_for_another_visitors_file(studio, clip, method, call, body):
    """Whatever the other one asks for meanwhile: the event loop is never held."""
    token, session = visit_with(studio, clip)
    other = studio.sessions.open()
    app = build_routes(studio)

    async def ask() -> float:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            begun = time.monotonic()
            slow = asyncio.create_task(client.request(method, f"/{token}/{call}", json=body))
            await asyncio.sleep(0.3)  # until it has come to what it waits for
            assert (await client.get(f"/{other}/state")).status_code == 200
            took = time.monotonic() - begun
            await slow
        return took

    with at_work(session):
        assert asyncio.run(ask()) < SLOW / 2


def test_looking_for_those_who_are_gone_waits_for_nobody_and_holds_nobody_up(studio, clip):
    visits = studio.sessions
    busy, session = visit_with(studio, clip)
    silent, _ = visit_with(studio, clip)
    result, _ = visit_with(studio, clip)
    later = time.monotonic() + 60
    visits.find(result)
    with at_work(session):
        looking = threading.Thread(target=visits.look, args=(later,))
        begun = time.monotonic()
        looking.start()
        assert visits.find("unknown") is None
        looking.join()
        assert time.monotonic() - begun < SLOW / 2
        assert visits.find(silent) is None
        assert visits.find(busy) is session  # there is a call of it, so it is not gone
    visits.look(time.monotonic() + 60)
    assert visits.find(busy) is None


def test_who_is_heard_while_others_are_looked_at_stays(studio, clip, monkeypatch):
    """Between the question whether a visit is idle and its end."""
    token, session = visit_with(studio, clip)

    def heard(self: Session) -> bool:
        assert studio.sessions.find(token) is session
        return True

    monkeypatch.setattr(Session, "is_idle", property(heard))
    late = time.monotonic() + studio.sessions.patience.silent + 1
    monkeypatch.setattr("dloral.studio.sessions.time.monotonic", lambda: late)
    studio.sessions.look(late)
    assert studio.sessions.find(token) is session


def upload(studio: Studio, token: str, body: AsyncIterator[bytes]) -> dict:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_routes(studio), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.post(f"/{token}/clip", params={"name": "a.mp4"}, content=body)

    answer = asyncio.run(send())
    assert answer.status_code == 200
    return answer.json()


def test_a_visit_stays_while_its_file_is_on_its_way(studio, clip, monkeypatch):
    """Nobody asks about a file of the queue meanwhile; the upload takes four times the patience."""
    monkeypatch.setattr(calls, "HEARD_SECONDS", 0.2)
    studio.sessions.patience = Patience(silent=1)
    token, content = studio.sessions.open(), clip.read_bytes()
    step = len(content) // 20 + 1

    async def body() -> AsyncIterator[bytes]:
        for at in range(0, len(content), step):
            await asyncio.sleep(4 * studio.sessions.patience.silent / 20)
            studio.sessions.look(time.monotonic())
            yield content[at : at + step]

    assert upload(studio, token, body())["clip"]["name"] == "a.mp4"


def test_a_visit_that_ended_meanwhile_is_said_to_be_gone(studio, clip):
    token, content = studio.sessions.open(), clip.read_bytes()

    async def body() -> AsyncIterator[bytes]:
        yield content[:100]
        studio.sessions.close(token)
        yield content[100:]

    assert upload(studio, token, body()) == {"gone": True}


def test_a_visit_whose_file_is_on_its_way_is_not_empty(studio, clip, monkeypatch):
    """Where an address has too many visits, empty ones go."""
    monkeypatch.setattr(sessions_module, "MOST_OF_ADDRESS", 2)
    monkeypatch.setattr(calls, "HEARD_SECONDS", 0)
    token, content = studio.sessions.open("1.2.3.4"), clip.read_bytes()

    async def body() -> AsyncIterator[bytes]:
        yield content[:100]
        wait_until(lambda: studio.sessions.find(token).is_receiving)
        for _ in range(3):
            studio.sessions.open("1.2.3.4")
        yield content[100:]

    assert upload(studio, token, body())["clip"]["name"] == "a.mp4"
    client = TestClient(build_routes(studio))
    assert client.get(f"/{token}/state").json()["clip"]["name"] == "a.mp4"
    assert not studio.sessions.find(token).is_receiving
