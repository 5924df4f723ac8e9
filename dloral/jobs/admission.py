"""Checks before a job begins: where its frames come from and go, and whether they fit."""

from dataclasses import replace
from pathlib import Path

import torch

from dloral.errors import OptionError, ResourceError, Setting
from dloral.jobs.spans import output_size
from dloral.memory import free_memory
from dloral.options import UpscaleOptions
from dloral.video.known import source_notes
from dloral.video.pipes import is_pipe, probe_input
from dloral.video.probe import ClipInfo, exact_rate, probe
from dloral.video.treatment import treatment_notes
from dloral.video.unused import unused_notes


def settled(
    options: UpscaleOptions,
    source: ClipInfo | str | Path,
    target: str | Path,
    has_engine: bool = False,
) -> UpscaleOptions:
    """The options of this job: one that reads or writes a pipe runs once, here, and keeps no parts.

    OptionError if they ask for more than that, or describe raw video for a source that is not.
    """
    for name in ("size", "pixel_format"):
        if getattr(options, name) is not None and not is_pipe(source):
            raise OptionError(
                "{option} describes raw video on standard input, but the source is a file",
                remedy="leave it out",
                option=Setting(name),
            )
    if not (is_pipe(source) or is_pipe(target)):
        return options
    if options.resume is True or has_engine:
        raise OptionError(
            "a pipe is read and written once, from its start",
            remedy="leave out {option}, or give files",
            option=Setting("devices" if has_engine else "resume"),
        )
    return replace(options, resume=False)


def open_source(source: ClipInfo | str | Path, options: UpscaleOptions) -> ClipInfo:
    """Probe the source unless that is done already: a file or folder, or ``-`` for standard
    input."""
    if isinstance(source, ClipInfo):
        is_told = options.fps is not None
        return probe(source.path, options.fps, source.isolated) if is_told else source
    if is_pipe(source):
        fps = None if options.fps is None else exact_rate(options.fps)
        return probe_input(options.raw_size, options.pixel_format, fps)
    return probe(source, options.fps)


def opening_notes(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> list[str]:
    """What can be said of a treated clip and a target of this suffix before the work. InputError
    for what makes it pointless."""
    return [
        *source_notes(clip, options.start, options.size_changes),
        *treatment_notes(clip, options, suffix),
        *unused_notes(clip, options, suffix),
    ]


def admitted_size(clip: ClipInfo, options: UpscaleOptions) -> tuple[int, int]:
    """Height and width of the result, in pixels (:func:`dloral.jobs.spans.output_size`).

    ResourceError, before a pixel is decoded, if the frames themselves would not fit in free
    memory. What a model needs on top of that is its own concern.
    """
    height, width = output_size(clip, options)
    frame, enlarged = (3 * 4 * pixels for pixels in (clip.height * clip.width, height * width))
    held = min(2 * options.batch_size, clip.num_frames or 2)  # see dloral.upscale
    # read: as bytes and as floats; written: enlarged, restored, and in the encoder's format
    needed = 2 * frame + 3 * enlarged + (held - 1) * (frame + 2 * enlarged)
    free = free_memory(torch.device("cpu"))
    if needed > free:
        raise ResourceError(
            f"{{path}} is {clip.width}x{clip.height} and would become {width}x{height}: that needs "
            f"{needed / 1e9:.1f} GB of memory, but only {free / 1e9:.1f} GB is free",
            remedy="use a smaller {scale}",
            path=clip.path,
            scale=Setting("scale"),
        )
    return height, width
