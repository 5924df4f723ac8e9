"""How fast the page is, in a real Chromium, with the compact model; run it on a quiet machine.

python -m tests.studio.bench_page            # page ready, first preview, 20 moves of a scale
python -m tests.studio.bench_page memory     # peaks, for ``dloral/studio/estimates.py``
python -m tests.studio.bench_page estimates  # the page's estimates beside the real times
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
MOVES = 20

PEAK = """
import resource, sys, torch
from dloral import load_pipeline
side = int(sys.argv[1])
pipe = load_pipeline("compact", device="cpu", dtype="float32")
list(pipe.stream(torch.rand(2, 3, side, side), tile=96))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def bench_page() -> None:
    from playwright.sync_api import sync_playwright

    from tests.studio.conftest import serving, write_clip

    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        folder = Path(place)
        clip = write_clip(folder / "clip.mp4", 10, 128, 128)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        started = time.monotonic()
        with serving("compact", folder / "served") as address:
            page.goto(address)
            page.wait_for_selector("[data-ready=true]", timeout=60_000)
            print(f"page ready {time.monotonic() - started:.1f} s after `python app.py`")
            page.wait_for_timeout(8000)  # the model is loaded and warm by then
            page.evaluate("window.studioPage.preview.pixels = 256 * 256")
            started = time.monotonic()
            page.set_input_files("#file", str(clip))
            page.wait_for_function("window.studioPage.preview.count >= 1", timeout=60_000)
            print(f"first preview of 256 x 256 pixels {time.monotonic() - started:.2f} s")
            page.evaluate("window.studioPage.preview.pixels = 512 * 512")
            seconds = [page.evaluate(MOVE, value) for value in range(MOVES + 1)][1:]
            print(
                "a move of a scale to new pixels, 512 x 512: "
                f"median {statistics.median(seconds):.2f} s, "
                f"{min(seconds):.2f} to {max(seconds):.2f} s of {MOVES}"
            )
        browser.close()


MOVE = """async value => {
  const { preview } = window.studioPage, slider = document.querySelector("#detail");
  const before = preview.count, started = performance.now();
  slider.value = 0.05 * (value < 19 ? value : value + 1);  // not 1, where it stood
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (preview.count === before) await new Promise(resolve => setTimeout(resolve, 2));
  const seconds = (performance.now() - started) / 1000;
  while (preview.running) await new Promise(resolve => setTimeout(resolve, 2));
  return seconds;
}"""


def bench_memory() -> None:
    for side in (64, 512, 768, 1024):
        call = [sys.executable, "-c", PEAK, str(side)]
        peak = int(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        print(f"{side} x {side}: {peak / 1e9:.2f} GB")


RUNS = (
    *(("people", 1.0, 1.2), ("butterfly", 2.0, 0.6), ("film", 1.0, 1.0), ("city", 1.5, 0.5)),
    *(("people", 2.0, 0.5), ("city", 1.0, 2.0), ("film", 2.0, 0.4), ("butterfly", 1.0, 1.0)),
    *(("city", 4.0, 0.15), ("people", 3.0, 0.3)),
)
"""Clips of ``examples/``, enlargements, and seconds of them."""

PARTS_SHOWN = 3
"""Of the frame, restored before the estimate is read, as the page does while nobody presses."""


def bench_estimates() -> None:
    """Before each run: what its own preview tells, what the runs before it tell, and while it goes
    what it says at a fifth and at a half; beside them the real time. Then how many were within
    30% (the middle of what is said), and how many times within what was said."""
    from dloral.studio.models import Models
    from dloral.studio.runtime import Model

    model = Model("compact")
    model.start()
    model.pipe()
    past: list = []
    rows = []
    print("clip | preview | past runs | at 1/5 | at 1/2 | real | processor, told and real | load")
    for name, scale, seconds in RUNS:
        row = _estimated_run(Models(model), name, scale, seconds, past)
        rows.append(row)
        told = [_said(value) for value in row["told"]]
        work = f"{row['processor'][0]:.1f}, {row['processor'][1]:.1f} s"
        load = os.getloadavg()[0]
        print(
            row["what"], *told, f"{row['real']:.1f} s", work, f"{load:.1f}", sep=" | ", flush=True
        )
    for column, name in enumerate(("preview", "past runs", "at 1/5", "at 1/2")):
        known = [(row["told"][column], row["real"]) for row in rows if row["told"][column]]
        near = sum(abs((most * least) ** 0.5 / real - 1) <= 0.3 for (least, most), real in known)
        within = sum(least <= real <= most for (least, most), real in known)
        print(f"{name}: {near} of {len(known)} within 30%, {within} within the range")
    near = sum(abs(told / real - 1) <= 0.3 for told, real in (row["processor"] for row in rows))
    print(f"processor seconds from the preview: {near} of {len(rows)} within 30%")


def _said(seconds: tuple[float, float] | None) -> str:
    return "-" if seconds is None else f"{seconds[0]:.0f} to {seconds[1]:.0f} s"


def _estimated_run(models, name: str, scale: float, seconds: float, past: list) -> dict:
    from dloral.studio.estimates import plan
    from dloral.studio.runtime import JobQueue
    from dloral.studio.sessions import Session
    from dloral.studio.settings import settings_from
    from dloral.studio.speeds import FIRST_FRAMES, FIXED_SECONDS, RUN_SHARE, Speeds, work_of

    model = models.current
    model.speeds, model.cost = Speeds(), None
    with tempfile.TemporaryDirectory() as place:
        session = Session(Path(place), models, JobQueue())
        source = Path("examples") / f"{name}.mp4"
        clip = session.open_clip(source.name, lambda copy: copy.write_bytes(source.read_bytes()))
        settings = settings_from({"scale": scale, "duration": seconds}, "compact")
        assert session.preview is not None
        region = session.preview.render(0, settings.options).region
        for _ in range(PARTS_SHOWN):
            session.preview.fill(0, settings.options, region)
        told = [plan(clip, settings, model)]
        frames, size = told[0]["frames"], (told[0]["height"], told[0]["width"])
        work = work_of(settings.options, size) * (frames + FIRST_FRAMES)
        processor = FIXED_SECONDS + RUN_SHARE * (model.cost or 0) * work
        for run in past:
            model.speeds.add(run)
        told.append(plan(clip, settings, model) if past else {"seconds": None})
        started = time.monotonic()
        job = session.start_job(settings)
        total: list[tuple[float, float] | None] = [None, None]
        while not job.wait(0.02):
            done = job.newest.frame / frames if job.newest else 0
            for index, share in enumerate((0.2, 0.5)):
                left = job.forecast.left(time.monotonic())
                if done >= share and total[index] is None and left and job.newest.frame > 1:
                    gone = time.monotonic() - started
                    total[index] = gone + left[0], gone + left[1]
        real = time.monotonic() - started
        past.append(model.speeds._runs[-1])
        session.close()
    what = f"{name}, {size[1]} x {size[0]}, {frames} frames"
    told_seconds = [found["seconds"] for found in told] + total
    return {
        "what": what,
        "told": told_seconds,
        "real": real,
        "processor": (processor, past[-1].processor),
    }


if __name__ == "__main__":
    benches = {"memory": bench_memory, "estimates": bench_estimates}
    benches.get("".join(sys.argv[1:]), bench_page)()
