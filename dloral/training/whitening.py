"""Convolutions that learn in coordinates in which their inputs are uncorrelated.

Neighbouring pixels and channels that say nearly the same make a convolution's weights learn at very
different rates: Adam, which scales weight by weight, cannot see it. Written as W = V M, with M the
inverse root of the covariance of the patches that the convolution sees, V learns as fast in every
direction, and with the bias at their mean, c - W m, both learn apart (the input's half of K-FAC,
Martens and Grosse, 2015, as a change of coordinates; our decision). What the network computes is
the same; M and m stay as they were found.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

DAMPING = 1e-3
"""Of the mean variance, added to each, for convolutions that follow others: what those do not do
well yet is as strong, in every direction. Less of it and the network bursts."""

FIRST_DAMPING = 1e-4
"""The same for the first convolution: what it sees does not depend on what is learnt."""


class Moments:
    """Mean and covariance of the patches that convolutions see while it watches."""

    def __init__(self, convolutions: Iterable[nn.Conv2d]) -> None:
        self.convolutions = list(convolutions)
        self._sums: list[Tensor | None] = [None] * len(self.convolutions)
        self._means: list[Tensor | None] = [None] * len(self.convolutions)
        self._counts = [0] * len(self.convolutions)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What the convolutions are given inside is counted."""
        handles = [
            # Afterwards: what hooks before it put in the place of its input counts.
            convolution.register_forward_hook(self._counting(index))
            for index, convolution in enumerate(self.convolutions)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _counting(self, index: int) -> Callable[[nn.Conv2d, tuple[Tensor, ...], Tensor], None]:
        def count(convolution: nn.Conv2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            assert not isinstance(convolution.padding, str)
            with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
                patches = F.unfold(
                    inputs[0].float(), convolution.kernel_size, padding=convolution.padding
                )
                flat = patches.transpose(1, 2).flatten(0, 1)
                for sums, found in ((self._sums, flat.T @ flat), (self._means, flat.sum(dim=0))):
                    before = sums[index]
                    sums[index] = found if before is None else before + found
                self._counts[index] += len(flat)

        return count

    def whiten(self) -> None:
        """From now on the convolutions' weights and biases are learnt in those coordinates."""
        damping = [FIRST_DAMPING] + [DAMPING] * len(self.convolutions)
        for convolution, found, total, count, share in zip(
            self.convolutions, self._sums, self._means, self._counts, damping, strict=False
        ):
            assert found is not None, "a convolution has seen nothing"
            assert total is not None
            mean = total.double() / count
            strengths, directions = torch.linalg.eigh(found.double() / count - mean.outer(mean))
            strengths = strengths.clamp_min(0) + share * strengths.mean()
            root, inverse = (
                (directions * strengths**power @ directions.T).to(found.dtype)
                for power in (0.5, -0.5)
            )
            whitened = _Whitened(root, inverse)
            parametrize.register_parametrization(convolution, "weight", whitened, unsafe=True)
            if convolution.bias is not None:
                centred = _Centred(convolution, mean.to(found.dtype))
                parametrize.register_parametrization(convolution, "bias", centred, unsafe=True)

    def restore(self) -> None:
        """Plain weights again, the same network."""
        for convolution in self.convolutions:
            if parametrize.is_parametrized(convolution, "bias"):  # first: it looks at the weight
                parametrize.remove_parametrizations(convolution, "bias")
            parametrize.remove_parametrizations(convolution, "weight")


class _Whitened(nn.Module):
    """V (D,C,k,k) -> W = V M, the same shape."""

    root: Tensor
    inverse: Tensor

    def __init__(self, root: Tensor, inverse: Tensor) -> None:
        super().__init__()
        self.register_buffer("root", root, persistent=False)
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, learned: Tensor) -> Tensor:
        return _times(learned, self.inverse)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return _times(weight, self.root)


class _Centred(nn.Module):
    """What the convolution gives at the mean patch (D,) -> its bias, the same shape."""

    mean: Tensor

    def __init__(self, convolution: nn.Conv2d, mean: Tensor) -> None:
        super().__init__()
        self._convolution = [convolution]  # in a list: it is no part of this
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, learned: Tensor) -> Tensor:
        return learned - self._given()

    def right_inverse(self, bias: Tensor) -> Tensor:
        return bias + self._given()

    def _given(self) -> Tensor:
        with torch.autocast(self.mean.device.type, enabled=False):
            return self._convolution[0].weight.flatten(1) @ self.mean


def _times(weight: Tensor, matrix: Tensor) -> Tensor:
    with torch.autocast(weight.device.type, enabled=False):
        product = (weight.flatten(1) @ matrix).view(weight.shape)
    return product.contiguous(memory_format=torch.channels_last)
