"""The compact VAE: frames to latents at 1/8 of their size, latents to what bicubic lacks.

Legend: B batch, H x W frame size (multiples of 8), C latent channels.

It plays the part of SD's AutoencoderKL in the full model, with the same interface. It is built for
two CPU cores: pixel-unshuffle ends keep all convolutions at 1/4 and 1/8 of the frame's size
(our decision; a full-resolution convolution costs more than the whole network at 1/4).
"""

import os
from collections import OrderedDict
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from dloral.models.lora_conv import TwoLoRAConv, two_lora_convs
from dloral.models.prelu import PReLU
from dloral.models.shuffling import Unshuffle, means_of_cells, shuffled, unshuffled

PATCH = 4  # pixels a side that pixel-unshuffle folds into channels
HELD_EVERY = 4  # features of every fourth rectified block are clamped to the reach
FOLD = 2  # places a side, of the frame at 1/4, that a latent cell holds
PICTURE = 3 * FOLD**2  # channels of a latent cell that hold the small picture


class PlainBlock(nn.Module):
    """Two 3x3 convolutions around a SiLU, added to their input; no normalisation.

    Normalisation would tie every pixel to the statistics of its tile.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():  # a block starts as no change
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(x)))


class RectifiedBlock(nn.Module):
    """Two 3x3 convolutions, each followed by a PReLU, and nothing added: (B,C,H,W) -> (B,C,H,W).

    Like two layers of Real-ESRGAN's small networks, so that it can learn to do what they do; a
    block that ends in an addition cannot, as it would have to undo its input (our decision). With a
    ``reach``, its output is limited to that magnitude.
    """

    def __init__(self, channels: int, reach: float = 0.0) -> None:
        super().__init__()
        self.reach = reach
        self.conv1 = TwoLoRAConv(channels, channels, 3, padding=1)
        self.act1 = PReLU(channels)
        self.conv2 = TwoLoRAConv(channels, channels, 3, padding=1)
        self.act2 = PReLU(channels)
        for conv in (self.conv1, self.conv2):  # features stay as strong as they come
            nn.init.kaiming_normal_(conv.weight, a=0.25, mode="fan_in")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.act2(self.conv2(self.act1(self.conv1(x))))
        return features.clamp(-self.reach, self.reach) if self.reach else features


class DoublingConv(nn.Conv2d):
    """A 3x3 convolution of its input enlarged by 2 (nearest): (B,C,H,W) -> (B,D,2H,2W).

    Each pixel of a 2x2 square sees the input through its own sums of the kernel's columns and
    rows, so one convolution at the input's size and a shuffle give the same without the enlarged
    copy (our decision; measured in benchmarks/speed.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        # Of three neighbours at twice the size, the first pixel of a square sees (left, own, own),
        # the second (own, own, right).
        sums = self.weight.new_tensor(
            [[[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]]
        )
        weight = torch.einsum("dcij,aki,blj->dabckl", self.weight, sums, sums).flatten(0, 2)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, weight, bias, padding=1), 2)


