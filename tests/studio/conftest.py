"""A tiny model, tiny clips, ``app.py`` in a process of its own, and a browser that opens it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from dloral import load_pipeline
from dloral.models.adapters import add_adapters
from dloral.pipeline import DLoRALPipeline
from dloral.studio.models import Models
from dloral.studio.runtime import Model
from dloral.training.fresh import CompactSizes, build_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_model_loads_on() -> Iterator[None]:
    """A test that ends before its page's model is there leaves no thread loading it: meanwhile
    torch would build the next test's networks without values."""
    yield
    for thread in threading.enumerate():
        if thread.name in ("load", "change of model"):
            thread.join(60)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact model of a few thousand weights, near bicubic, whose LoRAs do something."""
    torch.manual_seed(5)
    pipe = build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))
    add_adapters(pipe.unet, 2)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    pipe.register_to_config(crispness=0.8)
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipe(tiny_model: Path) -> DLoRALPipeline:
    return load_pipeline(tiny_model, device="cpu", dtype="float32")


@pytest.fixture
def model(tiny_model: Path, tiny_pipe: DLoRALPipeline) -> Model:
    """The page's model, loaded."""
    loaded = Model(str(tiny_model))
    loaded.use(tiny_pipe)
    return loaded


@pytest.fixture
def models(model: Model) -> Models:
    return Models(model)


def write_clip(
    path: Path, frames: int, width: int = 48, height: int = 32, rate: int = 10, sound: bool = False
) -> Path:
    """A bar that moves to the right: frame k is light up to column 2k + 1."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for index in range(frames):
            pixels = np.full((height, width, 3), 40, np.uint8)
            pixels[:, : (2 * index + 1) % width] = 200
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(16000 * frames // rate) / 8).astype(np.float32)[None]
            for at in range(0, tone.shape[1], 1024):
                block = av.AudioFrame.from_ndarray(tone[:, at : at + 1024], "fltp", "mono")
                block.sample_rate, block.pts = 16000, at
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 48 x 32, 10 a second, with sound."""
    return write_clip(tmp_path_factory.mktemp("clip") / "bar.mp4", 12, sound=True)


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2400 frames: more than a test waits for."""
    return write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", 2400)


@pytest.fixture(scope="session")
def cut_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 frames of 64 x 48, 5 a second: three of one picture, a cut, three of another."""
    path = tmp_path_factory.mktemp("clip") / "cut.mp4"
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)] * 3
    pictures += [draw.integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)] * 3
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=5, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for pixels in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
    return path


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "photo.png"
    ramp = np.linspace(0, 255, 33 * 21 * 3).astype(np.uint8).reshape(21, 33, 3)
    Image.fromarray(ramp).save(path)
    return path


@pytest.fixture(scope="session")
def no_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "letter.mp4"
    path.write_text("this is a letter and no clip\n" * 20)
    return path


def wait_until(is_so: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


@contextmanager
def serving(
    model: Path | str, folder: Path, *arguments: str, program: Path = ROOT / "app.py", **more: str
) -> Iterator[str]:
    """``app.py`` with its files in ``folder``; its address. At its end no file of it is left.
    ``more``: of its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    log = folder.with_suffix(".log")
    call = [sys.executable, str(program), "--model", str(model), "--port", str(port)]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    environment |= {
        "DLORAL_DATA": str(folder.with_suffix(".data")),
        "HF_HOME": str(folder.with_suffix(".home")),
    } | more
    with log.open("w") as out:
        app = subprocess.Popen(
            [*call, *arguments], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
    try:
        wait_until(lambda: "DLoRAL is at" in log.read_text() or app.poll() is not None, 240)
        assert app.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        app.send_signal(signal.SIGTERM)
        app.wait(30)
    said = log.read_text()
    assert "Traceback" not in said, said
    assert not list(folder.iterdir())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def address(tiny_model: Path, folder: Path) -> Iterator[str]:
    with serving(tiny_model, folder, "--max-upload", "3mb") as served:
        yield served


@pytest.fixture(scope="session")
def browser():
    """A Chromium for all pages."""
    from tests.studio.pages import CHROMIUM, SWITCHES

    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, address: str) -> Iterator[Callable[..., Any]]:
    """Opens pages; afterwards: no console error, no failed and no foreign request in any."""
    from tests.studio.pages import ready

    faults: list[str] = []
    contexts = []

    def on_request(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            faults.append(f"left the machine: {request.url}")

    def on_failed(request) -> None:
        # a video that is replaced, and the event stream that is done, are broken off on purpose
        if request.failure != "net::ERR_ABORTED":
            faults.append(f"failed: {request.url} {request.failure}")

    def open_one(width: int = 1280, height: int = 800, strict: bool = True, **context) -> Any:
        made = browser.new_context(viewport={"width": width, "height": height}, **context)
        contexts.append(made)
        page = made.new_page()
        if strict:
            page.on(
                "console",
                lambda said: said.type == "error" and faults.append(f"console: {said.text}"),
            )
            page.on("pageerror", lambda error: faults.append(f"page: {error}"))
            page.on("requestfailed", on_failed)
            page.on(
                "response",
                lambda got: got.status >= 400 and faults.append(f"{got.status}: {got.url}"),
            )
        page.on("request", on_request)
        page.goto(address)
        ready(page)
        return page

    yield open_one
    for made in contexts:
        made.close()
    assert not faults


@pytest.fixture
def page(open_page) -> Any:
    return open_page()


def send(browser: TestClient, token: str, path: Path, name: str | None = None) -> dict:
    answer = browser.post(
        f"/{token}/clip", params={"name": name or path.name}, content=path.read_bytes()
    )
    assert answer.status_code == 200
    return answer.json()


def finish(browser: TestClient, token: str) -> dict:
    end = time.monotonic() + 60
    while True:
        state = browser.get(f"/{token}/state").json()
        if state["job"]["stage"] in ("done", "failed", "stopped"):
            return state
        assert time.monotonic() < end
        time.sleep(0.05)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
