"""Which clips belong together, and their frames side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dloral.errors import InputError
from dloral.evaluation.measures import FrameSet, in_step
from dloral.frames.resize import resize_bicubic
from dloral.video.images import IMAGE_SUFFIXES
from dloral.video.media import existing_path
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import read_frames

CLIP_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".gif"),
    *(".ts", ".flv", ".wmv", ".ogv"),
)
"""What counts as a clip in a folder of clips; so do folders of frames."""


@dataclass(frozen=True)
class Pair:
    """A restored clip and what it is compared with; ``missing`` says what was not found."""

    name: str
    restored: Path
    reference: Path | None = None
    lq: Path | None = None
    missing: str = ""


@dataclass(frozen=True)
class OpenPair:
    """A pair that passed the checks: same size and, as far as is known, same length."""

    restored: ClipInfo
    reference: ClipInfo | None
    lq: ClipInfo | None

    @property
    def num_frames(self) -> int | None:
        """None where no container gives it."""
        clips = (self.restored, self.reference, self.lq)
        return next((clip.num_frames for clip in clips if clip and clip.num_frames), None)


def find_pairs(
    restored: str | Path, reference: str | Path | None = None, lq: str | Path | None = None
) -> list[Pair]:
    """One pair, or one for each clip of a folder, matched by name without extension.

    A folder that holds pictures is a clip; one that holds clips (or folders of frames) is a set.
    Raises InputError where a path does not exist or holds nothing.
    """
    first = existing_path(restored)
    places = [None if place is None else existing_path(place) for place in (reference, lq)]
    if not _is_set(first):
        return [Pair(first.name, first, places[0], places[1])]
    clips = clips_in(first)
    if not clips:
        raise InputError(
            "{path} holds no clips",
            remedy=f"give a clip, a folder of frames ({', '.join(IMAGE_SUFFIXES)}) or a folder of "
            f"clips ({', '.join(CLIP_SUFFIXES)})",
            path=first,
        )
    pairs = []
    for name, path in clips.items():
        found: list[Path | None] = []
        missing = ""
        for what, place in (("reference", places[0]), ("input", places[1])):
            other = None if place is None else clips_in(place).get(name)
            if place is not None and other is None:
                missing = f"no {what} named {name} in {place}; add it, or take {path.name} away"
            found.append(other)
        pairs.append(Pair(name, path, found[0], found[1], missing))
    return pairs


def _is_set(path: Path) -> bool:
    return path.is_dir() and not any(
        entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
        for entry in path.iterdir()
    )


def clips_in(folder: Path) -> dict[str, Path]:
    """Clips and folders of frames by name without extension, in name order."""
    if not folder.is_dir():
        raise InputError(
            "{path} is one clip and not a folder of clips",
            remedy="give a folder for each",
            path=folder,
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() or path.suffix.lower() in CLIP_SUFFIXES:
            name = path.name if path.is_dir() else path.stem
            if name in found:
                raise InputError(
                    "{path} holds {first} and {second}",
                    remedy="keep one clip for each name",
                    path=folder,
                    first=found[name].name,
                    second=path.name,
                )
            found[name] = path
    return found


def open_pair(pair: Pair) -> OpenPair:
    """Inspect a pair's files; InputError in one line where they do not match."""
    if pair.missing:
        raise InputError(pair.missing)
    restored = probe(pair.restored)
    reference = probe(pair.reference) if pair.reference else None
    lq = probe(pair.lq) if pair.lq else None
    if reference and (reference.width, reference.height) != (restored.width, restored.height):
        raise InputError(
            "{path} is {size} and its reference {true}",
            remedy="give clips of one size",
            path=restored.path,
            size=f"{restored.width}x{restored.height}",
            true=f"{reference.width}x{reference.height}",
        )
    for what, other in (("reference", reference), ("input", lq)):
        if other and other.num_frames and restored.num_frames:
            _check_lengths(restored, what, other)
    return OpenPair(restored, reference, lq)


def _check_lengths(restored: ClipInfo, what: str, other: ClipInfo) -> None:
    if other.num_frames != restored.num_frames:
        raise InputError(
            "{path} has {value} frames and its {what} {count}",
            remedy="give clips of the same length",
            path=restored.path,
            value=restored.num_frames,
            what=what,
            count=other.num_frames,
        )


@contextmanager
def frame_sets_of(opened: OpenPair) -> Iterator[Iterator[FrameSet]]:
    """The pair's frames in step; the input is enlarged to the result's size (bicubic)."""
    height, width = opened.restored.height, opened.restored.width
    with ExitStack() as stack:

        def frames(clip: ClipInfo | None) -> Iterator[Tensor] | None:
            if clip is None:
                return None
            reading = stack.enter_context(read_frames(clip))
            return (
                resize_bicubic(frame.pixels[None], height, width)[0].clamp(0, 1)
                for frame in reading
            )

        yield in_step(frames(opened.restored), frames(opened.reference), frames(opened.lq))  # type: ignore[arg-type]
