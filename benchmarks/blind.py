"""Pairs of pictures and clips of two methods, judged without being told which is whose.

    python -m benchmarks.blind make PACKS -o FOLDER --ours compact@1,1 --other realesr.safetensors
    python -m benchmarks.blind count FOLDER

``make`` writes ``still_NN.png`` (the same crop of both, left and right, three times as large),
``clip_NN.mp4`` (the same in motion, four times over) and ``clip_NN.png`` (six of its frames, left's
above right's, and one row of pixels over time). Sides are drawn by ``--seed`` and kept in
``key.json``, which whoever judges does not open. The judge writes ``answers.txt``: a line a pair,
``still_03 left``, ``right`` or ``equal``. ``count`` says how often ours was preferred, with
Wilson's 95% interval; ``equal`` counts as half. Of answers that are kept:

    python -m benchmarks.blind count benchmarks/blind_answers/ninth-version-general-x4v3
"""

import argparse
import json
import random
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dloral.evaluation.baselines import load_baseline
from dloral.evaluation.datasets import DataClip, find_dataset, opened
from dloral.evaluation.restore import Restorer, Scales, baseline_restorer, model_restorer
from dloral.frames.crisp import crisp
from dloral.weights.loading import load_pipeline

SIDE, ENLARGED, GAP = 128, 3, 12
STRIP = 6
CRISP = "+crisp"
Pixels = NDArray[np.uint8]


def method(text: str) -> Restorer:
    """``MODEL@c,d``, or the file of an SR network; ``FILE+crisp`` is its answer made crisp, which
    is what D-LoRA is asked for."""
    if text.endswith(CRISP):
        return made_crisp(method(text.removesuffix(CRISP)))
    name, at, scales = text.partition("@")
    if not at:
        return baseline_restorer(load_baseline("other", {"other": Path(name)}))
    consistency, detail = map(float, scales.split(","))
    return model_restorer(load_pipeline(name, "cpu", "auto"), Scales(consistency, detail))


def made_crisp(restorer: Restorer) -> Restorer:
    return lambda small, size: (crisp(frame[None])[0] for frame in restorer(small, size))


def restored(clip: DataClip, restorer: Restorer, frames: int) -> list[Pixels]:
    with opened(clip.hq, 1) as truth, opened(clip.lq, frames) as small:
        assert truth is not None
        assert small is not None
        size = next(truth).shape[-2:]
        return [_bytes(frame) for frame in restorer(small, (size[0], size[1]))]


def _bytes(frame: torch.Tensor) -> Pixels:
    return (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def crop(frame: Pixels, rng: random.Random) -> tuple[slice, slice]:
    """Of four squares that are drawn, the one with the most detail."""

    def detail(place: tuple[slice, slice]) -> float:
        part = frame[place].astype(float)
        return float(np.abs(np.diff(part, axis=0)).mean() + np.abs(np.diff(part, axis=1)).mean())

    corners = [[rng.randrange(max(1, s - SIDE + 1)) for s in frame.shape[:2]] for _ in range(4)]
    return max(((slice(y, y + SIDE), slice(x, x + SIDE)) for y, x in corners), key=detail)


def beside(left: Pixels, right: Pixels, axis: int = 1) -> Pixels:
    shape = list(left.shape)
    shape[axis] = GAP
    return np.concatenate([left, np.full(shape, 128, np.uint8), right], axis=axis)


def large(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    return image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.NEAREST)


def write_clip(path: Path, left: list[Pixels], right: list[Pixels]) -> None:
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=8, options={"crf": "8"})
        first = large(beside(left[0], right[0]))
        video.width, video.height = (side - side % 2 for side in first.size)
        video.pix_fmt = "yuv444p"
        for pair in list(zip(left, right, strict=True)) * 4:
            picture = large(beside(*pair)).crop((0, 0, video.width, video.height))
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode(None))
    strips = [np.concatenate(part[:STRIP], axis=1) for part in (left, right)]
    row = SIDE // 2
    width = strips[0].shape[1]
    # Each pixel three columns wide, each frame four rows high, so that shimmer shows.
    slices = [np.stack([f[row] for f in part]).repeat(4, 0).repeat(3, 1) for part in (left, right)]
    times = beside(*(part[:, : (width - GAP) // 2] for part in slices))
    sheet = beside(beside(*strips, axis=0), times, axis=0)
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2)).save(
        path.with_suffix(".png")
    )


def make(args: argparse.Namespace) -> None:
    clips, rng = find_dataset(args.packs).clips, random.Random(args.seed)
    args.output.mkdir(parents=True)
    both = [
        [restored(clip, restorer, args.frames) for clip in clips]
        for restorer in map(method, (args.ours, args.other))
    ]
    key = {}
    for number in range(args.stills + args.clips):
        index = number % len(clips)
        y, x = crop(both[0][index][0], rng)
        moving = number >= args.stills
        name = f"clip_{number - args.stills:02}" if moving else f"still_{number:02}"
        ours, other = ([frame[y, x] for frame in frames[index]] for frames in both)
        left = rng.random() < 0.5
        sides = (ours, other) if left else (other, ours)
        if moving:
            write_clip(args.output / f"{name}.mp4", *sides)
        else:
            frame = rng.randrange(len(ours))
            large(beside(*(part[frame] for part in sides))).save(args.output / f"{name}.png")
        key[name] = {"ours": "left" if left else "right", "clip": clips[index].name}
    names = {side: Path(getattr(args, side)).name for side in ("ours", "other")}  # no one's folders
    about = names | {"seed": args.seed, "pairs": key}
    (args.output / "key.json").write_text(json.dumps(about, indent=1))


def interval(successes: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z = 1.959964
    share = successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5 / (1 + z**2 / count)
    return middle - half, middle + half


def count(args: argparse.Namespace) -> None:
    given = f"{args.folder}/" if args.folder.is_dir() else f"{args.folder}-"
    pairs = json.loads(Path(f"{given}key.json").read_text())["pairs"]
    lines = Path(f"{given}answers.txt").read_text().split("\n")
    answers = dict(line.split() for line in lines if line.strip())
    for kind in ("still", "clip"):
        found = [
            0.5 if answers[name] == "equal" else float(answers[name] == pair["ours"])
            for name, pair in pairs.items()
            if name.startswith(kind) and name in answers
        ]
        if found:
            low, high = interval(sum(found), len(found))
            share = sum(found) / len(found)
            print(f"{kind}s: ours in {share:.0%} of {len(found)} ({low:.0%} to {high:.0%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("packs", type=Path)
    making.add_argument("-o", "--output", type=Path, required=True)
    making.add_argument("--ours", default="compact@1,1")
    making.add_argument("--other", required=True)
    making.add_argument("--stills", type=int, default=40)
    making.add_argument("--clips", type=int, default=10)
    making.add_argument("--frames", type=int, default=16)
    making.add_argument("--seed", type=int, default=0)
    making.set_defaults(run=make)
    counting = commands.add_parser("count")
    counting.add_argument("folder", type=Path, help="or what the names of both files begin with")
    counting.set_defaults(run=count)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