class DirectHead(nn.Module):
    """Features (B,W,H/4,W/4) and the folded bicubic frame -> the difference to it (B,3,H,W).

    One convolution and a shuffle by 4, as at the end of Real-ESRGAN's small networks; nothing
    between the blocks and the pixels can blur a line (our decision). It also sees each cell's mean
    colour, so blocks need not carry it. ``change`` (B,48,H/4,W/4), folded, is added to the output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = TwoLoRAConv(width + 3, 3 * PATCH**2, 3, padding=1)

    def forward(self, features: Tensor, folded: Tensor, change: Tensor | None = None) -> Tensor:
        answer: Tensor = self.conv(torch.cat([features, means_of_cells(folded)], dim=1))
        return shuffled(answer if change is None else answer + change, PATCH)


class CompactVAE(ModelMixin, ConfigMixin):
    """Encoder (B,3,H,W) in [-1,1] -> (B,C,H/8,W/8); decoder back to (B,3,H,W).

    The decoder's output is the difference to the bicubic frame: the pipeline that holds this VAE
    has ``decoder_adds_input`` set and adds it (without that, training starts far below bicubic).

    ``decoder_sees_input``: the decoder is also handed the bicubic frame, folded to 1/4 size, so
    that latents need not carry what the input shows anyway. ``upsample``: the last enlargement is
    shuffle by 2, convolution, nearest by 2, convolution instead of one shuffle by 4: it computes
    less, and was meant to draw no grid (both our decision), but a model with it does draw one, of
    4 pixels (its card has the figure).
    ``direct_head``: a :class:`DirectHead` instead of either; it needs the bicubic frame.
    ``rectified``: the decoder's blocks are :class:`RectifiedBlock`, with a PReLU before the first,
    and beyond its border the frame is black, as for Real-ESRGAN's networks: any other border would
    affect as many pixels inwards as there are layers. Their first layer also sees the small picture
    if there is one. Needs ``direct_head``. ``reach``: every fourth block's features are clamped to
    it, so that no picture makes them grow from block to block; 0 for none (our decision:
    docs/decisions.md, "What a decoder draws has a reach").

    ``small_picture``: the last ``PICTURE`` of the latent channels hold the frame itself at 1/4 of
    its size. What changes them on the way (a steadier predecessor, the UNet) changes the frame that
    the decoder sees and adds to (our decision: docs/decisions.md, "Latents hold a small picture").

    ``head_rank``, ``block_rank``: of C-LoRA's and D-LoRA's parts on the direct head's convolution,
    and on those of rectified blocks; 0 without them (our decision: docs/decisions.md, "Both LoRAs
    reach all of the decoder").
    """

    latent_stride = 2 * PATCH
    """Pixels a side of a latent cell: two pixel-unshuffles, of ``PATCH`` and of 2."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        width: int = 64,
        encoder_blocks: int = 2,
        decoder_blocks: int = 4,
        finish_channels: int = 8,
        scaling_factor: float = 1.0,
        decoder_sees_input: bool = False,
        upsample: bool = False,
        direct_head: bool = False,
        small_picture: bool = False,
        rectified: bool = False,
        head_rank: int = 0,
        reach: float = 0.0,
        block_rank: int = 0,
    ) -> None:
        super().__init__()
        latent_channels -= PICTURE if small_picture else 0
        wrong = {
            "a small picture needs decoder_sees_input": small_picture and not decoder_sees_input,
            "a direct head needs decoder_sees_input, and is no upsample": direct_head
            and (upsample or not decoder_sees_input),
            "rectified blocks need direct_head": rectified and not direct_head,
            "a reach needs rectified blocks": reach and not rectified,
        }
        if message := next((message for message, found in wrong.items() if found), None):
            raise ValueError(message)
        self.encoder = nn.Sequential(
            Unshuffle(PATCH),
            nn.Conv2d(3 * PATCH**2, width, 3, padding=1),
            *(PlainBlock(width) for _ in range(encoder_blocks)),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * width, latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            *_blocks(width, decoder_blocks, rectified, reach),
        )
        if decoder_sees_input:
            self.join = nn.Conv2d(3 * PATCH**2, width, 3, padding=1)
        if rectified and small_picture:
            self.look = nn.Conv2d(3, width, 3, padding=1)
        self.enter = PReLU(width) if rectified else nn.Identity()
        last: nn.Conv2d
        if direct_head:
            self.finish: nn.Module = DirectHead(width)
            last = self.finish.conv
        else:
            shuffle = 2 if upsample else PATCH
            shuffled = nn.Conv2d(width, finish_channels * shuffle**2, 3, padding=1)
            _start_without_grid(shuffled, shuffle)
            self.decoder.extend([nn.SiLU(), shuffled, nn.PixelShuffle(shuffle)])
            self.finish, last = _finish(finish_channels, upsample)
        with torch.no_grad():
            for parameter in last.parameters():  # start near bicubic
                parameter.mul_(0.1)
        if head_rank or block_rank:
            self.add_adapters(head_rank, block_rank)

    def add_adapters(self, head_rank: int, block_rank: int = 0) -> None:
        """Both LoRAs on the decoder's last convolution and on those of its blocks, where the rank
        is not 0; at first they change nothing. ValueError for a decoder without a direct head, or
        without rectified blocks."""
        if head_rank and not isinstance(self.finish, DirectHead):
            raise ValueError("LoRAs on the decoder's last convolution need direct_head")
        if block_rank and not self.config.rectified:
            raise ValueError("LoRAs on the decoder's blocks need rectified blocks")
        if head_rank:
            assert isinstance(self.finish, DirectHead)
            self.finish.conv.add_adapters(head_rank)
        if block_rank:
            for block in self.decoder:
                if isinstance(block, RectifiedBlock):
                    block.conv1.add_adapters(block_rank)
                    block.conv2.add_adapters(block_rank)
        ranks = {"head_rank": head_rank, "block_rank": block_rank}
        self.register_to_config(**{name: rank for name, rank in ranks.items() if rank})

    def set_scales(self, *, consistency: float, detail: float) -> None:
        """Set how much of each LoRA the decoder uses from now on; no effect without them."""
        for conv in two_lora_convs(self):
            conv.set_scales(consistency=consistency, detail=detail)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """With the LoRAs at 1, wherever the dials stand."""
        stood = [conv.scales.clone() for conv in two_lora_convs(self)]
        self.set_scales(consistency=1.0, detail=1.0)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            for conv, scales in zip(two_lora_convs(self), stood, strict=True):
                conv.scales.copy_(scales)

    # The two hooks: CPU offloading otherwise moves a module for its forward() alone.
    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[Tensor]:
        """(B,3,H,W) in [-1,1] -> (B,C,H/8,W/8), not yet scaled by ``scaling_factor``."""
        latent = self.encoder(x)
        if self.config.small_picture:
            latent = torch.cat([latent, F.pixel_unshuffle(_at_quarter_size(x), FOLD)], dim=1)
        return EncoderOutput(latent=latent) if return_dict else (latent,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, lq_frames: Tensor | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """(B,C,h,w), no longer scaled -> (B,3,8h,8w), the difference to the bicubic frame.

        ``lq_frames`` (B,3,8h,8w) in [-1,1] is that frame, for a decoder that sees it.
        """
        if not self.config.decoder_sees_input:
            sample = self.finish(self.decoder(z))
        else:
            assert lq_frames is not None, "this decoder sees the bicubic frame"
            sample = self._decode_seeing(z, lq_frames.to(z.dtype))
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _decode_seeing(self, z: Tensor, lq_frames: Tensor) -> Tensor:
        change: Tensor | None = None
        picture: Tensor | None = None
        folded = unshuffled(lq_frames, PATCH)
        if self.config.small_picture:
            change = _enlarged_folded(self.picture_change(z, lq_frames))
            z, picture = z[:, :-PICTURE], self.picture(z)
            folded = folded + change
        seen = (folded + 1) / 2 if self.config.rectified else folded
        first = self.decoder[:2](z) + self.join(seen)
        if self.config.rectified and picture is not None:
            first = first + self.look((picture + 1) / 2)
        features = self.decoder[2:](self.enter(first))
        sample: Tensor
        if self.config.direct_head:
            sample = self.finish(features, folded, change)
            return sample
        sample = self.finish(features)
        return sample if change is None else sample + shuffled(change, PATCH)

    def picture(self, z: Tensor) -> Tensor:
        """The small picture (B,3,H/4,W/4) in [-1,1] that latents (B,C,h,w) hold."""
        return F.pixel_shuffle(z[:, -PICTURE:], FOLD)

    def picture_change(self, z: Tensor, lq_frames: Tensor) -> Tensor:
        """What latents (B,C,h,w) with a small picture change of the frames' (B,3,H,W) own:
        (B,3,H/4,W/4), both in [-1,1]."""
        return self.picture(z) - _at_quarter_size(lq_frames)

    def silent_latents(self, lq_frames: Tensor) -> Tensor:
        """Latents (B,C,h,w) that tell the decoder nothing of frames (B,3,H,W) in [-1,1]."""
        batch, _, height, width = lq_frames.shape
        cells = (height // self.latent_stride, width // self.latent_stride)
        silent = lq_frames.new_zeros(batch, self.config.latent_channels, *cells)
        if self.config.small_picture:
            silent[:, -PICTURE:] = F.pixel_unshuffle(_at_quarter_size(lq_frames), FOLD)
        return silent

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)[0], return_dict=False, lq_frames=x)[0]


