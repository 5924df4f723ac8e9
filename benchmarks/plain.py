"""The full model's shapes with random weights: this package against the algorithm done plainly.

    python -m benchmarks.plain
    python -m benchmarks.plain --size 256 --frames 2

Plainly: each frame is encoded twice (as the current one, and as the next one's predecessor), both
LoRAs run live beside their layers, similarities of all attention are held whole, in float32. The
same pipeline's weights, frames and prompt in three processes: plainly, by the package in float32,
and in the precision that it chooses here. Prints seconds a frame (after one that is not counted),
the most memory a process had from its first frame on, and how far the results are from the plain
ones: latents by their relative root mean square, frames in dB.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from dloral.bench.memory import begin_peaks, peaks
from dloral.frames.colour import fix_colour
from dloral.frames.resize import shrink_for_flow
from dloral.models.adapters import ADAPTERS, adapter_parameters
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.unet import cast
from dloral.pipeline import DLoRALPipeline
from dloral.training.config import ModelConfig
from dloral.training.start import build_start
from dloral.weights.loading import choose_dtype

PLAIN = "plain"
PROMPT = "a street with trees"


def built() -> DLoRALPipeline:
    """Both LoRAs and retrieval change the picture: what starts as zeros is drawn here."""
    pipe = build_start(ModelConfig("random-sd21", frozen_dtype="float32"), torch.device("cpu"))
    torch.manual_seed(1)
    for adapter in ADAPTERS:
        for name, weight in adapter_parameters(pipe.unet, adapter).items():
            if ".lora_B." in name:
                nn.init.normal_(weight, std=0.01)
    nn.init.normal_(pipe.retrieval.proj.weight, std=0.01)
    return pipe


def clip(size: int, count: int) -> Tensor:
    """Smooth colours and noise that move a little: (T,3,S,S)."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    whole = nn.functional.interpolate(coarse, size + 8 * count, mode="bicubic").clamp(0, 1)
    whole = (whole + 0.05 * torch.randn(whole.shape, generator=generator)).clamp(0, 1)
    return torch.cat([whole[..., 3 * t : 3 * t + size, 5 * t : 5 * t + size] for t in range(count)])


def attend_whole(retrieval: CrossFrameRetrieval, current: Tensor, aligned: Tensor) -> Tensor:
    """Cross-frame retrieval with the whole matrix of similarities."""
    query, key, value = (
        retrieval._heads(layer(given))
        for layer, given in (
            (retrieval.to_q, current),
            (retrieval.to_k, aligned),
            (retrieval.to_v, aligned),
        )
    )
    similarities = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    weights = ((similarities - retrieval.threshold(query)) / retrieval.config.temperature).relu()
    found = (weights @ value).transpose(2, 3).flatten(1, 2).unflatten(2, current.shape[-2:])
    return current + retrieval.proj(found)


def plainly(pipe: DLoRALPipeline, frames: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(restored latents, restored frame) of each of ``frames`` (T,3,H,W)."""
    pipe.unet.set_attn_processor(AttnProcessor())
    pipe.vae.set_attn_processor(AttnProcessor())
    pipe.unet.set_scales(consistency=1.0, detail=1.0, merge=False)
    embeds = pipe.encode_prompt(PROMPT)
    for index, frame in enumerate(frames):
        now, before = frame[None], frames[max(0, index - 1)][None]
        latents, earlier = pipe.encode(now), pipe.encode(before)
        flow = pipe.estimate_flow(shrink_for_flow(now), shrink_for_flow(before))
        aligned = pipe.warp(earlier, flow)
        retrieved = attend_whole(pipe.retrieval, latents, aligned)
        restored = retrieved - pipe.predict(aligned, retrieved, embeds)
        decoded = pipe.decode(restored, now)
        yield restored[0], fix_colour(decoded, now, pipe.default_color_fix)[0]


def by_the_package(pipe: DLoRALPipeline, frames: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, as people get it; latents are kept on their way to the decoder."""
    restored: list[Tensor] = []
    decode = pipe.decode

    def watched(latents: Tensor, *others: Tensor | int | None) -> Tensor:
        restored.append(latents[0].float())
        return decode(latents, *others)

    pipe.decode = watched
    for frame in pipe.stream(frames, prompt=PROMPT):
        yield restored.pop(), frame


def measure(how: str, size: int, count: int, file: Path) -> None:
    pipe, frames = built(), clip(size, count + 1)
    if how != PLAIN:
        cast_parts(pipe, getattr(torch, how))
    begin_peaks(torch.device("cpu"))
    times, latents, pictures = [time.perf_counter()], [], []
    with torch.no_grad():
        for restored, frame in (plainly if how == PLAIN else by_the_package)(pipe, frames):
            times.append(time.perf_counter())
            latents.append(restored.float().numpy())
            pictures.append(frame.float().clamp(0, 1).numpy())
    np.savez(
        file,
        latents=np.stack(latents),
        frames=np.stack(pictures),
        seconds=np.diff(times)[1:],
        peak=peaks(torch.device("cpu"))[0] or 0,
    )


def cast_parts(pipe: DLoRALPipeline, dtype: torch.dtype) -> None:
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            cast(part, dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one[0], given.size, given.frames, Path(given.one[1]))
        return
    chosen = str(choose_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for how in dict.fromkeys((PLAIN, "float32", chosen)):
            file = Path(folder, f"{how}.npz")
            words = ["--size", str(given.size), "--frames", str(given.frames)]
            subprocess.run(
                [sys.executable, "-m", "benchmarks.plain", *words, "--one", how, str(file)],
                check=True,
            )
            found[how] = dict(np.load(file))
    plain = found[PLAIN]
    for how, values in found.items():
        error = values["latents"] - plain["latents"]
        noise = np.square(values["frames"] - plain["frames"]).mean()
        seconds = float(np.median(values["seconds"]))
        row = {
            "how": how,
            "seconds_a_frame": round(seconds, 3),
            "times_faster": round(float(np.median(plain["seconds"])) / seconds, 2),
            "peak_gb": round(float(values["peak"]) / 1e9, 2),
            "of_plain_memory": round(float(values["peak"] / plain["peak"]), 3),
            "latents_relative_rms": float(
                np.sqrt(np.square(error).mean() / np.square(plain["latents"]).mean())
            ),
            "frames_db": None if noise == 0 else round(float(-10 * np.log10(noise)), 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
