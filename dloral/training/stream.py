"""Clips for Algorithm 1, micro-batch by micro-batch: from packs, or drawn as they are needed."""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dloral.errors import DLoRALError
from dloral.frames.resize import resize_bicubic
from dloral.training.algorithm1 import ClipSource
from dloral.training.data import SampleConfig, as_frames, draw_sample
from dloral.training.packs import ClipBatch, Pack
from dloral.training.schedule import Stage, StageSchedule
from dloral.training.sources import Sources
from dloral.training.trainer import Draw


@dataclass(frozen=True)
class PackClips:
    """Random clips of a pack, ``clips`` a micro-batch, ``crop`` pixels a side, on ``device``."""

    pack: Pack
    clips: int
    crop: int
    device: torch.device | str = "cpu"

    def draw(self, draw: Draw) -> ClipBatch:
        return on_device(self.pack.draw_clips(draw.rng, self.clips, self.crop), self.device)


def on_device(batch: ClipBatch, device: torch.device | str) -> ClipBatch:
    """The same clips on ``device``."""
    parts = (batch.hq_frames, batch.lq_frames, batch.flow)
    return ClipBatch(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class DrawnClips:
    """B clips of T frames: frames (B,T,3,H,W) in [0, 1]; flow (B,T-1,2,H,W), current to previous,
    in pixels, None where some clip's is not known."""

    hq_frames: Tensor
    lq_frames: Tensor
    flow: Tensor | None


Key = tuple[Stage, int]
"""A stage and the number of a micro-batch since the start of the run, over all processes."""


class MicroBatches(Dataset["DrawnClips | DLoRALError"]):
    """Micro-batches by their :data:`Key`; low-quality frames still small.

    An error a person can mend comes as a value, for a worker's exception comes with its traceback.
    """

    def __init__(self, samples: Mapping[Stage, tuple[Sources, SampleConfig]], clips: int) -> None:
        self.samples, self.clips = samples, clips

    def __getitem__(self, key: Key) -> "DrawnClips | DLoRALError":
        stage, number = key
        sources, config = self.samples[stage]
        first = number * self.clips
        try:
            return draw_clips(sources, config, range(first, first + self.clips))
        except DLoRALError as error:
            return error


def draw_clips(sources: Sources, config: SampleConfig, indices: range) -> DrawnClips:
    """Samples ``indices``, low-quality frames small: (B,T,3,H/scale,W/scale)."""
    drawn = [draw_sample(sources, config, index) for index in indices]
    flows = [sample.flow for sample in drawn if sample.flow is not None]
    flow = np.stack(flows) if len(flows) == len(drawn) else None
    return DrawnClips(
        hq_frames=as_frames(np.stack([sample.hq_frames for sample in drawn])),
        lq_frames=as_frames(np.stack([sample.lq_frames for sample in drawn])),
        flow=None if flow is None else torch.from_numpy(flow.astype(np.float32)),
    )


def enlarged(clips: DrawnClips, device: torch.device | str = "cpu") -> DrawnClips:
    """On ``device``, the low-quality frames brought to the size of the others by bicubic."""
    hq_frames, lq_frames = clips.hq_frames.to(device), clips.lq_frames.to(device)
    shape = lq_frames.shape[:2]
    large = resize_bicubic(lq_frames.flatten(0, 1), *hq_frames.shape[-2:])
    flow = None if clips.flow is None else clips.flow.to(device)
    return DrawnClips(hq_frames, large.unflatten(0, shape), flow)


class ClipStream:
    """Micro-batches drawn ahead by ``workers`` processes, in the order the schedule asks for them.

    What a draw gives depends on its number alone; the order is only for reading ahead, and where
    another one is asked for than comes next (a resumed run), reading starts anew from there.
    """

    def __init__(
        self,
        batches: MicroBatches,
        schedule: StageSchedule,
        steps: int,
        micro_batches: int,
        own: range,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batches, self.schedule, self.steps = batches, schedule, steps
        self.micro_batches, self.own = micro_batches, own
        self.workers, self.device = workers, device
        self._ahead: Iterator[tuple[Key, DrawnClips | DLoRALError]] = iter(())

    def of(self, stage: Stage) -> ClipSource:
        """The stream as one stage's source."""
        return _StageClips(self, stage)

    def draw(self, stage: Stage, draw: Draw) -> DrawnClips:
        wanted = (stage, draw.step * self.micro_batches + draw.micro)
        key, found = next(self._ahead, (None, None))
        if key != wanted:
            self._ahead = self._read_ahead(draw)
            key, found = next(self._ahead)
            assert key == wanted, f"the schedule has {key} where {wanted} was asked for"
        if isinstance(found, DLoRALError):
            raise found
        assert found is not None
        return enlarged(found, self.device)

    def _read_ahead(self, start: Draw) -> Iterator[tuple[Key, DrawnClips | DLoRALError]]:
        keys = [
            (stage, step * self.micro_batches + micro)
            for step in range(start.step, self.steps)
            for micro in self.own
            if (step, micro) >= (start.step, start.micro)
            # The other stage may have a pack, which is read without us.
            if (stage := self.schedule.stage_at(step + 1)) in self.batches.samples
        ]
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=keys,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            # Not forked: a copy of a process whose libraries have threads waits for them forever.
            multiprocessing_context="spawn" if self.workers else None,
        )
        return zip(keys, loader, strict=True)


@dataclass(frozen=True)
class _StageClips:
    stream: ClipStream
    stage: Stage

    def draw(self, draw: Draw) -> DrawnClips:
        return self.stream.draw(self.stage, draw)


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """The workers are the parallelism; and a Ctrl-C is the main process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
