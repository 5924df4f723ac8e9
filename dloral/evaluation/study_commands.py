"""``dloral study``: argument parsing for its commands. Importing costs nothing."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from dloral.arguments import number, path_of, place, whole
from dloral.errors import COMMAND_LINE, DLoRALError, OptionError, Setting

Commands = Any

_OF_TRAININGS = "psnr lpips_like niqe warping_error flicker grid_level"
_OF_A_MODEL = "paper niqe flicker grid_level; with --reference also psnr lpips_like"


def add_study(commands: Commands) -> None:
    parser = commands.add_parser(
        "study",
        help="the paper's studies: strategies, branches, order, windows",
        description="The paper's studies: train their variants, or measure a trained model's "
        "switches. Writes tables with the paper's numbers alongside, curves and a sheet of crops.",
        epilog="docs/evaluation.md",
    )
    kinds = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(kinds)
    _add_time(kinds)
    _add_report(kinds)
    _add_measure(kinds)


def _add_train(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "train",
        help="train every variant of a study and measure it along the way",
        description="Train the variants of a study by configuration and measure them along the "
        "way. Says first how long it will take. If it stops for any reason, the same command "
        "resumes it; OUT/README.md reports the finished runs.",
    )
    _add_runs(parser)
    _add_metrics(parser, _OF_TRAININGS)
    _add_output(parser)
    parser.set_defaults(command=_train)


def _add_time(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "time",
        help="how long a study would take here",
        description="Time a few steps of every variant and one measurement, and say how long "
        "`study train` with the same arguments would take. Keeps nothing.",
    )
    _add_runs(parser)
    _add_metrics(parser, _OF_TRAININGS)
    parser.set_defaults(command=_time)


def _add_report(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "report",
        help="write the report of a study's finished runs",
        description="Write README.md, curves and a sheet from the finished runs in OUT, even while "
        "others still train.",
    )
    parser.add_argument("output", type=path_of, metavar="OUT", help="the study's folder")
    parser.set_defaults(command=_report)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the options that define a study's runs."""
    add = parser.add_argument
    add("study", metavar="STUDY", help="strategies, branches, order or windows")
    add("--recipe", default="study", help="a configuration of `dloral train` (study)")
    add(
        "--teacher",
        type=path_of,
        metavar="FILE",
        help="realesr-general-x4v3, the teacher that the recipe `study` needs",
    )
    add(
        "--data",
        nargs="+",
        type=place,
        required=True,
        metavar="KIND:PATH",
        help="places to train on, as `dloral train` takes them",
    )
    add("--held-out", type=path_of, required=True, metavar="PACK", help="a pack never trained on")
    add("--seeds", type=whole, help="trainings of each variant (5; 7 for order)")
    add("--seed", type=whole, default=0, help="the first seed (0)")
    add("--budget", type=number, metavar="MINUTES", help="time for the whole study; sets the steps")
    add("--steps", type=whole, help="steps per run, instead of a budget")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other settings of the training")


