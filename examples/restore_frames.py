"""Restore a few frames in memory at several scales of the two LoRAs; write one picture of them.

python examples/restore_frames.py examples/city.mp4 scales.png
"""

import sys
from itertools import islice

import torch
from PIL import Image

from dloral import load_pipeline
from dloral.frames.resize import resize_bicubic
from dloral.video.reader import read_frames

source, target = sys.argv[1:]
with read_frames(source) as frames:
    small = torch.stack([frame.pixels for frame in islice(frames, 3)])  # (3, 3, H, W) in [0, 1]
lq_frames = resize_bicubic(small, 4 * small.shape[-2], 4 * small.shape[-1])

pipe = load_pipeline("compact")
rows = [
    torch.cat([pipe(lq_frames, consistency=c, detail=d).frames[-1] for d in (0.0, 1.0, 1.5)], dim=2)
    for c in (0.0, 1.0)
]
picture = (255 * torch.cat(rows, dim=1).permute(1, 2, 0)).round().byte().numpy()
Image.fromarray(picture).save(target)
