"""Hints: a decoder's blocks learn a teacher's layers, not just its output.

The final output alone teaches a deep decoder's first blocks little. Here each block's output is
matched to the teacher's layer at the same relative depth (FitNets, Romero et al., 2015). Both work
at the small frames' size, with the same number of channels; each layer is divided by its standard
deviation, so that none dominates.

Until the first blocks match, the later ones see inputs unlike any that the teacher's layers had. So
each block can also be fed the teacher's preceding layer, and all learn separately, in parallel.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from dloral.errors import OptionError
from dloral.models.srvgg import SRVGG
from dloral.models.vae import CompactVAE, PlainBlock, RectifiedBlock


class Hints:
    """The distance of a compact decoder's blocks from a teacher's layers.

    Raises :class:`OptionError` for another kind of decoder or teacher, or if widths differ.
    """

    def __init__(self, vae: nn.Module, teacher: nn.Module | None) -> None:
        if not isinstance(vae, CompactVAE) or not isinstance(teacher, SRVGG):
            raise OptionError(
                "the loss 'hints' needs a compact decoder and a teacher",
                remedy="set teacher to the path of realesr-general-x4v3, or use other losses",
            )
        layers = [layer for layer in teacher.body if isinstance(layer, nn.PReLU)]
        blocks: list[nn.Module] = [
            block for block in vae.decoder if isinstance(block, PlainBlock | RectifiedBlock)
        ]
        if layers[0].num_parameters != vae.config.width or not blocks:
            raise OptionError(
                f"the teacher's layers have {layers[0].num_parameters} channels, but the decoder's "
                f"{len(blocks)} blocks have {vae.config.width}",
                remedy="use blocks of the teacher's width, or losses other than 'hints'",
            )
        after = [*vae.decoder, vae.finish]
        following = after[after.index(blocks[-1]) + 1]
        if vae.config.rectified:  # the first layer is what enters the blocks
            blocks = [vae.enter, *blocks]
        fed = [*blocks[1:], following]
        depths = _depths(len(blocks), len(layers), vae.config.rectified)
        self._blocks, self._fed = blocks, fed
        self._layers = [layers[depth] for depth in depths]
        with torch.no_grad(), self._keeping(self._layers) as told:
            teacher(_pink_frames().to(next(teacher.parameters())))
            spreads = torch.stack([layer.var(dim=(0, 2, 3)).mean().sqrt() for layer in told])
        self.spreads: list[float] = spreads.tolist()
        self._seen: list[Tensor] = []
        self._told: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the outputs of blocks and layers within the context, for :meth:`loss`."""
        with self._keeping(self._blocks, self._seen), self._keeping(self._layers, self._told):
            yield

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the context, feed the teacher's layers to all blocks after the first and to what
        follows the last. The teacher must have been watched before, on the same frames."""
        told = [layer / spread for layer, spread in zip(self._told, self.spreads, strict=True)]

        def fed(index: int) -> object:
            return lambda _, inputs: (told[index], *inputs[1:])

        with ExitStack() as stack:
            for index, module in enumerate(self._fed):
                handle = module.register_forward_pre_hook(fed(index))
                stack.callback(handle.remove)
            yield

    def loss(self) -> Tensor:
        """The mean squared distance (N,) between normalised layers; 0 if the teacher's frames have
        another size. Drops what was recorded."""
        seen, told = list(self._seen), list(self._told)
        self.forget()
        if seen[0].shape[-2:] != told[0].shape[-2:]:
            return seen[0].new_zeros(len(seen[0]))
        parts = [
            (block - layer / spread).square().mean(dim=(1, 2, 3))
            for block, layer, spread in zip(seen, told, self.spreads, strict=True)
        ]
        return torch.stack(parts).mean(dim=0)

    def forget(self) -> None:
        """Drop what was recorded."""
        self._seen.clear()
        self._told.clear()

    @contextmanager
    def _keeping(
        self, modules: Sequence[nn.Module], kept: list[Tensor] | None = None
    ) -> Iterator[list[Tensor]]:
        """A list that collects the outputs of ``modules``."""
        outputs = [] if kept is None else kept
        with ExitStack() as stack:
            for module in modules:
                handle = module.register_forward_hook(lambda _, __, one: outputs.append(one))
                stack.callback(handle.remove)
            yield outputs


def _depths(blocks: int, layers: int, from_first: bool) -> list[int]:
    """The layer that each block is matched to: the last block to the last layer, the others evenly
    spaced, starting from the first layer or one interval in."""
    if from_first:
        return [round(n * (layers - 1) / max(1, blocks - 1)) for n in range(blocks)]
    return [round((n + 1) * layers / blocks) - 1 for n in range(blocks)]


def _pink_frames(count: int = 8, side: int = 64) -> Tensor:
    """(N,3,S,S) in [0, 1]: noise with the spectral fall-off of photographs, always the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 3, side, side, generator=generator)
    grey = 3**0.5 * noise.mean(dim=1, keepdim=True)
    spectrum = torch.fft.rfft2(0.3 * noise + 0.95 * grey)
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
    frequency = (rows.square() + columns.square()).sqrt().clamp_min(1 / side)
    frames = torch.fft.irfft2(spectrum / frequency, s=(side, side))
    frames = frames - frames.mean(dim=(1, 2, 3), keepdim=True)
    return (0.5 + 0.15 * frames / frames.std(dim=(1, 2, 3), keepdim=True)).clamp(0, 1)
