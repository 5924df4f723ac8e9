"""A clip restored with all that the page's viewer needs beside the result: a clip of both pictures,
measures of every frame, the settings' file."""

import shutil
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dloral.files import write_whole
from dloral.frames.resize import resize_bicubic
from dloral.jobs.journal import JOURNAL, JournalError, journal_folder
from dloral.jobs.spans import expected_frames, output_size
from dloral.options import UpscaleOptions
from dloral.prompts import Scene
from dloral.studio.animated import as_shown, is_gif
from dloral.studio.measures import Measures
from dloral.studio.pictures import png_of, stacked, within
from dloral.studio.records import Result, write_result
from dloral.studio.settings import PNG_ZIP, Settings, as_restored, result_path
from dloral.upscale import Progress, upscale_steps
from dloral.video.encoders import FOR_VIEWING
from dloral.video.probe import ClipInfo
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator

VIEWER_SIDE = 2048
"""Pixels: frames of the viewer's clip have no longer side; one that stands still is shown whole."""

STOP = "stop"
"""A file in a job's folder: the job ends with the frames that are done. A file, since the job may
be run in another process (ZeroGPU), or be taken up by the next server."""


def restore(
    clip: ClipInfo,
    folder: Path,
    settings: Settings,
    pipe: "FrameGenerator",
) -> Generator[Progress | Result, None, None]:
    """Restore ``clip`` into ``folder`` with all that the viewer needs; the Result comes last.

    Closing the generator stops the job and leaves no result in the folder, only the finished
    segments, from which the next call resumes. They are kept until everything is written, so that
    a disk that fills up at the very end costs nothing. A file :data:`STOP` in the folder ends it
    with the finished frames, as a result that says so.
    """
    size = output_size(clip, settings.options)
    file = result_path(folder, clip, settings.format)
    as_zip = settings.format == PNG_ZIP and clip.kind != "image"
    target = folder / "frames" if as_zip else file
    source, clip = clip, as_restored(clip, settings)
    viewer_file = folder / ("viewer.png" if clip.kind == "image" else "viewer.mp4")
    options = replace(settings.options, resume=clip.kind != "image")
    is_resumed = (journal_folder(target) / JOURNAL).is_file()
    if is_resumed:
        _remove(target, file)  # of a run that ended between its result and all else
    pairs = _Pairs(viewer_file, clip, settings, size)
    stop = (folder / STOP).exists
    result: Result | None = None
    steps = _steps(source, target, options, pipe, settings.scenes, stop)
    with closing(steps), ExitStack() as viewing:
        if not is_resumed:
            viewing.enter_context(pairs)
        for step in steps:
            if not is_resumed and step.restored_frame is not None and step.lq_frame is not None:
                pairs.add(step.lq_frame, step.restored_frame, step.time, step.duration)
            yield step
            if not step.is_written:
                continue
            viewing.close()
            if is_resumed:
                # The frames that were done before are in the result alone.
                with pairs:
                    for pair in _read_pairs(clip, target, settings, size):
                        pairs.add(*pair)
                        yield replace(step, target=None)
            if as_zip:
                _zip(target, file)
            if pipe.reads_prompts:
                settings = replace(settings, scenes=step.scenes)  # so that the file makes it again
            total = expected_frames(clip, options)
            is_part = stop() and total is not None and len(pairs.times) < total
            result = _finished(file, clip, settings, pairs, step.notes, is_part)
    assert result is not None
    yield result


def _remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _steps(
    source: ClipInfo,
    target: Path,
    options: UpscaleOptions,
    pipe: "FrameGenerator",
    scenes: tuple[Scene, ...],
    stop: Callable[[], bool],
) -> Generator[Progress, None, None]:
    """As :func:`upscale_steps`. Finished parts that cannot be used, since they are damaged or of
    an earlier version of this software, are made again: nobody could choose another target here."""
    try:
        yield from upscale_steps(source, target, options, pipe, scenes, stop=stop)
    except JournalError:
        shutil.rmtree(journal_folder(target), ignore_errors=True)
        yield from upscale_steps(source, target, options, pipe, scenes, stop=stop)


