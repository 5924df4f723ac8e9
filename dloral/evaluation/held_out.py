"""What a model gains over bicubic on photographs and clips that its training never saw.

    python -m dloral.evaluation.held_out --packs PACKS [--model compact] [--sheet SHEET.png]

PACKS holds packs as ``dloral.training.prepare`` writes them: ``heldout_still`` and, where they are,
``heldout_clips`` (photographs in motion) and ``heldout_video``.
PSNR is over RGB in [0, 1], all pixels of a frame; LPIPS-like is explained where it is defined
(:mod:`dloral.models.perceptual`). Both see exactly what a user would get: the pipeline's output
with its default colour fix.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from dloral.models.perceptual import LPIPSLike
from dloral.pipeline import DLoRALPipeline
from dloral.training.packs import Pack, psnr
from dloral.weights.loading import load_pipeline

SETTINGS = {
    "c=0 d=0": (0.0, 0.0),
    "c=1 d=0": (1.0, 0.0),
    "c=0 d=1": (0.0, 1.0),
    "c=1 d=1": (1.0, 1.0),
}
BICUBIC = "bicubic"

PACKS = {
    "heldout_still": "Held-out crops",
    "heldout_clips": "Held-out clips, photographs in motion",
    "heldout_video": "Held-out clips, film",
}
DISTANCE_STEP = 10
"""The LPIPS-like distance, slow on a CPU, sees every tenth frame of a clip; PSNR sees all."""


@dataclass(frozen=True)
class Measured:
    """One clip (a still is a clip of one frame): by method, mean PSNR in dB and LPIPS-like."""

    psnr: dict[str, float]
    lpips_like: dict[str, float]


def clips(pack: Pack) -> Iterator[tuple[Tensor, Tensor]]:
    """(hq_frames, lq_frames at the same size), (T,3,H,W), one clip after the other."""
    for index in range(len(pack.hq)):
        yield pack.clip(index)


def restore_all(pipe: DLoRALPipeline, lq_frames: Tensor) -> dict[str, Tensor]:
    """The clip by every method, (T,3,H,W) in [0, 1]."""
    results = {BICUBIC: lq_frames}
    for name, (consistency, detail) in SETTINGS.items():
        results[name] = pipe(lq_frames, consistency=consistency, detail=detail).frames
    return results


def measure(results: dict[str, Tensor], hq_frames: Tensor, distance: LPIPSLike) -> Measured:
    """Both measures of every method's clip."""
    return Measured(
        {name: psnr(frames, hq_frames).mean().item() for name, frames in results.items()},
        {name: _mean_distance(distance, frames, hq_frames) for name, frames in results.items()},
    )


@torch.no_grad()
def _mean_distance(distance: LPIPSLike, frames: Tensor, hq_frames: Tensor) -> float:
    chosen = range(0, len(frames), DISTANCE_STEP)
    with torch.autocast("cpu", torch.bfloat16):
        found = [distance(frames[i, None], hq_frames[i, None]).item() for i in chosen]
    return float(np.mean(found))


def table(title: str, measured: list[Measured]) -> str:
    """Markdown: mean over clips, PSNR's gain with its 95% interval (normal, over clips)."""
    lines = [
        f"{title} ({len(measured)})",
        "",
        "| | PSNR, dB | over bicubic, dB | LPIPS-like |",
        "|---|---|---|---|",
    ]
    for name in measured[0].psnr:
        gains = np.array([one.psnr[name] - one.psnr[BICUBIC] for one in measured])
        interval = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
        mean_psnr = np.mean([one.psnr[name] for one in measured])
        mean_distance = np.mean([one.lpips_like[name] for one in measured])
        gain = "" if name == BICUBIC else f"{gains.mean():+.2f} ± {interval:.2f}"
        lines.append(f"| {name} | {mean_psnr:.2f} | {gain} | {mean_distance:.3f} |")
    return "\n".join(lines)


def sheet(rows: list[tuple[Tensor, dict[str, Tensor]]]) -> Image.Image:
    """One row a crop: bicubic, ours at each setting, truth; columns labelled."""
    names = [*rows[0][1], "truth"]
    cells = [
        torch.cat([*(frames[-1] for frames in results.values()), hq_frames[-1]], dim=2)
        for hq_frames, results in rows
    ]
    picture = (255 * torch.cat(cells, dim=1).permute(1, 2, 0)).round().byte().numpy()
    label_height = 20
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + label_height), "white")
    canvas.paste(Image.fromarray(picture), (0, label_height))
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        draw.text((column * picture.shape[1] // len(names) + 4, 4), name, fill="black")
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sheet", type=Path, help="write a sheet of crops here (PNG)")
    parser.add_argument("--sheet-rows", type=int, default=8)
    given = parser.parse_args()
    pipe = load_pipeline(given.model, dtype=given.dtype)
    distance = LPIPSLike()
    rows: list[tuple[Tensor, dict[str, Tensor]]] = []
    found = {name: title for name, title in PACKS.items() if (given.packs / name).is_dir()}
    for folder, title in found.items():
        measured = []
        pack = Pack(given.packs / folder)
        for hq_frames, lq_frames in tqdm(clips(pack), total=len(pack.hq), desc=title):
            results = restore_all(pipe, lq_frames)
            measured.append(measure(results, hq_frames, distance))
            if len(rows) < given.sheet_rows and folder == "heldout_still":
                rows.append((hq_frames, results))
        print("\n" + table(title, measured) + "\n")
    if given.sheet:
        sheet(rows).save(given.sheet)


if __name__ == "__main__":
    main()
