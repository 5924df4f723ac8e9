"""What a model gains over bicubic, and over its peers, on what its training never saw.

    python -m dloral.evaluation.held_out --packs PACKS [--model compact] [--peers span ...]
        [--sheet SHEET.png] [-o FIGURES.json]

PACKS holds packs as ``dloral.data.pack_maker`` writes them: ``heldout_still`` and, where they are,
``heldout_clips`` (photographs in motion), ``heldout_video`` and ``heldout_city``; all clips
together get a table of their own, with intervals. Measures are those of
:mod:`dloral.evaluation.catalogue`. They see exactly what a user would get: the pipeline's output
with its default colour fix, in floats.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from dloral.data.packs import Pack
from dloral.errors import InputError, OptionError, exit_status
from dloral.evaluation.baselines import BASELINES, SCALE, Upscaler, load_baseline
from dloral.evaluation.catalogue import GROUPS, METRIC_SPECS, MetricSuite, Settings, chosen_metrics
from dloral.evaluation.measures import measure_clip
from dloral.evaluation.outputs import check_output, write_whole
from dloral.evaluation.report import arrow, explained, number, row, write_text
from dloral.frames.clips import as_bytes
from dloral.pipeline import DLoRALPipeline
from dloral.weights.loading import load_pipeline

SETTINGS = {
    "c=0 d=0": (0.0, 0.0),
    "c=1 d=0": (1.0, 0.0),
    "c=0 d=1": (0.0, 1.0),
    "c=1 d=1": (1.0, 1.0),
}
BICUBIC = "bicubic"
METRICS = ("psnr", "ssim", "lpips_like", "niqe", "warping_error", "flicker", *GROUPS["grid"])

PACKS = {
    "heldout_still": "Held-out crops",
    "heldout_clips": "Held-out clips, photographs in motion",
    "heldout_video": "Held-out clips, film",
    "heldout_city": "Held-out clips, city",
}
STILLS = "heldout_still"
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
EVERY = 10
"""Slow measures see every tenth frame of a clip."""


@dataclass(frozen=True)
class Figures:
    """One clip (a still is a clip of one frame): method -> measure -> mean over its frames, and
    method -> seconds a frame."""

    by_method: dict[str, dict[str, float]]
    seconds: dict[str, float]


def restore_all(
    pipe: DLoRALPipeline, peers: dict[str, Upscaler], lq_frames: Tensor, small_frames: Tensor
) -> Iterator[tuple[str, Tensor, float]]:
    """(method, the clip by it (T,3,H,W) in [0, 1], seconds a frame), one method after the other.

    ``small_frames`` (T,3,H/4,W/4) are as degraded; ``lq_frames`` the same, enlarged (bicubic).
    """
    yield BICUBIC, lq_frames, 0.0
    for name, peer in peers.items():
        started = time.perf_counter()
        yield name, torch.stack([peer(f) for f in small_frames]), _per_frame(started, lq_frames)
    for name, (consistency, detail) in SETTINGS.items():
        started = time.perf_counter()
        restored = pipe(lq_frames, consistency=consistency, detail=detail).frames
        yield name, restored, _per_frame(started, lq_frames)


def _per_frame(started: float, frames: Tensor) -> float:
    return (time.perf_counter() - started) / len(frames)


def table(title: str, found: list[Figures]) -> str:
    """Markdown: means over clips, and PSNR's gain with its 95% interval (normal, over clips)."""
    methods = list(found[0].by_method)
    known = [name for name in METRIC_SPECS if any(name in one.by_method[BICUBIC] for one in found)]
    heads = ["", *(f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}" for name in known)]
    gains = {name: _gain(name, found) for name in methods} if "psnr" in known else {}
    if gains:
        heads.insert(2, "over bicubic, dB")
    lines = [f"{title} ({len(found)})", "", row(heads), row(["---"] * len(heads))]
    for method in methods:
        cells = [number(METRIC_SPECS[name], _mean(found, method, name)) for name in known]
        if gains:
            cells.insert(1, gains[method])
        lines.append(row([method, *cells]))
    return "\n".join(lines)


def together(found: list[Figures]) -> str:
    """Markdown of many clips: every measure's mean with its 95% interval over them (normal), and
    in brackets LPIPS-like as a part of bicubic's; seconds a frame."""
    known = [name for name in METRIC_SPECS if any(name in one.by_method[BICUBIC] for one in found)]
    heads = [
        "",
        *(f"{METRIC_SPECS[name].title} {arrow(METRIC_SPECS[name])}" for name in known),
        "seconds",
    ]
    lines = [f"All {len(found)} clips", "", row(heads), row(["---"] * len(heads))]
    for method in found[0].by_method:
        cells = [_with_interval(found, method, name) for name in known]
        seconds = np.mean([one.seconds[method] for one in found])
        lines.append(row([method, *cells, f"{seconds:.2f}" if seconds else ""]))
    return "\n".join(lines)


def _with_interval(found: list[Figures], method: str, name: str) -> str:
    values = [one.by_method[method][name] for one in found if name in one.by_method[method]]
    if not values:
        return ""
    text = number(METRIC_SPECS[name], float(np.mean(values)))
    if len(values) > 1:
        text += f" ± {number(METRIC_SPECS[name], _interval(values))}"
    bicubic = _mean(found, BICUBIC, name)
    if name == "lpips_like" and bicubic:
        text += f" ({np.mean(values) / bicubic:.3f})"
    return text


def _interval(values: Sequence[float]) -> float:
    return float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))


def _mean(found: list[Figures], method: str, name: str) -> float | None:
    values = [one.by_method[method][name] for one in found if name in one.by_method[method]]
    return float(np.mean(values)) if values else None


