"""A compact pipeline with fresh weights: its sizes and its initialisation."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dloral.errors import OptionError, WeightsError
from dloral.generator import FINISH
from dloral.models.building import building
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.unet import TwoLoRAUNet, plain_names, plain_state_dict
from dloral.models.vae import PICTURE, CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.weights.checkpoint_io import BROKEN, first_line
from dloral.weights.torch_folder import load_torch_pipeline

TAKEN_OVER = ("vae", "unet", "flow", "retrieval")
LATENTS_ENTER = "decoder.0.weight"
PHASE_FILE = "give the RUN/base.safetensors of an earlier run"
KEPT = ("all", "decoder")
"""Which of a model's LoRAs training can continue from."""

BLOCK = r"decoder\.\d+\.conv1\.weight"
"""By which a compact decoder's blocks are counted."""


@dataclass(frozen=True)
class CompactSizes:
    """Widths of the compact model (our decision; measured in docs/decisions.md).

    ``latent_channels``: the learned ones; a ``small_picture`` adds its own. ``head_rank``,
    ``block_rank``: of the LoRAs on the decoder's last convolution and on those of its rectified
    blocks, added with the UNet's. ``reach``: bound on the features of rectified blocks; 0: none.
    """

    latent_channels: int = 32
    vae_width: int = 64
    encoder_blocks: int = 3
    decoder_blocks: int = 6
    unet_channels: tuple[int, ...] = (128, 192)
    flow_levels: int = 5
    flow_channels: tuple[int, ...] = (24, 32, 24, 16)
    retrieval_heads: int = 2
    retrieval_head_dim: int = 32
    retrieval_reduction: int = 1
    finish_channels: int = 8
    decoder_sees_input: bool = False
    upsample: bool = False
    direct_head: bool = False
    small_picture: bool = False
    rectified: bool = False
    head_rank: int = 0
    block_rank: int = 0
    reach: float = 0.0


