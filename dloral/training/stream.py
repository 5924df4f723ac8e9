"""Clips for Algorithm 1, micro-batch by micro-batch: from packs, or drawn as they are needed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dloral.training.packs import ClipBatch, Pack
from dloral.training.trainer import Draw


@dataclass(frozen=True)
class PackClips:
    """Random clips of a pack, ``clips`` a micro-batch, ``crop`` pixels a side, on ``device``."""

    pack: Pack
    clips: int
    crop: int
    device: torch.device | str = "cpu"

    def draw(self, draw: Draw) -> ClipBatch:
        batch = self.pack.draw_clips(draw.rng, self.clips, self.crop)
        return ClipBatch(*(part.to(self.device) for part in _parts(batch)))


def _parts(batch: ClipBatch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.hq_frames, batch.lq_frames, batch.flow
