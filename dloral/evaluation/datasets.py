"""Which clips a data set holds, in the public layouts, and which belong together.

===========  =====================================================================================
layout       what is where
===========  =====================================================================================
pairs        ``GT/CLIP`` and ``BDx4/CLIP`` (UDM10, REDS4, RealVSR, ...): names in the table below
clips        ``CLIP/truth`` and ``CLIP/blur4`` (SPMCS, UDM10 as PFNL has it)
folder       ``CLIP``, ``CLIP`` ...: ground truth, or for VideoLQ (and by option) low quality
pack         ``hq.npy`` and ``lq.npy`` (``dloral data pack``), or a folder of such folders
===========  =====================================================================================

A CLIP is a video file or a folder of frames. Unusable clips are listed with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dloral.data.packs import Pack
from dloral.data.sources import sha256
from dloral.errors import InputError, OptionError, Setting
from dloral.evaluation.pairs import clips_in
from dloral.video.images import IMAGE_SUFFIXES
from dloral.video.probe import probe
from dloral.video.reader import read_frames

TRUTH_FOLDERS = (
    *("gt", "gt_test", "gt-video", "truth", "hr", "hq", "ground_truth", "target", "reference"),
    *("sharp", "train_sharp", "val_sharp", "test_sharp", "original"),
)
LQ_FOLDERS = (
    *("lq", "lq_test", "lq-video", "bdx4", "bd", "blur4", "bix4", "bi", "lr", "low", "input4"),
    *("input", "lr_bicubic", "sharp_bicubic", "train_sharp_bicubic", "val_sharp_bicubic"),
    *("test_sharp_bicubic", "bicubic4", "bicubic"),
)
"""Folder names in lower case, the preferred first where a data set has several."""

INNER = "x4"
"""REDS keeps its four times smaller clips one folder deeper: ``train_sharp_bicubic/X4``."""

LOW_QUALITY = ("videolq",)
"""Data sets, by the beginning of their name, that have no ground truth."""

CLIP_KINDS = ("auto", "truth", "lq")


class Frames(Protocol):
    """Frames of one clip that can be read repeatedly."""

    def about(self) -> tuple[int, int, int | None]:
        """(height, width, number of frames if known)."""

    def open(self) -> Generator[Tensor, None, None]:
        """Frames (3,H,W) in [0, 1]; close the iterator when leaving it early."""

    def digest(self) -> str:
        """SHA-256 of what the frames are read from."""


@dataclass(frozen=True)
class FileFrames:
    """A video file, or a folder of frames."""

    path: Path

    def about(self) -> tuple[int, int, int | None]:
        clip = probe(self.path)
        return clip.height, clip.width, clip.num_frames

    def open(self) -> Generator[Tensor, None, None]:
        with read_frames(probe(self.path)) as frames:
            for frame in frames:
                yield frame.pixels

    def digest(self) -> str:
        return sha256(self.path)


@dataclass(frozen=True)
class PackFrames:
    """Clip ``index`` of a pack: its ground truth, or its low quality."""

    folder: Path
    part: str
    index: int

    def _clip(self) -> np.ndarray:
        pack = Pack(self.folder)
        return np.asarray((pack.hq if self.part == "hq" else pack.lq)[self.index])

    def about(self) -> tuple[int, int, int | None]:
        frames, _, height, width = self._clip().shape
        return height, width, frames

    def open(self) -> Generator[Tensor, None, None]:
        for frame in self._clip():
            yield torch.from_numpy(np.array(frame)).float() / 255

    def digest(self) -> str:
        return hashlib.sha256(self._clip().tobytes()).hexdigest()


@dataclass(frozen=True)
class DataClip:
    """A clip: the independent source it was cut from, and its frames or why it is unusable."""

    name: str
    source: str
    hq: Frames | None = None
    lq: Frames | None = None
    problem: str = ""


@dataclass(frozen=True)
class DataSet:
    """``layout`` says in words what was found where; ``has_truth``: whether clips have it."""

    name: str
    layout: str
    clips: tuple[DataClip, ...]

    @property
    def has_truth(self) -> bool:
        return any(clip.hq is not None for clip in self.clips)


def find_dataset(
    folder: Path, kind: str = "auto", only: Sequence[str] = (), sources: str | None = None
) -> DataSet:
    """The data set in ``folder``.

    ``kind``: what clips without a partner are: "truth", "lq", or "auto": low quality for VideoLQ,
    else truth. ``only``: names of clips, all where empty. ``sources``: a regular expression whose
    first group in a clip's name is its source. Raises :class:`InputError` where there is no clip,
    :class:`OptionError` for an unusable name or expression.
    """
    if kind not in CLIP_KINDS:
        raise OptionError(
            "{option} is {value!r}",
            remedy=f"choose from {', '.join(CLIP_KINDS)}",
            option=Setting("clips_are"),
            value=kind,
        )
    if not folder.exists():
        raise InputError(
            "{path} does not exist", remedy="give the folder of a data set", path=folder
        )
    found = (
        packs_in(folder) or _folders_of_clips(folder) or _clips_of_folders(folder)
        if folder.is_dir()
        else None
    )
    found = found or _plain(folder, kind)
    if not found.clips:
        raise InputError(
            "{path} holds no clip",
            remedy="give a folder of clips, of folders of frames, of pairs (such as GT and LQ), "
            "or a pack",
            path=folder,
        )
    clips = tuple(_chosen(found.clips, only))
    return replace(found, clips=tuple(_with_sources(clips, sources)))


def _chosen(clips: Iterable[DataClip], only: Sequence[str]) -> list[DataClip]:
    known = {clip.name: clip for clip in clips}
    for name in only:
        if name not in known:
            raise OptionError(
                "there is no clip {value!r}",
                remedy="choose from {names}",
                option=Setting("only"),
                value=name,
                names=", ".join(list(known)[:12]) + " ..." * (len(known) > 12),
            )
    return [known[name] for name in only] if only else list(known.values())


def _with_sources(clips: Iterable[DataClip], pattern: str | None) -> Iterator[DataClip]:
    try:
        expression = re.compile(pattern) if pattern is not None else None
    except re.error as error:
        raise OptionError(
            "{option} is {value!r}, which is not a regular expression ({reason})",
            remedy="give one with a group, such as (.*)_[0-9]+",
            option=Setting("sources"),
            value=pattern,
            reason=str(error),
        ) from error
    if expression is not None and not expression.groups:
        raise OptionError(
            "{option} is {value!r}, which has no group",
            remedy="put the part of a clip's name that is its source in ( )",
            option=Setting("sources"),
            value=pattern,
        )
    for clip in clips:
        match = expression.search(clip.name) if expression else None
        yield replace(clip, source=match[1] or clip.name) if match else clip


# Packs -------------------------------------------------------------------------------------------


def packs_in(folder: Path) -> DataSet | None:
    """A pack, or a folder of packs; None where there is none."""
    if (folder / "hq.npy").is_file():
        return DataSet(folder.name, "a pack", tuple(_pack_clips(folder, "")))
    packs = sorted(path.parent for path in folder.glob("*/hq.npy"))
    if not packs:
        return None
    clips = [clip for pack in packs for clip in _pack_clips(pack, f"{pack.name}-")]
    return DataSet(folder.name, f"packs {', '.join(p.name for p in packs)}", tuple(clips))


def _pack_clips(folder: Path, prefix: str) -> Iterator[DataClip]:
    try:
        pack = Pack(folder)
    except InputError as error:
        yield DataClip(prefix.rstrip("-") or folder.name, folder.name, problem=str(error))
        return
    shapes = pack.hq.shape, pack.lq.shape
    if any(len(shape) != 5 for shape in shapes) or shapes[0][:3] != shapes[1][:3]:
        problem = f"hq.npy has shape {shapes[0]} and lq.npy {shapes[1]}; make the pack again"
        yield DataClip(prefix.rstrip("-") or folder.name, folder.name, problem=problem)
        return
    count = len(pack.hq)
    digits = len(str(count - 1))
    names = [f"{prefix}{index:0{digits}}" for index in range(count)]
    for index, (name, source) in enumerate(zip(names, pack_sources(folder, names), strict=True)):
        hq, lq = (PackFrames(folder, part, index) for part in ("hq", "lq"))
        yield DataClip(name, source, hq, lq)


def pack_sources(folder: Path, names: list[str]) -> list[str]:
    """What each clip was cut from, by the pack's manifest; else each clip is its own source."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["clips"]
    except (OSError, ValueError, KeyError, TypeError):
        return names
    fits = isinstance(found, list) and len(found) == len(names)
    return list(map(str, found)) if fits else names


