"""Three jobs in a real browser, tabs closed, the server killed and started again: all end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clips import frames_of, options, sound_of
from clips import write_clip as write_long_clip

from dloral import upscale_video
from dloral.jobs.journal import JOURNAL
from dloral.jobs.records import DONE
from dloral.jobs.store import JobStore
from tests.studio.conftest import ROOT, wait_until
from tests.studio.pages import PATIENCE, ready, set_range, upload

pytestmark = pytest.mark.browser


@pytest.fixture
def serve(tiny_model: Path, tmp_path: Path):
    """Starts a server on one port and one data folder; as often as it is called."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "page.log"
    call = [sys.executable, str(ROOT / "app.py"), "--model", str(tiny_model)]
    call += ["--port", str(port), "--data", str(tmp_path / "data")]
    started = []

    def start() -> tuple[subprocess.Popen, str]:
        with log.open("w") as out:
            environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "temp")}
            server = subprocess.Popen(call, cwd=ROOT, stdout=out, stderr=out, env=environment)
        started.append(server)
        wait_until(lambda: "DLoRAL is at" in log.read_text() or server.poll() is not None, 240)
        assert server.poll() is None, log.read_text()
        return server, f"http://127.0.0.1:{port}/"

    yield start
    for server in started:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def test_three_jobs_outlive_tabs_and_server(
    browser, serve: Callable, tiny_model: Path, tmp_path: Path
):
    server, address = serve()
    visit = browser.new_context(viewport={"width": 1200, "height": 800})
    clips = [
        write_long_clip(tmp_path / f"{n}.mp4", frames, 48, 32)
        for n, frames in (("long", 400), ("mid", 60), ("short", 20))
    ]
    tokens, pages = {}, []
    for clip in clips:
        page = visit.new_page()
        page.goto(address)
        ready(page)
        upload(page, clip)
        set_range(page, "scale", 1.5)
        page.evaluate("window.studioPage.strip.set({start: 0, duration: null})")
        pages.append(page)
    for clip, page in zip(clips, pages, strict=True):  # at once: the first must not end before
        page.click("#run")
        page.wait_for_function("window.studioPage.run.isRunning", timeout=PATIENCE)
        tokens[clip.name] = page.evaluate("window.studioPage.link.token")
        page.close()
    data = tmp_path / "data"
    wait_until(lambda: any('"segment"' in one.read_text() for one in data.rglob(JOURNAL)), 120)
    server.send_signal(signal.SIGKILL)
    server.wait()
    store = JobStore(data / "jobs.sqlite")
    assert len(store.all()) == 3
    assert DONE not in {job.state for job in store.all()}

    serve()
    assert "3 clips from an earlier run will be restored" in (tmp_path / "page.log").read_text()
    wait_until(lambda: all(job.state == DONE for job in store.all()), 240)
    for job in store.all():
        source = tmp_path / job.name
        whole = upscale_video(
            source,
            tmp_path / f"whole-{job.name}",
            options(tiny_model, scale=1.5, resume=False, dtype="auto"),
        )
        result = job.folder / f"{source.stem}-restored.mp4"
        assert frames_of(result) == frames_of(whole)
        assert sound_of(result) == sound_of(whole)
    page = visit.new_page()
    page.goto(address)
    ready(page)
    for name, token in tokens.items():
        state = page.evaluate(f"fetch('/studio/{token}/state').then(found => found.json())")
        assert state["clip"]["name"] == name
        assert state["result"]["file"] == f"{Path(name).stem}-restored.mp4"
    page.screenshot(path=str(tmp_path / "after.png"))
    store.close()
    visit.close()
