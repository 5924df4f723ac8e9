"""The queue as the page's front end steers it: order, pause, resume, cancel, retry, settings."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clips import frames_of, short_segments
from starlette.testclient import TestClient

from dloral import UpscaleOptions, load_pipeline, upscale_video
from dloral.errors import OutputError
from dloral.jobs.journal import JOURNAL
from dloral.jobs.records import DONE
from dloral.jobs.segments import SegmentFile
from dloral.jobs.store import JobStore
from dloral.studio import jobs
from dloral.studio.face import FULL
from dloral.studio.limits import Patience
from dloral.studio.models import Models
from dloral.studio.page import configuration
from dloral.studio.records import Records
from dloral.studio.restoration import restore
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio
from dloral.upscale import Progress
from tests.studio.conftest import wait_until, write_clip


@pytest.fixture(scope="module", autouse=True)
def _short_segments() -> Iterator[None]:
    with short_segments():
        yield


@pytest.fixture
def models() -> Models:
    """Bicubic, since the queue does not ask what a model makes."""
    model = Model("bicubic")
    model.use(load_pipeline("bicubic"))
    return Models(model)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames: twelve whole segments of 8 and one of 4."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", 100)


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs.sqlite")


@pytest.fixture
def studio(tmp_path: Path, models: Models, store: JobStore) -> Iterator[Studio]:
    studio = build(tmp_path, models, store)
    yield studio
    studio.sessions.close_all()


def build(folder: Path, models: Models, store: JobStore) -> Studio:
    queue = JobQueue()
    (folder / "sessions").mkdir(exist_ok=True)
    sessions = Sessions(
        folder / "sessions", models, queue, Patience(), Records(store, 1000, folder / "sessions")
    )
    return Studio(sessions, models, queue, Limits(max_upload=10**6), {})


@pytest.fixture
def browser(studio: Studio) -> TestClient:
    return TestClient(build_routes(studio), raise_server_exceptions=False)


@pytest.fixture
def start(studio: Studio, browser: TestClient) -> Callable[..., str]:
    """A visit with a clip whose job waits or runs; its token."""

    def start(clip: Path, **settings) -> str:
        token = studio.sessions.open()
        name = {"name": clip.name}
        assert "error" not in post(browser, f"{token}/clip", clip.read_bytes(), **name)
        found = post(browser, f"{token}/job", {"settings": {"scale": 1} | settings})
        assert "error" not in found, found
        return token

    return start


def post(browser: TestClient, path: str, body: dict | bytes | None = None, **parameters) -> dict:
    content = body if isinstance(body, bytes) else json.dumps(body or {})
    kind = {} if isinstance(body, bytes) else {"content-type": "application/json"}
    return browser.post(f"/{path}", params=parameters, content=content, headers=kind).json()


def put(browser: TestClient, token: str, **settings) -> dict:
    return browser.put(f"/{token}/job", json={"settings": settings}).json()


def job_of(browser: TestClient, token: str) -> dict:
    return browser.get(f"/{token}/state").json()["job"]


def wait_for(browser: TestClient, token: str, *stages: str) -> dict:
    wait_until(lambda: job_of(browser, token)["stage"] in stages)
    return job_of(browser, token)


def test_waiting_jobs_run_in_the_order_that_is_asked_for(browser, start, store, clip, long_clip):
    """Mine exchange their places; a stranger's between them keeps its own."""
    running = start(long_clip)
    mine = [start(clip), start(clip), start(clip)]
    stranger = start(clip)
    mine.append(start(clip))
    assert [job_of(browser, token)["before"] for token in mine] == [1, 2, 3, 5]
    order = [mine[3], "gone", mine[0], mine[2], mine[1]]
    listed = post(browser, "order", {"tokens": order})["visits"]
    assert list(listed) == order
    assert listed["gone"] is None
    assert [listed[token]["job"]["before"] for token in order if token != "gone"] == [1, 2, 3, 5]
    assert job_of(browser, stranger)["before"] == 4
    assert listed[mine[0]]["clip"] == {"name": "bar.mp4", "kind": "video"}
    places = [listed[token]["job"]["place"] for token in order if token != "gone"]
    assert places == sorted(places)
    ids = [job_of(browser, token)["id"] for token in (running, *order[:1], *order[2:], stranger)]
    kept = [record.folder.name for record in store.all()]
    assert kept == [*ids[:4], ids[5], ids[4]]
    browser.delete(f"/{running}/job", params={"keep": False})
    for token in mine:
        wait_for(browser, token, "done")
    ended = {record.folder.name: record.ended for record in store.all()}
    assert [ended[one] for one in ids[1:4]] == sorted(ended[one] for one in ids[1:4])


