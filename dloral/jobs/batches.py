"""Many sources in one call: finding them, naming their results, running them one after another.

A source that fails is noted and the next one begins; results that already exist are skipped.
"""

import glob
import logging
import string
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dloral.errors import DLoRALError, InputError, OptionError, OutputError, Setting
from dloral.jobs.progress import Clock, Progress, ending
from dloral.jobs.spans import expected_frames
from dloral.options import UpscaleOptions
from dloral.video.images import IMAGE_SUFFIXES, WRITABLE_SUFFIXES
from dloral.video.pipes import is_pipe
from dloral.video.probe import probe

CLIP_SUFFIXES = (
    *(".mp4", ".mkv", ".mov", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ts", ".mts", ".m2ts"),
    *(".vob", ".wmv", ".flv", ".3gp", ".ogv", ".gif", ".mxf", ".y4m", ".dv", ".asf", ".f4v"),
)
"""What counts as a clip in a folder; a file named explicitly is taken whatever its suffix."""

CONTAINER_OF = {"h264": ".mp4", "h265": ".mp4", "vp9": ".webm", "prores": ".mov", "ffv1": ".mkv"}
"""Codec -> the suffix of a result whose name pattern has none."""

DONE, SKIPPED, FAILED = "done", "skipped", "failed"

_GLOB = frozenset("*?[")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One source of a batch and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """How an item ended: done, skipped (its target existed) or failed with ``error``."""

    item: Item
    state: str
    frames: int = 0
    seconds: float = 0.0
    error: Exception | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchProgress:
    """``progress`` of item ``index`` (from 0) of ``count``; ``frame`` of ``num_frames`` of the
    whole batch (None if a source does not say). ``outcomes``: of the items that have ended."""

    index: int
    count: int
    item: Item
    progress: Progress
    frame: int
    num_frames: int | None
    outcomes: tuple[Outcome, ...]


def is_batch(sources: Sequence[str], list_file: str | None = None) -> bool:
    """Whether a call asks for many results in a folder rather than one: several sources, a pattern,
    a list, or a folder of clips."""
    if list_file is not None or len(sources) != 1:
        return True
    path = Path(sources[0])
    return _is_pattern(sources[0]) or (path.is_dir() and any(_clips_in(path, recursive=True)))


def plan_batch(
    sources: Sequence[str],
    folder: str | Path,
    options: UpscaleOptions,
    name: str = "{stem}",
    recursive: bool = False,
    list_file: str | None = None,
) -> list[Item]:
    """Every source of the call with its target in ``folder``, in order, none of them twice.

    ``sources``: files, folders of frames, folders of clips, patterns such as ``*.mp4``;
    ``list_file``: a text file with one of these per line, relative to its own folder. Clips found
    in subfolders get the same subfolders below ``folder``. ``name``: a pattern of {stem},
    {name}, {suffix}, {parent}, {index}, {scale}, {model}; a suffix chooses the container.
    OptionError if nothing is found or the pattern is invalid.
    """
    if list_file is not None:
        sources = [*sources, *_listed(Path(list_file))]
    if any(map(is_pipe, [*sources, folder])):
        raise OptionError(
            "standard input and output are for one clip, but this is a batch",
            remedy="give - alone",
        )
    found: dict[Path, Path] = {}  # source -> its folder below the target's
    for text in sources:
        for source, below in _expand(text, recursive):
            found.setdefault(source, below)
    if not found:
        raise OptionError(
            "there are no clips in {value}",
            remedy="give files, folders of clips or of frames, or patterns such as *.mp4",
            value=", ".join(map(str, sources)) or "the command",
        )
    items: list[Item] = []
    taken: set[Path] = set()
    for index, (source, below) in enumerate(found.items()):
        target = Path(folder) / below / _name_of(source, name, index + 1, options)
        if target in taken:  # a.mov beside a.avi
            kind = source.suffix[1:] or "folder"
            target = target.with_name(f"{target.stem}-{kind}{target.suffix}")
        while target in taken:
            target = target.with_name(f"{target.stem}-{index + 1}{target.suffix}")
        taken.add(target)
        items.append(Item(source, target))
    return [item for item in items if not _is_result(item, taken)]


def run_batch(
    items: Sequence[Item],
    options: UpscaleOptions,
    run: Callable[[Item], Generator[Progress, None, None]],
    overwrite: bool = False,
) -> Generator[BatchProgress, None, tuple[Outcome, ...]]:
    """Run the items one after another; returns how each ended.

    ``run`` starts one. Without ``overwrite`` an item whose target exists is skipped: results
    appear whole or not at all. Closing the generator cancels the current item, and no other
    begins.
    """
    outcomes: list[Outcome] = []
    counts, errors = _looked_at(items, options, overwrite)
    total = None if None in counts.values() else sum(filter(None, counts.values()))
    finished = 0
    for index, item in enumerate(items):
        if item not in counts and item not in errors:
            outcomes.append(Outcome(item, SKIPPED))
            continue
        if item in errors:
            outcomes.append(Outcome(item, FAILED, error=errors[item]))
            continue
        clock, last = Clock(), Progress("waiting")
        try:
            _make_folder(item.target.parent)
            steps = run(item)
            with ending(steps):
                for last in steps:
                    done = finished + last.frame
                    ended = tuple(outcomes)
                    yield BatchProgress(index, len(items), item, last, done, total, ended)
        except DLoRALError as error:
            outcomes.append(Outcome(item, FAILED, last.frame, clock.seconds, error))
            if total is not None:
                total -= counts[item] or 0
        except Exception as error:
            # A bug of ours; the other clips should still get the rest of the night.
            _log.exception("%s failed", item.source)
            outcomes.append(Outcome(item, FAILED, last.frame, clock.seconds, error))
        else:
            outcomes.append(Outcome(item, DONE, last.frame, clock.seconds, None, last.notes))
            finished += last.frame
    return tuple(outcomes)


def _looked_at(
    items: Sequence[Item], options: UpscaleOptions, overwrite: bool
) -> tuple[dict[Item, int | None], dict[Item, DLoRALError]]:
    """How many frames each item to be run has, and the errors of those that cannot be run."""
    counts: dict[Item, int | None] = {}
    errors: dict[Item, DLoRALError] = {}
    for item in items:
        if item.target.absolute() == item.source.absolute():
            errors[item] = OptionError(
                "{path} would overwrite itself",
                remedy="give another folder, or a pattern as {option}",
                path=item.source,
                option=Setting("name"),
            )
            continue
        if not overwrite and _is_there(item.target):
            continue
        try:
            counts[item] = expected_frames(probe(item.source), options)
        except DLoRALError as error:
            errors[item] = error
    return counts, errors


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "{path} cannot be created: {value}", path=folder, value=(error.strerror or "").lower()
        ) from error