def _blocks(width: int, count: int, rectified: bool, reach: float) -> list[nn.Module]:
    """A decoder's blocks; every fourth rectified one has the reach."""
    if not rectified:
        return [PlainBlock(width) for _ in range(count)]
    every = range(1, count + 1)
    return [RectifiedBlock(width, 0.0 if place % HELD_EVERY else reach) for place in every]


def _at_quarter_size(frames: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,3,H/4,W/4): the mean of the middle of each square of 4 x 4.

    For a frame that was enlarged four times this is nearly the original; for one that was enlarged
    twice, the mean of four of its pixels.
    """
    return F.avg_pool2d(frames[..., 1:, 1:], 2, stride=PATCH)


def _enlarged_folded(small: Tensor) -> Tensor:
    """Bicubic enlargement by ``PATCH`` (a = -0.75, as torch's), folded: (B,3,h,w) -> (B,48,h,w).

    One convolution: torch's own enlargement took a CPU 7.7 ms for a 512 x 512 frame in bfloat16,
    before folding.
    """
    kernel = _enlarging_kernel(small.dtype, small.device)
    return F.conv2d(F.pad(small, (2,) * 4, mode="replicate"), kernel)


@lru_cache
def _enlarging_kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(48,3,5,5): what each place of an enlarged cell takes from the 5 x 5 pixels around it."""
    with torch.inference_mode(False), torch.no_grad():
        impulse = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
        impulse[..., 2, 2] = 1
        answer = F.interpolate(impulse, scale_factor=PATCH, mode="bicubic", align_corners=False)
        cells = answer.view(5, PATCH, 5, PATCH).flip(0, 2)
        each = cells.permute(1, 3, 0, 2).flatten(0, 1)
        return (
            torch.einsum("cd,pkl->cpdkl", torch.eye(3), each.float())
            .flatten(0, 1)
            .to(device, dtype)
        )


def _finish(channels: int, upsample: bool) -> tuple[nn.Module, nn.Conv2d]:
    """What follows the shuffle, and its last convolution.

    Convolutions across the shuffled pixels: they join neighbours that came from different channels,
    where a bare pixel-shuffle leaves a dot grid.
    """
    if not upsample:
        last = nn.Conv2d(channels, 3, 5, padding=2)
        return last, last
    last = DoublingConv(channels, 3, 3, padding=1)
    inner = nn.Conv2d(channels, channels, 3, padding=1)
    # The number 3 was the enlargement's, which takes no weights.
    layers = {"0": nn.SiLU(), "1": inner, "2": nn.SiLU(), "4": last}
    return nn.Sequential(OrderedDict(layers)), last


def _start_without_grid(conv: nn.Conv2d, factor: int) -> None:
    """ICNR (Aitken et al., 2017): before training, pixel-shuffle acts as nearest enlargement."""
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter[:: factor**2].repeat_interleave(factor**2, dim=0))