# Folders -----------------------------------------------------------------------------------------


def _folders_of_clips(folder: Path) -> DataSet | None:
    """``GT/CLIP`` with ``LQ/CLIP``, or only one of the two."""
    roots = [_named(folder, names) for names in (TRUTH_FOLDERS, LQ_FOLDERS)]
    roots = [None if root is None else _below(root) for root in roots]
    truth, lq = roots
    if (truth is None and lq is None) or any(root and _holds_frames(root) for root in roots):
        return None
    layout = " with ".join(root.relative_to(folder).as_posix() for root in roots if root)
    parts = [{} if root is None else _clips_in(root) for root in roots]
    clips = []
    for name in sorted(parts[0].keys() | parts[1].keys()):
        hq, low = (part.get(name) for part in parts)
        problem = ""
        if truth is not None and lq is not None and not (hq and low):
            there, missing = (truth, lq) if hq else (lq, truth)
            problem = f"in {there.name} and not in {missing.name}; add it, or take it away"
        clips.append(DataClip(name, name, hq, low, problem))
    return DataSet(folder.name, layout, tuple(clips))


def _clips_of_folders(folder: Path) -> DataSet | None:
    """``CLIP/truth`` with ``CLIP/blur4``."""
    clips, layouts = [], set()
    entries = [path for path in sorted(folder.iterdir()) if path.is_dir() and _shown(path)]
    for path in entries:
        truth, lq = _named(path, TRUTH_FOLDERS), _named(path, LQ_FOLDERS)
        if truth is None and lq is None:
            continue
        layouts.add("CLIP/" + " with CLIP/".join(part.name for part in (truth, lq) if part))
        frames = [FileFrames(part) if part else None for part in (truth, lq)]
        clips.append(DataClip(path.name, path.name, hq=frames[0], lq=frames[1]))
    if not clips:
        return None
    has_truth, has_lq = (any(getattr(clip, part) for clip in clips) for part in ("hq", "lq"))
    named = {clip.name for clip in clips}
    for path in entries:
        if path.name not in named:
            clips.append(DataClip(path.name, path.name, problem="neither truth nor low quality"))
    checked = [
        replace(clip, problem="no ground truth; add it, or take the clip away")
        if has_truth and not clip.hq and not clip.problem
        else replace(clip, problem="no low-quality frames; add them, or take the clip away")
        if has_lq and not clip.lq and not clip.problem
        else clip
        for clip in clips
    ]
    checked.sort(key=lambda clip: clip.name)
    return DataSet(folder.name, ", ".join(sorted(layouts)), tuple(checked))