def _finished(
    file: Path,
    clip: ClipInfo,
    settings: Settings,
    pairs: "_Pairs",
    notes: tuple[str, ...],
    is_part: bool,
) -> Result:
    """The result, written beside ``file`` with the settings that make it again and the profile."""
    settings_file, profile_file = file.with_suffix(".json"), file.with_name("profile.png")
    settings_file.write_bytes(settings.as_file(clip))
    profile_file.write_bytes(png_of(pairs.measures.profile()))
    result = Result(
        clip=clip,
        settings=settings,
        file=file,
        settings_file=settings_file,
        viewer_file=pairs.file,
        profile_file=profile_file,
        times=tuple(pairs.times),
        durations=tuple(pairs.durations),
        size=pairs.size,
        measures=pairs.measures.as_lists(),
        notes=notes,
        is_part=is_part,
    )
    write_result(result)
    return result


class _Pairs:
    """What is made of each pair of frames: the viewer's clip, times, measures. To be entered."""

    def __init__(
        self, file: Path, clip: ClipInfo, settings: Settings, size: tuple[int, int]
    ) -> None:
        self.file, self.size = file, size
        self.times: list[Fraction] = []
        self.durations: list[Fraction] = []
        self.measures = Measures()
        self._height, self._width = viewer_size(*size, clip.kind == "image")
        self._writing = open_writer(
            file,
            width=self._width,
            height=2 * self._height,
            source=clip,
            codec=FOR_VIEWING,
            start=settings.options.start,
            duration=settings.options.duration,
        )

    def __enter__(self) -> None:
        self._writer = self._writing.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._writing.__exit__(*error)

    def add(self, lq_frame: Tensor, restored: Tensor, time: Fraction, duration: Fraction) -> None:
        self.times.append(time)
        self.durations.append(duration)
        pair = [_shown(frame, self._height, self._width) for frame in (lq_frame, restored)]
        self._writer.write(stacked(*pair), time, duration)
        self.measures.add(lq_frame, restored)


def _read_pairs(
    clip: ClipInfo, result: Path, settings: Settings, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor, Fraction, Fraction]]:
    """The bicubic enlargement of each source frame, the result's frame, and the source frame's time
    and duration."""
    options = settings.options
    with (
        read_frames(clip, options.start, options.duration) as frames,
        read_frames(result) as restored,
    ):
        pairs = as_shown if is_gif(result) else zip  # a part has fewer frames than the source
        for frame, finished in pairs(frames, restored):
            lq_frame = resize_bicubic(frame.seen[None], *size)[0]
            yield lq_frame, finished.pixels, frame.time, frame.duration


def viewer_size(height: int, width: int, is_image: bool = False) -> tuple[int, int]:
    """Height and width of one half of the viewer's picture; even for a video."""
    ratio = min(1.0, VIEWER_SIDE / max(height, width))
    half = max(1, round(height * ratio)), max(1, round(width * ratio))
    return half if is_image else (max(2, half[0] // 2 * 2), max(2, half[1] // 2 * 2))


def _shown(frame: Tensor, height: int, width: int) -> Tensor:
    """The frame at the viewer's size: smaller, or without the odd last row and column."""
    if max(frame.shape[1:]) > VIEWER_SIDE:
        frame = within(frame, VIEWER_SIDE)
    if frame.shape[1] < height or frame.shape[2] < width:  # of a single row or column
        return resize_bicubic(frame[None], height, width)[0]
    return frame[:, :height, :width]


def _zip(folder: Path, target: Path) -> None:
    """Replace a folder's frames by one zip file, uncompressed since PNG already is."""

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)

    write_whole(target, write)
    shutil.rmtree(folder)


def has_segments(folder: Path) -> bool:
    """Whether a run in a job's ``folder`` ended before its result existed, and can be resumed."""
    return any(folder.glob(f"*.resume/{JOURNAL}"))
