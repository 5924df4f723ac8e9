"""What segments cost: time, disk, memory, and how soon a resumed job is at work.

    python benchmarks/segments.py --frames 3000
    python benchmarks/segments.py --pairs 12 --model compact --frames 144 --size 128x128

The second call measures one thing, the overhead of segments with a model: runs without and with
them take turns in one process, in another order each time, so that what changes on the machine
meanwhile falls on both; it prints the mean of the pairs' quotients with its 95% interval.

The first: one clip, enlarged twice by bicubic (the fastest model, so that all else shows most):
directly and with segments; peak memory for 100 frames and for all; the journal's folder when the
job is stopped at 90%, against 16-bit PNG of the same frames; seconds until the resumed job
restores. Seconds are of processor time where that is said, since others may use the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_HERE = Path(__file__).parents[1]
sys.path[:0] = [str(_HERE), str(_HERE / "tests" / "support")]

_RUN = """
import json, sys, time
from pathlib import Path
from dloral import UpscaleOptions, upscale_steps
from dloral.weights.loading import load_pipeline
source, target, resume, stop = sys.argv[1:]
pipe = load_pipeline("bicubic")
options = UpscaleOptions("bicubic", scale=2, resume=resume == "yes")
begun, used, first = time.monotonic(), time.process_time(), None
steps = upscale_steps(source, target, options, pipe)
for progress in steps:
    if progress.stage == "restoring" and first is None:
        first = time.monotonic() - begun
    if int(stop) and progress.frame == int(stop):
        break
steps.close()
print(json.dumps({
    "seconds": time.monotonic() - begun, "cpu": time.process_time() - used, "first": first,
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    "peak": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
}))
"""


def bookkeeping(folder: Path, size: int, segments: int = 20) -> float:
    """Milliseconds of processor time that a frame of ``size`` bytes costs on its way through a
    segment's file and the journal to the result: all that segments add to an unbroken run."""
    import os
    from fractions import Fraction

    from dloral.jobs.journal import Journal, Segment
    from dloral.jobs.segments import read_segment
    from dloral.video.encoding import SEGMENT_FRAMES, CodedFrame

    frames = [CodedFrame(os.urandom(size), at, at, 1, True) for at in range(SEGMENT_FRAMES)]
    journal = Journal(folder / f"{size}.mp4", {})
    used = time.process_time()
    for number in range(segments):
        file = journal.new_file(number)
        file.write(frames)
        file.close()
        done = Segment(number, len(frames), Fraction(0), Fraction(2), file.bytes, file.sha256)
        journal.add(done, file.path)
        for _ in read_segment(journal.file(number)):
            pass
    used = time.process_time() - used
    journal.remove()
    return 1000 * used / segments / SEGMENT_FRAMES


def paired(folder: Path, source: Path, model: str, pairs: int) -> None:
    """Print how much longer runs with segments take than those without, pair by pair."""
    from dloral import UpscaleOptions, load_pipeline, upscale_video
    from dloral.evaluation.statistics import estimate

    pipe = load_pipeline(model, "cpu")

    def took(keep: bool) -> tuple[float, float]:
        options = UpscaleOptions(model, device="cpu", resume=keep)
        used, begun = time.process_time(), time.monotonic()
        upscale_video(source, folder / "paired.mp4", options, pipe=pipe)
        return time.process_time() - used, time.monotonic() - begun

    took(True)  # what is made for the first frame, and read from the disk for the first time
    found = []
    for index in range(pairs):
        order = (False, True) if index % 2 else (True, False)
        seconds = {keep: took(keep) for keep in order}
        both = list(zip(seconds[False], seconds[True], strict=True))
        found.append([100 * (kept / direct - 1) for direct, kept in both])
        print(f"pair {index + 1}: {both[0][0]:.2f} s without, {both[0][1]:.2f} s with", flush=True)
    for name, values in zip(
        ("of processor time", "by the clock"), zip(*found, strict=True), strict=True
    ):
        told = estimate(values)
        assert told is not None
        within = "" if told.half_width is None else f" ± {told.half_width:.2f}"
        print(f"segments cost {told.mean:+.2f}{within}% {name}, {pairs} pairs")


def run(source: Path, target: Path, keep: bool, stop: int = 0) -> dict[str, float]:
    """Restore once in a process of its own; stop at a frame, 0: never."""
    call = [sys.executable, "-c", _RUN, str(source), str(target), "yes" if keep else "no"]
    done = subprocess.run([*call, str(stop)], cwd=_HERE, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import torch
    from clips import write_clip

    from dloral.video.images import encode_image
    from dloral.video.reader import read_frames

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--source", type=Path, help="a clip, instead of one that is made")
    parser.add_argument("--pairs", type=int, help="the overhead alone, by so many pairs of runs")
    parser.add_argument("--model", default="compact", help="of --pairs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="dloral-segments-") as name:
        folder = Path(name)
        if options.pairs:
            clip = options.source or write_clip(folder / "in.mp4", options.frames, width, height)
            paired(folder, clip, options.model, options.pairs)
            return
        for size in (1_000, 60_000, 400_000):
            cost = bookkeeping(folder, size)
            print(f"segments cost a frame of {size / 1000:g} KB {cost:.3f} ms of processor time")
        long = options.source or write_clip(folder / "long.mp4", options.frames, width, height)
        short = write_clip(folder / "short.mp4", 100, width, height)
        few = run(short, folder / "few.mp4", True)
        direct = run(long, folder / "direct.mp4", False)
        kept = run(long, folder / "kept.mp4", True)
        print(f"peak memory: {few['peak']:.0f} MB for 100 frames, {kept['peak']:.0f} MB for all")
        print(
            f"processor time: {direct['cpu']:.1f} s directly, {kept['cpu']:.1f} s with segments "
            f"({100 * (kept['cpu'] / direct['cpu'] - 1):+.1f}%)"
        )
        target, stop = folder / "stopped.mp4", round(0.9 * options.frames)
        run(long, target, True, stop)
        size = sum(f.stat().st_size for f in (folder / "stopped.mp4.resume").iterdir())
        with read_frames(folder / "kept.mp4") as frames:
            pngs = [
                len(encode_image(frame.pixels, ".png", 16))
                for frame in frames
                if frame.index % (options.frames // 20) == 0
            ]
        png = sum(pngs) / len(pngs)
        print(
            f"disk: {size / stop / 1e6:.4f} MB a frame, 16-bit PNG {png / 1e6:.3f} MB "
            f"({100 * size / stop / png:.1f}%)"
        )
        begun = time.monotonic()
        resumed = run(long, target, True)
        took = time.monotonic() - begun
        print(
            f"resumed at 90%: the first new frame after {resumed['first']:.2f} s of the job, which "
            f"took {resumed['seconds']:.1f} s ({took:.1f} s with the start of Python)"
        )


if __name__ == "__main__":
    main()