def _plain(folder: Path, kind: str) -> DataSet:
    """A folder of clips, or one clip, all ground truth or all low quality."""
    is_set = folder.is_dir() and not _holds_frames(folder)
    clips = _clips_in(folder) if is_set else {folder.stem: FileFrames(folder)}
    if kind == "auto":
        kind = "lq" if folder.name.lower().startswith(LOW_QUALITY) else "truth"
    if kind == "truth":
        found = tuple(DataClip(name, name, hq=clip) for name, clip in clips.items())
        return DataSet(folder.name, "clips of ground truth", found)
    found = tuple(DataClip(name, name, lq=clip) for name, clip in clips.items())
    return DataSet(folder.name, "low-quality clips", found)


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder's child with the most preferred of ``names``, ignoring case."""
    children = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((children[name] for name in names if name in children), None)


def _below(root: Path) -> Path:
    return _named(root, (INNER,)) or root


def _clips_in(root: Path) -> dict[str, FileFrames]:
    return {name: FileFrames(path) for name, path in clips_in(root).items()}


def _holds_frames(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES and _shown(path) for path in folder.iterdir())


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")


@contextmanager
def opened(frames: Frames | None, count: int | None = None) -> Iterator[Iterator[Tensor] | None]:
    """The frames (the first ``count``), closed at the end; None for None."""
    if frames is None:
        yield None
        return
    reading = frames.open()
    try:
        yield islice(reading, count)
    finally:
        reading.close()
