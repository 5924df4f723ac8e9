"""Enlargement alone, in the place of a model: ``--model bicubic``."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

BICUBIC = "bicubic"


class BicubicPipeline:
    """Takes frames that are enlarged already, as every pipeline does, and gives them back."""

    reads_prompts = False
    device = torch.device("cpu")
    folder = None

    def stream(self, frames: Iterable[Tensor], **_: Any) -> Iterator[Tensor]:
        """``frames``: (3,H,W) in [0, 1], one after another."""
        yield from frames
