"""The room's commands: what they take, and whom they hand it to. Importing costs nothing."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    parser.set_defaults(command=_train)


def add_data_list(actions: Commands) -> None:
    """``dloral data list``: here, for it knows configurations."""
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
        help="compact, sd21, tiny, ..., a Python file, or a run's folder",
    )
    add(
        "--data",
        nargs="+",
        metavar="KIND:PATH",
        help="places of both stages' clips, such as photos:DIR videos:DIR reds:DIR",
    )
    add("--held-out", nargs="+", metavar="KIND:PATH", help="places of clips never trained on")
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
    from dloral.training.config import load_config, with_changes

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

    from dloral.training.run import run_training

    trained = run_training(_configured(options), options.output)
    if PartialState().is_main_process and trained.is_dir():
        print(f"trained: {trained}; use it with --model {trained}")


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
