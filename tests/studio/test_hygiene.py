"""Headers, hosts, sizes and logins, whatever the page behind does."""

import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from dloral.errors import InputError, OptionError, ResourceError
from dloral.studio import hygiene
from dloral.studio.disk import Disk, NoRoomError
from dloral.studio.health import health_routes
from dloral.studio.hygiene import (
    FAILED_CALLS,
    LOGIN_SECONDS,
    LOGIN_TRIES,
    MOST_CALL_BYTES,
    Hygiene,
    Tries,
    framed_by,
    host_of,
)
from dloral.studio.models import Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio


@pytest.fixture
def studio(tmp_path: Path, models: Models) -> Iterator[Studio]:
    queue = JobQueue()
    made = Studio(Sessions(tmp_path / "s", models, queue), models, queue, Limits(10**6), {})
    yield made
    made.sessions.close_all()


def client_for(**rules) -> TestClient:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    async def login(request: Request) -> PlainTextResponse:
        is_right = (await request.body()) == b"right"
        return PlainTextResponse("", 200 if is_right else 400)

    async def none(request: Request) -> PlainTextResponse:
        return PlainTextResponse("", 404)

    routes = [
        Route("/studio/token/thumbnails", none),
        Route("/call", echo, methods=["GET", "POST"]),
        Route("/studio/token/clip", echo, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Hygiene, **rules)])
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def test_every_answer_carries_the_headers():
    headers = client_for().get("/call").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_a_space_may_be_shown_in_hugging_faces_frame(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert framed_by(False) == "'none'"
    monkeypatch.setenv("SPACE_ID", "ann/page")
    headers = client_for(may_be_framed_by=framed_by(False)).get("/call").headers
    assert "frame-ancestors https://huggingface.co" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("LOCALHOST", 200),
        ("[::1]:7860", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_only_known_names_are_answered(host: str, status: int):
    client = client_for(hosts=["127.0.0.1", "localhost", "::1"])
    assert client.get("/call", headers={"host": host}).status_code == status


def test_a_name_that_is_none_is_no_error():
    assert host_of("[::1") == ""
    assert host_of("a.example:99999999") == "a.example"


def test_large_calls_are_refused_and_uploads_are_not():
    client, large = client_for(), b"x" * (MOST_CALL_BYTES + 1)
    assert client.post("/call", content=large).status_code == 413
    assert client.post("/studio/token/clip", content=large).text == str(len(large))
    assert client.post("/call", content=iter([large])).status_code == 413


def test_wrong_passwords_are_limited_by_address():
    client = client_for()
    assert client.post("/login", content=b"right").status_code == 200
    for _ in range(LOGIN_TRIES):
        assert client.post("/login", content=b"wrong").status_code == 400
    assert client.post("/login", content=b"right").status_code == 429


def seconds_of(client: TestClient, path: str, address: str) -> float:
    begun = time.monotonic()
    client.get(path, headers={"x-forwarded-for": address})
    return time.monotonic() - begun


def test_who_fails_again_and_again_pauses_and_nobody_else(monkeypatch):
    monkeypatch.setattr(hygiene, "PAUSE_SECONDS", 0.5)
    client = client_for()
    begun = time.monotonic()
    for _ in range(FAILED_CALLS):
        seconds_of(client, "/studio/token/thumbnails", "6.6.6.6")
    assert time.monotonic() - begun < 0.5 * FAILED_CALLS
    assert seconds_of(client, "/studio/token/thumbnails", "6.6.6.6") >= 0.5
    assert seconds_of(client, "/call", "6.6.6.6") < 0.5
    assert seconds_of(client, "/studio/token/thumbnails", "1.2.3.4") < 0.5


def test_files_that_are_refused_count_as_failed(studio, monkeypatch):
    """Their line comes with status 200."""
    monkeypatch.setattr(hygiene, "PAUSE_SECONDS", 0.5)
    app = Starlette(
        routes=[Mount("/studio", build_routes(studio))], middleware=[Middleware(Hygiene)]
    )
    client = TestClient(app)
    room, name = f"/studio/{studio.sessions.open()}", {"name": "a.mp4"}
    for _ in range(FAILED_CALLS):
        told = client.post(
            f"{room}/clip", params=name, content=b"none", headers={"x-forwarded-for": "6.6.6.6"}
        )
        assert told.status_code == 200
        assert "error" in told.json()
    assert seconds_of(client, f"{room}/thumbnails", "6.6.6.6") >= 0.5
    assert seconds_of(client, f"{room}/thumbnails", "1.2.3.4") < 0.5


FROM = {"x-forwarded-for": "6.6.6.6"}


def page_for(studio: Studio) -> tuple[TestClient, Hygiene]:
    """The page's calls behind the rules, and the rules."""
    app = Starlette(routes=[Mount("/studio", build_routes(studio))])
    rules = Hygiene(app)
    return TestClient(rules, raise_server_exceptions=False), rules


def counts(studio: Studio, call) -> bool:
    """Whether ``call`` of a client and the visitor's path has failed as far as pauses go."""
    client, rules = page_for(studio)
    token = studio.sessions.open()
    for _ in range(FAILED_CALLS):
        call(client, f"/studio/{token}")
    return not rules._failures.may_try("6.6.6.6")


def test_settings_that_are_refused_do_not_count(studio, clip):
    """The page asks for a plan after each change of a setting."""
    studio = replace(studio, limits=Limits(10**6, max_minutes=0.001))

    def plan(client: TestClient, room: str) -> None:
        if studio.sessions.find(room.rpartition("/")[2]).clip is None:
            name = {"name": "a.mp4"}
            client.post(f"{room}/clip", params=name, content=clip.read_bytes(), headers=FROM)
        told = client.post(f"{room}/plan", json={"settings": {"scale": 2}}, headers=FROM)
        assert "exceeds the limit of" in told.json()["error"]

    assert not counts(studio, plan)


@pytest.mark.parametrize(
    ("error", "is_counted"),
    [
        (ResourceError("{path} needs 9 GB, but only 2 GB is free", path=Path("a.mp4")), False),
        (NoRoomError("no room"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("a mistake of ours"), False),
        (OptionError("{option} is 9", option="scale"), False),
        (InputError("There is no clip"), False),
        (InputError("{path} is damaged", path=Path("a.mp4")), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_the_files_fault_does_not_count(studio, monkeypatch, error, is_counted):
    def failing(*given, **named) -> bytes:
        raise error

    monkeypatch.setattr("dloral.studio.routes.clip.thumbnails", failing)
    monkeypatch.setattr("dloral.studio.routes.clip.clip_of", lambda session: None)
    call = lambda client, room: client.get(f"{room}/thumbnails", headers=FROM)  # noqa: E731
    assert counts(studio, call) == is_counted


def test_uploads_for_which_the_disk_has_no_room_do_not_count(studio, tmp_path):
    studio = replace(studio, limits=Limits(10**6, disk=Disk([tmp_path], most=0)))

    def upload(client: TestClient, room: str) -> None:
        told = client.post(f"{room}/clip", params={"name": "a.mp4"}, content=b"x", headers=FROM)
        assert "only 0 MB is free" in told.json()["error"]

    assert not counts(studio, upload)


def test_files_whose_decoder_takes_too_much_count(studio, monkeypatch):
    def heavy(*given, **named) -> None:
        raise ResourceError("{path} needs more than 0.5 GB of memory", path=Path("a.mp4"))

    monkeypatch.setattr("dloral.studio.sessions.probe", heavy)
    call = lambda client, room: client.post(  # noqa: E731
        f"{room}/clip", params={"name": "a.mp4"}, content=b"x", headers=FROM
    )
    assert counts(studio, call)


def test_uploads_that_the_disk_has_no_room_for_before_they_are_read_do_not_count(tmp_path):
    async def taken(scope, receive, send) -> None:
        raise AssertionError("is refused before")

    rules = Hygiene(taken, disk=Disk([tmp_path], most=0))
    client = TestClient(rules)
    for _ in range(FAILED_CALLS):
        assert client.post("/gradio_api/upload", content=b"x", headers=FROM).status_code == 507
    assert rules._failures.may_try("6.6.6.6")


def test_uploads_broken_off_count_as_failed():
    client = client_for()
    middleware = client.app.middleware_stack or client.app.build_middleware_stack()
    client.app.middleware_stack = middleware
    rules = middleware.app  # behind the one that answers for errors
    assert isinstance(rules, hygiene.Hygiene)

    async def broken_off(address: str) -> None:
        parts = [{"type": "http.request", "body": b"x", "more_body": True}]

        async def receive() -> dict:
            return parts.pop() if parts else {"type": "http.disconnect"}

        async def send(message: dict) -> None: ...

        headers = [(b"host", b"127.0.0.1"), (b"x-forwarded-for", address.encode())]
        scope = {"type": "http", "method": "POST", "path": "/studio/token/clip", "headers": headers}
        scope |= {"client": ("127.0.0.1", 1), "query_string": b"", "app": client.app}
        await rules(scope, receive, send)  # and raises nothing, for a log without tracebacks

    for _ in range(FAILED_CALLS):
        assert rules._failures.may_try("6.6.6.6")
        anyio.run(broken_off, "6.6.6.6")
    assert not rules._failures.may_try("6.6.6.6")
    client.post("/studio/token/clip", content=b"x", headers={"x-forwarded-for": "1.2.3.4"})
    assert rules._failures.may_try("1.2.3.4")


def test_after_a_while_passwords_are_looked_at_again():
    logins = Tries(LOGIN_TRIES, LOGIN_SECONDS)
    for _ in range(LOGIN_TRIES):
        logins.tried("1.2.3.4", False, now=0)
    assert not logins.may_try("1.2.3.4", now=599)
    assert logins.may_try("5.6.7.8", now=1)
    assert logins.may_try("1.2.3.4", now=601)


def test_health_and_metrics_are_counts(studio):
    client = TestClient(Starlette(routes=health_routes(studio)))
    assert client.get("/healthz").json() == {"status": "ok", "model": "ready"}
    studio.sessions.open()
    text = client.get("/metrics").text
    assert "\ndloral_sessions 1\n" in text
    assert "# TYPE dloral_runs_total counter" in text
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
