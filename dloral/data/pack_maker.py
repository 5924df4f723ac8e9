"""Write degraded clips to disk once, so that a slow machine can train on them many times.

Sample ``i`` is drawn from ``(seed, i)`` alone, so the pack is the same for any number of workers.
The pack's ``manifest.json`` lists its sources with their SHA-256, what was left out and why.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dloral.data.samples import Sample, draw_sample, source_of, video_share
from dloral.data.sources import Sources, sha256
from dloral.data.spec import ClipSpec
from dloral.errors import OptionError, OutputError
from dloral.files import write_whole
from dloral.frames.resize import LATENT_STRIDE

Made = tuple[int, Path, dict[str, NDArray[Any]]]
"""A sample: its index, the file it was cut from, and its arrays."""


def make_pack(sources: Sources, spec: ClipSpec, count: int, folder: Path, workers: int = 1) -> None:
    """Write ``count`` samples as the pack ``folder``; it appears whole or not at all.

    A pack's clips come from photographs, with flow, or from videos, without it.
    """
    if count < 1:
        raise OptionError(f"count is {count}; give 1 or more")
    if workers < 1:
        raise OptionError(f"workers is {workers}; give 1 or more")
    if spec.frames > 1 and sources.photos and sources.windows:
        raise OptionError(
            "photographs have known flow and videos have none; make a separate pack of each"
        )
    if folder.exists():
        raise OutputError(
            "{path} exists already", remedy="remove it or give another folder", path=folder
        )
    write_whole(folder, lambda part: _write_pack(sources, spec, count, part, workers), parents=True)


def _write_pack(sources: Sources, spec: ClipSpec, count: int, folder: Path, workers: int) -> None:
    # Source by source, so that each is decoded once in one worker.
    by_source: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index in range(count):
        by_source[source_of(sources, spec, index)].append(index)
    folder.mkdir()
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape))
        for name, (shape, dtype) in _shapes(spec, has_flow=not sources.windows).items()
    }
    made = _made(sources, list(by_source.values()), spec, workers)
    names = [""] * count
    for samples in tqdm(made, total=len(by_source), unit="source"):
        for index, source, sample in samples:
            names[index] = sources.name(source)
            for name, value in sample.items():
                arrays[name][index] = value
    for array in arrays.values():
        array.flush()
    (folder / "manifest.json").write_text(_manifest(sources, spec, names))


def _made(
    sources: Sources, groups: list[list[int]], spec: ClipSpec, workers: int
) -> Iterator[list[Made]]:
    """The samples of each group of indices, in order; with one worker, in this process."""
    if workers == 1:
        for indices in groups:
            yield _samples(sources, indices, spec)
        return
    # Not forked: a fork of a process whose libraries run threads waits for them forever.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_samples, sources, indices, spec) for indices in groups]
        for job in jobs:
            yield job.result()


def _shapes(spec: ClipSpec, has_flow: bool) -> dict[str, tuple[tuple[int, ...], type]]:
    small, cells = spec.size // spec.scale, spec.size // LATENT_STRIDE
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "hq": ((spec.frames, 3, spec.size, spec.size), np.uint8),
        "lq": ((spec.frames, 3, small, small), np.uint8),
    }
    if spec.frames > 1 and has_flow:
        shapes["flow"] = ((spec.frames - 1, 2, cells, cells), np.float16)
    return shapes


def _samples(sources: Sources, indices: Sequence[int], spec: ClipSpec) -> list[Made]:
    """The samples that start from one photograph or one place in a video."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    drawn = ((index, draw_sample(sources, spec, index)) for index in indices)
    return [(index, sample.source, _arrays(sample)) for index, sample in drawn]


def _arrays(sample: Sample) -> dict[str, NDArray[Any]]:
    """The sample as stored in a pack."""
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


def _manifest(sources: Sources, spec: ClipSpec, clips: list[str]) -> str:
    """``clips``: what each was cut from; clips of one source are not independent of each other."""
    names = ("frames", "size", "seed", "scale")
    config = {"count": len(clips)} | {name: getattr(spec, name) for name in names}
    manifest = {
        "config": config | {"video_share": video_share(sources, spec)},
        "sources": {sources.name(path): sha256(path) for path in sources.files()},
        "seconds_in_videos": [[sources.name(w.clip.path), float(w.start)] for w in sources.windows],
        "left_out": sources.left_out,
        "clips": clips,
    }
    return json.dumps(manifest, indent=1)
