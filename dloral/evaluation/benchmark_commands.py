"""``dloral benchmark`` and ``baseline``: argument parsing. Importing costs nothing."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dloral.arguments import path_of, path_text, whole
from dloral.errors import COMMAND_LINE, DLoRALError, OptionError, Setting
from dloral.evaluation.commands import add_flow

Commands = Any


def add_benchmark(commands: Commands) -> None:
    parser = commands.add_parser(
        "benchmark",
        help="restore a data set with models and baselines, and measure every clip",
        description="Restore a data set (UDM10, SPMCS, REDS4, RealVSR, VideoLQ, a folder of clips "
        "or of pairs, a pack) with models, settings and baselines, and measure every clip. Clips "
        "without a low-quality partner are degraded first. The same command continues a run that "
        "was stopped; methods may be added. Exit status 1 if anything could not be measured.",
        epilog="layouts, protocol and files: docs/evaluation.md",
    )
    add = parser.add_argument
    add("dataset", type=path_of, metavar="DATASET", help="the data set's folder")
    add("-o", "--output", type=path_of, required=True, metavar="OUT", help="folder of the results")
    add("--models", nargs="*", default=["compact"], metavar="MODEL", help="names, folders, Hub ids")
    add(
        "--settings",
        nargs="+",
        default=["1,1"],
        metavar="C,D[,W[,BICUBIC]]",
        help="LoRA scales, consistency and detail, of every model, the window, and the "
        "bicubic (1,1)",
    )
    add("--baselines", nargs="*", default=[], metavar="NAME", help="bicubic is always included")
    add_network(parser)
    add("--protocol", default="dloral", help="dloral (default) or dove: what is measured and how")
    add(
        "--metrics", nargs="+", metavar="NAME", help="measures or groups; the protocol's by default"
    )
    add_flow(parser)
    add(
        "--every",
        type=whole,
        default=10,
        metavar="N",
        help="slow measures use every Nth frame (10)",
    )
    add("--crop", type=whole, default=0, help="pixels of each border that PSNR and SSIM leave out")
    add("--frames", type=whole, metavar="N", help="use only the first N frames of each clip")
    add("--only", nargs="+", default=[], metavar="CLIP", help="use only these clips, by name")
    add("--sources", metavar="REGEX", help="its group in a clip's name is the source of the clip")
    add("--clips-are", default="auto", help="truth or lq, if clips have no partner (auto)")
    add("--degradation", default="realesrgan", help="realesrgan (default) or bicubic")
    add("--seed", type=whole, default=0, help="seed of the degradation (0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, xpu, mps, ...")
    add("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    add("--quiet", action="store_true", help="no progress bar and no table")
    parser.set_defaults(command=_benchmark)


def add_baseline(commands: Commands) -> None:
    parser = commands.add_parser(
        "baseline",
        help="enlarge a clip with another upscaler: bicubic, SPAN, Real-ESRGAN",
        description="Enlarge a clip or a folder of frames four times, frame by frame.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="bicubic, span, realesrgan-x4plus, realesr-animevideov3, ...")
    add("source", type=path_text, metavar="IN", help="a clip, an image, or a folder of frames")
    add("-o", "--output", type=path_of, required=True, metavar="OUT", help="a video, or a folder")
    add_network(parser)
    add("--device", default="auto", help="for networks from files: auto, cpu, cuda, xpu, mps")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_baseline)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add ``--network``, read by :func:`networks_of`."""
    parser.add_argument(
        "--network",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="baselines from files: realesr-general-x4v3=realesr-general-x4v3.pth",
    )


def networks_of(given: Sequence[str]) -> dict[str, Path]:
    """Name -> file. OptionError for anything but NAME=FILE."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise OptionError(
                "{option} is {value!r}",
                remedy="give NAME=FILE",
                option=Setting("network"),
                value=text,
            )
        found[name] = Path(file)
    return found


def _scales(text: str) -> Any:
    from dloral.evaluation.restore import Scales

    parts = text.split(",")
    try:
        if len(parts) not in (2, 3, 4):
            raise ValueError
        consistency, detail = map(float, parts[:2])
        window = int(parts[2]) if parts[2:] else 1
    except ValueError as error:
        raise OptionError(
            "{option} is {value!r}",
            remedy="give two numbers, optionally a window and a bicubic: 1,1 or 0.5,1 or "
            "1,1,3 or 1,1,1,pil",
            option=Setting("settings"),
            value=text,
        ) from error
    return Scales(consistency, detail, window, *parts[3:])


def _benchmark(options: argparse.Namespace) -> None:
    from dloral.evaluation.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from dloral.evaluation.benchmark import BenchmarkOptions, run_benchmark
    from dloral.evaluation.benchmark_report import markdown, write_benchmark
    from dloral.terminal import frame_bar

    chosen = BenchmarkOptions(
        models=tuple(options.models),
        scales=tuple(_scales(text) for text in options.settings),
        baselines=tuple(options.baselines),
        networks=networks_of(options.network),
        protocol=options.protocol,
        metrics=tuple(options.metrics) if options.metrics else None,
        flow=options.flow,
        flow_weights=options.flow_weights,
        motion=options.motion,
        every=options.every,
        crop=options.crop,
        frames=options.frames,
        kind=options.clips_are,
        only=tuple(options.only),
        sources=options.sources,
        degradation=options.degradation,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
    )
    with frame_bar(options.quiet) as bar:
        done = run_benchmark(
            options.dataset,
            options.output,
            chosen,
            lambda step: bar(f"{step.method}, {step.clip}", step.frame, step.num_frames),
            COMMAND_LINE,
        )
    command = shlex.join(["dloral", *sys.argv[1:]])
    write_benchmark(done, options.output, command)
    if not options.quiet:
        print(markdown(done, command))
        print(f"wrote {options.output / 'index.html'}")
    if not done.complete:
        missed = [*done.failed.items(), *done.unavailable.items()]
        rest = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
        raise DLoRALError(
            "not measured: {name}: {why}{rest}", name=missed[0][0], why=missed[0][1], rest=rest
        )


def _baseline(options: argparse.Namespace) -> None:
    from dloral.evaluation.baselines import SCALE, load_baseline
    from dloral.terminal import frame_bar
    from dloral.video.probe import probe
    from dloral.video.reader import read_frames
    from dloral.video.writer import open_writer

    clip = probe(options.source)
    upscaler = load_baseline(options.name, networks_of(options.network), device=options.device)
    width, height = SCALE * clip.width, SCALE * clip.height
    writing = open_writer(options.output, width=width, height=height, source=clip)
    with frame_bar(options.quiet) as bar, writing as writer, read_frames(clip) as frames:
        for frame in frames:
            writer.write(upscaler(frame.pixels), frame.time, frame.duration)
            bar(options.name, frame.index + 1, clip.num_frames)
