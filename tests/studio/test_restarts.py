"""Jobs that outlive the page and its server."""

import secrets
import time
from pathlib import Path

import pytest
from clips import frames_of, options, sound_of, write_clip

from dloral import upscale_video
from dloral.errors import ResourceError
from dloral.jobs.journal import JOURNAL
from dloral.studio import recovery
from dloral.studio.limits import Patience
from dloral.studio.models import NOBODY, Models
from dloral.studio.records import open_records
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Sessions
from dloral.studio.settings import settings_from
from dloral.video import worker
from dloral.video.probe import probe
from tests.studio.conftest import wait_until


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", 110, 40, 24)


class Server:
    """Sessions with a model of their own, as a server has them; ended as SIGKILL would: not."""

    def __init__(self, folder: Path, model: Path, pipe, most: int | None = None) -> None:
        self.model = Model(str(model))
        self.model.use(pipe)
        self.records = open_records(folder / "jobs.sqlite", 1000, folder / "sessions")
        self.sessions = Sessions(
            folder / "sessions",
            Models(self.model, NOBODY),
            JobQueue(most),
            Patience(),
            self.records,
        )
        (folder / "sessions").mkdir(exist_ok=True)
        self.sessions.recover()


def start(server: Server, source: Path, **settings) -> str:
    token = server.sessions.open()
    session = server.sessions.find(token)
    session.open_clip("in.mp4", lambda copy: copy.write_bytes(source.read_bytes()))
    session.start_job(settings_from({"scale": 1} | settings, "compact"))
    return token


def test_jobs_go_on_where_the_server_ended(tmp_path, source, tiny_model, pipe_of_tiny):
    """Stopped in the second of three segments, then taken up: the result is an unbroken run's,
    and all that the viewer needs is there."""
    first = Server(tmp_path, tiny_model, pipe_of_tiny)
    token, waiting = start(first, source), start(first, source, detail=0.5)
    job = first.sessions.find(token).job
    deadline = time.monotonic() + 100
    while job.newest is None or job.newest.frame < 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.sessions.close_all()
    assert job.stage == "stopped"
    assert list(job.folder.rglob(JOURNAL))

    second = Server(tmp_path, tiny_model, pipe_of_tiny, most=0)  # who was let in stays so
    assert second.sessions.find("another") is None
    jobs = [second.sessions.find(each).job for each in (token, waiting)]
    assert all(job.wait(100) for job in jobs)
    assert [job.stage for job in jobs] == ["done", "done"]
    result = second.sessions.find(token).result
    whole = upscale_video(
        source, tmp_path / "whole.mp4", options(tiny_model, scale=1, resume=False)
    )
    assert frames_of(result.file) == frames_of(whole)
    assert sound_of(result.file) == sound_of(whole)
    assert len(result.times) == len(frames_of(result.viewer_file)) == 110
    assert len(next(iter(result.measures.values()))) == 110
    assert not list(result.file.parent.glob("*.resume"))
    second.sessions.close_all()

    third = Server(tmp_path, tiny_model, pipe_of_tiny)
    again = third.sessions.find(token).result
    assert again == result
    third.sessions.close(token)
    assert not result.file.parent.exists()
    assert third.sessions.find(waiting).result is not None
    third.sessions.close_all()


def test_what_is_gone_is_forgotten_and_visits_without_a_job_go(
    tmp_path, source, tiny_model, pipe_of_tiny
):
    server = Server(tmp_path, tiny_model, pipe_of_tiny)
    token = start(server, source, start=0, duration=0.2)
    session = server.sessions.find(token)
    assert session.job.wait(100)
    server.sessions.close_all()
    session.clip.path.unlink()
    (tmp_path / "sessions" / secrets.token_hex(12)).mkdir()
    again = Server(tmp_path, tiny_model, pipe_of_tiny)
    assert again.sessions.find(token) is None
    assert list((tmp_path / "sessions").iterdir()) == []
    again.sessions.close_all()


