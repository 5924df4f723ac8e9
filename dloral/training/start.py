"""The model that training starts from, and the prompts of its clips."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dloral.data.clips import Clips
from dloral.errors import OptionError, WeightsError
from dloral.models.adapters import ADAPTERS, CONSISTENCY, DETAIL, adapter_parameters, add_adapters
from dloral.models.building import building
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.lora_conv import two_lora_convs
from dloral.models.tagger import make_prompt
from dloral.models.unet import TwoLoRAUNet, cast, plain_state_dict, widen_conv_in
from dloral.models.vae import CompactVAE
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import ModelConfig
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.weights.checkpoint_io import BROKEN, first_line, quiet_bars
from dloral.weights.tagger import load_tagger
from dloral.weights.torch_folder import load_torch_pipeline

SD21_PREFIX = "sd21:"
TINY_SIZES = CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4)
SD21_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 64,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SD21_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
SD21_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD21_RETRIEVAL = (4, 9, 64)  # latent channels, heads, channels a head (notes, step 4)


@building()
def build_start(config: ModelConfig, device: torch.device, seed: int = 0) -> DLoRALPipeline:
    """The pipeline of ``config.start`` with live LoRAs and frozen parts in ``frozen_dtype``.

    Raises :class:`WeightsError` or :class:`OptionError`.
    """
    torch.manual_seed(seed)
    if config.start == "random-tiny":
        pipe = _lively(build_pipeline(TINY_SIZES, seed))
    elif config.start == "random-sd21":
        pipe = _random_sd21(config.frozen_dtype)
    elif config.start.startswith(SD21_PREFIX):
        pipe = _from_sd21(Path(config.start.removeprefix(SD21_PREFIX)), config.flow)
    else:
        pipe = load_torch_pipeline(config.start, device="cpu", dtype="float32")
        if config.fresh:
            _forget(pipe)
    if not pipe.unet.has_adapters:
        ranks = {CONSISTENCY: config.consistency_rank, DETAIL: config.detail_rank}
        add_adapters(pipe.unet, ranks)
        # Retrieval starts as no change, like the LoRAs.
        nn.init.zeros_(pipe.retrieval.proj.weight)
        assert pipe.retrieval.proj.bias is not None
        nn.init.zeros_(pipe.retrieval.proj.bias)
    _set_precision(pipe, config.frozen_dtype)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval()
            if config.gradient_checkpointing and isinstance(
                part, UNet2DConditionModel | AutoencoderKL
            ):
                part.enable_gradient_checkpointing()
    return pipe.to(device).channels_last()


class Prompts:
    """The clips' prompts as the text encoder's embeddings; each text is encoded once.

    As in the public training code, the tagger (RAM without DAPE) sees the ground truth.
    """

    def __init__(self, pipe: DLoRALPipeline, config: ModelConfig) -> None:
        self.pipe, self.config = pipe, config
        self.tagger = None
        if config.tagger:
            self.tagger = load_tagger(Path(config.tagger), pipe.unet.device, dape=False)
        self._embed = lru_cache(256)(pipe.encode_prompt)

    @torch.no_grad()
    def __call__(self, clips: Clips) -> Tensor | None:
        """(B, tokens, D), or (1, tokens, D) for all; None for a model without text."""
        if not self.pipe.reads_prompts:
            return None
        if self.tagger is None:
            return self._embed(self.config.prompt)
        tags = self.tagger.tags_of(clips.hq_frames[:, -1])
        embeds = [self._embed(make_prompt(words, self.config.prompt)) for words in tags]
        return torch.cat([embedded for embedded in embeds if embedded is not None])


def _lively(pipe: DLoRALPipeline) -> DLoRALPipeline:
    """Replace the zeros that a fresh compact UNet ends in: nothing learns through zeros."""
    nn.init.normal_(pipe.unet.conv_out.weight, std=0.1)
    return pipe


def _forget(pipe: DLoRALPipeline) -> None:
    """Keep base weights alone: a plain UNet, new retrieval and decoder LoRAs. How frames
    are finished was chosen for the LoRAs that are dropped, so they are not."""
    pipe.register_to_config(crispness=0.0, steadying=0.0, grid_period=0)
    plain = TwoLoRAUNet.from_config(pipe.unet.config)
    plain.load_state_dict(plain_state_dict(pipe.unet))
    fresh = CrossFrameRetrieval.from_config(pipe.retrieval.config)
    pipe.register_modules(unet=plain, retrieval=fresh)
    vae = pipe.vae
    if isinstance(vae, CompactVAE) and two_lora_convs(vae):
        vae.add_adapters(vae.config.head_rank, vae.config.block_rank)


def _random_sd21(frozen_dtype: str) -> DLoRALPipeline:
    """Stable Diffusion 2.1's sizes; each part is cast to its precision before the next is made, so
    that memory never holds all of them in float32."""
    dtype = getattr(torch, frozen_dtype)

    def small(part: Any) -> Any:
        cast(part, dtype)
        return part

    unet = TwoLoRAUNet(**SD21_UNET)
    widen_conv_in(unet)
    return DLoRALPipeline(
        unet=small(unet),
        vae=small(AutoencoderKL(**SD21_VAE)),
        text_encoder=small(CLIPTextModel(CLIPTextConfig(**SD21_TEXT))),
        tokenizer=_spelling_tokenizer(),
        scheduler=DDPMScheduler(**SD_NOISE),
        flow=SPyNet(),
        retrieval=CrossFrameRetrieval(*SD21_RETRIEVAL),
    )


def _spelling_tokenizer() -> CLIPTokenizer:
    """A real CLIP tokenizer that only knows letters: random weights know no words anyway."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _from_sd21(base: Path, flow: str) -> DLoRALPipeline:
    """A plain Stable Diffusion 2.1-base folder, its UNet widened for two sets of latents."""
    if not flow:
        raise OptionError(
            f"model.flow is not set and {base} has no flow net; give a flow net's folder, such as "
            "flow/ of a model written by `python -m dloral convert`"
        )
    unet = _load(TwoLoRAUNet, base, "unet")
    if unet.config.in_channels == unet.config.out_channels:
        widen_conv_in(unet)
    channels = unet.config.out_channels
    return DLoRALPipeline(
        unet=unet,
        vae=_load(AutoencoderKL, base, "vae"),
        text_encoder=_load(CLIPTextModel, base, "text_encoder"),
        tokenizer=_load(CLIPTokenizer, base, "tokenizer"),
        scheduler=_load(DDPMScheduler, base, "scheduler"),
        flow=_load(SPyNet, Path(flow), ""),
        retrieval=CrossFrameRetrieval(channels, *SD21_RETRIEVAL[1:]),
    )


def _load(kind: Any, folder: Path, part: str) -> Any:
    path = folder / part
    if not path.is_dir():
        raise WeightsError(
            f"{path} does not exist; give a Stable Diffusion 2.1-base folder in diffusers' layout "
            "(unet, vae, text_encoder, tokenizer, scheduler), and a flow net's folder"
        )
    try:
        with quiet_bars():
            return kind.from_pretrained(path)
    except BROKEN as error:
        raise WeightsError(f"{path} cannot be loaded: {first_line(error)}") from error


def _set_precision(pipe: DLoRALPipeline, frozen_dtype: str) -> None:
    """Frozen parts as requested; what learns, and the flow net, in float32."""
    for name in ("vae", "unet", "text_encoder"):
        part = getattr(pipe, name)
        if part is not None:
            cast(part, getattr(torch, frozen_dtype))
    for part in (pipe.retrieval, pipe.flow):
        cast(part, torch.float32)
    for adapter in ADAPTERS:
        for part in (pipe.unet, pipe.vae):
            for parameter in adapter_parameters(part, adapter).values():
                parameter.data = parameter.data.float()
