"""The room's commands: what they take, and whom they hand it to. Importing costs nothing."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from dloral.errors import DLoRALError, OptionError

Commands = Any
REPORTS = (".json", ".md", ".html")
PIXELS = r"\s*-?[0-9]{1,6}\s*"


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
    add("--device", default="cpu", help="for networks: cpu (default), cuda, mps, auto")
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
    from dloral.evaluation.outputs import check_output
    from dloral.evaluation.report import markdown, write_reports
    from dloral.terminal import frame_bar

    for path in options.output:
        if path.suffix not in REPORTS:
            raise OptionError(f"--output is {path}; give a name with {', '.join(REPORTS)}")
        check_output(path, (options.restored, options.reference, options.lq))
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
        description="Show clips beside each other: a video for .mp4, .mkv and .mov, a sheet for "
        ".png and .jpg. Smaller clips are enlarged to the largest.",
    )
    add = parser.add_argument
    add("sources", nargs="+", metavar="CLIP", help="two or more clips of the same length")
    add("-o", "--output", required=True, metavar="OUT", help="what to write")
    add(
        "--mode",
        default="side",
        help="side (default), wipe, zoom, difference (to the first clip) or profile (a row of "
        "pixels over time)",
    )
    add("--labels", nargs="+", default=[], help="a name for each clip; file names by default")
    add("--box", metavar="X,Y,W,H", help="what zoom shows, in pixels; the middle by default")
    add("--gain", type=float, default=4.0, help="how much difference exaggerates (4)")
    add("--row", type=int, help="the row of pixels of a profile; the middle by default")
    add("--frame", type=int, help="the frame of a sheet; the middle by default")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> None:
    from dloral.evaluation.compare import Box, Look, compare
    from dloral.terminal import frame_bar

    box = None
    if options.box is not None:
        if not re.fullmatch(",".join([PIXELS] * 4), options.box):
            raise OptionError(f"--box is {options.box!r}; give left,top,width,height in pixels")
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


def add_study(commands: Commands) -> None:
    parser = commands.add_parser(
        "study",
        help="the paper's studies: strategies, branches, order, windows",
        description="Train the variants of a study by configuration, measure them along the way, "
        "and write a table with the paper's numbers beside, curves and a sheet of crops. With "
        "--data FOLDER, a trained model's switches are measured on its clips (branches, windows). "
        "A study that was stopped goes on where it was.",
        epilog="docs/evaluation.md",
    )
    add = parser.add_argument
    add("study", metavar="STUDY", help="strategies, branches, order or windows")
    add(
        "--model",
        default="compact",
        help="what is trained: a configuration of `dloral train`; with --data FOLDER, a model "
        "folder, a Hub id, or the released model.pkl with --base",
    )
    add("--base", type=Path, metavar="DIR", help="Stable Diffusion 2.1-base, for a model.pkl")
    add(
        "--data",
        nargs="+",
        required=True,
        metavar="KIND:PATH",
        help="places to train on, as `dloral train` takes them; or a folder of low-quality clips",
    )
    add("--held-out", type=Path, metavar="PACK", help="a pack that nothing is trained on")
    add("--reference", type=Path, metavar="DIR", help="ground truth of the clips in --data")
    add("--seeds", type=int, default=3, help="trainings of each variant (3)")
    add("--budget", type=float, metavar="MINUTES", help="for the whole study; sets the steps")
    add("--steps", type=int, help="steps a run, instead of a budget")
    add("--metrics", nargs="+", metavar="NAME", help="measures; what can be had offline by default")
    add("--frames", type=int, help="of each clip in --data, the first so many")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other settings of the training")
    add("--device", default="auto", help="for --data FOLDER: auto, cpu, cuda, mps")
    add("--dtype", default="auto", help="for --data FOLDER: auto, float32, bfloat16, float16")
    add("--resume", action="store_true", help="go on with the study that is in OUT")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="the study's folder")
    parser.set_defaults(command=_study)


def _study(options: argparse.Namespace) -> None:
    from dloral.evaluation.studies import METRICS, STUDIES, train_study
    from dloral.evaluation.study_inference import measure_study, opened_model
    from dloral.evaluation.study_report import write_study

    if options.study not in STUDIES:
        raise OptionError(f"study is {options.study!r}; choose from {', '.join(STUDIES)}")
    study = STUDIES[options.study]
    started = options.output.is_dir() and any(options.output.iterdir())
    if started and not options.resume:
        raise OptionError(
            f"{options.output} holds something already; give --resume or a new folder"
        )

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    command = "python -m dloral " + " ".join(sys.argv[1:])
    if len(options.data) == 1 and ":" not in options.data[0]:
        metrics = options.metrics or ["paper", "niqe", "flicker", "grid_level"]
        if options.reference is not None and not options.metrics:
            metrics += ["psnr", "lpips_like"]
        with opened_model(options.model, options.base, options.device, options.dtype) as pipe:
            found = measure_study(
                study,
                pipe,
                Path(options.data[0]),
                options.reference,
                tuple(metrics),
                options.output,
                tell,
                options.frames,
            )
    else:
        chosen = _study_options(options, tuple(options.metrics or METRICS))
        found = train_study(study, chosen, options.output, tell)
    print(write_study(study, found, options.output, command).read_text())
    missed = {**found["unavailable"], **found.get("failed", {})}
    if missed:
        raise DLoRALError("not measured: " + "; ".join(f"{k}: {why}" for k, why in missed.items()))


def _study_options(options: argparse.Namespace, metrics: tuple[str, ...]) -> Any:
    from dataclasses import replace

    from dloral.evaluation.studies import StudyOptions
    from dloral.training.config import load_config, with_changes

    if options.held_out is None or not (options.held_out / "hq.npy").is_file():
        raise OptionError(
            f"--held-out is {options.held_out}; give a pack of clips that are not trained on, as "
            "`python -m dloral.data.pack_maker --frames 10` makes one"
        )
    config = load_config(options.model)
    data = config.data
    source = replace(data.consistency, places=tuple(options.data))
    data = replace(data, consistency=source, enhancement=None, held_out=None)
    config = with_changes(replace(config, data=data), options.set)
    return StudyOptions(
        config, options.held_out, metrics, options.seeds, options.budget, options.steps
    )