def test_a_paused_job_lets_others_by_and_goes_on_from_its_segments(
    browser, start, studio, store, source, tmp_path, clip
):
    """Paused in a segment: the next job runs, then it ends as an unbroken run does."""
    token, other = start(source), start(clip)
    job = studio.sessions.find(token).job
    wait_until(lambda: job_of(browser, token)["frame"] >= 20)
    assert post(browser, f"{token}/job/pause")["job"]["halt"] in ("pause", "")
    paused = wait_for(browser, token, "paused")
    assert (paused["before"], paused["halt"], paused["frames"]) == (0, "", 100)
    assert store.all()[0].state == "paused"
    assert browser.get(f"/{token}/latest").json() == {}
    wait_for(browser, other, "done")
    done = next(job.folder.rglob(JOURNAL)).read_text()
    assert done.count("sha256") == paused["frame"] // 8
    post(browser, f"{token}/job/resume")
    wait_for(browser, token, "done")
    whole = tmp_path / "whole.mp4"
    upscale_video(source, whole, UpscaleOptions("bicubic", scale=1, resume=False))
    assert frames_of(studio.sessions.find(token).result.file) == frames_of(whole)
    said = post(browser, f"{token}/job/pause")["error"]
    assert said == "in.mp4 is done; reload the list"


def test_a_waiting_job_takes_other_settings_in_its_place(browser, start, store, clip, long_clip):
    running, first, second = start(long_clip), start(clip), start(clip)
    changed = put(browser, first, scale=2, detail=0.5)
    assert changed["job"]["settings"]["scale"] == 2
    assert changed["job"]["before"] == 1
    assert store.all()[1].settings["scale"] == 2
    post(browser, f"{second}/job/pause")
    assert job_of(browser, second)["stage"] == "paused"
    put(browser, second, scale=1.5)
    assert put(browser, first, scale=99)["error"].startswith("scale is 99")
    assert put(browser, running)["error"] == "long.mp4 is running; pause or cancel it first"
    browser.delete(f"/{running}/job", params={"keep": False})
    post(browser, f"{second}/job/resume")
    for token, width in ((first, 96), (second, 72)):
        wait_for(browser, token, "done")
        assert browser.get(f"/{token}/state").json()["result"]["width"] == width


def test_a_failed_job_is_kept_and_goes_on_when_it_is_tried_again(
    browser, start, studio, source, monkeypatch
):
    """The disk is full in the second segment; what was done is used when there is room."""
    with monkeypatch.context() as patch:
        write = SegmentFile.write

        def full(file: SegmentFile, coded) -> None:
            if file.path.name.startswith("00000001"):
                raise OSError(28, "No space left on device")
            write(file, coded)

        patch.setattr(SegmentFile, "write", full)
        token = start(source)
        failed = wait_for(browser, token, "failed")
    assert failed["error"] == FULL
    session = studio.sessions.find(token)
    assert session.is_at_work  # the reason is still to be read when the page is opened again
    assert next(session.job.folder.rglob(JOURNAL)).read_text().count("sha256") == 1
    assert post(browser, f"{token}/job/retry")["job"]["error"] is None
    wait_for(browser, token, "done")
    assert session.result is not None
    assert len(session.result.times) == 100


def test_a_list_that_cannot_be_written_stops_no_job(
    tmp_path, browser, start, studio, models, store, clip, monkeypatch
):
    """As on a full disk: jobs end all the same, and the next server finds their results."""

    def full(*_: object, **__: object) -> None:
        raise OutputError("no space left on device")

    with monkeypatch.context() as patch:
        for call in ("report", "end"):
            patch.setattr(JobStore, call, full)
        tokens = start(clip), start(clip)
        for token in tokens:
            wait_for(browser, token, "done")
    studio.sessions.close_all()
    assert DONE not in [record.state for record in JobStore(store.path).all()]

    again = build(tmp_path, models, JobStore(store.path))
    monkeypatch.setattr("dloral.studio.jobs.restore", None)  # nothing is restored anew
    again.sessions.recover()
    for token in tokens:
        assert job_of(TestClient(build_routes(again)), token)["stage"] == "done"
    assert [record.state for record in JobStore(store.path).all()] == [DONE, DONE]
    again.sessions.close_all()


def test_a_cancelled_job_is_tried_again_with_other_settings(browser, start, clip, long_clip):
    running, token = start(long_clip), start(clip)
    browser.delete(f"/{token}/job")
    assert wait_for(browser, token, "stopped")["error"].startswith("Stopped before the first frame")
    post(browser, f"{token}/job/retry", {"settings": {"scale": 2}})
    browser.delete(f"/{running}/job", params={"keep": False})
    assert wait_for(browser, token, "done")["settings"]["scale"] == 2


