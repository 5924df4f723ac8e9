"""What is held out: material that figures are reported on, identified by SHA-256.

``held_out.json`` beside this module is the project's own list (made by ``dloral data manifest``).
It holds names, sizes and hashes; a copy under another name is found too, a re-encoded one is not.
A film may be held out from a given frame on.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Self

from dloral.data.packs import Pack
from dloral.data.sources import PHOTO_SUFFIXES, VIDEO_SUFFIXES, Sources, Window, sha256
from dloral.errors import InputError, OptionError, OutputError
from dloral.files import write_whole
from dloral.video.probe import probe

PROJECT = Path(__file__).with_name("held_out.json")
REASON = "held out: never trained on"


@dataclass(frozen=True)
class Entry:
    """One file. ``from_frame``, ``from_second``: only what follows from there on is held out."""

    name: str
    bytes: int
    sha256: str
    from_frame: int | None = None
    from_second: float | None = None

    def second(self, fps: Fraction | None) -> float:
        """Where in a video the held-out part begins."""
        if self.from_second is None and self.from_frame is not None and fps:
            return self.from_frame / float(fps)
        return self.from_second or 0.0


class HeldOut:
    """A list of held-out files, and what it means for sources and packs.

    Only files of a listed size are hashed, so a large data set is checked quickly. A folder of
    frames is held out if any of its frames is.
    """

    def __init__(self, entries: Sequence[Entry], path: Path = PROJECT) -> None:
        self.entries, self.path = tuple(entries), path
        self._by_hash = {entry.sha256: entry for entry in entries}
        self._sizes = {entry.bytes for entry in entries}
        self._found: dict[Path, Entry | None] = {}

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """A list as :func:`save_manifest` writes it, the project's own by default; raises
        :class:`InputError`."""
        path = path or PROJECT
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["held_out"]
            return cls([Entry(**entry) for entry in entries], path)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                "{path} is not a list of held-out files",
                remedy="make one with `dloral data manifest`",
                path=path,
            ) from error

    def entry(self, path: Path) -> Entry | None:
        """The entry of a file, or of a frame in a folder of frames."""
        if path not in self._found:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            sized = (f for f in files if f.is_file() and f.stat().st_size in self._sizes)
            listed = (self._by_hash.get(sha256(file)) for file in sized)
            self._found[path] = next((entry for entry in listed if entry), None)
        return self._found[path]

    def holds(self, window: Window, frames: int) -> bool:
        """Whether any of ``frames`` frames from the window's start is held out."""
        entry = self.entry(window.clip.path)
        if entry is None:
            return False
        length = frames / window.clip.fps if window.clip.fps else 0
        return float(window.start + length) > entry.second(window.clip.fps)

    def exclude(self, sources: Sources, frames: int = 1) -> Sources:
        """The sources less what is held out, which joins the list of what is left out. ``frames``:
        per clip."""
        photos = tuple(path for path in sources.photos if not self.entry(path))
        windows = tuple(window for window in sources.windows if not self.holds(window, frames))
        kept = replace(sources, photos=photos, windows=windows)
        gone = set(sources.files()) - set(kept.files())
        left_out = {sources.name(path): REASON for path in sources.files() if path in gone}
        return replace(kept, left_out=sources.left_out | left_out)

    def only(self, sources: Sources, frames: int = 1) -> Sources:
        """The held-out part of the sources, to measure with."""
        photos = tuple(path for path in sources.photos if self.entry(path))
        windows = tuple(window for window in sources.windows if self.holds(window, frames))
        return replace(sources, photos=photos, windows=windows)

    def refuse(self, sources: Sources, frames: int = 1) -> None:
        """Raise :class:`InputError` naming a held-out source, if the sources contain one."""
        self._refuse(self.only(sources, frames).files())

    def refuse_pack(self, pack: Pack) -> None:
        """The same for a pack, by the hashes in its manifest."""
        made = pack.manifest()
        try:
            starts: dict[str, float] = {}
            for name, start in made.get("seconds_in_videos", ()):
                starts[name] = max(float(start), starts.get(name, 0.0))
            digests = dict(made.get("sources", {})).items()
            listed = [(name, self._by_hash[d]) for name, d in digests if d in self._by_hash]
        except (TypeError, ValueError) as error:
            raise InputError(
                "{path} has a damaged manifest.json", remedy="make it again", path=pack.folder
            ) from error
        self._refuse(
            pack.folder / name
            for name, entry in listed
            if name not in starts or starts[name] >= entry.second(None)
        )

    def _refuse(self, paths: Iterable[Path]) -> None:
        for path in paths:
            raise InputError(
                "{path} is held out ({list}) and never trained on",
                remedy="train on other material",
                path=path,
                list=self.path.name,
            )


def list_files(paths: Sequence[Path], from_frame: Mapping[Path, int] | None = None) -> list[Entry]:
    """An entry for every photograph and video in and below ``paths``, one per content, and for the
    videos in ``from_frame``, which are held out from that frame on."""
    films = from_frame or {}
    found = [(path, film) for path, film in films.items()]
    files: list[tuple[Path, int | None]] = []
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        wanted = [p for p in inside if p.suffix.lower() in PHOTO_SUFFIXES + VIDEO_SUFFIXES]
        if not path.exists():
            raise InputError("{path} does not exist", remedy="give a path that does", path=path)
        if not wanted:
            raise InputError(
                "{path} holds no photograph and no video", remedy="give a path that does", path=path
            )
        files += [(file, None) for file in wanted]
    entries: dict[str, Entry] = {}
    for path, frame in [*files, *found]:
        entry = _entry(path, frame)
        entries.setdefault(entry.sha256, entry)
    return sorted(entries.values(), key=lambda entry: (entry.name, entry.sha256))


def _entry(path: Path, from_frame: int | None) -> Entry:
    second = None
    if from_frame is not None:
        fps = probe(path).fps
        if from_frame < 0 or not fps:
            raise OptionError(f"{path.name} has no frame {from_frame}; give a video and its frame")
        second = float(from_frame / fps)
    return Entry(path.name, path.stat().st_size, sha256(path), from_frame, second)


def save_manifest(entries: Sequence[Entry], path: Path) -> None:
    """Write the list; it appears whole or not at all, and replaces no other file."""
    if path.exists():
        raise OutputError(
            "{path} exists already", remedy="remove it or give another name", path=path
        )
    rows = [{k: v for k, v in asdict(entry).items() if v is not None} for entry in entries]
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    text = f'{{"held_out": [\n  {lines}\n]}}\n'
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"), parents=True)
