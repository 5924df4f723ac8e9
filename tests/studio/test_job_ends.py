"""What a job keeps when it is stopped as it fails, pauses or waits in a queue that is full."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import short_segments
from starlette.testclient import TestClient

from dloral import load_pipeline
from dloral.jobs.segments import SegmentFile
from dloral.jobs.store import JobStore
from dloral.studio.limits import Limits, Patience
from dloral.studio.models import Models
from dloral.studio.records import open_records
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Session, Sessions
from dloral.studio.studio import Studio
from tests.studio.conftest import wait_until, write_clip


@pytest.fixture(scope="module", autouse=True)
def _short_segments() -> Iterator[None]:
    with short_segments():
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames: twelve whole segments of 8 and one of 4."""
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", 100)


class Server:
    """The page's calls, with bicubic, since no queue asks what a model makes. ``most``: how many
    jobs may wait."""

    def __init__(self, folder: Path, most: int | None = None) -> None:
        model = Model("bicubic")
        model.use(load_pipeline("bicubic"))
        models, queue, visits = Models(model), JobQueue(most), folder / "sessions"
        visits.mkdir(exist_ok=True)
        records = open_records(folder / "jobs.sqlite", 1000, visits)
        self.sessions = Sessions(visits, models, queue, Patience(), records)
        self.sessions.recover()
        studio = Studio(self.sessions, models, queue, Limits(10**6), {})
        self.browser = TestClient(build_routes(studio), raise_server_exceptions=False)

    def call(self, method: str, path: str, **more) -> dict:
        return self.browser.request(method, f"/{path}", **more).json()

    def start(self, clip: Path) -> str:
        """A visit with a clip whose job waits or runs; its token."""
        token = self.sessions.open()
        name = {"name": clip.name}
        self.call("POST", f"{token}/clip", params=name, content=clip.read_bytes())
        found = self.call("POST", f"{token}/job", json={"settings": {"scale": 1}})
        assert "error" not in found, found
        return token

    def session(self, token: str) -> Session:
        return self.sessions.find(token)

    def wait_for(self, token: str, stage: str, frame: int = 0) -> dict:
        def state() -> dict:
            return self.call("GET", f"{token}/state")["job"]

        wait_until(lambda: state()["stage"] == stage and state()["frame"] >= frame)
        return state()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.sessions.close_all()


def fails_in_its_second_segment(server: Server, source: Path, at_failure=lambda: None) -> str:
    """A job for whose second segment the disk has no room; its token. ``at_failure`` is called
    just before."""
    write = SegmentFile.write

    def full(file: SegmentFile, coded) -> None:
        if file.path.name.startswith("00000001"):
            at_failure()
            raise OSError(28, "No space left on device")
        write(file, coded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentFile, "write", full)
        token = server.start(source)
        server.wait_for(token, "failed")
    return token


def retried(server: Server, token: str) -> tuple[list[str], int, bool]:
    """What trying a failed job again wrote, how many frames its result has, and whether that says
    it is a part."""
    written: list[str] = []
    write = SegmentFile.write

    def noted(file: SegmentFile, coded) -> None:
        written.append(file.path.name[:8])
        write(file, coded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentFile, "write", noted)
        assert "error" not in server.call("POST", f"{token}/job/retry", json={})
        server.wait_for(token, "done")
    result = server.session(token).result
    assert result is not None
    return written, len(result.times), result.is_part


@pytest.mark.parametrize("keep", [True, False])
def test_a_stop_that_comes_after_a_failure_costs_no_finished_part(server, source, keep):
    token = fails_in_its_second_segment(server, source)
    assert server.call("DELETE", f"{token}/job", params={"keep": keep})["job"]["halt"] == ""
    assert "error" in server.call("POST", f"{token}/job/pause", json={})
    written, frames, is_part = retried(server, token)
    assert (frames, is_part) == (100, False)
    assert "00000000" not in written


@pytest.mark.parametrize("keep", [True, False])
def test_a_stop_that_comes_as_a_job_fails_costs_no_finished_part(server, source, keep, monkeypatch):
    """While the list is told of the failure: the job has not ended for others to see."""
    end, pressed = JobStore.end, []

    def slow(store: JobStore, job: str, *told, **more) -> None:
        (session,) = [found for found, _ in server.sessions._open.values()]
        stop = session.job.stop if keep else session.job.cancel
        pressed.append(threading.Thread(target=stop))
        pressed[-1].start()
        pressed[-1].join(0.5)
        end(store, job, *told, **more)

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "end", slow)
        token = fails_in_its_second_segment(server, source)
        pressed[0].join(10)
    assert server.session(token).job.halt == ""
    written, frames, is_part = retried(server, token)
    assert (frames, is_part) == (100, False)
    assert "00000000" not in written


