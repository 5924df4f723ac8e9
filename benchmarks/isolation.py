"""What reading and writing in worker processes costs: the same job with them and without.

    python -m benchmarks.isolation CLIP --runs 3

Runs take turns, so that a busy machine is as busy for both; the fastest of each counts.
"""

import argparse
import tempfile
import time
from pathlib import Path

from dloral import UpscaleOptions, load_pipeline
from dloral.upscale import upscale_steps
from dloral.video import worker
from dloral.video.probe import probe


def seconds_of(source, folder: Path, options: UpscaleOptions, pipe) -> float:
    began = time.monotonic()
    for _ in upscale_steps(source, folder / "out.mp4", options, pipe):
        pass
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--duration", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    options = UpscaleOptions(model=given.model, scale=given.scale, duration=given.duration)
    pipe = load_pipeline(given.model)
    worker.warm_up()
    sources = {isolated: probe(given.clip, isolated=isolated) for isolated in (False, True)}
    best = dict.fromkeys(sources, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.runs):
            for isolated, source in sources.items():
                took = seconds_of(source, Path(folder), options, pipe)
                best[isolated] = min(best[isolated], took)
                print(f"{'workers' if isolated else 'in process':12}{took:8.2f} s", flush=True)
    print(f"fastest: {best[True]:.2f} s against {best[False]:.2f} s: ", end="")
    print(f"{100 * (best[True] / best[False] - 1):+.1f}%")


if __name__ == "__main__":
    main()
