"""Make a pack of degraded pairs from photographs, once, for many trainings.

    python -m dloral.data.pack_maker --photos DIR [DIR ...] --out PACKS/still --count 8000
    python -m dloral.data.pack_maker --photos DIR --out PACKS/clips --count 1500 --frames 3

Sample ``i`` is drawn from ``(seed, i)`` alone, so the pack is the same with any number of workers.
The pack's ``manifest.json`` lists its sources with their SHA-256, what was left out and why.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dloral.data.samples import Sample, SampleConfig, draw_sample, source_of
from dloral.data.sources import Sources, VideoSpan, list_sources
from dloral.errors import OptionError, OutputError, exit_status
from dloral.frames.resize import LATENT_STRIDE


@dataclass(frozen=True)
class PackConfig:
    """``count`` samples of ``frames`` frames, ``size`` pixels square, the given share of them from
    videos."""

    count: int
    frames: int = 1
    size: int = 256
    seed: int = 0
    scale: int = 4
    video_share: float = 0.0

    def samples(self) -> SampleConfig:
        return SampleConfig(self.frames, self.size, self.seed, self.scale, self.video_share)


def prepare(sources: Sources, config: PackConfig, out: Path, workers: int) -> None:
    """Write the pack ``out``; it appears whole or not at all.

    A pack of clips is from photographs, with flow, or from videos, without it.
    """
    if config.frames > 1 and sources.photos and sources.windows:
        raise OptionError(
            "the flow of photographs is known and that of videos is not; "
            "make one pack of clips from each"
        )
    if out.exists():
        raise OutputError(f"{out} exists already; remove it or give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(config, has_flow=not sources.windows)
    # Source by source, so that each is decoded once in one worker.
    by_source: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index in range(config.count):
        by_source[source_of(sources, config.samples(), index)].append(index)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".pack-") as folder:
        unfinished = Path(folder, "pack")
        unfinished.mkdir()
        arrays = {
            name: np.lib.format.open_memmap(
                unfinished / f"{name}.npy", "w+", dtype, (config.count, *shape)
            )
            for name, (shape, dtype) in shapes.items()
        }
        made = _made(sources, list(by_source.values()), config.samples(), workers)
        for samples in tqdm(made, total=len(by_source), unit="source"):
            for index, sample in samples:
                for name, value in sample.items():
                    arrays[name][index] = value
        for array in arrays.values():
            array.flush()
        (unfinished / "manifest.json").write_text(_manifest(sources, config))
        unfinished.replace(out)


def _made(
    sources: Sources, groups: list[list[int]], config: SampleConfig, workers: int
) -> Iterator[list[tuple[int, dict[str, NDArray]]]]:
    """The samples of each group of indices, in order; with one worker, in this process."""
    if workers == 1:
        for indices in groups:
            yield _samples(sources, indices, config)
        return
    # Not forked: a copy of a process whose libraries have threads waits for them forever.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_samples, sources, indices, config) for indices in groups]
        for job in jobs:
            yield job.result()


def _shapes(config: PackConfig, has_flow: bool) -> dict[str, tuple[tuple[int, ...], type]]:
    small, cells = config.size // config.scale, config.size // LATENT_STRIDE
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "hq": ((config.frames, 3, config.size, config.size), np.uint8),
        "lq": ((config.frames, 3, small, small), np.uint8),
    }
    if config.frames > 1 and has_flow:
        shapes["flow"] = ((config.frames - 1, 2, cells, cells), np.float16)
    return shapes


def _samples(
    sources: Sources, indices: Sequence[int], config: SampleConfig
) -> list[tuple[int, dict[str, NDArray]]]:
    """The samples that start from one photograph or one place in a video."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    return [(index, _arrays(draw_sample(sources, config, index))) for index in indices]


def _arrays(sample: Sample) -> dict[str, NDArray]:
    """The sample as it lies in a pack."""
    hq_frames, lq_frames = sample.hq_frames, sample.lq_frames
    arrays = {"hq": hq_frames.transpose(0, 3, 1, 2), "lq": lq_frames.transpose(0, 3, 1, 2)}
    if sample.flow is not None:
        cells = sample.flow.reshape(
            *sample.flow.shape[:2],
            -1,
            LATENT_STRIDE,
            hq_frames.shape[2] // LATENT_STRIDE,
            LATENT_STRIDE,
        )
        arrays["flow"] = cells.mean(axis=(3, 5)) / LATENT_STRIDE
    return arrays


def _manifest(sources: Sources, config: PackConfig) -> str:
    hashes = {sources.name(path): _sha256(path) for path in sources.files()}
    manifest = {
        "config": asdict(config),
        "sources": hashes,
        "seconds_in_videos": [[sources.name(w.clip.path), float(w.start)] for w in sources.windows],
        "left_out": sources.left_out,
    }
    return json.dumps(manifest, indent=1)


def _sha256(path: Path) -> str:
    """Of a file, or of all files of a folder in name order."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="files or folders")
    parser.add_argument("--video-share", type=float, default=0.0, help="of the samples, 0 to 1")
    parser.add_argument("--video-from", type=Fraction, default=Fraction(0), help="seconds")
    parser.add_argument("--video-until", type=Fraction, help="seconds")
    parser.add_argument("--exclude", nargs="*", default=[], help="parts of file names to leave out")
    parser.add_argument("--only", nargs="*", default=[], help="parts of file names to keep")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    config = PackConfig(
        given.count, given.frames, given.size, given.seed, video_share=given.video_share
    )
    sources = list_sources(
        given.photos,
        given.exclude,
        config.size,
        only=given.only,
        videos=given.videos,
        span=VideoSpan(given.video_from, given.video_until),
    )
    print(
        f"{len(sources.photos)} photographs, {len(sources.windows)} places in videos, "
        f"{len(sources.left_out)} files left out"
    )
    for name, reason in sources.left_out.items():
        print(f"  {name}: {reason}")
    prepare(sources, config, given.out, given.workers)


if __name__ == "__main__":
    sys.exit(exit_status(main, "prepare"))
