"""Checkpoints: all that a run needs to resume as if it had never stopped, written atomically.

``RUN/checkpoint.pt`` is the newest, ``RUN/checkpoint-before.pt`` the one before it.
"""

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dloral.errors import DLoRALError, OutputError

CHECKPOINT = "checkpoint.pt"
BEFORE = "checkpoint-before.pt"


class CheckpointError(DLoRALError):
    """A checkpoint cannot be used: it is damaged, or from another configuration."""


def save_checkpoint(run: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` next to the last checkpoint, and only then replace that.

    Whatever interrupts this (a kill, a full disk), a complete checkpoint remains. Raises
    :class:`OutputError` if it cannot be written.
    """
    # Always the same name, so that runs killed here leave one unfinished file, not one each.
    newest, unfinished = run / CHECKPOINT, run / "checkpoint.tmp"
    try:
        with unfinished.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        if newest.exists():
            newest.replace(run / BEFORE)
        unfinished.replace(newest)
    except (OSError, RuntimeError) as error:  # torch's writer turns the former into the latter
        free = shutil.disk_usage(run).free
        unfinished.unlink(missing_ok=True)
        raise OutputError(
            f"the checkpoint of step {state['step']} could not be written to {run} "
            f"({free / 1e9:.1f} GB free): {str(error).splitlines()[0]}; the last good one is kept: "
            "free up space and run the same command again"
        ) from error


def load_checkpoint(run: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run, loaded on the CPU; None for a new run."""
    paths = [path for path in (run / CHECKPOINT, run / BEFORE) if path.is_file()]
    if not paths:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says so in one line
            return torch.load(paths[0], weights_only=True, map_location="cpu")
    except Exception as error:  # damaged bytes can make the reader raise anything
        remedy = f"remove it to resume from {BEFORE}" if len(paths) > 1 else "use a new run folder"
        raise CheckpointError(
            f"{paths[0]} is corrupt or truncated at {paths[0].stat().st_size:,} bytes; {remedy}"
        ) from error


def check_tensors(
    run: Path, stored: Mapping[str, Tensor], wanted: Mapping[str, torch.nn.Parameter]
) -> None:
    """Raise :class:`CheckpointError` unless the checkpoint's parameters are those of this run."""
    misfits = sorted(stored.keys() ^ wanted.keys()) or sorted(
        name for name in wanted if stored[name].shape != wanted[name].shape
    )
    if misfits:
        more = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        raise CheckpointError(
            f"{run / CHECKPOINT} is from another configuration (it differs in {misfits[0]}{more}); "
            "use another run folder"
        )


def check_settings(run: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise :class:`CheckpointError` for a setting that would change what the run computes.

    A loop setting that one side lacks counts as left at its default, for custom tasks.
    """
    for name in sorted(stored.keys() | wanted.keys()):
        of_one_side = name not in stored or name not in wanted
        if of_one_side and (not stored or name.startswith("loop.")):
            continue
        was, now = (settings.get(name, "not given") for settings in (stored, wanted))
        if was != now:
            raise CheckpointError(
                f"{run / CHECKPOINT} is from another configuration ({name} was {was}, but is now "
                f"{now}); use another run folder"
            )
