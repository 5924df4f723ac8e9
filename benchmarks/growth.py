"""How time and memory grow: with the pixels of a frame, and with the frames of a clip.

    python benchmarks/growth.py --json growth.json --picture docs/pictures/growth.png
    python benchmarks/growth.py --heights 256 512 --frames 10 100
    python benchmarks/growth.py --retrieval 1080

Each row is a job of the compact model, from file to file as ``dloral upscale`` runs it, in a
process of its own. Seconds of a frame count from the first frame's end. "processor" is what all
threads used: on a busy machine that says more than the clock. Memory is the most that the process
had while the job ran, and what of it came with the job; once the model is loaded.

``--retrieval``: that step alone (flow, warp, cross-frame retrieval) on a whole frame, where a job
takes tiles. Only its memory and time are measured, on random latents.

The picture needs matplotlib, which the extra ``train`` brings.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(_ROOT)]

from dloral.errors import OptionError, Setting, exit_status  # noqa: E402

SCALE = 4
SIZES = {256: 256, 512: 512, 720: 1280, 1080: 1920, 1440: 2560, 2160: 3840}
"""Height of the result -> its width."""

FRAMES_OF_A_SIZE = 3
LENGTHS = (10, 30, 100, 300, 1000, 3000)
SIDE_OF_A_LENGTH = 64

Row = dict[str, Any]


def measured(height: int, width: int, frames: int) -> Row:
    """One job in this process; ``height``, ``width`` of the result in pixels."""
    from dloral.threads import let_threads_sleep

    let_threads_sleep()
    import psutil
    import torch

    from dloral.bench.clips import write_clip
    from dloral.bench.memory import begin_peaks, peaks
    from dloral.memory import release_memory
    from dloral.options import UpscaleOptions
    from dloral.upscale import upscale_steps
    from dloral.weights.loading import load_pipeline

    pipe, place = load_pipeline("compact", "cpu"), torch.device("cpu")
    with tempfile.TemporaryDirectory(prefix="dloral-growth-") as name:
        folder = Path(name)
        clip = write_clip(folder, height // SCALE, width // SCALE, frames)
        options = UpscaleOptions("compact", SCALE, device="cpu", tagger="none", resume=False)
        release_memory()
        before = psutil.Process().memory_info().rss
        begin_peaks(place)
        begun = used = 0.0
        for progress in upscale_steps(clip, folder / "out.mp4", options, pipe):
            if progress.stage == "restoring" and progress.frame == 1:
                begun, used = time.perf_counter(), time.process_time()
        peak = peaks(place)[0] or 0
        counted = frames - 1
        return {
            "height": height,
            "width": width,
            "frames": frames,
            "seconds": (time.perf_counter() - begun) / counted,
            "processor": (time.process_time() - used) / counted,
            "peak": peak,
            "of_the_job": peak - before,
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
        }


def retrieval(height: int, width: int) -> str:
    """What retrieval of a whole frame of ``height`` x ``width`` pixels takes beyond the model and
    the latents, in this process."""
    from dloral.threads import let_threads_sleep

    let_threads_sleep()
    import psutil
    import torch

    from dloral.bench.memory import begin_peaks, peaks
    from dloral.memory import release_memory
    from dloral.weights.loading import load_pipeline

    pipe = load_pipeline("compact", "cpu")
    place, draw = pipe.execution_device, torch.Generator().manual_seed(0)
    cells = (height // pipe.latent_stride, width // pipe.latent_stride)
    with torch.no_grad():
        frame = torch.rand(1, 3, 8 * pipe.latent_stride, 8 * pipe.latent_stride, generator=draw)
        channels = pipe.encode(frame).shape[1]
        current, previous = torch.randn(2, 1, channels, *cells, generator=draw).to(
            pipe.compute_dtype
        )
        small, small_before = torch.rand(2, 1, 3, *cells, generator=draw).to(pipe.compute_dtype)
        release_memory()
        before = psutil.Process().memory_info().rss
        begin_peaks(place)
        begun, used = time.perf_counter(), time.process_time()
        pipe.retrieve(current, small, previous[None], small_before[None])
        seconds, processor = time.perf_counter() - begun, time.process_time() - used
    extra = (peaks(place)[0] or 0) - before
    return (
        f"retrieval of {width} x {height} ({cells[1]} x {cells[0]} cells) at once: "
        f"{extra / 1e6:.0f} MB more, {seconds:.2f} s, {processor:.2f} s of processor time, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def in_a_process(height: int, width: int, frames: int) -> Row:
    call = [sys.executable, __file__, "--row", str(height), str(width), str(frames)]
    told = subprocess.run(call, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    row: Row = json.loads(told.splitlines()[-1])
    return row


def line_of(row: Row) -> str:
    return (
        f"| {row['width']} x {row['height']} | {row['frames']} | {row['seconds']:.3f} s | "
        f"{row['processor']:.3f} s | {row['peak'] / 1e6:.0f} MB | "
        f"{row['of_the_job'] / 1e6:.0f} MB | {row['load']:.1f} |"
    )


def exponent(of: Sequence[float], by: Sequence[float]) -> float:
    """p of the power law ``of ~ by ** p`` through the points, by least squares of logarithms."""
    x, y = ([math.log(value) for value in values] for values in (by, of))
    middle, height = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle) ** 2 for a in x)


def draw(sizes: list[Row], lengths: list[Row], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    sides = (
        ("pixels of a frame of the result", [row["height"] * row["width"] for row in sizes], sizes),
        ("frames of the clip", [row["frames"] for row in lengths], lengths),
    )
    for column, (title, by, rows) in zip(panels.T, sides, strict=True):
        time_panel, memory_panel = column
        time_panel.loglog(by, [row["processor"] for row in rows], "o-", label="processor")
        time_panel.loglog(by, [row["seconds"] for row in rows], "o:", label="clock")
        time_panel.set(ylabel="seconds a frame")
        memory_panel.semilogx(by, [row["peak"] / 1e6 for row in rows], "o-", label="process")
        memory_panel.semilogx(by, [row["of_the_job"] / 1e6 for row in rows], "o:", label="job")
        memory_panel.set(xlabel=title, ylabel="MB at the most")
        memory_panel.set_ylim(bottom=0)
        for panel in column:
            panel.legend()
            panel.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--heights", nargs="*", type=int, choices=SIZES, default=list(SIZES))
    add("--frames", nargs="*", type=int, default=list(LENGTHS), help="2 or more each")
    add("--json", type=Path, help="keep the rows there; those that it has are not measured again")
    add("--picture", type=Path, help="draw the rows there (.png)")
    add("--retrieval", type=int, choices=SIZES, metavar="HEIGHT", help="that step alone")
    add("--row", nargs=3, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    for frames in given.frames:
        if frames < 2:
            raise OptionError(
                "{option} is {value}",
                remedy="give 2 or more: the first frame is not timed",
                option=Setting("frames"),
                value=frames,
            )
    if given.row:
        print(json.dumps(measured(*given.row)))
        return
    if given.retrieval:
        print(retrieval(given.retrieval, SIZES[given.retrieval]))
        return
    wanted = [(height, SIZES[height], FRAMES_OF_A_SIZE) for height in given.heights]
    wanted += [(SIDE_OF_A_LENGTH, SIDE_OF_A_LENGTH, frames) for frames in given.frames]
    wanted = list(dict.fromkeys(wanted))  # no power law goes through one point named twice
    rows: list[Row] = []
    if given.json and given.json.exists():
        rows = json.loads(given.json.read_text())
    done = {(row["height"], row["width"], row["frames"]): row for row in rows}
    print("| result | frames | a frame | processor | process | of the job | load |")
    print("|---|---|---|---|---|---|---|")
    for job in wanted:
        if job not in done:
            done[job] = in_a_process(*job)
            if given.json:
                given.json.write_text(json.dumps(list(done.values()), indent=1))
        print(line_of(done[job]), flush=True)
    told = [done[job] for job in wanted]
    sizes = [row for row in told if row["height"] != SIDE_OF_A_LENGTH]
    lengths = [row for row in told if row["height"] == SIDE_OF_A_LENGTH]
    if len(sizes) > 1:
        pixels = [row["height"] * row["width"] for row in sizes]
        power = exponent([row["processor"] for row in sizes], pixels)
        print(f"processor time of a frame grows with its pixels to the power of {power:.2f}")
    if given.picture:
        draw(sizes, lengths, given.picture)


if __name__ == "__main__":
    sys.exit(exit_status(main, "growth.py"))
