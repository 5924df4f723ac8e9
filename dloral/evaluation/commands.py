"""``dloral evaluate`` and ``compare``: argument parsing. Importing costs nothing."""

import argparse
import re
from typing import Any

from dloral.arguments import number, path_of, path_text, whole
from dloral.errors import COMMAND_LINE, DLoRALError, OptionError, Setting

Commands = Any
REPORTS = (".json", ".md", ".html")
PIXELS = r"\s*-?[0-9]{1,6}\s*"


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure clips: PSNR, SSIM, VMAF, NIQE, warping error, flicker, ...",
        description="Measure a restored clip, or every clip of a folder, against the ground truth "
        "and its input. Prints a table; exit status 1 if anything could not be measured.",
        epilog="measures and groups: docs/evaluation.md, or give an unknown name to list them",
    )
    add = parser.add_argument
    add(
        "restored",
        type=path_text,
        metavar="RESTORED",
        help="a clip, a folder of frames, or a folder of clips",
    )
    add(
        "--reference",
        type=path_text,
        metavar="HQ",
        help="the ground truth, of the same size and length",
    )
    add("--input", type=path_text, metavar="LQ", dest="lq", help="what was restored, of any size")
    add(
        "--metrics",
        nargs="+",
        default=["fast"],
        metavar="NAME",
        help="measures, or the groups fast (default), grid, offline, benchmark, paper, all",
    )
    add("--every", type=whole, default=1, metavar="N", help="slow measures use every Nth frame")
    add("--crop", type=whole, default=0, help="pixels of each border that PSNR and SSIM leave out")
    add_flow(parser)
    parser.set_defaults(flow="dis", motion="guide")
    add("--device", default="auto", help="for networks: auto (default), cpu, cuda, xpu, mps")
    add(
        "-o",
        "--output",
        type=path_of,
        action="append",
        default=[],
        metavar="REPORT",
        help="write .json, .md or .html (a page to look at); may be repeated",
    )
    add("--quiet", action="store_true", help="no progress bar and no table")
    parser.set_defaults(command=_evaluate)


def add_flow(parser: argparse.ArgumentParser) -> None:
    """Add the options for estimating motion, for the measures that follow it."""
    add = parser.add_argument
    add("--flow", help="dis or raft")
    add("--flow-weights", metavar="FILE", help="RAFT's weights")
    add("--motion", help="guide: on the ground truth, else the input; or restored: on the result")


def _evaluate(options: argparse.Namespace) -> None:
    from dloral.evaluation.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from dloral.evaluation.evaluate import evaluate
    from dloral.evaluation.outputs import check_output
    from dloral.evaluation.report import markdown, write_reports
    from dloral.terminal import frame_bar

    for path in options.output:
        if path.suffix not in REPORTS:
            raise OptionError(
                "{option} is {path}",
                remedy=f"give a name with {', '.join(REPORTS)}",
                option=Setting("output"),
                path=path,
            )
        check_output(path, (options.restored, options.reference, options.lq))
    with frame_bar(options.quiet) as bar:
        done = evaluate(
            options.restored,
            options.reference,
            options.lq,
            tuple(options.metrics),
            on_step=lambda step: bar(step.name, step.frame, step.num_frames),
            face=COMMAND_LINE,
            every=options.every,
            crop=options.crop,
            flow=options.flow,
            flow_weights=options.flow_weights,
            motion=options.motion,
            device=options.device,
        )
    error = write_reports(done, options.output)
    if not options.quiet:
        print(markdown(done))
    if error is not None:
        raise error
    if not done.complete:
        failed = [result.pair.name for result in done.results if result.error]
        left_out = [*failed, *done.unavailable]
        first = next((r.error for r in done.results if r.error), None)
        first = first or next(iter(done.unavailable.values()))
        rest = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise DLoRALError(f"not measured: {left_out[0]}: {first}{rest}")


def add_compare(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="a video or sheet that shows clips side by side",
        description="Show clips side by side: a video for .mp4, .mkv and .mov, a sheet for "
        ".png and .jpg. Smaller clips are enlarged to the largest.",
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        type=path_text,
        metavar="CLIP",
        help="two or more clips of the same length",
    )
    add("-o", "--output", type=path_text, required=True, metavar="OUT", help="file to write")
    add(
        "--mode",
        default="side",
        help="side (default), wipe, zoom, difference (to the first clip) or profile (a row of "
        "pixels over time)",
    )
    add("--labels", nargs="+", default=[], help="a name for each clip; file names by default")
    add("--box", metavar="X,Y,W,H", help="the area zoom shows, in pixels; the middle by default")
    add("--gain", type=number, default=4.0, help="how much the difference is amplified (4)")
    add("--row", type=whole, help="the row of pixels of a profile; the middle by default")
    add("--frame", type=whole, help="the frame of a sheet; the middle by default")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> None:
    from dloral.evaluation.compare import Box, Look, compare
    from dloral.terminal import frame_bar

    box = None
    if options.box is not None:
        if not re.fullmatch(",".join([PIXELS] * 4), options.box):
            raise OptionError(
                "{option} is {value!r}",
                remedy="give left,top,width,height in pixels",
                option=Setting("box"),
                value=options.box,
            )
        box = Box(*map(int, options.box.split(",")))
    look = Look(options.mode, box, options.gain, options.row, options.frame)
    with frame_bar(options.quiet) as bar:
        target = compare(
            options.sources,
            options.output,
            look,
            options.labels,
            on_frame=lambda done, total: bar(options.mode, done, total),
        )
    if not options.quiet:
        print(f"wrote {target}")
