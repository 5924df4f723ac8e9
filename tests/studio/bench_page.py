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
    *(("butterfly", 1.0, 0.4), ("butterfly", 2.0, 0.2), ("film", 1.0, 0.3), ("city", 1.5, 0.2)),
    *(("people", 1.0, 0.4), ("city", 1.0, 0.3), ("people", 1.5, 0.2), ("film", 1.5, 0.2)),
)
"""Clips of ``examples/``, enlargements, and seconds of them."""


def bench_estimates() -> None:
    """Before each run: what its own preview tells, and what the runs before it tell."""
    from dloral.studio.estimates import plan
    from dloral.studio.models import Models
    from dloral.studio.runtime import JobQueue, Model
    from dloral.studio.sessions import Session
    from dloral.studio.settings import settings_from
    from dloral.studio.speeds import Speeds

    model = Model("compact")
    model.start()
    past = model.speeds
    with tempfile.TemporaryDirectory() as place:
        for number, (name, scale, seconds) in enumerate(RUNS):
            session = Session(Path(place) / str(number), Models(model), JobQueue())
            source = Path("examples") / f"{name}.mp4"
            clip = session.open_clip(
                source.name, lambda copy, s=source: copy.write_bytes(s.read_bytes())
            )
            settings = settings_from({"scale": scale, "duration": seconds}, "compact")
            assert session.preview is not None
            model.part_seconds_per_pixel = None
            for detail in (1.0, 0.7):  # as the page does before anybody presses Restore
                chosen = settings_from({"scale": scale, "detail": detail}, "compact")
                session.preview.render(0, chosen.options)
                session.preview.fill(
                    0, chosen.options, session.preview.render(0, chosen.options).region
                )
            model.seconds_per_pixel = None
            model.speeds = Speeds()
            of_preview = plan(clip, settings, model)
            model.speeds = past
            of_runs = plan(clip, settings, model)["seconds"]
            started = time.monotonic()
            job = session.start_job(settings)
            job.wait()
            took = time.monotonic() - started
            size = f"{of_preview['width']} x {of_preview['height']}, {of_preview['frames']} frames"
            told = [
                f"{least:.1f} to {most:.1f} s" for least, most in (of_preview["seconds"], of_runs)
            ]
            print(f"{name} | {size} | {told[0]} | {told[1]} | {took:.1f} s", flush=True)
            session.close()


if __name__ == "__main__":
    benches = {"memory": bench_memory, "estimates": bench_estimates}
    benches.get("".join(sys.argv[1:]), bench_page)()
