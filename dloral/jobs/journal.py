"""A job's finished work, kept beside its target so that the job can be resumed however it ended.

The folder ``TARGET.resume`` holds ``journal.jsonl`` and one file for each finished segment. A
segment is written under another name, flushed to disk, renamed, and only then entered in the
journal with its SHA-256; so whatever the journal lists exists, whenever the process or the machine
dies. Only the process that holds the target's lock writes the journal.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from dloral.errors import OptionError, OutputError, Setting
from dloral.files import beside
from dloral.jobs.segments import SegmentFile, digest_of
from dloral.video.encoding import SEGMENT_FRAMES
from dloral.video.media import reason

VERSION = 1
JOURNAL = "journal.jsonl"
_OURS = re.compile(r"^(journal\.jsonl|\d{8,}\.segment)(\.\w+)*$")
"""The names in a journal's folder; nothing else is ever removed."""


class JournalError(OptionError):
    """The finished parts found belong to another job or another version."""


@dataclass(frozen=True)
class Segment:
    """A finished segment. ``number``: from 0; each has :data:`SEGMENT_FRAMES` frames, except the
    last. ``origin``: when the job's first frame is shown in the source; ``end``: when the segment's
    last frame stops being shown, relative to the origin; in seconds."""

    number: int
    frames: int
    origin: Fraction
    end: Fraction
    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "segment": self.number,
            "frames": self.frames,
            "origin": str(self.origin),
            "end": str(self.end),
            "bytes": self.bytes,
            "sha256": self.sha256,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Segment":
        """ValueError, TypeError, LookupError or ArithmeticError for anything that :meth:`as_dict`
        does not produce."""
        return cls(
            found["segment"],
            found["frames"],
            Fraction(found["origin"]),
            Fraction(found["end"]),
            found["bytes"],
            found["sha256"],
        )


@dataclass(frozen=True)
class Gap:
    """Segments ``first`` to ``last`` are missing; ``last`` is None where the end is not known."""

    first: int
    last: int | None


def journal_folder(target: Path) -> Path:
    """Where the journal of a job that writes ``target`` is kept."""
    return beside(target, suffix=".resume")