def _add_measure(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "measure",
        help="measure a trained model's switches: branches (LoRA scales) or windows",
        description="Restore low-quality clips with a trained model's LoRA scales or windows.",
    )
    add = parser.add_argument
    add("study", metavar="STUDY", help="branches or windows")
    add("--model", default="compact", help="compact, sd21, a folder, a Hub id, or model.pkl")
    add("--base", type=path_of, metavar="DIR", help="Stable Diffusion 2.1-base, for a model.pkl")
    add(
        "--data",
        type=path_of,
        required=True,
        metavar="DIR",
        help="a folder of low-quality clips, or a pack or several, which hold their ground truth",
    )
    add("--reference", type=path_of, metavar="DIR", help="their ground truth")
    add("--frames", type=whole, metavar="N", help="use only the first N frames of each clip")
    add("--device", default="auto", help="auto, cpu, cuda, xpu, mps")
    add("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    _add_metrics(parser, _OF_A_MODEL)
    _add_output(parser)
    add("--resume", action="store_true", help="measure again into the existing OUT")
    parser.set_defaults(command=_measure)


def _add_metrics(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help=f"measures (default: {default})"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=path_of, required=True, metavar="OUT", help="the study's folder"
    )


def _train(options: argparse.Namespace) -> None:
    from dloral.evaluation.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from dloral.evaluation.study_figures import check_can_draw
    from dloral.evaluation.study_plan import PLAN
    from dloral.evaluation.study_training import train_study

    study, chosen = _study(options), _study_options(options)
    check_can_draw()  # now, not after hours of training
    if not (options.output / PLAN).is_file():
        _check_free(options, "give a new folder")

    def report(found: dict[str, Any]) -> None:
        _write(study, found, options.output)

    found = train_study(study, chosen, options.output, _tell, COMMAND_LINE, report)
    _finish(study, found, options)


def _time(options: argparse.Namespace) -> None:
    from dloral.evaluation.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from dloral.evaluation.study_plan import opened_clips, timed, told

    study, chosen = _study(options), _study_options(options)
    plan = timed(study, chosen, opened_clips(chosen, COMMAND_LINE), _tell)
    print("\n".join(told(study, plan)))


def _report(options: argparse.Namespace) -> None:
    from dloral.evaluation.studies import STUDIES
    from dloral.evaluation.study_plan import Plan
    from dloral.evaluation.study_report import write_study
    from dloral.evaluation.study_training import gathered

    plan = Plan.load(options.output)
    if plan is None:
        raise OptionError("{path} holds no trained study", path=options.output)
    study = STUDIES[plan.settings["study"]]
    written = options.output / "study.json"
    trained_by = json.loads(written.read_text())["command"] if written.is_file() else ""
    found = gathered(study, options.output)
    print(write_study(study, found, options.output, trained_by).read_text())


def _measure(options: argparse.Namespace) -> None:
    from dloral.evaluation.torchvision_ops import make_torchvision_importable

    make_torchvision_importable()
    from dloral.evaluation.study_inference import clips_to_restore, measure_study, opened_model

    study = _study(options)
    if not options.resume:
        _check_free(options, "give {option} or a new folder", option=Setting("resume"))
    metrics = options.metrics or ["paper", "niqe", "flicker", "grid_level"]
    clips = clips_to_restore(options.data, options.reference)
    if any(clip.hq for clip in clips) and not options.metrics:
        metrics += ["psnr", "lpips_like"]
    with opened_model(options.model, options.base, options.device, options.dtype) as pipe:
        found = measure_study(
            study,
            pipe,
            clips,
            tuple(metrics),
            options.output,
            _tell,
            options.frames,
            COMMAND_LINE,
        )
    _finish(study, found, options)


def _study(options: argparse.Namespace) -> Any:
    """The study by name."""
    from dloral.evaluation.studies import STUDIES

    if options.study not in STUDIES:
        raise OptionError(
            "there is no study {value!r}",
            remedy=f"choose from {', '.join(STUDIES)}",
            value=options.study,
        )
    return STUDIES[options.study]


def _check_free(options: argparse.Namespace, remedy: str, **values: Any) -> None:
    if options.output.is_dir() and any(options.output.iterdir()):
        raise OptionError("{path} is not empty", remedy=remedy, path=options.output, **values)


def _study_options(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from dloral.evaluation.study_plan import METRICS, StudyOptions
    from dloral.training.config import with_changes
    from dloral.training.recipes import load_config

    if not (options.held_out / "hq.npy").is_file():
        raise OptionError(
            "{option} is {path}, which is not a pack",
            remedy="give one of clips that are not trained on, as `dloral data pack` makes it",
            option=Setting("held_out"),
            path=options.held_out,
        )
    config = load_config(options.recipe)
    data = config.data
    source = replace(data.consistency, places=tuple(options.data))
    data = replace(data, consistency=source, enhancement=None, held_out=None)
    if options.teacher is not None:
        config = replace(config, model=replace(config.model, teacher=str(options.teacher)))
    config = with_changes(replace(config, data=data), options.set)
    return StudyOptions(
        config,
        options.held_out,
        tuple(options.metrics or METRICS),
        options.seeds,
        options.budget,
        options.steps,
        options.seed,
    )


def _write(study: Any, found: dict[str, Any], out: Path) -> Path:
    from dloral.evaluation.study_report import write_study

    command = shlex.join(["dloral", *sys.argv[1:]])
    return write_study(study, found, out, command)


def _finish(study: Any, found: dict[str, Any], options: argparse.Namespace) -> None:
    print(_write(study, found, options.output).read_text())
    missed = {**found["unavailable"], **found.get("failed", {})}
    if missed:
        raise DLoRALError("not measured: " + "; ".join(f"{k}: {why}" for k, why in missed.items()))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