def test_a_job_that_failed_as_it_stopped_is_tried_again_whole(server, source):
    """What was pressed before it failed does not hold for the next run."""

    def stop() -> None:
        (session,) = [found for found, _ in server.sessions._open.values()]
        session.job.stop()

    token = fails_in_its_second_segment(server, source, stop)
    written, frames, is_part = retried(server, token)
    assert (frames, is_part) == (100, False)
    assert "00000000" not in written


def test_a_job_that_is_stopped_while_it_pauses_ends_with_what_it_has(server, long_clip):
    token = server.start(long_clip)
    server.wait_for(token, "restoring", 10)
    job = server.session(token).job
    with job._lock:  # the run cannot have paused in between
        job.pause()
        server.session(token).stop_job()
    server.wait_for(token, "done")
    assert server.session(token).result.is_part


def test_what_is_made_of_a_paused_job_is_kept_as_long_as_any_result(server, long_clip):
    token = server.start(long_clip)
    server.wait_for(token, "restoring", 10)
    server.call("POST", f"{token}/job/pause", json={})
    server.wait_for(token, "paused")
    session = server.session(token)
    session.forget_old_result(500, 1000.0)
    assert server.call("DELETE", f"{token}/job")["job"]["stage"] != "paused"
    server.wait_for(token, "done")
    session.forget_old_result(500, 1490.0)
    session.forget_old_result(500, 1510.0)
    assert session.result is not None
    server.call("DELETE", f"{token}/job")  # there is nothing to stop, and so nothing to keep longer
    session.forget_old_result(500, 1991.0)
    assert session.result is None


def test_a_job_that_was_let_in_takes_other_settings_in_a_full_queue(tmp_path, source, long_clip):
    """Taken up from an earlier server, beyond the number that may wait."""
    first = Server(tmp_path)
    tokens = [first.start(long_clip), first.start(source), first.start(source)]
    first.wait_for(tokens[0], "restoring", 1)
    first.sessions.close_all()
    second = Server(tmp_path, most=1)
    second.wait_for(tokens[0], "restoring")
    changed = second.call("PUT", f"{tokens[1]}/job", json={"settings": {"scale": 2}})
    assert (changed["job"]["stage"], changed["job"]["before"]) == ("waiting", 1)
    second.call("DELETE", f"{tokens[0]}/job", params={"keep": False})
    for token in tokens[1:]:
        second.wait_for(token, "done")
    assert second.session(tokens[1]).result.size == (64, 96)
    second.sessions.close_all()


def test_a_job_that_cannot_be_given_other_settings_still_runs(server, source, long_clip):
    running, token = server.start(long_clip), server.start(source)
    folder = server.session(token).job.folder
    folder.rmdir()
    folder.write_text("in the way")  # so that the folder cannot be made anew
    assert "error" in server.call("PUT", f"{token}/job", json={"settings": {"scale": 2}})
    folder.unlink()
    folder.mkdir()
    server.call("DELETE", f"{running}/job", params={"keep": False})
    server.wait_for(token, "done")


@pytest.fixture
def full(tmp_path: Path, source: Path, long_clip: Path) -> Iterator[tuple[Server, str]]:
    """A server whose queue is full beside a job under way, and that one's token."""
    made = Server(tmp_path, most=1)
    token = made.start(long_clip)
    made.wait_for(token, "restoring", 10)
    made.start(source)
    yield made, token
    made.sessions.close_all()


def test_a_job_that_is_resumed_as_it_pauses_goes_on_beside_a_full_queue(full):
    server, token = full
    job = server.session(token).job
    with job._lock:
        job.pause()
        time.sleep(1)  # the run ends within a frame, and waits for us to say whether it pauses
        job.resume()
    wait_until(lambda: job.halt == "" and job.stage == "restoring")
    assert not job.has_ended
    server.call("DELETE", f"{token}/job", params={"keep": False})
    server.wait_for(token, "stopped")


def test_a_paused_job_is_stopped_beside_a_full_queue(full, long_clip):
    server, token = full
    server.call("POST", f"{token}/job/pause", json={})
    server.wait_for(token, "paused")
    others = [found for found, _ in server.sessions._open.values() if found.job.stage != "paused"]
    wait_until(lambda: others[0].job.has_ended)
    blocking = server.start(long_clip)
    server.wait_for(blocking, "restoring")
    server.start(long_clip)
    assert "queue is full" in server.call("POST", f"{token}/job/resume", json={})["error"]
    assert server.call("DELETE", f"{token}/job")["job"]["stage"] == "waiting"
    server.call("DELETE", f"{blocking}/job", params={"keep": False})
    server.wait_for(token, "done")
    assert server.session(token).result.is_part
