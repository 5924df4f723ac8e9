"""How the live recipe updates a set of weights."""

import numpy as np
import torch
from torch import nn


class Phase:
    """One AdamW over some parameters with a warm-up, a cosine to 0, gradient clipping and EMA."""

    def __init__(
        self, parameters: list[nn.Parameter], rate: float, steps: int, ema: float = 0.999
    ) -> None:
        self.parameters, self.rate, self.steps, self.ema, self.step = (
            parameters,
            rate,
            steps,
            ema,
            0,
        )
        fused = parameters[0].device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=fused
        )
        self.average = [p.detach().clone() for p in parameters]

    def update(self) -> None:
        """After backward."""
        done = self.step / max(self.steps, 1)
        warm = min(1.0, (self.step + 1) / max(1, min(200, self.steps // 10)))
        rate = self.rate * warm * 0.5 * (1 + np.cos(np.pi * min(done, 1)))
        for group in self.optimizer.param_groups:
            group["lr"] = max(rate, 1e-7)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        factor = min(self.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - factor)

    @torch.no_grad()
    def load_ema(self) -> None:
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.copy_(average)
