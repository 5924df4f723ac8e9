"""Held-out figures and sample grids of Algorithm 1 during training."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dloral.data.clips import Clips
from dloral.data.packs import psnr
from dloral.training.objective import Restored
from dloral.training.phases.algorithm1 import Algorithm1Task

DUAL_SETTINGS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
ONE_SPACE_SETTINGS = ((0.0, 0.0), (1.0, 0.0))
"""(consistency, detail) settings that are evaluated; with a single LoRA there is no third."""

MOST_SHOWN = 4  # clips in a sample grid
CAPTION = 14  # pixels


class Preview:
    """Held-out clips, kept in memory."""

    def __init__(self, task: Algorithm1Task, clips: Clips) -> None:
        self.task, self.clips = task, clips
        dual = task.config.strategy == "dual"
        self.settings = DUAL_SETTINGS if dual else ONE_SPACE_SETTINGS
        if task.config.branches == "D-only":
            self.settings = ((0.0, 0.0), (0.0, 1.0))

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """PSNR gain over bicubic in dB, and temporal difference from the truth, by (c, d)."""
        motion = "flow" if self.clips.flow is None else "temporal"
        figures = {}
        for consistency, detail in self.settings:
            restored = self._restore(consistency, detail)
            count = restored.frames.shape[1]
            hq_frames = restored.hq_frames.flatten(0, 1)
            bicubic = psnr(self.clips.lq_frames[:, -count:].flatten(0, 1), hq_frames)
            gain = psnr(restored.frames.flatten(0, 1), hq_frames) - bicubic
            label = f"{consistency:g}/{detail:g}"
            figures[f"psnr_gain {label}"] = gain.mean().item()
            if count > 1:
                figures[f"{motion} {label}"] = self.task.loss(motion, restored).mean().item()
        return figures

    @torch.no_grad()
    def picture(self) -> Tensor:
        """A captioned grid (3,H,W), one row per clip: the input, each setting, then the truth."""
        columns = {"input": self.clips.lq_frames[:MOST_SHOWN, -1]}
        for consistency, detail in self.settings[1:]:
            shown = self._restore(consistency, detail).frames[:MOST_SHOWN, -1]
            columns[f"c={consistency:g} d={detail:g}"] = shown
        columns["truth"] = self.clips.hq_frames[:MOST_SHOWN, -1]
        sheets = [
            torch.cat([_caption(name, column.shape[-1]), *column.float().cpu()], dim=1)
            for name, column in columns.items()
        ]
        return torch.cat(sheets, dim=2).clamp(0, 1)

    def _restore(self, consistency: float, detail: float) -> Restored:
        self.task.pipe.set_scales(consistency, detail, merge=False)
        return self.task.restore(self.clips)


def _caption(text: str, width: int) -> Tensor:
    """A line of text above a column: (3,CAPTION,width) in [0, 1]."""
    strip = Image.new("RGB", (width, CAPTION), "white")
    ImageDraw.Draw(strip).text((2, 1), text, "black")
    return torch.from_numpy(np.array(strip)).permute(2, 0, 1).float() / 255
