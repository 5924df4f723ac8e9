"""The training commands: their arguments, and what they call. Importing costs nothing."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dloral.errors import Setting
from dloral.packages import needs_extra

Commands = Any
SHOWN = 20
"""Left-out files that are listed one by one; more are counted by reason."""


def add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train C-LoRA, D-LoRA and CFR by Algorithm 1",
        description="Train as a configuration says, going on from the run's last checkpoint where "
        "there is one. On several devices: accelerate launch -m dloral train CONFIG ...",
        epilog="places, losses and settings: docs/training.md",
    )
    _add_config(parser)
    # Not --run: torchrun, which accelerate launches with, would take it for its own --run-path.
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="RUN", help="the run's folder"
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="compact-cpu, compact-gpu: how long a new run may train in all, such as 9h or 25m",
    )
    parser.set_defaults(command=_train)


def add_data_list(actions: Commands) -> None:
    """``dloral data list``: here because it knows configurations."""
    parser = actions.add_parser(
        "list",
        help="list what there is to train on, and what is left out and why",
        description="List what a configuration's places hold.",
    )
    _add_config(parser)
    parser.add_argument("--all", action="store_true", help="every left-out file, one by one")
    parser.set_defaults(command=_data)


def _add_config(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "config",
        metavar="CONFIG",
        help="compact-cpu, compact-gpu, sd21, tiny, ..., a Python file, or a run's folder",
    )
    add(
        "--data",
        nargs="+",
        metavar="KIND:PATH",
        help="places of both stages' clips, such as photos:DIR videos:DIR reds:DIR",
    )
    add(
        "--held-out",
        nargs="+",
        metavar="KIND:PATH",
        help="places of clips never trained on; of compact-cpu and compact-gpu a manifest",
    )
    add("--steps", type=int, help="length of the run")
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="other settings, such as loop.seed=1 algorithm.window=3",
    )


def _configured(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from dloral.data.spec import ClipSpec
    from dloral.training.config import with_changes
    from dloral.training.recipes import load_config

    config = load_config(options.config)
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
            "{option} is a setting of {recipes}",
            remedy="give {steps} instead",
            option=Setting("budget"),
            steps=Setting("steps"),
            recipes=" and ".join(CHAINS),
        )
    else:
        trained = run_training(_configured(options), options.output)
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
            remedy="give one list, as `dloral data manifest` writes it",
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
        help="put a trained model into the package, in half precision",
        description="Put the pipeline of a finished run where it is used from.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run, or its pipeline")
    parser.add_argument("--to", type=Path, metavar="DIR", help="here instead of into the package")
    parser.add_argument(
        "--strengths",
        type=float,
        nargs=2,
        default=(1.0, 1.0),
        metavar=("C", "D"),
        help="what a dial's 1 is to mean: shares of C-LoRA and D-LoRA as trained",
    )
    parser.add_argument(
        "--crispness",
        type=float,
        metavar="AMOUNT",
        help="with detail at 1, how crisp frames are made at the end (default: the model's own)",
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        metavar="SHARE",
        help="how far flat areas are smoothed there, 0 to 1 (default: the model's own)",
    )
    parser.set_defaults(command=_embed)


def _embed(options: argparse.Namespace) -> None:
    from dloral.weights.embed import embed

    made = embed(
        options.run, options.to, tuple(options.strengths), options.crispness, options.smoothing
    )
    print(f"embedded: {made}")


def add_curve(commands: Commands) -> None:
    parser = commands.add_parser(
        "curve",
        help="draw what runs logged",
        description="Draw losses and held-out figures of runs (needs matplotlib).",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PICTURE")
    parser.set_defaults(command=_curve)


def _curve(options: argparse.Namespace) -> None:
    with needs_extra("train", "the picture of curves"):
        from dloral.training.curve import draw

    draw(options.runs, options.output)


def _data(options: argparse.Namespace) -> None:
    from dloral.data.packs import Pack
    from dloral.training.run import list_data

    for name, sources in list_data(_configured(options)).items():
        if isinstance(sources, Pack):
            count, frames = sources.hq.shape[:2]
            print(
                f"{name}: a pack of {count} clips, {frames} frames of {sources.size} pixels a side"
            )
            continue
        videos = {window.clip.path for window in sources.windows}
        print(
            f"{name}: {len(sources.photos)} photographs, {len(videos)} videos with "
            f"{len(sources.windows)} places to start from, {len(sources.left_out)} left out"
        )
        for line in _left_out(sources.left_out, options.all):
            print(f"  {line}")


def _left_out(left_out: dict[str, str], every: bool) -> Sequence[str]:
    if every or len(left_out) <= SHOWN:
        return [f"{name}: {reason}" for name, reason in left_out.items()]
    return [
        f"{count} files: {reason}" for reason, count in Counter(left_out.values()).most_common()
    ]
