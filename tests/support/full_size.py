"""The full model at its real sizes with random weights, and one run of it. Two commands:

    PYTHONPATH=. python tests/support/full_size.py make FOLDER     # 2.7 GB
    PYTHONPATH=. python tests/support/full_size.py run FOLDER [FRAMES [SIDE]]

``run`` restores noise and prints seconds, the peak of resident memory and what was done for it.
"""

import resource
import shutil
import sys
import time
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDPMScheduler
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dloral.models.adapters import add_adapters
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.unet import TwoLoRAUNet
from dloral.pipeline import DLoRALPipeline
from dloral.weights.loading import load_pipeline

TOKENIZER = Path(__file__).parents[1] / "data" / "dloral_tiny" / "sd_base" / "tokenizer"
WIDTHS = (320, 640, 1280, 1280)


def build(dtype: torch.dtype = torch.bfloat16) -> DLoRALPipeline:
    """Stable Diffusion 2.1-base's shapes and the release's CFR, flow and LoRAs, random."""
    with init_empty_weights():
        unet = TwoLoRAUNet(
            sample_size=64,
            in_channels=8,
            block_out_channels=WIDTHS,
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
        add_adapters(unet, 4)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=768,
            scaling_factor=0.18215,
        )
        config = CLIPTextConfig(
            vocab_size=49408,
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=23,
            num_attention_heads=16,
            projection_dim=512,
            hidden_act="gelu",
        )
    text_encoder = CLIPTextModel(config)
    generator = torch.Generator().manual_seed(0)
    for part in (unet, vae):
        fill(part, generator, dtype)
    return DLoRALPipeline(
        vae=vae,
        unet=unet,
        flow=SPyNet(),
        retrieval=CrossFrameRetrieval(),
        tokenizer=CLIPTokenizer.from_pretrained(TOKENIZER),
        text_encoder=text_encoder.to(dtype),
        scheduler=DDPMScheduler(),
    )


def fill(part: nn.Module, generator: torch.Generator, dtype: torch.dtype) -> None:
    """Weights that keep a signal's size; normalisations that change nothing."""
    part.to_empty(device="cpu")
    nn.Module.to(part, dtype)
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            if parameter.ndim > 1:
                deviation = parameter[0].numel() ** -0.5 * (0.1 if ".lora_" in name else 1)
                parameter.normal_(std=deviation, generator=generator)
            else:
                parameter.fill_(float(name.endswith("weight")))


def run(folder: Path, num_frames: int, side: int) -> None:
    started = time.perf_counter()
    pipe = load_pipeline(folder, device="cpu", dtype="bfloat16")
    loaded = time.perf_counter()
    notes: list[str] = []
    draw = torch.Generator().manual_seed(0)
    frames = (torch.rand(3, side, side, generator=draw) for _ in range(num_frames))
    for index, frame in enumerate(pipe.stream(frames, prompt="a street", on_note=notes.append)):
        assert frame.shape == (3, side, side)
        assert frame.isfinite().all()
        print(f"frame {index}: {time.perf_counter() - loaded:.0f} s, {peak():.2f} GB", flush=True)
    print(f"loaded in {loaded - started:.0f} s; peak {peak():.2f} GB; notes: {notes}")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "make":
        shutil.rmtree(where, ignore_errors=True)
        build().save_pretrained(where)
    else:
        run(Path(where), *(int(word) for word in [*rest, *("3", "512")[len(rest) :]]))
