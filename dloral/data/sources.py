"""What there is to train on: photographs, videos and frame folders, and what is left out and why.

A place is ``KIND:PATH``:

* ``photos:FOLDER``: every photograph in it and below.
* ``videos:PATH``: a video file, a folder of frames, or all of either in and below a folder.
* ``list:FILE``: paths of photographs, videos or frame folders, one per line, relative to the file's
  folder unless absolute. Words after a path are ignored (``000 100 (720,1280,3)``), as is anything
  after a ``#``.
* ``reds:FOLDER``: the sharp training clips, ``train_sharp/000`` to ``239``, except REDS4 (000,
  011, 015, 020), which results are reported on.
* ``lsdir:FOLDER``: the full-size training pictures, ``0001000/0000001.png`` onwards; its reduced
  copies (folders ``X2``, ``X3``, ``X4``) and validation pictures are left out.
* ``pexels:FOLDER``: downloaded videos (``1234567-hd_1920_1080_25fps.mp4``), or a folder of frames
  for each.
* ``pack:FOLDER``: a pack of clips, as ``dloral data pack`` makes them.

Listing reads headers and ends of files, not whole pictures; a picture that turns out to be damaged
inside is skipped when it is drawn (:mod:`dloral.data.samples`).
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, count, islice
from math import floor
from pathlib import Path
from typing import Self

from PIL import Image, UnidentifiedImageError

from dloral.data.spec import ClipSpec, thousandths
from dloral.errors import InputError, OptionError
from dloral.files import is_there
from dloral.video.probe import ClipInfo, probe

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".wmv")
KINDS = ("photos", "videos", "list", "reds", "lsdir", "pexels", "pack")
REDS4 = ("000", "011", "015", "020")
ENDINGS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
ENDING_BYTES = 64
"""A whole file's last bytes hold its format's ending; some cameras write a few more after it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """A place in a video to take frames from, ``start`` seconds after its first frame."""

    clip: ClipInfo
    start: Fraction


