"""Many sources in one call: finding them, naming their results, running them one after another.

A source that fails is noted and the next one begins; results that already exist are skipped.
"""

import glob
import logging
import os
import string
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dloral.errors import DLoRALError, InputError, OptionError, OutputError, Setting
from dloral.files import is_folder, is_there, some_names
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


def is_batch(sources: Sequence[str], list_file: str | None = None, recursive: bool = False) -> bool:
    """Whether a call asks for many results in a folder rather than one: several sources, a pattern,
    a list, or a folder of clips. A folder of frames is one clip, whatever its subfolders hold,
    unless they are asked for."""
    if list_file is not None or len(sources) != 1:
        return True
    text, folder = sources[0], Path(sources[0])
    if not text or not is_folder(folder):
        return _is_pattern(text)
    if not recursive and _holds_pictures(folder):
        return any(_sources_in(folder))
    return any(source != folder for source in _sources_in(folder, recursive=True))


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
    OptionError if nothing is found, the pattern is invalid, or ``folder`` names a file.
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
    _check_folder(folder)
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


def left_out_of(sources: Sequence[str], recursive: bool = False) -> list[str]:
    """What a batch does not take from the folders of clips among its sources, a line each."""
    notes = []
    for folder in (Path(text) for text in sources if text and is_folder(text)):
        clips = list(_sources_in(folder))
        if not clips:
            continue
        entries = _entries(folder)
        files = [e.name for e in entries if e not in clips and e.is_file()]
        below = [e.name for e in entries if e.is_dir() and any(_sources_in(e, recursive=True))]
        if files:
            notes.append(f"{folder}: files that are not clips left out: {some_names(files)}")
        if below and not recursive:
            notes.append(f"{folder}: subfolders left out, not recursive: {some_names(below)}")
    return notes


def _check_folder(folder: str | Path) -> None:
    """OptionError if the place for a batch's results is a file, or named as one."""
    path = Path(folder)
    if is_folder(path):
        return
    is_named_as_file = path.suffix.lower() in (*CLIP_SUFFIXES, *IMAGE_SUFFIXES, *WRITABLE_SUFFIXES)
    if is_there(path) or (is_named_as_file and not str(folder).endswith(("/", os.sep))):
        raise OptionError(
            "{path} is a file name, and this is a batch, whose results need a folder",
            remedy="give a folder, or one source",
            path=path,
        )


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
    return any(target.iterdir()) if is_folder(target) else is_there(target)


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
    if not text or not is_folder(path):
        yield path, Path()
        return
    found = list(_sources_in(path, recursive))
    if not found and not _holds_pictures(path) and any(_sources_in(path, recursive=True)):
        raise OptionError(
            "{path} holds no clips and no frames, but its subfolders do",
            remedy="give {option}",
            path=path,
            option=Setting("recursive"),
        )
    for source in found or [path]:
        yield source, Path() if source == path else source.parent.relative_to(path)


def _sources_in(
    folder: Path, recursive: bool = False, above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Clips of a folder in name order. ``recursive``: also what its subfolders hold, and each
    folder that has pictures and no clips. ``above``: the folders that lead here, for a link to one
    of them has no end."""
    entries, real = _entries(folder), folder.resolve()
    has_clips = any(map(_is_clip, entries))
    if recursive and not has_clips and _holds_pictures(folder):
        yield folder
    for entry in entries:
        if _is_clip(entry):
            yield entry
        elif recursive and entry.is_dir() and entry.resolve() not in above | {real}:
            yield from _sources_in(entry, recursive, above | {real})


def _entries(folder: Path) -> list[Path]:
    """What a folder shows, in name order, without the finished parts of other jobs."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            "{path} cannot be read: {value}", path=folder, value=(error.strerror or "").lower()
        ) from error
    return [e for e in entries if not (e.name.startswith(".") or e.name.endswith(".resume"))]


def _is_clip(file: Path) -> bool:
    return file.suffix.lower() in CLIP_SUFFIXES and file.is_file()


def _holds_pictures(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in _entries(folder))


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
    stem = source.name if is_folder(source) else source.stem
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
    if Path(name).suffix.lower() in known or is_folder(source):
        return name
    if source.suffix.lower() in IMAGE_SUFFIXES:
        suffix = source.suffix.lower()
        return name + (suffix if suffix in WRITABLE_SUFFIXES else ".png")
    return name + CONTAINER_OF.get(options.codec, ".mp4")


def _is_pattern(text: str) -> bool:
    return bool(_GLOB & set(text)) and not is_there(text)


def _is_result(item: Item, targets: set[Path]) -> bool:
    """Whether a source is an earlier run's result for another source."""
    source = item.source.absolute()
    return source != item.target.absolute() and any(
        source == target.absolute() for target in targets
    )