class Journal:
    """The journal of the job that writes ``target``, created or read; hold the target's lock.

    ``job``: any JSON-able description of source and settings. A journal of another job or another
    version is refused, and so is a folder that holds anything else, since a journal is removed in
    the end. ``dropped``: numbers of segments that were damaged and must be made again: all of them
    if the journal is damaged from its first line (``is_anew``).
    ``extra``: what :meth:`remember` was given. Raises OptionError for
    what is refused, JournalError if it is a journal, and OutputError if nothing can be written.
    """

    def __init__(self, target: Path, job: dict[str, Any]) -> None:
        if target.name in ("", ".."):
            raise OptionError(
                "{path} has no name to keep finished parts under",
                remedy="give the target by its name, or leave {option} out",
                path=target,
                option=Setting("resume"),
            )
        self.folder = journal_folder(target)
        self.segments: dict[int, Segment] = {}
        self.total: int | None = None  # frames of the whole job, once its end was reached
        self.dropped: list[int] = []
        self.is_anew = False
        self.extra: Any = None
        self._head: dict[str, Any] = {}
        job = json.loads(json.dumps(job, default=str))
        try:
            self._open(job)
        except OSError as error:
            raise self._failed(error) from error

    def _open(self, job: dict[str, Any]) -> None:
        folder = self.folder
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise OptionError(
                "{path} is a link or a file, and finished parts are kept in a folder of that name",
                remedy="remove it, or give another target",
                path=folder,
            )
        folder.mkdir(exist_ok=True)
        if (folder / JOURNAL).is_file() and self._read(job):
            return
        for file in folder.iterdir():
            if not (_OURS.match(file.name) and file.name.endswith(".part")):
                raise OptionError(
                    "{path} holds other files ({value}) and no journal",
                    remedy="remove that folder, or give another target",
                    path=folder,
                    value=file.name,
                )
        self._head = {"journal": VERSION, "segment_frames": SEGMENT_FRAMES, "job": job}
        self._write_anew()

    def _read(self, job: dict[str, Any]) -> bool:
        """Whether there is a journal; the remains of a damaged one are removed."""
        head, *lines = _lines_of(self.folder / JOURNAL)
        if not head:
            files = list(self.folder.iterdir())
            if all(_OURS.match(file.name) for file in files):
                self.is_anew = True
                self._remove(files)
            return False
        if head.get("journal") != VERSION or head.get("segment_frames") != SEGMENT_FRAMES:
            raise JournalError(
                "{path} was written by another version of DLoRAL",
                remedy="finish the job with that version, or remove that folder",
                path=self.folder,
            )
        before = head.get("job")
        if not isinstance(before, dict):
            before = {}
        changed = sorted(
            name for name in job.keys() | before.keys() if job.get(name) != before.get(name)
        )
        if changed:
            raise JournalError(
                "{path} belongs to a job with another {value}",
                remedy="give the same again, or remove that folder",
                path=self.folder,
                value=", ".join(changed),
            )
        self.extra = head.get("extra")
        for number, segment in sorted(self._told(lines).items()):
            if self._is_whole(segment):
                self.segments[number] = segment
            else:
                self.dropped.append(number)
        self._head = head
        self._tidy()
        self._write_anew()
        return True

    def _told(self, lines: list[dict[str, Any]]) -> dict[int, Segment]:
        """The segments that the journal's lines list, and their total."""
        told: dict[int, Segment] = {}
        for line in lines:
            try:
                if "total" in line:
                    self.total = int(line["total"])
                else:
                    segment = Segment.from_dict(line)
                    told[segment.number] = segment
            except (ValueError, TypeError, LookupError, ArithmeticError):
                break  # damaged, as everything after it may be
        return told

    def remember(self, extra: Any) -> None:
        """Keep something JSON-able with the journal, for whoever resumes the job."""
        if extra == self.extra:
            return
        self.extra = self._head["extra"] = extra
        try:
            self._write_anew()
        except OSError as error:
            raise self._failed(error) from error

    def _is_whole(self, segment: Segment) -> bool:
        path = self.file(segment.number)
        if not path.is_file() or path.stat().st_size != segment.bytes:
            return False
        return digest_of(path) == segment.sha256

    def _tidy(self) -> None:
        """Remove segments that are not in the journal: it ended while they were being written."""
        known = {self.file(number).name for number in self.segments} | {JOURNAL}
        self._remove(
            file
            for file in self.folder.iterdir()
            if file.name not in known and _OURS.match(file.name)
        )

    def _remove(self, files: Iterable[Path]) -> None:
        # The journal goes last: without it nothing would say whose the segments are.
        for file in sorted(files, key=lambda file: file.name.startswith(JOURNAL)):
            file.unlink()

    def _write_anew(self) -> None:
        segments = [segment.as_dict() for _, segment in sorted(self.segments.items())]
        lines = [self._head, *segments]
        if self.total is not None:
            lines.append({"total": self.total})
        part = self.folder / f"{JOURNAL}.part"
        with part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / JOURNAL)
        sync_folder(self.folder)

    @property
    def frames(self) -> int:
        """How many frames are done."""
        return sum(segment.frames for segment in self.segments.values())

    @property
    def resumed(self) -> str:
        """One line on what was already done when it was opened, if anything was."""
        if self.is_anew:
            return "the list of finished parts was damaged: starting over"
        if not (self.segments or self.dropped):
            return ""
        text = f"resuming: {self.frames} frames are done"
        if self.dropped:
            text += f", {len(self.dropped)} damaged segments are redone"
        return text

    def gaps(self, num_frames: int | None = None) -> list[Gap]:
        """What is missing, in order. ``num_frames``: of the whole job, if that is certain."""
        total = self.total if num_frames is None else num_frames
        count = None if total is None else -(-total // SEGMENT_FRAMES)
        highest = max(self.segments, default=-1)
        end = highest + 1 if count is None else count
        missing = [number for number in range(end) if number not in self.segments]
        gaps: list[Gap] = []
        for number in missing:
            if gaps and gaps[-1].last == number - 1:
                gaps[-1] = Gap(gaps[-1].first, number)
            else:
                gaps.append(Gap(number, number))
        if count is None:
            gaps.append(Gap(end, None))
        return gaps

    def file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.segment"

    def new_file(self, number: int) -> SegmentFile:
        """A file to write segment ``number`` to, before :meth:`add`."""
        try:
            return SegmentFile(self.folder / f"{number:08d}.segment.part")
        except OSError as error:
            raise self._failed(error) from error

    def add(self, segment: Segment, path: Path) -> None:
        """Enter a segment that is safely written to ``path``; the file is moved."""
        try:
            path.replace(self.file(segment.number))
            sync_folder(self.folder)
            self._append(segment.as_dict())
        except OSError as error:
            raise self._failed(error) from error
        self.segments[segment.number] = segment

    def cut_short(self, frames: int) -> int:
        """End the job after its first ``frames``, up to the end of a segment; returns the frames
        kept, without those done after a gap."""
        count = -(-frames // SEGMENT_FRAMES)
        for number in [number for number in self.segments if number >= count]:
            del self.segments[number]
        return self.frames

    def end(self, total: int) -> None:
        """The whole job has ``total`` frames, and none comes after them."""
        try:
            self._append({"total": total})
        except OSError as error:
            raise self._failed(error) from error
        self.total = total

    def _append(self, line: dict[str, Any]) -> None:
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> list[str]:
        """Remove the journal; a note if that failed."""
        try:
            self._remove(file for file in self.folder.iterdir() if _OURS.match(file.name))
            self.folder.rmdir()
        except OSError as error:
            # The result is in place, and must not be lost over a failed clean-up.
            return [f"{self.folder} could not be removed: {reason(error)}"]
        return []

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(
            "{path} cannot be written: {value}",
            remedy="progress is kept there: free some space and run the same command again"
            if self.segments
            else "",
            path=self.folder,
            value=reason(error),
        )


def _lines_of(path: Path) -> list[dict[str, Any]]:
    """The journal's lines, up to the first that is cut short or invalid."""
    lines: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found = json.loads(line)
        except ValueError:
            break
        if not isinstance(found, dict):
            break
        lines.append(found)
    return lines or [{}]


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
