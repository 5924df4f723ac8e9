"""One prompt per scene: what the extractor Y sees, plus what the user adds.

A first pass over the clip finds its cuts and runs the tagger on the first frame of each scene;
then the tagger's memory is freed, before the generator needs it. The public code runs it once, on
the clip's first frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dloral.errors import OptionError, Setting, WeightsError
from dloral.frames.scenes import CutDetector
from dloral.options import AUTO, UpscaleOptions
from dloral.video.probe import ClipInfo
from dloral.video.reader import first_frame, read_frames

if TYPE_CHECKING:
    from dloral.generator import Generator
    from dloral.models.tagger import Tagger

NONE = "none"


@dataclass(frozen=True)
class Scene:
    """From ``start`` (seconds of the source) on, the UNet gets ``prompt``."""

    start: Fraction
    prompt: str


def prompt_at(scenes: Sequence[Scene], time: Fraction) -> str:
    """The prompt of a frame shown at ``time``; scenes are in order, the first reaches back."""
    told = scenes[0].prompt
    for scene in scenes:
        if scene.start > time:
            break
        told = scene.prompt
    return told


def find_scenes(clip: ClipInfo, options: UpscaleOptions, pipe: "Generator") -> Iterator[Scene]:
    """The scenes of what will be restored, each as it is found.

    Without a tagger (``options.tagger``) the clip is one scene, with the user's prompt alone.
    Raises :class:`OptionError` or :class:`WeightsError` if the requested tagger cannot be used.
    """
    folder = tagger_folder(options, pipe)
    if folder is None:
        yield Scene(Fraction(0), options.prompt)
        return
    from dloral.memory import release_memory
    from dloral.models.tagger import make_prompt

    tagger = _load(folder, options, pipe)
    try:
        if clip.kind == "pipe":  # it can be read only once, so only its first frame is tagged
            pixels = first_frame(clip)
            tags = tagger.tags_of(pixels[None])[0] if pixels is not None else []
            yield Scene(Fraction(0), make_prompt(tags, options.prompt))
            return
        cuts = CutDetector()
        with read_frames(clip, start=options.start, duration=options.duration) as frames:
            for frame in frames:
                if cuts.begins(frame.pixels):
                    (tags,) = tagger.tags_of(frame.pixels[None])
                    yield Scene(frame.time, make_prompt(tags, options.prompt))
    finally:
        del tagger
        release_memory()


def tagger_folder(options: UpscaleOptions, pipe: "Generator") -> Path | None:
    """The folder of the tagger that a job will use; None for none."""
    if options.tagger == NONE:
        return None
    if not pipe.reads_prompts:
        if options.tagger != AUTO:
            raise OptionError(
                "{option} is {value}, but the model {model} reads no prompts",
                remedy="use {instead} or none",
                option=Setting("tagger"),
                value=options.tagger,
                model=options.model,
                instead=Setting("tagger", AUTO),
            )
        return None
    from dloral.weights.tagger import find_tagger  # with the libraries that run models

    folder = find_tagger(pipe.folder)
    if folder is None and options.tagger != AUTO:
        raise WeightsError(
            "the tagger is not on this machine",
            remedy="fetch it (python -m dloral fetch tagger), or use {instead}",
            instead=Setting("tagger", NONE),
        )
    return folder


def _load(folder: Path, options: UpscaleOptions, pipe: "Generator") -> "Tagger":
    from dloral.weights.tagger import load_tagger

    place = pipe.execution_device
    dtype = torch.float32 if place.type == "cpu" else pipe.compute_dtype
    return load_tagger(folder, place, dtype, dape=options.tagger != "ram")


def as_lists(scenes: Sequence[Scene]) -> list[list[str]]:
    """Scenes as JSON holds them: [start, prompt] each."""
    return [[str(scene.start), scene.prompt] for scene in scenes]
