"""Hints: a decoder's blocks learn what a teacher's layers see, not its answer alone.

An answer tells a deep decoder little about its first blocks. Here each block's output, through a
1x1 convolution that is thrown away afterwards, is held to one layer of the teacher, as deep in it
as the block is in the decoder (FitNets, Romero et al., 2015). Both work at the small frames' size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dloral.errors import OptionError
from dloral.models.srvgg import SRVGG
from dloral.models.vae import CompactVAE, PlainBlock


class Hints(nn.Module):
    """The distance of a compact decoder's blocks from a teacher's layers.

    Raises :class:`OptionError` for another kind of decoder or teacher.
    """

    def __init__(self, vae: nn.Module, teacher: nn.Module | None) -> None:
        super().__init__()
        if not isinstance(vae, CompactVAE) or not isinstance(teacher, SRVGG):
            raise OptionError(
                "the loss 'hints' needs a compact decoder and a teacher",
                remedy="give the file of realesr-general-x4v3 as teacher, or weigh other losses",
            )
        layers = [layer for layer in teacher.body if isinstance(layer, nn.PReLU)]
        blocks = [block for block in vae.decoder if isinstance(block, PlainBlock)]
        depths = [round((n + 1) * len(layers) / len(blocks)) - 1 for n in range(len(blocks))]
        # In plain lists, for they are no parts of this module.
        self._blocks: list[nn.Module] = [*blocks]
        self._layers: list[nn.Module] = [layers[depth] for depth in depths]
        inner, outer = blocks[0].conv2.out_channels, layers[0].num_parameters
        self.projections = nn.ModuleList(nn.Conv2d(inner, outer, 1) for _ in blocks)
        self._seen: list[Tensor] = []
        self._told: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What blocks and layers compute inside is what :meth:`loss` compares."""
        handles = [
            module.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
            for modules, kept in ((self._blocks, self._seen), (self._layers, self._told))
            for module in modules
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def loss(self) -> Tensor:
        """The mean squared distance (N,), each layer's in parts of its variance; 0 where the
        teacher's frames have another size. What was watched is forgotten."""
        seen, told = list(self._seen), list(self._told)
        self.forget()
        if seen[0].shape[-2:] != told[0].shape[-2:]:
            return seen[0].new_zeros(len(seen[0]))
        parts = [
            (projection(block) - layer).square().mean(dim=(1, 2, 3)) / layer.var()
            for projection, block, layer in zip(self.projections, seen, told, strict=True)
        ]
        return torch.stack(parts).mean(dim=0)

    def forget(self) -> None:
        """Let go of what was watched."""
        self._seen.clear()
        self._told.clear()
