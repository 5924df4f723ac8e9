"""Options that change nothing for a source and a target, though whoever gave them expects it."""

from __future__ import annotations

from dloral.options import AUTO, UpscaleOptions
from dloral.video.carried import PIPED
from dloral.video.encoders import CONTAINERS
from dloral.video.picture_files import DEEP
from dloral.video.probe import ClipInfo

_OF_VIDEO = ("codec", "crf", "preset", "chroma", "encoder_options")


def unused_notes(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> list[str]:
    """A line for the options, other than their defaults, that do nothing here; ``suffix``: of the
    target, empty for a folder, PIPED for a pipe.

    Not those whose wish is met anyway, such as ``hdr="sdr"`` for a source that is SDR.
    """
    defaults = UpscaleOptions()
    given = {name for name in vars(defaults) if getattr(options, name) != getattr(defaults, name)}
    found: dict[str, list[str]] = {}
    for name, why in _idle(clip, options, suffix).items():
        if name in given:
            found.setdefault(why, []).append(name.replace("_", " "))
    return [f"{', '.join(names)} ignored: {why}" for why, names in found.items()]


def _idle(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> dict[str, str]:
    """Options that would do nothing here, with the reason."""
    idle: dict[str, str] = {}
    if clip.kind == "image":
        idle |= dict.fromkeys(("fps", "duration"), "a picture has no length")
    elif clip.kind == "video" or (clip.kind == "pages" and clip.codec != "tiff"):
        idle["fps"] = "the source has its own timestamps"
    if suffix not in (PIPED, *CONTAINERS):
        target = suffix or "a folder of frames"
        idle |= dict.fromkeys(_OF_VIDEO, f"{target} holds pictures, and no video codec")
    if suffix and suffix not in (PIPED, *CONTAINERS, *DEEP) and options.bit_depth not in (AUTO, 8):
        idle["bit_depth"] = f"{suffix} holds 8 bits"
    if not clip.has_audio and options.audio != "none":
        idle["audio"] = "the source has no sound"
    if suffix or clip.kind != "folder":
        idle["keep_names"] = "names are kept from folder to folder"
    if suffix != PIPED:
        idle["pipe_format"] = "no frames go to standard output"
    return idle
