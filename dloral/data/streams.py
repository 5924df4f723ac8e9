"""Clips drawn on demand, by worker processes that read ahead."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dloral.data.clips import Clips, Draw
from dloral.data.samples import as_frames, draw_sample, video_share
from dloral.data.sources import Sources
from dloral.data.spec import ClipSpec
from dloral.errors import DLoRALError
from dloral.frames.resize import resize_bicubic


def draw_clips(sources: Sources, spec: ClipSpec, indices: range) -> Clips:
    """Samples ``indices``, but with the low-quality frames still small: (B,T,3,H/scale,W/scale).

    Flow is None only if no sample of these sources can have one, not just if none of these has:
    what else is drawn beside film changes nothing.
    """
    drawn = [draw_sample(sources, spec, index) for index in indices]
    flow = None
    if spec.frames > 1 and sources.photos and video_share(sources, spec) < 1:
        unknown = np.full((spec.frames - 1, 2, spec.size, spec.size), np.nan)
        flow = np.stack([unknown if one.flow is None else one.flow for one in drawn])
    return Clips(
        hq_frames=as_frames(np.stack([sample.hq_frames for sample in drawn])),
        lq_frames=as_frames(np.stack([sample.lq_frames for sample in drawn])),
        flow=None if flow is None else torch.from_numpy(flow.astype(np.float32)),
    )


def enlarged(clips: Clips, device: torch.device | str = "cpu") -> Clips:
    """On ``device``, with the low-quality frames enlarged (bicubic) to the size of the others."""
    clips = clips.to(device)
    lq_frames = resize_bicubic(clips.lq_frames.flatten(0, 1), *clips.hq_frames.shape[-2:])
    shape = clips.hq_frames.shape[:2]
    return replace(clips, lq_frames=lq_frames.unflatten(0, shape), small_frames=clips.lq_frames)


class _MicroBatches(Dataset["Clips | DLoRALError"]):
    """Micro-batches by their number since the start of the run, over all processes.

    A user error is returned as a value, since a worker's exception would arrive with its traceback.
    """

    def __init__(self, sources: Sources, spec: ClipSpec, clips: int) -> None:
        self.sources, self.spec, self.clips = sources, spec, clips

    def __getitem__(self, number: int) -> "Clips | DLoRALError":
        first = number * self.clips
        try:
            return draw_clips(self.sources, self.spec, range(first, first + self.clips))
        except DLoRALError as error:
            return error


class StreamClips:
    """``clips`` samples per micro-batch, read ahead by ``workers`` processes (0: by this one).

    ``steps``: those that draw from this source, in order; each has ``micro_batches``, of which
    ``own`` are this process's. What a draw returns depends on its number alone; the order only
    serves reading ahead, and if a draw other than the next is requested (a resumed run), reading
    restarts there.
    """

    def __init__(
        self,
        sources: Sources,
        spec: ClipSpec,
        clips: int,
        steps: Sequence[int],
        micro_batches: int = 1,
        own: range | None = None,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batches = _MicroBatches(sources, spec, clips)
        self.steps, self.micro_batches = steps, micro_batches
        self.own = range(micro_batches) if own is None else own
        self.workers, self.device = workers, device
        self._ahead: Iterator[tuple[int, Clips | DLoRALError]] = iter(())

    def draw(self, draw: Draw) -> Clips:
        wanted = draw.step * self.micro_batches + draw.micro
        number, found = next(self._ahead, (None, None))
        if number != wanted:
            self._ahead = self._read_ahead(wanted)
            number, found = next(self._ahead, (None, None))
            assert number == wanted, f"micro-batch {wanted} is not one of this source's steps"
        if isinstance(found, DLoRALError):
            raise found
        assert found is not None
        return enlarged(found, self.device)

    def _read_ahead(self, first: int) -> Iterator[tuple[int, Clips | DLoRALError]]:
        numbers = [step * self.micro_batches + micro for step in self.steps for micro in self.own]
        numbers = [number for number in numbers if number >= first]
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_start_worker,
            # Not forked: a fork of a process whose libraries run threads waits for them forever.
            multiprocessing_context="spawn" if self.workers else None,
        )
        return zip(numbers, loader, strict=True)


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    """The workers are the parallelism, and a Ctrl-C is for the main process to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
