"""ZeroGPU by a stand-in of ``spaces`` that keeps each visitor's quota, as its client words it: the
seconds asked for follow the estimate, and count against the visitor whose call it was."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.context import LocalContext
from starlette.testclient import TestClient

from dloral.studio import gpu, jobs, lending
from dloral.studio.estimates import run_seconds
from dloral.studio.gpu import QuotaError, on_gpu
from dloral.studio.jobs import Job
from dloral.studio.lending import LEAST_SECONDS, MARGIN, START_SECONDS, asked
from dloral.studio.models import Models
from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue, Model
from dloral.studio.sessions import Session
from dloral.studio.settings import settings_from
from dloral.studio.speeds import Run
from dloral.video.probe import probe


class Spaces:
    """``GPU`` of the package: asks for the duration with the call's arguments, and for the token
    in Gradio's request; ``asked`` is (visitor, seconds), ``left`` the quotas."""

    def __init__(self, **left: int) -> None:
        self.left = left
        self.asked: list[tuple[str, int]] = []

    def GPU(self, duration: Callable[..., int]) -> Callable[..., Any]:  # noqa: N802
        def decorate(call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def lent(*given: Any) -> Iterator[Any]:
                request = LocalContext.request.get(None)
                visitor = request.headers.get("x-ip-token", "") if request else ""
                seconds = duration(*given)
                self.asked.append((visitor, seconds))
                left = self.left.get(visitor, 0)
                if seconds > left:
                    raise gr.Error(
                        "You have exceeded your free ZeroGPU quota "
                        f"({seconds}s requested vs. {left}s left). Try again in 1:00:00. ",
                        title="ZeroGPU quota exceeded",
                        print_exception=False,
                    )
                self.left[visitor] -= seconds
                yield from call(*given)

            return lent

        return decorate


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Spaces:
    """A Space on ZeroGPU whose model, the tiny one, is not on the processor."""
    stand_in = Spaces(ann=100, bob=12)
    monkeypatch.setitem(sys.modules, "spaces", stand_in)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(jobs, "_lent", on_gpu(lending.job_seconds)(jobs._lent))
    monkeypatch.setattr(gpu, "needs_gpu", lambda given: given[3][0] != "compact")
    return stand_in


@pytest.fixture
def compact(models: Models, tiny_pipe) -> Model:
    """The way out: the tiny model under the compact one's name."""
    model = Model("compact")
    model.use(tiny_pipe)
    models._alive[model.key] = model
    return model


@pytest.fixture
def session(tmp_path: Path, models: Models, clip: Path) -> Session:
    session = Session(tmp_path / "visitor", models, JobQueue())
    session.open_clip(clip.name, lambda copy: copy.write_bytes(clip.read_bytes()))
    return session


def restored_by(visitor: str, session: Session, **chosen: object) -> Job:
    """The visitor's finished job, started in a call of theirs."""
    headers = {"x-ip-token": visitor}
    token = LocalContext.request.set(SimpleNamespace(headers=headers))
    try:
        job = session.start_job(settings_from(chosen, "compact"))
    finally:
        LocalContext.request.reset(token)
    assert job.wait(60)
    return job


def learn(model: Model, seconds_per_frame: float) -> None:
    """As if a run like the test's had taken that long."""
    pixels = 2 * 48 * 2 * 32
    model.speeds.add(Run(model.name, model.vae, 1, "h264", pixels, 12, 12 * seconds_per_frame))


def test_what_is_asked_for_follows_the_estimate(spaces, session, model, monkeypatch):
    learn(model, 2.0)
    for learns in ("add", "paced"):  # from these
        monkeypatch.setattr(model.speeds, learns, lambda told: None)
    for duration in (0.3, 0.6, 1.2):
        assert restored_by("ann", session, scale=2, duration=duration).error is None
    seconds = [number for _, number in spaces.asked]
    frames = (3, 6, 12)
    for number, count in zip(seconds, frames, strict=True):
        assert asked(2.0 * count) <= number <= asked(2 * 2.0 * count)
    assert seconds[0] < seconds[1] < seconds[2]
    assert spaces.left["ann"] == 100 - sum(seconds)


def test_it_is_more_than_the_estimate_and_never_nothing(model, clip):
    learn(model, 2.0)
    info, settings = probe(clip), settings_from({"scale": 2}, "compact")
    _, most = run_seconds(info, settings, model, lending.SECONDS_PER_PIXEL, 1)
    number = lending.job_seconds(info, Path(), settings, model.key)
    assert number >= START_SECONDS + MARGIN * most
    assert asked(0) == LEAST_SECONDS


def test_the_visitors_own_quota_counts(spaces, session, model):
    learn(model, 0.1)
    restored_by("ann", session, scale=2)
    restored_by("bob", session, scale=2)
    assert [visitor for visitor, _ in spaces.asked] == ["ann", "bob"]
    assert spaces.left == {"ann": 90, "bob": 2}


def test_a_short_quota_is_said_and_the_compact_model_is_the_way_out(spaces, session, compact):
    learn(session._models.current, 3.0)
    job = restored_by("bob", session, scale=2)
    assert job.error is None
    assert job.result is not None
    assert job.result.settings.options.model == "compact"
    said = re.match(
        r"You have exceeded your free ZeroGPU quota \((\d+)s requested vs. 12s left\). Try again "
        "in 1:00:00: restored by the compact model",
        job.result.notes[0],
    )
    assert said
    assert asked(3.0 * 12) <= int(said[1]) <= asked(2 * 3.0 * 12)
    assert len(job.result.times) == 12
    assert len(spaces.asked) == 1  # the compact model asked for nothing
    assert spaces.left["bob"] == 12


def test_without_a_way_out_it_is_one_line(spaces, session, monkeypatch):
    monkeypatch.setattr(session._models, "without_gpu", lambda model: None)
    job = restored_by("nobody", session, scale=2)
    assert isinstance(job.error, QuotaError)
    assert str(job.error).endswith(
        "choose a shorter part, a smaller size, or the compact model, which needs none"
    )
    assert "\n" not in str(job.error)


def test_the_processor_asks_for_nothing(monkeypatch, model):
    stand_in = Spaces()
    monkeypatch.setitem(sys.modules, "spaces", stand_in)
    assert model.pipe().execution_device.type == "cpu"
    lent = on_gpu(lambda *given: 5)(lambda key: iter([key]))
    assert list(lent(model.key)) == [model.key]
    assert not stand_in.asked


def test_a_call_of_the_page_is_the_context_of_its_job(tmp_path, models, monkeypatch):
    """The middleware names the visitor before a route runs, in a thread too."""
    seen = []
    studio = SimpleNamespace(
        sessions=SimpleNamespace(
            find=lambda token: seen.append(LocalContext.request.get(None).headers["x-ip-token"])
        )
    )
    with TestClient(build_routes(studio), raise_server_exceptions=False) as page:
        answer = page.delete("/token/job", headers={"x-ip-token": "ann"})
    assert answer.json() == {"gone": True}
    assert seen == ["ann"]