@pytest.mark.parametrize("damage", ["overwritten", "lost", "no damage"])
def test_a_damaged_list_loses_no_job_and_leftovers_go(
    tmp_path, source, tiny_model, pipe_of_tiny, damage
):
    first = Server(tmp_path, tiny_model, pipe_of_tiny)
    token = start(first, source, start=0, duration=0.2)
    session = first.sessions.find(token)
    assert session.job.wait(100)
    result = session.result
    first.sessions.close_all()
    (session.folder / "half.part").write_bytes(b"an upload")
    (session.folder / "earlier").mkdir()
    (tmp_path / "sessions" / secrets.token_hex(12)).mkdir()
    store = tmp_path / "jobs.sqlite"
    if damage == "overwritten":
        store.write_bytes(b"nothing" * 1000)
    elif damage == "lost":
        store.unlink()

    second = Server(tmp_path, tiny_model, pipe_of_tiny)
    assert second.sessions.find(token).result == result
    assert list((tmp_path / "sessions").iterdir()) == [session.folder]
    job = result.file.parent
    assert sorted(session.folder.iterdir()) == sorted(
        [job, job.with_name(f"{job.name}.job"), session.clip.path.parent]
    )
    second.sessions.close(token)
    assert list((tmp_path / "sessions").iterdir()) == []
    second.sessions.close_all()
    third = Server(tmp_path, tiny_model, pipe_of_tiny)
    assert third.sessions.find(token) is None
    third.sessions.close_all()


def test_a_result_that_is_not_whole_is_made_again(tmp_path, source, tiny_model, pipe_of_tiny):
    first = Server(tmp_path, tiny_model, pipe_of_tiny)
    token = start(first, source, start=0, duration=0.2)
    assert first.sessions.find(token).job.wait(100)
    result = first.sessions.find(token).result
    whole = result.file.read_bytes()
    first.sessions.close_all()
    result.file.write_bytes(whole[:100])
    second = Server(tmp_path, tiny_model, pipe_of_tiny)
    assert second.sessions.find(token).job.wait(100)
    assert second.sessions.find(token).result.file.read_bytes() == whole
    second.sessions.close_all()


def test_parts_of_another_version_are_made_again(tmp_path, source, tiny_model, pipe_of_tiny):
    """Nobody could be told to remove a folder on a server."""
    first = Server(tmp_path, tiny_model, pipe_of_tiny)
    token = start(first, source)
    job = first.sessions.find(token).job
    deadline = time.monotonic() + 100
    while job.newest is None or job.newest.frame < 60:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.sessions.close_all()
    (journal,) = job.folder.rglob(JOURNAL)
    journal.write_text(journal.read_text().replace('"journal": 1', '"journal": 99'))
    second = Server(tmp_path, tiny_model, pipe_of_tiny)
    job = second.sessions.find(token).job
    assert job.wait(100)
    assert (job.stage, len(job.result.times)) == ("done", 110)
    second.sessions.close_all()


def test_a_slow_machine_takes_up_a_job_all_the_same(
    tmp_path, source, tiny_model, pipe_of_tiny, monkeypatch
):
    first = Server(tmp_path, tiny_model, pipe_of_tiny)
    token = start(first, source, start=0, duration=0.2)
    assert first.sessions.find(token).job.wait(100)
    result = first.sessions.find(token).result
    first.sessions.close_all()
    too_short(monkeypatch)
    with pytest.raises(ResourceError, match="took more than"):
        probe(source, isolated=True)
    monkeypatch.setattr(recovery, "PATIENCE", 60_000)
    second = Server(tmp_path, tiny_model, pipe_of_tiny)
    assert second.sessions.find(token).result == result
    second.sessions.close_all()


def test_a_job_that_cannot_be_taken_up_now_is_left_to_the_next_server(
    tmp_path, source, tiny_model, pipe_of_tiny, monkeypatch
):
    first = Server(tmp_path, tiny_model, pipe_of_tiny)
    token = start(first, source)
    job = first.sessions.find(token).job
    wait_until(lambda: job.newest and job.newest.frame > 55)  # a segment is done
    job.pause()
    wait_until(lambda: job.is_paused)
    first.sessions.close_all()
    with monkeypatch.context() as patch:
        too_short(patch)
        patch.setattr(recovery, "PATIENCE", 1)
        second = Server(tmp_path, tiny_model, pipe_of_tiny)
        assert second.sessions.find(token) is None
        second.sessions.close_all()
    third = Server(tmp_path, tiny_model, pipe_of_tiny)
    session = third.sessions.find(token)
    assert session.job.has_failed
    assert "took more than" in str(session.job.error)
    assert list(session.job.folder.rglob(JOURNAL))
    session.retry_job()
    assert session.job.wait(100)
    assert len(session.result.times) == 110
    third.sessions.close_all()


def too_short(patch: pytest.MonkeyPatch) -> None:
    """No file can be looked at within the usual time."""
    patch.setattr(worker, "seconds_to_probe", lambda path: 0.001)
    patch.setattr(worker, "LOOK_SECONDS", 0.001)


@pytest.fixture(scope="module")
def pipe_of_tiny(tiny_model: Path):
    from dloral import load_pipeline

    return load_pipeline(str(tiny_model), "cpu", "float32")
