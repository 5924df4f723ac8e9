"""Installing a trained model: half precision, and figures for its model card."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from dloral.errors import InputError, OptionError
from dloral.files import write_json
from dloral.frames.steady import LARGEST_SHARE
from dloral.generator import FINISH
from dloral.hub_folder import drop_code
from dloral.models.adapters import ADAPTERS, adapter_parameters
from dloral.models.unet import cast
from dloral.pipeline import DLoRALPipeline
from dloral.weights.resolve import EMBEDDED

CARD = "card-figures.json"


def embed(
    run: Path,
    target: Path | None = None,
    strengths: tuple[float, float] = (1.0, 1.0),
    **finish: float | None,
) -> Path:
    """Install the pipeline of a finished run (or a pipeline folder) into the package, or into
    ``target``, in half precision; other files there are kept. Returns the folder.

    ``strengths``: the C-LoRA and D-LoRA strengths, relative to those trained, that a scale of 1
    stands for; what people like best may differ from the training target.
    ``finish``: any of :data:`dloral.generator.FINISH`, described in
    :class:`dloral.generator.Generator`; None: the model's own.

    ``card-figures.json`` next to the weights records :func:`card_figures` and these settings.
    Raises :class:`InputError` if ``run`` is not finished, and :class:`OptionError` for strengths of
    0 or less, or a finish outside its range.
    """
    _check(strengths, finish)
    target = EMBEDDED["compact"] if target is None else target
    found = [
        folder for folder in (run / "pipeline", run) if (folder / "model_index.json").is_file()
    ]
    if not found:
        raise InputError(
            "{path} contains no pipeline", remedy="give the folder of a finished run", path=run
        )
    pipe = DLoRALPipeline.from_pretrained(found[0])
    for adapter, strength in zip(ADAPTERS, strengths, strict=True):
        _scale(pipe, adapter, strength)
    pipe.register_to_config(**{name: value for name, value in finish.items() if value is not None})
    parts = {n: p for n, p in pipe.components.items() if isinstance(p, torch.nn.Module)}
    for part in parts.values():
        cast(part, torch.float16)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".embed-") as folder:
        made = Path(folder)
        pipe.save_pretrained(made)
        if target == EMBEDDED["compact"]:
            drop_code(made)  # the package around it is that code
        for path in made.rglob("*.json"):
            # diffusers records where a part was loaded from: a folder on the trainer's machine.
            config = json.loads(path.read_text())
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2) + "\n")
        for path in sorted(p for p in made.rglob("*") if p.is_file()):
            place = target / path.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    figures = card_figures(run, parts, target)
    chosen = {name: getattr(pipe, name) for name in FINISH}
    chosen["strengths"] = dict(zip(ADAPTERS, strengths, strict=True))
    write_json(target / CARD, figures | chosen)
    return target


LARGEST = {"crispness": math.inf, "smoothing": 1.0, "steadying": LARGEST_SHARE}
"""Upper limits of the finishing settings that may have any value from 0 on."""

GRID_PERIODS = (0, 2, 4, 8)


def _check(strengths: tuple[float, float], finish: Mapping[str, float | None]) -> None:
    if min(strengths) <= 0:
        raise OptionError(
            f"strengths are {strengths[0]:g} and {strengths[1]:g}; both must be more than 0"
        )
    if unknown := finish.keys() - {*FINISH}:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    for name, amount in finish.items():
        if name == "grid_period":
            if amount not in (None, *GRID_PERIODS):
                raise OptionError(f"{name} is {amount}; give {', '.join(map(str, GRID_PERIODS))}")
            continue
        largest = LARGEST[name]
        if amount is None or (math.isfinite(amount) and 0 <= amount <= largest):
            continue
        wanted = "0 or more" if largest == math.inf else f"a number from 0 to {largest:g}"
        raise OptionError(f"{name} is {amount:g}; give {wanted}")


@torch.no_grad()
def _scale(pipe: DLoRALPipeline, adapter: str, strength: float) -> None:
    """Scale one of the two factors of each weight update."""
    for part in (pipe.unet, pipe.vae):
        for name, weight in adapter_parameters(part, adapter).items():
            if ".lora_B." in name or ".lora_up." in name:
                weight.mul_(strength)


def card_figures(
    run: Path, parts: Mapping[str, torch.nn.Module], target: Path
) -> dict[str, object]:
    """``parameters`` by part and ``bytes`` of the weight files; for a run also its ``plan`` and the
    last held-out figures of each phase."""
    figures: dict[str, object] = {
        "parameters": {n: sum(p.numel() for p in part.parameters()) for n, part in parts.items()},
        "bytes": sum(path.stat().st_size for path in target.rglob("*.safetensors")),
    }
    plan = run / "plan.json"
    if plan.is_file():
        figures["plan"] = json.loads(plan.read_text())
        figures["held_out"] = {log.parent.name: _last(log) for log in run.glob("*/log.jsonl")}
    return figures


def _last(log: Path) -> dict[str, float]:
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return next((entry["held_out"] for entry in reversed(entries) if "held_out" in entry), {})
