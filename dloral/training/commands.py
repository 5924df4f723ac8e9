"""The training commands: their arguments, and what they call. Importing this is cheap."""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dloral.arguments import number, path_of, path_text, place, whole
from dloral.errors import Setting, one_line
from dloral.packages import needs_extra

Commands = Any
SHOWN = 20
"""Up to this many left-out files are listed one by one; more are counted by reason."""


def add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train the compact model, or C-LoRA, D-LoRA and CFR by Algorithm 1",
        description="Train a configuration, resuming from the run's last checkpoint if there is "
        "one. On several devices: accelerate launch -m dloral train CONFIG ...",
        epilog="data places, losses and settings: see docs/training.md",
    )
    _add_config(
        parser,
        "compact-cpu, compact-gpu, sd21, tiny, ..., a Python file or a run folder",
        "where held-out clips come from; for compact-cpu and compact-gpu, a manifest",
    )
    # Not --run: torchrun, which accelerate launches with, would take it for its own --run-path.
    parser.add_argument(
        "-o", "--output", type=path_of, required=True, metavar="RUN", help="run folder"
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="total training time of a new run, such as 9h or 25m (compact-cpu, compact-gpu only)",
    )
    parser.set_defaults(command=_train)


def add_data_list(actions: Commands) -> None:
    """``dloral data list``: here because it needs configurations."""
    parser = actions.add_parser(
        "list",
        help="list the training data, and the files left out and why",
        description="List the data in a configuration's places.",
    )
    _add_config(
        parser,
        "compact, study, sd21, sd21-random, tiny, a Python file or a run folder",
        "where held-out clips come from",
    )
    parser.add_argument("--all", action="store_true", help="list every left-out file")
    parser.set_defaults(command=_data)


def _add_config(parser: argparse.ArgumentParser, configurations: str, held_out: str) -> None:
    """``configurations``, ``held_out``: the help of the arguments that differ by command."""
    add = parser.add_argument
    add("config", type=path_text, metavar="CONFIG", help=configurations)
    add(
        "--data",
        nargs="+",
        type=place,
        metavar="KIND:PATH",
        help="where the clips of both stages come from, such as photos:DIR videos:DIR reds:DIR",
    )
    add("--held-out", nargs="+", type=place, metavar="KIND:PATH", help=held_out)
    add("--steps", type=whole, help="number of training steps")
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="other settings, such as loop.seed=1 algorithm.window=3",
    )


def _configured(options: argparse.Namespace, also: Iterable[str] = ()) -> Any:
    from dataclasses import replace

    from dloral.data.spec import ClipSpec
    from dloral.training.config import with_changes
    from dloral.training.recipes import load_config

    config = load_config(options.config, also)
    data = config.data
    if options.data:
        places = tuple(options.data)
        data = replace(data, consistency=replace(data.consistency, places=places), enhancement=None)
    if options.held_out:
        held_out = data.held_out or replace(data.consistency, places=())
        assert isinstance(held_out, ClipSpec)
        data = replace(data, held_out=replace(held_out, places=tuple(options.held_out)))
    config = replace(config, data=data)
    if options.steps is not None:
        config = replace(config, loop=replace(config.loop, steps=options.steps))
    return with_changes(config, options.set)


def _train(options: argparse.Namespace) -> None:
    from accelerate import PartialState

    from dloral.errors import OptionError
    from dloral.training.recipes import CHAINS
    from dloral.training.run import run_training

    if options.config in CHAINS:
        trained = _train_chain(options)
    elif options.budget is not None:
        raise OptionError(
            "{option} is only for {recipes}",
            remedy="use {steps} instead",
            option=Setting("budget"),
            steps=Setting("steps"),
            recipes=" and ".join(CHAINS),
        )
    else:
        trained = run_training(_configured(options, CHAINS), options.output)
    if PartialState().is_main_process and trained.is_dir():
        print(f"trained: {trained}; use it with --model {trained}")


