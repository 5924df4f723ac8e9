"""Prepare a data set's clips for restoring: check them, and degrade those with only ground truth.

Degraded frames are written once, as PNG files, and read from there: a resumed benchmark restores
exactly the same frames, and anybody can look at them or give them to another program.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dloral.data.degradation import degrade_clip, sample_degradation
from dloral.errors import InputError, OutputError
from dloral.evaluation.datasets import DataClip, FileFrames, Frames, opened
from dloral.files import write_text
from dloral.options import SCALE_RANGE
from dloral.video.images import encode_image
from dloral.video.media import reason

SCALE = 4
DEGRADATIONS = {
    "realesrgan": "Real-ESRGAN's two orders (dloral/data/degradation.py), one draw a clip, noise "
    "drawn afresh for every frame",
    "bicubic": "bicubic, a = -0.5, with antialiasing (MATLAB's imresize), to a quarter, 8 bits",
}
SAME_SHAPE = 0.02
"""Relative: how much the enlargements of height and width may differ; data sets cut odd sizes."""


@dataclass(frozen=True)
class CutFrames:
    """Frames without the last rows and columns beyond a multiple of 4."""

    whole: Frames

    def about(self) -> tuple[int, int, int | None]:
        height, width, count = self.whole.about()
        return height // SCALE * SCALE, width // SCALE * SCALE, count

    def open(self) -> Generator[Tensor, None, None]:
        height, width, _ = self.about()
        with opened(self.whole) as frames:
            for frame in frames or ():
                yield frame[:, :height, :width]

    def digest(self) -> str:
        return self.whole.digest()


@dataclass(frozen=True)
class ReadyClip:
    """A clip that can be restored to ``size`` (height, width) and, with ``hq``, compared."""

    name: str
    source: str
    lq: Frames
    hq: Frames | None
    size: tuple[int, int]
    num_frames: int | None
    limit: int | None
    digests: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its name as used for folders."""
        return self.name

    @property
    def identity(self) -> list[object]:
        """What its figures depend on besides the protocol."""
        return [self.name, *self.size, self.num_frames, *self.digests]

    @contextmanager
    def opened(self) -> Iterator[tuple[Iterator[Tensor], Iterator[Tensor] | None]]:
        """(low-quality frames, true ones or None)."""
        with opened(self.lq, self.limit) as lq_frames, opened(self.hq, self.limit) as hq_frames:
            assert lq_frames is not None
            yield lq_frames, hq_frames


def ready_clip(
    clip: DataClip,
    out: Path,
    degradation: str,
    seed: int,
    limit: int | None = None,
    on_frame: Callable[[int, int | None], None] = lambda _done, _count: None,
) -> ReadyClip:
    """Check a clip, degrading its truth into ``out/lq`` where it has nothing else.

    Raises :class:`InputError` where its frames cannot be read or do not match.
    """
    hq, lq = clip.hq, clip.lq
    if lq is None:
        assert hq is not None
        height, width, count = hq.about()
        if min(height, width) < SCALE:
            raise InputError(
                "{name} is {width}x{height}",
                remedy=f"give {SCALE} pixels a side or more",
                name=clip.name,
                width=width,
                height=height,
            )
        hq = CutFrames(hq)
        lq = FileFrames(_degraded(clip.name, hq, out / "lq", degradation, seed, limit, on_frame))
        size = (height // SCALE * SCALE, width // SCALE * SCALE)
    else:
        size, count = _fitting(clip.name, hq, lq)
    count = min(count, limit) if count and limit else count
    digests = tuple(frames.digest() for frames in (lq, hq) if frames is not None)
    return ReadyClip(clip.name, clip.source, lq, hq, size, count, limit, digests)


def _fitting(name: str, hq: Frames | None, lq: Frames) -> tuple[tuple[int, int], int | None]:
    """(the size to restore to, the number of frames) of a pair, or of low quality alone."""
    low_height, low_width, count = lq.about()
    if hq is None:
        return (SCALE * low_height, SCALE * low_width), count
    height, width, true_count = hq.about()
    least, most = SCALE_RANGE
    tall, wide = height / low_height, width / low_width
    alike = abs(tall - wide) <= SAME_SHAPE * wide
    if not (alike and all(least <= s <= most * (1 + SAME_SHAPE) for s in (tall, wide))):
        raise InputError(
            "{name} is {low} and its ground truth {high}",
            remedy=f"give pairs of one shape, the truth {least:g} to {most:g} times as large",
            name=name,
            low=f"{low_width}x{low_height}",
            high=f"{width}x{height}",
        )
    if count and true_count and count != true_count:
        raise InputError(
            "{name} has {value} frames and its ground truth {true}",
            remedy="give pairs of one length",
            name=name,
            value=count,
            true=true_count,
        )
    return (height, width), count or true_count


def _degraded(
    name: str,
    hq: CutFrames,
    root: Path,
    degradation: str,
    seed: int,
    limit: int | None,
    on_frame: Callable[[int, int | None], None],
) -> Path:
    """The folder of a clip's low-quality frames, made if missing or of another truth; whole or not
    at all. A file beside it has the truth's hash."""
    target, made_of, digest = root / name, root / f"{name}.sha256", hq.digest()
    if target.is_dir() and made_of.is_file() and made_of.read_text(encoding="ascii") == digest:
        return target
    _, _, count = hq.about()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as folder:
            made = Path(folder, "frames")
            made.mkdir()
            with opened(hq, limit) as frames:
                low = _degrade_frames(frames or iter(()), degradation, _rng(seed, name))
                for index, frame in enumerate(low):
                    (made / f"{index:08}.png").write_bytes(encode_image(frame, ".png"))
                    on_frame(index + 1, min(count, limit) if count and limit else count)
            if not any(made.iterdir()):
                raise InputError("{name} has no frames", name=name)
            if target.is_dir():
                shutil.rmtree(target)
            shutil.move(made, target)
            write_text(made_of, digest)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            "{path} cannot be written: {reason}", path=target, reason=reason(error)
        ) from error
    return target


def _rng(seed: int, name: str) -> np.random.Generator:
    """A clip's own generator, independent of what else is in the data set."""
    return np.random.default_rng([seed, crc32(name.encode())])


def _degrade_frames(
    frames: Iterator[Tensor], degradation: str, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Frames (3,H,W) in [0, 1], sides multiples of 4 -> (3,H/4,W/4) in [0, 1], of 8 bits."""
    if degradation == "bicubic":
        for frame in frames:
            size = [side // SCALE for side in frame.shape[-2:]]
            small = F.interpolate(frame[None], size, mode="bicubic", antialias=True)[0]
            yield (255 * small.clamp(0, 1)).round() / 255
        return
    draw = sample_degradation(rng)
    for frame in frames:
        array = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
        small = torch.from_numpy(degrade_clip([array], draw, rng)[0])
        yield small.permute(2, 0, 1).float() / 255
