"""The room's commands: what they take, and whom they hand it to. Importing costs nothing."""

import argparse
from pathlib import Path
from typing import Any

from dloral.errors import DLoRALError, OptionError

Commands = Any
REPORTS = (".json", ".md", ".html")


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure clips: PSNR, SSIM, VMAF, NIQE, warping error, flicker, ...",
        description="Measure a restored clip, or every clip of a folder, against the ground truth "
        "and its input. Prints a table; exit status 1 if anything could not be measured.",
        epilog="measures and groups: docs/evaluation.md, or give a wrong name",
    )
    add = parser.add_argument
    add("restored", metavar="RESTORED", help="a clip, a folder of frames, or a folder of clips")
    add("--reference", metavar="HQ", help="the ground truth, the same size and length")
    add("--input", metavar="LQ", dest="lq", help="what was restored, of any size")
    add(
        "--metrics",
        nargs="+",
        default=["fast"],
        metavar="NAME",
        help="measures, or the groups fast (default), grid, offline, paper, all",
    )
    add("--every", type=int, default=1, metavar="N", help="slow measures see every Nth frame")
    add("--crop", type=int, default=0, help="pixels of each border that PSNR and SSIM leave out")
    add("--flow", default="dis", help="dis (default) or raft")
    add("--flow-weights", metavar="FILE", help="RAFT's weights")
    add("--device", default="cpu", help="for networks: cpu (default), cuda, mps")
    add(
        "-o",
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="REPORT",
        help="write .json, .md or .html (a page to look at); may be given more than once",
    )
    add("--quiet", action="store_true", help="no progress bar and no table")
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from dloral.evaluation.evaluate import evaluate
    from dloral.evaluation.report import markdown, write_report
    from dloral.terminal import frame_bar

    for path in options.output:
        if path.suffix not in REPORTS:
            raise OptionError(f"--output is {path}; give a name with {', '.join(REPORTS)}")
    with frame_bar(options.quiet) as bar:
        done = evaluate(
            options.restored,
            options.reference,
            options.lq,
            tuple(options.metrics),
            on_step=lambda step: bar(step.name, step.frame, step.num_frames),
            every=options.every,
            crop=options.crop,
            flow=options.flow,
            flow_weights=options.flow_weights,
            device=options.device,
        )
    if not options.quiet:
        print(markdown(done))
    for path in options.output:
        write_report(done, path)
    if not done.complete:
        failed = [result.pair.name for result in done.results if result.error]
        left_out = [*failed, *done.unavailable]
        first = next((r.error for r in done.results if r.error), None)
        first = first or next(iter(done.unavailable.values()))
        rest = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise DLoRALError(f"not measured: {left_out[0]}: {first}{rest}")