def _gain(method: str, found: list[Figures]) -> str:
    if method == BICUBIC:
        return ""
    gains = [f.by_method[method]["psnr"] - f.by_method[BICUBIC]["psnr"] for f in found]
    interval = _interval(gains) if len(gains) > 1 else 0.0
    return f"{np.mean(gains):+.2f} ± {interval:.2f}"


def sheet(rows: list[tuple[Tensor, dict[str, Tensor]]]) -> Image.Image:
    """One row a crop: every method's last frame and the truth; columns labelled."""
    names = [*rows[0][1], "truth"]
    cells = [torch.cat([*results.values(), hq_frame], dim=2) for hq_frame, results in rows]
    picture = as_bytes(torch.cat(cells, dim=1))
    label_height = 20
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + label_height), "white")
    canvas.paste(Image.fromarray(picture), (0, label_height))
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        draw.text((column * picture.shape[1] // len(names) + 4, 4), name, fill="black")
    return canvas


def measure_pack(
    pack: Pack, pipe: DLoRALPipeline, peers: dict[str, Upscaler], ready: MetricSuite, title: str
) -> Iterator[tuple[Figures, Tensor, dict[str, Tensor]]]:
    """(figures, last true frame, every method's last frame) of each clip of a pack."""
    for index in tqdm(range(len(pack.hq)), desc=title):
        hq_frames, lq_frames = pack.clip(index)
        small_frames = torch.from_numpy(np.array(pack.lq[index])).float() / 255
        figures, seconds, last = {}, {}, {}
        for name, frames, took in restore_all(pipe, peers, lq_frames, small_frames):
            measured = measure_clip(frames, ready.measures(), hq_frames, lq_frames, EVERY)
            figures[name], seconds[name], last[name] = measured.totals, took, frames[-1]
        yield Figures(figures, seconds), hq_frames[-1], last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--peers", nargs="*", default=[], choices=BASELINES[1:], metavar="PEER")
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    parser.add_argument("--only", nargs="+", choices=PACKS, help="some of the packs")
    parser.add_argument("--sheet", type=Path, help="write a sheet of crops here (.png, .jpg)")
    parser.add_argument("--sheet-rows", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, help="write all figures here (JSON)")
    given = parser.parse_args()
    run(given)


def run(given: argparse.Namespace) -> None:
    """Measure every pack there is and print its table."""
    titles = {name: title for name, title in PACKS.items() if (given.packs / name).is_dir()}
    titles = {name: title for name, title in titles.items() if not given.only or name in given.only}
    if not titles:
        raise OptionError(f"{given.packs} holds none of {', '.join(given.only or PACKS)}")
    _check_outputs(given, titles)
    packs = {name: open_pack(given.packs / name) for name in titles}
    ready = MetricSuite(Settings(metrics=chosen_metrics(given.metrics, has_reference=True)))
    for name, why in ready.unavailable.items():
        print(f"NOT AVAILABLE {name}: {why}")
    peers = {name: load_baseline(name) for name in given.peers}
    pipe = load_pipeline(given.model, given.device, given.dtype)
    rows: list[tuple[Tensor, dict[str, Tensor]]] = []
    figures: dict[str, list[Figures]] = {}
    for folder, title in titles.items():
        figures[folder] = []
        for found, hq_frame, last in measure_pack(packs[folder], pipe, peers, ready, title):
            figures[folder].append(found)
            if len(rows) < given.sheet_rows and folder == STILLS:
                rows.append((hq_frame, last))
        print("\n" + table(title, figures[folder]) + "\n")
    clips = [one for name, found in figures.items() if name != STILLS for one in found]
    if len(figures.keys() - {STILLS}) > 1:
        print(table("All clips", clips) + "\n\n" + together(clips) + "\n")
    print("\n".join(explained(spec) for spec in ready.specs))
    if given.output:  # first: figures take hours, a sheet does not
        listed = {name: [vars(one) for one in found] for name, found in figures.items()}
        write_text(given.output, json.dumps(listed, indent=1) + "\n")
    if given.sheet:
        write_whole(given.sheet, sheet(rows).save)


def _check_outputs(given: argparse.Namespace, titles: dict[str, str]) -> None:
    """OptionError or OutputError for what could not be written after all measuring."""
    sources = [given.packs / name / file for name in titles for file in ("hq.npy", "lq.npy")]
    for path in (given.output, given.sheet):
        if path:
            check_output(path, sources)
    if not given.sheet:
        return
    if given.sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise OptionError(f"--sheet is {given.sheet}; give a name with {', '.join(SHEET_SUFFIXES)}")
    if given.sheet_rows < 1:
        raise OptionError(f"--sheet-rows is {given.sheet_rows}; give 1 or more")
    if STILLS not in titles:
        raise OptionError(
            f"--sheet shows crops of {STILLS}, which is not measured; add it to {given.packs} and "
            "to --only, or leave --sheet out"
        )


def open_pack(folder: Path) -> Pack:
    """A pack with something to measure; :class:`InputError` where it is none, or holds no clip, or
    is not of the peers' enlargement."""
    pack = Pack(folder)
    if not pack.hq.size:
        raise InputError(f"{folder} holds no clip; make it anew, or leave it out by --only")
    hq, lq = pack.hq.shape, pack.lq.shape
    if len(hq) != 5 or len(lq) != 5 or hq != (*lq[:3], SCALE * lq[3], SCALE * lq[4]):
        raise InputError(
            f"{folder} has hq.npy of {hq} and lq.npy of {lq}; make a pack with {SCALE} times "
            "smaller lq by python -m dloral.data.pack_maker"
        )
    return pack


if __name__ == "__main__":
    sys.exit(exit_status(main, "held_out"))
