"""SOAP: Adam in coordinates in which a weight's gradients are uncorrelated.

A convolution's inputs are correlated (neighbours, nearly redundant channels), and so are its output
gradients; Adam, which scales weight by weight, sees neither. SOAP (Vyas et al., 2024,
arXiv:2409.11321, algorithm 3) keeps running second moments of the gradient's rows and columns,
rotates the gradient into their eigenbasis, and takes Adam's step there.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

REFRESH_EVERY = 30
"""Steps between refinements of a weight's eigenvectors. At 30 the optimizer takes a seventh of a
step's time (a decoder of 33 convolutions of 64 channels, two AMX cores)."""

MOMENT_DECAY = 0.98
"""Decay of the rows' and columns' second moments, per step."""

SIDES = ("rows", "columns")
LONGEST = 640
"""Longer sides of a matrix are not rotated: their eigenvectors would take longer than a step."""


class SOAP(torch.optim.Optimizer):
    """``torch.optim.AdamW``, but in rotated coordinates for weights of two or more dimensions; a
    weight (D,C,k,k) is treated as a matrix (D,C*k*k). Other weights get AdamW's step.

    A matrix's first gradient only sets its coordinates; the second step is the first to move it, so
    that no step is taken in coordinates fitted to a single gradient.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step for every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad.float()  # type: ignore[union-attr]
        if parameter.ndim > 1:
            gradient = gradient.flatten(1)
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if gradient.ndim > 1:
                _start(state, gradient)
                return
        state["step"] += 1
        rotated = _into(state, gradient)
        first, second = group["betas"]
        state["mean"].lerp_(rotated, 1 - first)
        state["square"].lerp_(rotated.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        change = _back(state, mean / (square.sqrt() + group["eps"]))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(change.view(parameter.shape), alpha=-group["lr"])
        if parameter.ndim > 1:
            _follow(state, gradient)


def _start(state: dict[str, Any], gradient: Tensor) -> None:
    for side, size in zip(SIDES, gradient.shape, strict=True):
        if size <= LONGEST:
            moments = _moments(side, gradient)
            # Strongest first, the order that refinement preserves.
            basis = torch.linalg.eigh(moments)[1].flip(-1).contiguous()
            state[side], state[f"{side}_basis"] = moments, basis


def _moments(side: str, gradient: Tensor) -> Tensor:
    return gradient @ gradient.T if side == "rows" else gradient.T @ gradient


def _into(state: dict[str, Any], gradient: Tensor) -> Tensor:
    if "rows_basis" in state:
        gradient = state["rows_basis"].T @ gradient
    return gradient @ state["columns_basis"] if "columns_basis" in state else gradient


def _back(state: dict[str, Any], rotated: Tensor) -> Tensor:
    if "rows_basis" in state:
        rotated = state["rows_basis"] @ rotated
    return rotated @ state["columns_basis"].T if "columns_basis" in state else rotated


def _follow(state: dict[str, Any], gradient: Tensor) -> None:
    """Update the moments; periodically, refine their eigenvectors by one power iteration."""
    sides = [side for side in SIDES if side in state]
    for side in sides:
        state[side].lerp_(_moments(side, gradient), 1 - MOMENT_DECAY)
    if state["step"] % REFRESH_EVERY:
        return
    mean = _back(state, state["mean"])
    for side in sides:
        state[f"{side}_basis"] = torch.linalg.qr(state[side] @ state[f"{side}_basis"])[0]
    state["mean"] = _into(state, mean)
