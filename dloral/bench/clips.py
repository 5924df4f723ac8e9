"""A clip to restore from file to file: drawn here, so that any size can be had."""

from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from dloral.frames.clips import as_bytes
from dloral.video.probe import ClipInfo, probe
from dloral.video.writer import open_writer

RATE = 24
BLOB = 8  # pixels between the random colours that pictures are interpolated from
GRAIN = 0.02


def write_clip(folder: Path, height: int, width: int, frames: int) -> ClipInfo:
    """``frames`` frames of ``height`` x ``width`` in H.264: blobs that move, and grain, so that
    codecs have about as much to do as with filmed pictures."""
    draw = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, height // BLOB + 2, (width + frames) // BLOB + 2, generator=draw)
    ground = F.interpolate(small, (height, width + frames), mode="bicubic")[0].clamp(0, 1)
    still = folder / "first.png"  # tells the writer what kind of clip it is
    Image.fromarray(as_bytes(ground[:, :, :width])).save(still)
    target = folder / "clip.mp4"
    writing = open_writer(target, width=width, height=height, source=probe(still))
    with writing as writer:
        for index in range(frames):
            grain = GRAIN * torch.randn(3, height, width, generator=draw)
            shown = ground[:, :, index : index + width] + grain
            writer.write(shown.clamp(0, 1), Fraction(index, RATE), Fraction(1, RATE))
    return probe(target)