def test_a_paused_job_is_paused_on_the_next_server(tmp_path, models, store, clip, long_clip):
    """And so are the order and the changed settings."""
    first = build(tmp_path, models, store)
    browser = TestClient(build_routes(first))
    tokens = []
    for source in (long_clip, clip, clip):
        tokens.append(first.sessions.open())
        post(browser, f"{tokens[-1]}/clip", source.read_bytes(), name=source.name)
        post(browser, f"{tokens[-1]}/job", {"settings": {"scale": 1}})
    wait_until(lambda: job_of(browser, tokens[0])["frame"] >= 20)
    for token in reversed(tokens):
        post(browser, f"{token}/job/pause")
        wait_for(browser, token, "paused")
    post(browser, "order", {"tokens": [tokens[2], tokens[0], tokens[1]]})
    put(browser, tokens[1], scale=3)
    first.sessions.close_all()

    second = build(tmp_path, models, JobStore(store.path))
    second.sessions.recover()
    browser = TestClient(build_routes(second))
    listed = post(browser, "visits", {"tokens": tokens})["visits"]
    assert [one["job"]["stage"] for one in listed.values()] == ["paused"] * 3
    assert listed[tokens[0]]["job"]["frame"] >= 20
    assert listed[tokens[1]]["job"]["settings"]["scale"] == 3
    by_place = sorted(tokens, key=lambda token: listed[token]["job"]["place"])
    assert by_place == [tokens[2], tokens[0], tokens[1]]
    post(browser, f"{tokens[1]}/job/resume")
    wait_for(browser, tokens[1], "done")
    second.sessions.close_all()


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("visits", {}, "the request has no tokens"),
        ("order", {"tokens": [1]}, "the request has no tokens"),
        ("visits", {"tokens": ["\udce9"]}, "the request has no tokens"),
        ("order", {"tokens": ["x"] * 2001}, "the request has 2001 tokens; give at most 2000"),
    ],
)
def test_nonsense_is_one_line(browser, path, body, said):
    assert post(browser, path, body) == {"error": said}


def test_all_visits_that_a_browser_remembers_are_listed_in_one_call(browser, studio):
    tokens = [f"{index:032}" for index in range(configuration(studio)["mostVisits"] - 1)]
    tokens.append(studio.sessions.open())
    listed = post(browser, "visits", {"tokens": tokens})["visits"]
    assert [token for token, visit in listed.items() if visit] == tokens[-1:]


def test_a_visit_without_a_job_says_so(browser, studio):
    token = studio.sessions.open()
    for what in ("pause", "resume", "retry"):
        said = post(browser, f"{token}/job/{what}")["error"]
        assert said == "There is no job; press Restore first."
    assert post(browser, "nobodys/job/pause") == {"gone": True}


def test_a_paused_job_expires_like_a_result(browser, start, studio, clip, long_clip):
    running, token = start(long_clip), start(clip)
    post(browser, f"{token}/job/pause")
    session = studio.sessions.find(token)
    session.forget_old_result(500, 1000.0)
    assert session.job is not None
    session.forget_old_result(500, 1501.0)
    assert session.job is None
    browser.delete(f"/{running}/job", params={"keep": False})


def test_a_job_that_is_stopped_as_it_resumes_keeps_what_is_done(
    browser, start, source, monkeypatch: pytest.MonkeyPatch
):
    """Before its first new frame, while the clip is opened again."""
    token = start(source)
    wait_until(lambda: job_of(browser, token)["frame"] >= 10)
    post(browser, f"{token}/job/pause")
    done = wait_for(browser, token, "paused")["frame"]
    opening, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        yield Progress("loading")
        opening.set()
        assert go_on.wait(60)
        yield from restore(*arguments)

    monkeypatch.setattr(jobs, "restore", slow)
    post(browser, f"{token}/job/resume")
    assert opening.wait(60)
    assert job_of(browser, token)["frame"] == done
    browser.delete(f"/{token}/job", params={"keep": True})
    go_on.set()
    wait_for(browser, token, "done")
    result = browser.get(f"/{token}/state").json()["result"]
    assert result["part"]
    assert 8 <= len(result["times"]) <= done + 1  # a whole segment at the least


def test_a_job_that_is_resumed_at_once_goes_on(browser, start, source):
    token = start(source)
    wait_until(lambda: job_of(browser, token)["frame"] >= 2)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and job_of(browser, token)["stage"] != "done":
        post(browser, f"{token}/job/pause")
        post(browser, f"{token}/job/resume")
    wait_for(browser, token, "done")
    result = browser.get(f"/{token}/state").json()["result"]
    assert (len(result["times"]), result["part"]) == (100, False)


def test_a_job_that_ends_as_it_should_not_holds_nobody_up(caplog):
    queue, ended = JobQueue(), threading.Event()

    class Broken:
        def run(self) -> None:
            raise OSError("no store")

    class Whole:
        def run(self) -> None:
            ended.set()

    jobs = [Broken(), Whole()]
    for job in jobs:
        queue.add(job)
    assert ended.wait(10)
    assert "did not end as it should" in caplog.text