@dataclass(frozen=True)
class Sources:
    """What can be used, and what was left out with the reason (by name, see :meth:`name`)."""

    photos: tuple[Path, ...] = ()
    windows: tuple[Window, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """A source's name below its place, the same on every machine. If names clash between
        places, later ones get their place's name in front, or a number appended."""
        return self.names.get(path, path.name)

    def checked(self, spec: ClipSpec) -> Self:
        """Itself, unless nothing is left: then :class:`InputError`, naming what was requested."""
        if self.photos or self.windows:
            return self
        if not spec.places:
            raise InputError("no data is given", remedy="give places such as photos:DIR videos:DIR")
        reasons = sorted(set(self.left_out.values()))
        raise InputError(
            f"no usable source in {', '.join(spec.places)} "
            f"({len(self.left_out)} left out{': ' if reasons else ''}{'; '.join(reasons[:3])}); "
            f"give photographs ({', '.join(PHOTO_SUFFIXES)}) of {spec.photo_side} pixels a side "
            f"or more, or videos of {spec.video_side}"
        )

    def files(self) -> Iterator[Path]:
        """Every file or frame folder once, in order."""
        yield from self.photos
        yield from dict.fromkeys(window.clip.path for window in self.windows)


def find_sources(spec: ClipSpec) -> Sources:
    """What the places hold, in name order. ``exclude`` and ``only`` are parts of names.

    Each file that cannot be used is listed with its reason, and logged as a warning unless it was
    left out by name. Raises :class:`InputError` if nothing is left, :class:`OptionError` for a
    place that is none.
    """
    search = _Search(spec)
    for place in spec.places:
        kind, path = split_place(place)
        if not is_there(path):
            raise InputError(
                "{path} does not exist", remedy=f"give {kind}: an existing one", path=path
            )
        search.look(kind, path)
    found = Sources(tuple(search.photos), tuple(search.windows), search.left_out, search.names)
    return found.checked(spec)


def split_place(place: str) -> tuple[str, Path]:
    """``KIND:PATH`` in its two parts."""
    kind, colon, path = place.partition(":")
    if not colon or kind not in KINDS or not path:
        raise OptionError(
            f"{place!r} is not a source of clips; give KIND:PATH, KIND one of {', '.join(KINDS)}"
        )
    return kind, Path(path).expanduser()


def pack_of(places: Sequence[str]) -> Path | None:
    """The pack's folder, if ``places`` are a pack."""
    if len(places) != 1:
        return None
    kind, path = split_place(places[0])
    return path if kind == "pack" else None


def sha256(path: Path) -> str:
    """The hash of a file, or of all files in a folder in name order."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


class _Search:
    """Collects sources place by place."""

    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec
        self.photos: list[Path] = []
        self.windows: list[Window] = []
        self.left_out: dict[str, str] = {}
        self.names: dict[Path, str] = {}
        self._taken: set[str] = set()

    def look(self, kind: str, place: Path) -> None:
        if kind == "pack":
            raise OptionError(f"pack:{place} cannot be mixed with other places; give it alone")
        if kind == "list":
            self._read_list(place)
        elif kind in ("photos", "lsdir"):
            for path in sorted(place.rglob("*")):
                if path.suffix.lower() in PHOTO_SUFFIXES:
                    self._photo(path, place, _not_lsdir(path, place) if kind == "lsdir" else "")
        else:
            for path in _video_paths(place):
                self._video(path, place, _not_reds(path) if kind == "reds" else "")

    def _read_list(self, file: Path) -> None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            found = "a folder" if file.is_dir() else "no text that can be read"
            raise InputError(
                f"{file} is {found}; give list:FILE, a UTF-8 text with one path a line"
            ) from error
        for line in lines:
            entry = line.partition("#")[0].strip()
            whole = file.parent / entry
            path = whole if is_there(whole) or not entry else file.parent / entry.split()[0]
            if not entry:
                continue
            if path.suffix.lower() in PHOTO_SUFFIXES:
                self._photo(path, file.parent, "")
            else:
                self._video(path, file.parent, "")

    def _photo(self, path: Path, place: Path, reason: str) -> None:
        least = self.spec.photo_side
        if self._wanted(path, place, lambda: unusable_photo(path, least), reason):
            self.photos.append(path)

    def _video(self, path: Path, place: Path, reason: str) -> None:
        def find() -> str:
            try:
                found = _windows(probe(path), self.spec)
            except InputError as error:
                return str(error)
            self.windows.extend(found)
            return "" if found else "nothing of it lies in the chosen span"

        self._wanted(path, place, find, reason)

    def _wanted(self, path: Path, place: Path, unusable: Callable[[], str], reason: str) -> bool:
        name = self._name(path, place)
        if reason:
            self.left_out[name] = reason
            return False
        if any(word in path.name for word in self.spec.exclude):
            self.left_out[name] = "excluded by name"
            return False
        if self.spec.only and not any(word in path.name for word in self.spec.only):
            self.left_out[name] = "not among those named"
            return False
        if reason := unusable():
            self.left_out[name] = reason
            log.warning("%s is left out: %s", path, reason)
            return False
        return True

    def _name(self, path: Path, place: Path) -> str:
        """See :meth:`Sources.name`; a path keeps the first name it got."""
        if path not in self.names:
            below = path.is_relative_to(place) and path != place
            plain = path.relative_to(place).as_posix() if below else path.name
            qualified = f"{(place if below else path.parent).resolve().name}/{plain}"
            numbered = (f"{qualified} ({number})" for number in count(2))
            free = (n for n in chain((plain, qualified), numbered) if n not in self._taken)
            self.names[path] = next(free)
            self._taken.add(self.names[path])
        return self.names[path]


def unusable_photo(path: Path, least: int) -> str:
    """Why a photograph cannot be used, judged by its header and end; empty if it seems whole."""
    try:
        with Image.open(path) as photo:
            if min(photo.size) < least:
                return f"{photo.width}x{photo.height} is smaller than {least} pixels a side"
        with path.open("rb") as file:
            file.seek(-min(ENDING_BYTES, path.stat().st_size), 2)
            whole = ENDINGS.get(path.suffix.lower(), b"") in file.read()
        return "" if whole else "cut off: its end is missing"
    except UnidentifiedImageError:
        return "not a readable picture"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "missing, damaged or absurdly large"


def _not_lsdir(path: Path, place: Path) -> str:
    """Why a picture of LSDIR is not for training."""
    folders = {part.lower() for part in path.relative_to(place).parts[:-1]}
    if folders & {"x2", "x3", "x4"} or path.stem.endswith(("x2", "x3", "x4")):
        return "a reduced copy"
    if any(part.startswith("val") for part in folders):
        return "for validation"
    return ""


def _not_reds(path: Path) -> str:
    """Why a folder of REDS is not for training."""
    if path.parent.name != "train_sharp":
        return "not in train_sharp"
    return "one of REDS4, which results are reported on" if path.name in REDS4 else ""


def _video_paths(place: Path) -> Iterator[Path]:
    if not place.is_dir():
        yield place
        return
    for path in [place, *sorted(place.rglob("*"))]:
        if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and _holds_frames(path)):
            yield path


def _holds_frames(folder: Path) -> bool:
    pictures = (p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    return next(islice(pictures, 1, None), None) is not None


def _windows(clip: ClipInfo, spec: ClipSpec) -> list[Window]:
    if min(clip.height, clip.width) < spec.video_side:
        raise InputError(
            f"{clip.width}x{clip.height} is smaller than {spec.video_side} pixels a side"
        )
    length, first = clip.duration or 0, thousandths(spec.video_from)
    end = length if spec.video_until is None else min(thousandths(spec.video_until), length)
    if end <= first:
        return []
    spacing = thousandths(spec.video_spacing)
    places = max(1, floor((end - first) / spacing))
    return [Window(clip, first + number * spacing) for number in range(places)]