@building()
def build_pipeline(sizes: CompactSizes, seed: int = 0) -> DLoRALPipeline:
    """A compact pipeline with fresh weights and no LoRAs yet; initially close to bicubic.

    Raises :class:`OptionError` for a ``head_rank`` without ``direct_head``, and for a ``reach`` or
    a ``block_rank`` without ``rectified``.
    """
    _check(sizes)
    torch.manual_seed(seed)
    picture = PICTURE if sizes.small_picture else 0
    channels = sizes.latent_channels + picture
    unet = TwoLoRAUNet(
        in_channels=2 * channels,
        out_channels=channels,
        down_block_types=("DownBlock2D",) * len(sizes.unet_channels),
        up_block_types=("UpBlock2D",) * len(sizes.unet_channels),
        mid_block_type="UNetMidBlock2D",
        block_out_channels=sizes.unet_channels,
        layers_per_block=1,
        norm_num_groups=8,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    pipe = DLoRALPipeline(
        vae=CompactVAE(
            channels,
            sizes.vae_width,
            sizes.encoder_blocks,
            sizes.decoder_blocks,
            sizes.finish_channels,
            decoder_sees_input=sizes.decoder_sees_input,
            upsample=sizes.upsample,
            direct_head=sizes.direct_head,
            small_picture=sizes.small_picture,
            rectified=sizes.rectified,
            reach=sizes.reach,
        ),
        unet=unet,
        flow=SPyNet(sizes.flow_levels, sizes.flow_channels),
        retrieval=CrossFrameRetrieval(
            channels,
            sizes.retrieval_heads,
            sizes.retrieval_head_dim,
            temperature=None,
            key_reduction=sizes.retrieval_reduction,
            picture_channels=picture,
        ),
        decoder_adds_input=True,
        color_fix="none",
    )
    return pipe.channels_last()


def _check(sizes: CompactSizes) -> None:
    """Reject parts that the decoder has no place for."""
    if sizes.head_rank and not sizes.direct_head:
        raise OptionError(
            "LoRAs on the decoder's last convolution need a direct head",
            remedy="set sizes.head_rank=0 or sizes.direct_head=True",
        )
    if sizes.block_rank and not sizes.rectified:
        raise OptionError(
            "LoRAs on the decoder's blocks need rectified blocks",
            remedy="set sizes.block_rank=0 or sizes.rectified=True",
        )
    if sizes.reach and not sizes.rectified:
        raise OptionError(
            "a bound on features needs rectified blocks",
            remedy="set sizes.reach=0 or sizes.rectified=True",
        )


def take_over(pipe: DLoRALPipeline, model: str) -> None:
    """Copy a compact model's flow net into ``pipe``, plus whatever matches in name and shape from
    its VAE and UNet (without LoRAs) and retrieval gate. ``model``: a name or folder, or a phase's
    file from an earlier run (``RUN/base.safetensors``). Raises :class:`WeightsError` if the flow
    nets differ.

    A deeper decoder's extra blocks follow the model's own and initially change nothing. If the
    latents differ in size, the decoder starts without them.
    """
    taken = _parts_of_file(phase_file(model)) if is_phase_file(model) else _parts_of_model(model)
    taken["vae"] = _with_more_blocks(taken["vae"], pipe.vae.config.decoder_blocks)
    for part, had in taken.items():
        fresh = getattr(pipe, part).state_dict()
        same = {n: t for n, t in had.items() if n in fresh and t.shape == fresh[n].shape}
        if part == "retrieval":  # the rest of it starts as no change
            same = {name: tensor for name, tensor in same.items() if name.startswith("gate.")}
        if part == "flow" and same.keys() != fresh.keys():
            raise WeightsError(
                "the flow net of {value} has different sizes",
                remedy="give a compact model, or train without start",
                value=model,
            )
        getattr(pipe, part).load_state_dict(fresh | same)
        if part == "vae" and LATENTS_ENTER in had.keys() - same.keys():
            nn.init.zeros_(pipe.vae.get_parameter(LATENTS_ENTER))


def take_over_loras(pipe: DLoRALPipeline, model: str, kept: str = "all") -> None:
    """Copy the LoRAs of ``model`` (as in :func:`take_over`) into ``pipe``, which has LoRAs,
    plus its retrieval and, from a model folder, how it finishes frames; if ``kept`` is ``decoder``,
    only the decoder's part of the LoRAs.

    Raises :class:`WeightsError` if ``model`` has none or their sizes differ."""
    if is_phase_file(model):
        had = _read(phase_file(model))
    else:
        other = load_torch_pipeline(model, device="cpu", dtype="float32")
        if kept == "all":
            pipe.register_to_config(**{name: getattr(other, name) for name in FINISH})
        had = {
            f"{part}.{name}": tensor
            for part in TAKEN_OVER
            for name, tensor in getattr(other, part).state_dict().items()
        }
    for part in TAKEN_OVER:
        fresh: dict[str, Tensor] = getattr(pipe, part).state_dict()
        learnt = {name: had.get(f"{part}.{name}") for name in fresh if _learns(part, name, kept)}
        for name, tensor in learnt.items():
            if tensor is None or tensor.shape != fresh[name].shape:
                raise WeightsError(
                    "{value} has no LoRAs of these sizes: {name} differs",
                    remedy="use its sizes, or train without keep_loras",
                    value=model,
                    name=f"{part}.{name}",
                )
        getattr(pipe, part).load_state_dict(fresh | learnt)


def _learns(part: str, name: str, kept: str) -> bool:
    if ".lora_" in name:
        return kept == "all" or part == "vae"
    return kept == "all" and part == "retrieval"


def is_phase_file(model: str) -> bool:
    """Whether a ``start`` is a file rather than a model's name or folder."""
    return model.endswith(".safetensors")


def phase_file(model: str) -> Path:
    """The path of a phase's file; raises :class:`WeightsError` if it does not exist."""
    path = Path(model).expanduser()
    if not path.is_file():
        raise WeightsError("{path} does not exist", remedy=PHASE_FILE, path=path)
    return path


def _parts_of_model(model: str) -> dict[str, dict[str, Tensor]]:
    other = load_torch_pipeline(model, device="cpu", dtype="float32")
    return {part: plain_state_dict(getattr(other, part)) for part in TAKEN_OVER}


def _parts_of_file(path: Path) -> dict[str, dict[str, Tensor]]:
    """A phase's file as a run wrote it: every tensor by part and name, without LoRAs."""
    stored = _read(path)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in TAKEN_OVER}
    for name, tensor in plain_names(stored).items():
        part, _, inner = name.partition(".")
        if part in parts:
            parts[part][inner] = tensor
    return parts


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except BROKEN as error:
        raise WeightsError(
            "{path} is corrupt ({reason})", remedy=PHASE_FILE, path=path, reason=first_line(error)
        ) from error


def _with_more_blocks(had: dict[str, Tensor], wanted: int) -> dict[str, Tensor]:
    """A VAE's weights, renamed for a decoder of ``wanted`` blocks if they have fewer: the blocks
    follow the first two layers and precede the layers after them."""
    blocks = {int(n.split(".")[1]) for n in had if re.fullmatch(BLOCK, n)}
    more = max(wanted - len(blocks), 0)
    renamed = {}
    for name, tensor in had.items():
        part, index, *rest = name.split(".")
        if part == "decoder" and blocks and int(index) > max(blocks):
            index = str(int(index) + more)
        renamed[".".join([part, index, *rest])] = tensor
    return renamed