def _train_chain(options: argparse.Namespace) -> Path:
    """Train every phase of the compact model; ``--held-out`` is a manifest here."""
    from dataclasses import replace

    from dloral.errors import OptionError
    from dloral.training.chain import run_chain
    from dloral.training.config import with_changes
    from dloral.training.plan import check_budget
    from dloral.training.recipes import CHAINS

    if options.held_out and len(options.held_out) > 1:
        raise OptionError(
            "{option} is {value}",
            remedy="give a single list, as written by `dloral data manifest`",
            option=Setting("held_out"),
            value=" ".join(options.held_out),
        )
    if options.budget is not None and options.steps is not None:
        raise OptionError(
            "{option} and {other} are mutually exclusive",
            option=Setting("budget"),
            other=Setting("steps"),
        )
    config = with_changes(CHAINS[options.config], options.set)
    if options.data:
        config = replace(config, clips=replace(config.clips, places=tuple(options.data)))
    return run_chain(
        config,
        options.output,
        budget=None if options.budget is None else check_budget(options.budget),
        steps=options.steps,
        manifest=Path(options.held_out[0]) if options.held_out else None,
    )


def add_embed(commands: Commands) -> None:
    parser = commands.add_parser(
        "embed",
        help="install a trained model into the package, in half precision",
        description="Install the pipeline of a finished run into the package or a folder.",
    )
    parser.add_argument("run", type=path_of, metavar="RUN", help="a finished run, or its pipeline")
    parser.add_argument(
        "--to", type=path_of, metavar="DIR", help="install here, not into the package"
    )
    parser.add_argument(
        "--strengths",
        type=number,
        nargs=2,
        default=(1.0, 1.0),
        metavar=("C", "D"),
        help="C-LoRA and D-LoRA strengths, relative to those trained, that a scale of 1 stands for",
    )
    parser.add_argument(
        "--crispness",
        type=number,
        metavar="AMOUNT",
        help="sharpening of output frames at a detail of 1 (default: the model's own)",
    )
    parser.add_argument(
        "--smoothing",
        type=number,
        metavar="SHARE",
        help="smoothing of their flat areas, 0 to 1 (default: the model's own)",
    )
    parser.add_argument(
        "--steadying",
        type=number,
        metavar="SHARE",
        help="how far each is blended with its predecessor at a consistency of 1, 0 to 0.5 "
        "(default: the model's own)",
    )
    parser.add_argument(
        "--grid-period",
        type=whole,
        metavar="PIXELS",
        help="period of a faint grid that the decoder draws, to be taken out: 2, 4 or 8; 0 for "
        "none (default: the model's own)",
    )
    parser.set_defaults(command=_embed)


def _embed(options: argparse.Namespace) -> None:
    from dloral.generator import FINISH
    from dloral.weights.embed import embed

    finish = {name: getattr(options, name) for name in FINISH}
    made = embed(options.run, options.to, tuple(options.strengths), **finish)
    print(f"embedded: {made}")


def add_curve(commands: Commands) -> None:
    parser = commands.add_parser(
        "curve",
        help="plot the logs of training runs",
        description="Plot the losses and held-out figures of training runs (needs matplotlib).",
    )
    parser.add_argument("runs", type=path_of, nargs="+", metavar="RUN")
    parser.add_argument("-o", "--output", type=path_of, required=True, metavar="PICTURE")
    parser.set_defaults(command=_curve)


def _curve(options: argparse.Namespace) -> None:
    with needs_extra("train", "plotting curves"):
        from dloral.training.curve import draw

    draw(options.runs, options.output)


def _data(options: argparse.Namespace) -> None:
    from dloral.data.packs import Pack
    from dloral.training.run import list_data

    for name, sources in list_data(_configured(options)).items():
        if isinstance(sources, Pack):
            count, frames = sources.hq.shape[:2]
            print(
                f"{name}: a pack of {count} clips of {frames} frames, "
                f"{sources.size}x{sources.size} pixels"
            )
            continue
        videos = {window.clip.path for window in sources.windows}
        print(
            f"{name}: {len(sources.photos)} photographs, {len(videos)} videos with "
            f"{len(sources.windows)} possible clip starts, {len(sources.left_out)} left out"
        )
        for line in _left_out(sources.left_out, options.all):
            print(one_line(f"  {line}"))


def _left_out(left_out: dict[str, str], every: bool) -> Sequence[str]:
    if every or len(left_out) <= SHOWN:
        return [f"{name}: {reason}" for name, reason in left_out.items()]
    return [
        f"{count} files: {reason}" for reason, count in Counter(left_out.values()).most_common()
    ]
