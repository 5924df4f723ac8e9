"""How much memory files take that were made to hurt: of the page's server with its workers, through
the page and through the API, and of the command line.

    python benchmarks/peaks.py
    python benchmarks/peaks.py FILE FILE ...

Without files, those of ``tests/support/hostile.py`` and a photograph of 12 million pixels. Each is
looked at (thumbnails, background, preview at scale 4), restored at scale 4 by the page and by the
API's calls, and restored on the command line. A row is good if all three are a result or one line,
and none takes 600 MB more than the idle server, or command line, has.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_server import DOOR, ROOT, VISIT, Server, clip_of, memory_of, serving
from PIL import Image

sys.path.insert(0, str(ROOT / "tests" / "support"))

from hostile import write_all

MOST = 600_000_000
SCALE = 4
ORDINARY, PHOTOGRAPH = "ordinary.mp4", "photograph.jpg"

_LOADED = (
    "import dloral.cli, dloral.upscale; from dloral.weights.loading import load_pipeline;"
    "load_pipeline('bicubic')"
)
"""What the command line is before it has met a file."""


class Seen(NamedTuple):
    """Bytes beyond idle; what was said, empty for a result."""

    peak: int
    said: str


class Watch:
    """The most memory that a server and its workers have in the block, in bytes: together as
    sampled, and never less than the server's own, which the system keeps exactly."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._ended = process, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.peak = 0

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self.peak = max(self.peak, memory_of(self._process))

    def __enter__(self) -> "Watch":
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # the peak starts anew
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        resident = 1024 * int(status.split("VmHWM:")[1].split()[0])
        shared = self._process.memory_info().rss - self._process.memory_full_info().pss
        self.peak = max(self.peak, resident - shared)


def on_the_page(file: Path, base: str) -> str:
    """Drop the file, look at it, restore it; what was said, empty for a result."""
    with httpx.Client(base_url=base, timeout=300) as client:
        room = f"/studio/{client.post(DOOR, json=VISIT).json()}"
        asked = {"settings": {"scale": SCALE}}
        try:
            content = file.read_bytes()
            state = client.post(f"{room}/clip", params={"name": file.name}, content=content).json()
            if "error" in state:
                return str(state["error"])
            client.get(f"{room}/thumbnails").raise_for_status()
            shown = {"frame": 0, "scale": SCALE}
            client.get(f"{room}/background", params=shown).raise_for_status()
            client.post(f"{room}/preview", json={"frame": 0, **asked}).raise_for_status()
            if file.name == PHOTOGRAPH:  # to restore all of it takes what it takes
                return ""
            state = client.post(f"{room}/job", json=asked).json()
            while state.get("job") and state["job"]["stage"] not in ("done", "failed", "stopped"):
                time.sleep(0.05)
                state = client.get(f"{room}/state").json()
            return str(state.get("error") or state["job"].get("error") or "")
        finally:
            client.post(f"{room}/leave")
            client.delete(f"{room}/clip")


def by_the_api(file: Path, base: str) -> str:
    client = Client(base, verbose=False, httpx_kwargs={"timeout": 300})
    said = ""
    calls = ["/preview_frame", "/upscale"]
    for call in calls[: 1 if file.name == PHOTOGRAPH else 2]:
        try:
            client.predict(clip=handle_file(str(file)), scale=SCALE, api_name=call)
        except AppError as error:
            said = said or str(error)
    return said


def on_the_command_line(file: Path, folder: Path) -> Seen:
    is_picture = file.suffix in (".png", ".tif", ".jpg")
    target = folder / ("out.png" if is_picture else "out.mp4")
    call = ["-m", "dloral", "upscale", str(file), "-o", str(target), "--quiet"]
    status, peak, said = ended([*call, "--model", "bicubic", "--scale", str(SCALE)])
    target.unlink(missing_ok=True)
    notes = said.strip()
    return Seen(peak, notes if status else "")


def ended(call: list[str]) -> tuple[int, int, str]:
    """Run Python: its status, the most memory it had in bytes, and what it said to the terminal."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, *call], cwd=ROOT, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return process.returncode, 1024 * used.ru_maxrss, out.read().decode(errors="replace")


def through_the_server(face, file: Path, server: Server, idle: int) -> Seen:
    with Watch(server.process) as watch:
        said = face(file, server.base)
    return Seen(watch.peak - idle, said)


def settled(process: psutil.Process) -> int:
    """What the server has when nothing is asked of it, in bytes."""
    time.sleep(2)
    return memory_of(process)


def measure(files: list[Path], folder: Path) -> tuple[list[list[Seen]], int]:
    """For each file its three rows' cells; tracebacks in the server's log."""
    place = folder / "page"
    place.mkdir()
    _, loaded, _ = ended(["-c", _LOADED])
    rows = []
    with serving(place) as server:
        idle = settled(server.process)
        print(f"idle: server {idle / 1e6:.0f} MB, command line {loaded / 1e6:.0f} MB", flush=True)
        for file in files:
            began = time.monotonic()
            cells = [
                through_the_server(face, file, server, idle) for face in (on_the_page, by_the_api)
            ]
            if file.name == PHOTOGRAPH:
                rows.append(cells)
            else:
                peak, said = on_the_command_line(file, folder)
                rows.append([*cells, Seen(peak - loaded, said)])
            peaks = [round(cell.peak / 1e6) for cell in rows[-1]]
            print(f"  {file.name}: {peaks} MB, {time.monotonic() - began:.0f} s", flush=True)
        print(f"idle again: {settled(server.process) / 1e6:.0f} MB")
    return rows, server.log.read_text().count("Traceback")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dloral-peaks-") as name:
        folder = Path(name)
        made = folder / "files"
        made.mkdir()
        (made / ORDINARY).write_bytes(clip_of(90, 12, 48))
        ordinary = [made / ORDINARY]
        if not given.files:
            write_all(made)
            noise = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), np.uint8)
            Image.fromarray(noise).save(made / PHOTOGRAPH)
        files = ordinary + sorted(given.files or set(made.iterdir()) - set(ordinary))
        rows, tracebacks = measure(files, folder)
    print("\n| file | outcome | page | API | command line |\n|---|---|---|---|---|")
    good = not tracebacks
    for file, cells in zip(files, rows, strict=True):
        said = [cell.said for cell in cells]
        good &= all(cell.peak < MOST for cell in cells) and not any("\n" in line for line in said)
        outcome = "restored" if not any(said) else "one line"
        if any(said) != all(said):
            outcome = f"DIFFERS: {said}"
        peaks = [f"{cell.peak / 1e6:+.0f} MB" for cell in cells]
        print(f"| `{file.name}` | {outcome} | {' | '.join([*peaks, ''][:3])} |")
    for file, cells in zip(files, rows, strict=True):
        print(f"{file.name}: {cells[0].said or 'restored'}")
    print(f"tracebacks in the log: {tracebacks}")
    return not good


if __name__ == "__main__":
    raise SystemExit(main())