def _is_there(target: Path) -> bool:
    return any(target.iterdir()) if target.is_dir() else target.exists()


def _expand(text: str, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """(source, folder of its result below the target folder) for each source of one argument."""
    path = Path(text)
    if _is_pattern(text):
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207  # text may be absolute
        if not matches:
            raise OptionError("no file matches {value}", remedy="check the pattern", value=text)
        for match in matches:
            yield from _expand(match, recursive)
        return
    clips = list(_clips_in(path, recursive)) if path.is_dir() else []
    if not clips:
        yield path, Path()
    for clip in clips:
        yield clip, clip.parent.relative_to(path)


def _clips_in(folder: Path, recursive: bool) -> Iterator[Path]:
    """Clips of a folder in name order; below it, folders of frames count too."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            "{path} cannot be read: {value}", path=folder, value=(error.strerror or "").lower()
        ) from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(".resume"):
            continue
        if entry.is_file() and entry.suffix.lower() in CLIP_SUFFIXES:
            yield entry
        elif recursive and entry.is_dir():
            below = list(_clips_in(entry, recursive))
            if not below and any(file.suffix.lower() in IMAGE_SUFFIXES for file in entry.iterdir()):
                below = [entry]
            yield from below


def _listed(file: Path) -> list[str]:
    """The lines of a list, without empty ones and those that begin with #."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            "{path} cannot be read as a list", remedy="give a text file (UTF-8)", path=file
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    return [str(file.parent / line) for line in lines if line and not line.startswith("#")]


class _Names(string.Formatter):
    """Only names stand in braces: no attribute or item of a value is read."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        return kwargs[field_name], field_name


def _name_of(source: Path, pattern: str, index: int, options: UpscaleOptions) -> str:
    stem = source.name if source.is_dir() else source.stem
    facts = {
        "stem": stem,
        "name": source.name,
        "suffix": source.suffix[1:],
        "parent": source.absolute().parent.name,
        "index": index,
        "scale": f"{options.scale:g}",
        "model": Path(options.model).name,
    }
    try:
        name = _Names().vformat(pattern, (), facts)
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise OptionError(
            "{option} is {value!r}",
            remedy="give a pattern of {fields}, such as {example}",
            option=Setting("name"),
            value=pattern,
            fields=", ".join("{" + fact + "}" for fact in facts),
            example="{stem}-x{scale}.mkv",
        ) from error
    if not name or Path(name).name != name:
        raise OptionError(
            "{option} makes {value!r}, which is not a file name",
            remedy="leave out slashes; subfolders are kept",
            option=Setting("name"),
            value=name,
        )
    known = (*CONTAINER_OF.values(), *WRITABLE_SUFFIXES)
    if Path(name).suffix.lower() in known or source.is_dir():
        return name
    if source.suffix.lower() in IMAGE_SUFFIXES:
        suffix = source.suffix.lower()
        return name + (suffix if suffix in WRITABLE_SUFFIXES else ".png")
    return name + CONTAINER_OF.get(options.codec, ".mp4")


def _is_pattern(text: str) -> bool:
    return bool(_GLOB & set(text)) and not Path(text).exists()


def _is_result(item: Item, targets: set[Path]) -> bool:
    """Whether a source is an earlier run's result for another source."""
    source = item.source.absolute()
    return source != item.target.absolute() and any(
        source == target.absolute() for target in targets
    )
