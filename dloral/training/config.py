"""Training configuration: frozen dataclasses that validate themselves, and how they are changed.

A configuration is a name (:mod:`dloral.training.recipes`) or a Python file that defines
``config = TrainConfig(...)``. A run saves its own as such a file, ``RUN/config.py``, fully
resolved, so that it can be repeated from there.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from pprint import pformat
from textwrap import indent
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dloral.data.spec import ClipSpec, check, one_of
from dloral.errors import OptionError
from dloral.files import write_text
from dloral.training.loop import LoopConfig
from dloral.training.phases.algorithm1 import Algorithm1Config
from dloral.training.schedule import StageSchedule

Config = TypeVar("Config")

PRECISIONS = ("float32", "bfloat16")
WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", ""),
    str: ("text", "strings"),
    type(None): ("None", ""),
    StageSchedule: ("a schedule's name", ""),
}


@dataclass(frozen=True)
class ModelConfig:
    """What is trained.

    ``start``: a registry name, a model folder or a Hub id; ``sd21:FOLDER`` for a plain Stable
    Diffusion 2.1-base folder; ``random-sd21`` or ``random-tiny`` for random weights of those sizes.
    ``fresh``: start with new LoRAs of these ranks and a new CFR instead of the model's own.
    ``flow``: a folder with flow-net weights, if the start has none (``sd21:``).
    ``frozen_dtype``: of the frozen parts; trainable parameters are float32.
    ``gradient_checkpointing``: recompute activations in the backward pass; slower, far less
    memory. ``prompt``: the prompt of every clip, appended to its tags if ``tagger`` names a folder
    with RAM's weights. ``teacher``: the path to realesr-general-x4v3, for the losses that need a
    teacher.
    """

    start: str = "compact"
    fresh: bool = True
    consistency_rank: int = 4
    detail_rank: int = 4
    flow: str = ""
    frozen_dtype: str = "float32"
    gradient_checkpointing: bool = False
    prompt: str = ""
    tagger: str = ""
    teacher: str = ""

    def __post_init__(self) -> None:
        check(
            self,
            {
                "consistency_rank": (self.consistency_rank >= 1, "1 or more"),
                "detail_rank": (self.detail_rank >= 1, "1 or more"),
                "frozen_dtype": (self.frozen_dtype in PRECISIONS, one_of(PRECISIONS)),
            },
        )


@dataclass(frozen=True)
class DataConfig:
    """``consistency`` is the paper's S_cons, ``enhancement`` its S_enh (None: the same places),
    ``held_out`` the clips for held-out figures and sample grids (None: neither). ``workers``:
    processes that prepare clips; their number does not affect the samples. A ``joint`` stage draws
    its clips from S_cons."""

    consistency: ClipSpec = field(default_factory=ClipSpec)
    enhancement: ClipSpec | None = None
    held_out: ClipSpec | None = None
    held_out_clips: int = 4
    workers: int = 2

    def __post_init__(self) -> None:
        check(
            self,
            {
                "held_out_clips": (self.held_out_clips >= 1, "1 or more"),
                "workers": (self.workers >= 0, "0 or more"),
            },
        )


@dataclass(frozen=True)
class TrainConfig:
    """One training run: model, algorithm, data and loop. ``save_pipeline``: write a model folder
    for ``load_pipeline`` at the end."""

    model: ModelConfig = field(default_factory=ModelConfig)
    algorithm: Algorithm1Config = field(default_factory=Algorithm1Config)
    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    save_pipeline: bool = True


def flat(part: Any, prefix: str = "", mappings: bool = False) -> dict[str, Any]:
    """A configuration's settings by dotted name, including those of nested dataclasses and, with
    ``mappings``, those of its mappings."""
    found: dict[str, Any] = {}
    for name, value in (part if isinstance(part, Mapping) else vars(part)).items():
        inner = is_dataclass(value) or (mappings and isinstance(value, Mapping) and value)
        name = f"{prefix}{name}"
        found |= flat(value, f"{name}.", mappings) if inner else {name: value}
    return found


def save_config(config: TrainConfig, path: Path) -> None:
    """Write ``config`` as a Python file for :func:`dloral.training.recipes.load_config`."""
    write_text(
        path,
        '"""The configuration of this run, resolved."""\n\n'
        "from dloral.training.recipes import *\n\n"
        f"config = (\n{indent(pformat(config, width=92, sort_dicts=False), '    ')}\n)\n",
    )


def with_changes(config: Config, changes: Sequence[str]) -> Config:
    """``config`` with ``KEY=VALUE`` changes such as ``loop.steps=300`` or ``data.workers=0``.

    A value is parsed as a Python literal of the setting's type, or else taken as text. Raises
    :class:`OptionError` for a value of another type.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise OptionError(f"{change!r} is not KEY=VALUE; give a setting such as loop.steps=300")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        config = _changed(config, key.split("."), (value, text), key)
    return config


def _changed(part: Any, path: Sequence[str], given: tuple[Any, str], key: str) -> Any:
    """``given``: the value as a literal, and the text that it came from."""
    known = [f.name for f in fields(part)] if is_dataclass(part) else []
    if path[0] not in known:
        raise OptionError(f"{key} is not a setting; available: {', '.join(known) or 'none'}")
    if len(path) > 1:
        value = _changed(getattr(part, path[0]), path[1:], given, key)
    else:
        value = _of_type(get_type_hints(type(part))[path[0]], *given, getattr(part, path[0]), key)
    try:
        return replace(part, **{path[0]: value})
    except TypeError as error:
        raise OptionError(f"{key} cannot be {value!r}: {error}") from error


def _of_type(kind: Any, value: Any, text: str, now: Any, key: str) -> Any:
    """``value`` if it is of the annotated type ``kind``, or else ``text`` if that is."""
    value = tuple(value) if isinstance(value, list) else value
    if _fits(value, kind):
        return value
    if value is not None and _fits(text, kind):  # a folder may be called 2024
        return text
    example = "" if is_dataclass(now) or now in (None, "", (), {}) else f", such as {now!r}"
    raise OptionError(f"{key} is {text!r}; give {_in_words(kind)}{example}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a setting's annotated type; a whole number counts as a float."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if origin is not None:  # a mapping
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(of_key, parts[1]) for key, of_key in value.items()
        )
    if kind in (int, float):
        wanted = int if kind is int else int | float
        return isinstance(value, wanted) and not isinstance(value, bool)
    if kind is StageSchedule:
        return isinstance(value, str)  # the name of one
    return isinstance(value, kind)


def _in_words(kind: Any, many: bool = False) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return " or ".join(map(_in_words, parts))
    if origin is Literal:
        return f"{'' if many else 'one '}of {', '.join(map(repr, parts))}"
    if origin is tuple:
        count = "several" if parts[-1] is ... else str(len(parts))
        return f"{count} {_in_words(parts[0], many=True)} in brackets"
    if origin is not None:
        return f"{_in_words(parts[1], many=True)} by name in a dict"
    one, several = WORDS.get(kind, (f"a {kind.__name__} in a configuration file", ""))
    return several if many and several else one
