"""The page's server on the loopback, started, watched and ended, for the scripts beside it."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
START_SECONDS, END_SECONDS = 900, 120  # on a busy machine


@dataclass
class Server:
    """``app.py`` under way. ``base``: its address; ``log``: what it says."""

    base: str
    started: subprocess.Popen[bytes]
    log: Path

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.started.pid)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """By a signal, and where that does not help by SIGKILL."""
        if self.started.poll() is None:
            self.started.send_signal(how)
        try:
            self.started.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.started.kill()
            self.started.wait()


def start(
    folder: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Server:
    """Start the page with bicubic and its files in ``folder``; return once its model is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.with_suffix(".log")
    told = os.environ | {
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "HF_HOME": str(folder / "home"),
        "DLORAL_DATA": str(folder / "data"),
    }
    call = [sys.executable, str(ROOT / "app.py"), "--model", "bicubic", "--port", str(port)]
    with log.open("a") as out:
        begin = out.tell()
        app = subprocess.Popen(
            [*call, *options], cwd=ROOT, env=told | dict(environment or {}), stdout=out, stderr=out
        )
    server = Server(f"http://127.0.0.1:{port}", app, log)
    end = time.monotonic() + START_SECONDS
    while not _is_ready(server, begin):
        if app.poll() is not None or time.monotonic() > end:
            server.end(signal.SIGKILL)
            raise RuntimeError(f"the page did not start:\n{log.read_text()}")
        time.sleep(0.2)
    return server


def _is_ready(server: Server, begin: int) -> bool:
    if "DLoRAL is at" not in server.log.read_text()[begin:]:
        return False
    with contextlib.suppress(httpx.HTTPError, ValueError):
        return httpx.get(f"{server.base}/healthz", timeout=30).json()["model"] == "ready"
    return False


@contextlib.contextmanager
def serving(folder: Path, options: Sequence[str] = ()) -> Iterator[Server]:
    """:func:`start`, ended by SIGTERM."""
    server = start(folder, options)
    try:
        yield server
    finally:
        server.end()


VISIT = {"data": "", "component_id": 1, "fn_name": "open_session", "session_hash": "x"}
"""What the page asks Gradio for a visitor's token with, at :data:`DOOR`."""
DOOR = "/gradio_api/component_server/"


def clip_of(brightness: int, frames: int, side: int) -> bytes:
    """An MP4 of one grey, 10 frames a second."""
    made = io.BytesIO()
    with av.open(made, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=10, options={"crf": "10"})
        video.width = video.height = side
        video.pix_fmt = "yuv420p"
        pixels = np.full((side, side, 3), brightness, np.uint8)
        for _ in range(frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
    return made.getvalue()


def memory_of(process: psutil.Process) -> int:
    """Bytes of a server and its workers, what they share counted once."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total


def size_of(folder: Path) -> int:
    """Bytes of all files; passes over what goes meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).stat().st_size
    return total
