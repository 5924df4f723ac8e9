"""The page's settings, as its controls, a saved settings file and API calls all hold them."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeGuard

import dloral
from dloral.errors import OptionError
from dloral.options import AUTO, CODECS, UpscaleOptions
from dloral.prompts import Scene, prompt_at
from dloral.studio.runtime import shown_name
from dloral.video.probe import ClipInfo
from dloral.video.treatment import target_suffix, treated

PNG_ZIP = "png"
ANIMATIONS = ("gif", "webp")
FORMATS = (*CODECS, *ANIMATIONS, PNG_ZIP)
"""Output formats of a restored clip: a codec, an animated image, or PNG frames in a zip file."""

SUFFIXES = {
    **{"h264": ".mp4", "h265": ".mp4", "av1": ".mp4", "vp9": ".webm"},
    **{"prores": ".mov", "ffv1": ".mkv", "gif": ".gif", "webp": ".webp"},
}

MOST_BYTES = 100_000
"""Largest settings file; ours have a few hundred bytes."""

MOST_PROMPT = 1000
"""Longest prompt of a scene, in characters; the text encoder reads 77 tokens."""

_NO_SCENES = "scenes are not a list of {start, prompt}; leave them out, or find them again"
_KIND = "dloral settings"
_CHOSEN = (
    *("scale", "consistency", "detail", "strength", "window", "prompt", "color_fix", "tile"),
    *("start", "duration", "crf", "bit_depth", "deinterlace", "fit"),
)
"""Options that users set on the page; ``format`` stands for ``codec``."""


@dataclass(frozen=True)
class Settings:
    """``options`` as the generator takes them, and the ``format`` of the result. ``scenes``: with
    the prompts that were reviewed and perhaps edited; if empty, the run finds each prompt."""

    options: UpscaleOptions
    format: str = "h264"
    scenes: tuple[Scene, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Under the names that :func:`settings_from` takes."""
        values = asdict(self.options)
        chosen = {name: values[name] for name in _CHOSEN} | {"format": self.format}
        return chosen | {"scenes": scenes_as_dicts(self.scenes)} if self.scenes else chosen

    def at(self, seconds: Fraction) -> UpscaleOptions:
        """Options for only the frame at ``seconds`` of the source: with its scene's prompt."""
        if not self.scenes:
            return self.options
        return replace(self.options, prompt=prompt_at(self.scenes, seconds))

    def as_file(self, clip: ClipInfo) -> bytes:
        """The settings file that is kept beside a result."""
        source = {"name": clip.path.name, "width": clip.width, "height": clip.height}
        content = {
            "kind": _KIND,
            "version": dloral.__version__,
            "model": shown_name(self.options.model),
            "vae": self.options.vae,
            "source": source | {"frames": clip.num_frames},
            "settings": self.as_dict(),
        }
        return json.dumps(content, indent=1).encode()


def settings_from(values: dict[str, Any], model: str) -> Settings:
    """Settings from a page's or a file's values; one-line OptionError for anything invalid.

    Omitted names, and those that are None, keep their defaults (but a ``tile`` of None is none);
    unknown names are rejected.
    """
    values = dict(values)
    kept_as = values.pop("format", None)
    kept_as = "h264" if kept_as is None else kept_as
    scenes = scenes_from(values.pop("scenes", None))
    if kept_as not in FORMATS:
        raise OptionError(f"format is {kept_as!r}; choose from {', '.join(FORMATS)}")
    if strange := sorted(values.keys() - set(_CHOSEN)):
        raise OptionError(
            f"{strange[0]!r} is not a setting; choose from {', '.join(_CHOSEN)}, format"
        )
    chosen = {name: value for name, value in values.items() if value is not None}
    tile = chosen.get("tile")
    if "tile" in values and tile in (None, "none"):
        chosen["tile"] = None
    elif isinstance(tile, int) and tile > 0:
        chosen["tile_overlap"] = min(32, tile // 2)
    if not is_text(chosen.get("prompt", "")):
        raise OptionError("prompt is not text; give a few words or leave it out")
    codec = kept_as if kept_as in CODECS else "h264"
    if chosen.get("bit_depth") in ("8", "10"):  # from callers whose type must hold "auto" too
        chosen["bit_depth"] = int(chosen["bit_depth"])
    if kept_as not in ("h264", "h265", "av1", "vp9"):
        chosen.pop("crf", None)
    if kept_as in ANIMATIONS:  # always 8 bits
        chosen.pop("bit_depth", None)
    return Settings(UpscaleOptions(model=model, codec=codec, **chosen), kept_as, scenes)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a string that UTF-8 can write, as answers and lists need it: half an emoji, or
    a file name in an older encoding, is not."""
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError:
        return False
    return isinstance(value, str)


def scenes_as_dicts(scenes: Iterable[Scene]) -> list[dict[str, str]]:
    """``start``: seconds as an exact fraction."""
    return [{"start": str(scene.start), "prompt": scene.prompt} for scene in scenes]


def scenes_from(values: Any) -> tuple[Scene, ...]:
    """Scenes from a page's or a file's list, in order; one-line OptionError if it is invalid."""
    if values is None:
        return ()
    if not isinstance(values, list):
        raise OptionError(_NO_SCENES)
    return tuple(sorted(map(_scene, values), key=lambda scene: scene.start))


def _scene(value: Any) -> Scene:
    found = value if isinstance(value, dict) else {}
    start, prompt = found.get("start"), found.get("prompt")
    # Bounded in length: with an exponent, a few characters could name a number that fills memory.
    if not isinstance(start, str) or not re.fullmatch(r"\d{1,18}(/[1-9]\d{0,17})?", start):
        raise OptionError(_NO_SCENES)
    if not is_text(prompt) or len(prompt) > MOST_PROMPT:
        raise OptionError(f"a scene's prompt is not text of at most {MOST_PROMPT} characters")
    return Scene(Fraction(start), prompt)


def settings_from_file(content: bytes) -> dict[str, Any]:
    """The values in a settings file; one-line OptionError if it is not one."""
    try:
        found = json.loads(content) if len(content) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise OptionError("this is not a DLoRAL settings file; drop one saved on this page")
    values = found.get("settings")
    if not isinstance(values, dict):
        raise OptionError("this settings file holds no settings; save it again")
    return settings_from(values, AUTO).as_dict()


def result_name(clip: ClipInfo, kept_as: str) -> str:
    """A result's file name for downloads."""
    if clip.kind == "image":
        return f"{clip.path.stem}-restored.png"
    return f"{clip.path.stem}-restored{SUFFIXES.get(kept_as, '.zip')}"


def as_restored(clip: ClipInfo, settings: Settings) -> ClipInfo:
    """The clip as a run with these settings reads it: deinterlaced, tone-mapped and so on.
    OptionError if a setting does not suit the clip."""
    return treated(clip, settings.options, suffix_of(clip, settings))


def suffix_of(clip: ClipInfo, settings: Settings) -> str:
    """Suffix of the output file; empty for a folder of frames, from which the zip file is made."""
    if settings.format == PNG_ZIP and clip.kind != "image":
        return ""
    return target_suffix(result_name(clip, settings.format))


def result_path(folder: Path, clip: ClipInfo, kept_as: str) -> Path:
    """Where a job keeps its result in its ``folder``."""
    return folder / result_name(clip, kept_as)
