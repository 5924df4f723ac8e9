"""Make a pack of degraded pairs from photographs, once, for many trainings.

    python -m dloral.training.prepare --photos DIR [DIR ...] --out PACKS/still --count 8000
    python -m dloral.training.prepare --photos DIR --out PACKS/clips --count 1500 --frames 3

Sample ``i`` is drawn from ``(seed, i)`` alone, so the pack is the same with any number of workers.
The pack's ``manifest.json`` lists its sources with their SHA-256, what was left out and why.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dloral.errors import InputError, OutputError
from dloral.frames.degradation import degrade_clip, sample_degradation
from dloral.frames.resize import LATENT_STRIDE
from dloral.training.motion import MotionConfig, sample_clip

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
REDUCTIONS = (2.0, 3.2)
"""Photographs are made smaller first: at full size they are soft from JPEG and demosaicing."""

CANDIDATES = 6
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PackConfig:
    """``count`` samples of ``frames`` frames, ``size`` pixels square."""

    count: int
    frames: int = 1
    size: int = 256
    seed: int = 0
    scale: int = 4


@dataclass(frozen=True)
class Sources:
    """Photographs that can be used, and those left out with the reason."""

    photos: tuple[Path, ...]
    left_out: dict[str, str]


def list_sources(folders: Iterable[Path], exclude: Sequence[str], size: int) -> Sources:
    """Every photograph below ``folders``, in name order; raises :class:`InputError` for none."""
    photos, left_out = [], {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in PHOTO_SUFFIXES:
                continue
            if any(word in path.name for word in exclude):
                left_out[path.name] = "excluded by name"
            elif reason := _unusable(path, size):
                left_out[path.name] = reason
            else:
                photos.append(path)
    if not photos:
        found = ", ".join(map(str, folders))
        raise InputError(
            f"no usable photograph in {found} ({len(left_out)} left out); give folders of "
            f"{', '.join(PHOTO_SUFFIXES)} at least {round(size * REDUCTIONS[0])} pixels a side"
        )
    return Sources(tuple(photos), left_out)


def _unusable(path: Path, size: int) -> str:
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        return "not a readable picture"
    least = round(size * REDUCTIONS[0])
    if min(photo.shape[:2]) < least:
        return f"smaller than {least} pixels a side"
    return ""


def prepare(sources: Sources, config: PackConfig, out: Path, workers: int) -> None:
    """Write the pack ``out``; it appears whole or not at all."""
    if out.exists():
        raise OutputError(f"{out} exists already; remove it or give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(config)
    # Photograph by photograph, so that each is decoded once in one worker.
    by_photo = [
        range(first, config.count, len(sources.photos)) for first in range(len(sources.photos))
    ]
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".pack-") as folder:
        unfinished = Path(folder, "pack")
        unfinished.mkdir()
        arrays = {
            name: np.lib.format.open_memmap(
                unfinished / f"{name}.npy", "w+", dtype, (config.count, *shape)
            )
            for name, (shape, dtype) in shapes.items()
        }
        with ProcessPoolExecutor(workers) as pool:
            jobs = [
                pool.submit(_samples, sources.photos, first, tuple(indices), config)
                for first, indices in enumerate(by_photo)
            ]
            for job in tqdm(jobs, unit="photo"):
                for index, sample in job.result():
                    for name, value in sample.items():
                        arrays[name][index] = value
        for array in arrays.values():
            array.flush()
        (unfinished / "manifest.json").write_text(_manifest(sources, config))
        unfinished.rename(out)


def _shapes(config: PackConfig) -> dict[str, tuple[tuple[int, ...], type]]:
    small, cells = config.size // config.scale, config.size // LATENT_STRIDE
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "hq": ((config.frames, 3, config.size, config.size), np.uint8),
        "lq": ((config.frames, 3, small, small), np.uint8),
    }
    if config.frames > 1:
        shapes["flow"] = ((config.frames - 1, 2, cells, cells), np.float16)
    return shapes


def _samples(
    photos: Sequence[Path], first: int, indices: Sequence[int], config: PackConfig
) -> list[tuple[int, dict[str, NDArray]]]:
    """The samples whose background is photograph ``first``."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    return [(index, _sample(photos, first, index, config)) for index in indices]


def _sample(
    photos: Sequence[Path], first: int, index: int, config: PackConfig
) -> dict[str, NDArray]:
    rng = np.random.default_rng((config.seed, index))
    motion = MotionConfig()
    photo = _sharp_part(_reduced(photos[first], rng.integers(len(REDUCTIONS))), config, rng)
    if config.frames == 1:
        frames, flow = photo[None], None
    else:
        foreground = None
        if rng.random() < motion.foreground_probability:
            other = photos[rng.integers(len(photos))]
            foreground = _sharp_part(_reduced(other, 1), config, rng)
        clip = sample_clip(photo, foreground, config.frames, config.size, rng, motion)
        frames, flow = clip.frames, clip.flow
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
        flow = None if flow is None else flow[..., ::-1] * np.array([-1, 1])[:, None, None]
    draw = sample_degradation(rng)
    lq_frames = degrade_clip([frame.astype(np.float32) / 255 for frame in frames], draw, rng)
    sample = {"hq": frames.transpose(0, 3, 1, 2), "lq": lq_frames.transpose(0, 3, 1, 2)}
    if flow is not None:
        cells = flow.reshape(
            *flow.shape[:2], -1, LATENT_STRIDE, flow.shape[-1] // LATENT_STRIDE, LATENT_STRIDE
        )
        sample["flow"] = cells.mean(axis=(3, 5)) / LATENT_STRIDE
    return sample


def _sharp_part(photo: Pixels, config: PackConfig, rng: np.random.Generator) -> Pixels:
    """A part of the photograph for one sample, of several tried by how much fine detail they hold.

    Stills get exactly ``size`` pixels, clips room for the camera to move.
    """
    room = 1 if config.frames == 1 else 2
    height, width = (min(side, room * config.size) for side in photo.shape[:2])
    parts, energies = [], []
    for _ in range(CANDIDATES):
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        part = photo[top : top + height, left : left + width]
        grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
        parts.append(part)
        # A little for everybody: skies and walls must be seen too.
        energies.append(float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()) + 0.3)
    return parts[rng.choice(CANDIDATES, p=np.array(energies) / sum(energies))]


@cache
def _reduced(path: Path, which: int) -> Pixels:
    """The photograph, RGB, made smaller by one of :data:`REDUCTIONS` (the first where the other
    would leave too little)."""
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert photo is not None, f"{path} was readable when it was listed"
    factor = REDUCTIONS[which]
    if min(photo.shape[:2]) / factor < 520:
        factor = REDUCTIONS[0]
    reduced = cv2.resize(photo, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(reduced[..., ::-1])


def _manifest(sources: Sources, config: PackConfig) -> str:
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sources.photos}
    manifest = {"config": asdict(config), "sources": hashes, "left_out": sources.left_out}
    return json.dumps(manifest, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--exclude", nargs="*", default=[], help="parts of file names to leave out")
    parser.add_argument("--only", nargs="*", default=[], help="parts of file names to keep")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    config = PackConfig(given.count, given.frames, given.size, given.seed)
    sources = list_sources(given.photos, given.exclude, config.size)
    if given.only:
        kept = tuple(p for p in sources.photos if any(word in p.name for word in given.only))
        sources = Sources(kept, sources.left_out)
    print(f"{len(sources.photos)} photographs, {len(sources.left_out)} left out")
    for name, reason in sources.left_out.items():
        print(f"  {name}: {reason}")
    prepare(sources, config, given.out, given.workers)


if __name__ == "__main__":
    main()
