"""How a source is treated: deinterlacing, HDR, transparency, and how that is reported.

:func:`treated` decides, from what the source is, what is asked for and what the target holds;
:func:`treatment_notes` reports it, before the work as well as after it.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from dloral.errors import InputError, OptionError, Setting
from dloral.files import is_folder, some_names
from dloral.options import AUTO, UpscaleOptions
from dloral.video.animations import MOST_OF_GIF
from dloral.video.carried import PIPED
from dloral.video.encoders import CONTAINERS, ENCODERS, deepest
from dloral.video.filters import FIELD, FILM, FRAME, OFF, RATES
from dloral.video.hdr import LINEAR, NAMES, WIDE
from dloral.video.images import other_files, subfolders
from dloral.video.picture_files import (
    DEEP,
    JPEGS,
    TIFFS,
    WITH_ALPHA,
    holds_profile_of,
    is_picture_file,
    lost_tags,
)
from dloral.video.pipes import is_pipe
from dloral.video.probe import ClipInfo

_HOW = {
    FRAME: "deinterlaced at the same frame rate",
    FIELD: "deinterlaced, one frame per field at twice the rate",
    FILM: "film frames recovered (inverse telecine)",
}
_LARGEST_SCALE, _SMALLEST_SCALE = 4.0, 1.0


def target_suffix(target: str | Path) -> str:
    """The suffix that decides a target's format; empty for a folder of frames, PIPED for a pipe."""
    if is_pipe(target):
        return PIPED
    path = Path(target)
    holds_frames = is_folder(path) or str(target).endswith("/") or not path.suffix
    return "" if holds_frames else path.suffix.lower()


def treated(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> ClipInfo:
    """The clip with all that the reader is to do; ``suffix``: of the target, empty for a folder.

    Raises OptionError if a choice does not suit the clip.
    """
    method = options.deinterlace
    if method == AUTO:
        method = FRAME if clip.field_order else OFF
    if method != OFF and clip.kind not in ("video", "pipe"):
        raise OptionError(
            "{path} is not a video, and {option} is {value}",
            remedy="leave it out",
            path=clip.path,
            option=Setting("deinterlace"),
            value=method,
        )
    keeps_alpha = clip.has_alpha and _holds_alpha(suffix, options.codec)
    hdr = "sdr" if options.hdr == "sdr" or not _holds_hdr(clip, options, suffix) else "keep"
    clip = replace(
        clip,
        keep_alpha=keeps_alpha,
        hdr=hdr,
        keep_profile=is_picture_file(clip) and _holds_profile(clip, options, suffix),
    )
    ratio = RATES.get(method, Fraction(1)) / RATES.get(clip.deinterlace, Fraction(1))
    count = None if clip.num_frames is None else round(clip.num_frames * ratio)
    return replace(clip, deinterlace=method, fps=clip.fps * ratio, num_frames=count)


def chosen_depth(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> int:
    """8 or 10 bits for the result of a treated clip."""
    if options.bit_depth != AUTO:
        return int(options.bit_depth)
    if clip.bit_depth <= 8 and not (suffix == ".exr" or clip.keeps_hdr):
        return 8
    if suffix in CONTAINERS:
        return deepest(options.codec, clip.keep_alpha)
    return 10 if suffix in ("", PIPED, *DEEP) else 8


def treatment_notes(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> list[str]:
    """One line for each thing done to a treated clip, or that its target cannot hold."""
    notes = []
    depth = chosen_depth(clip, options, suffix)
    if clip.deinterlace != OFF:
        notes.append(f"interlaced source: {_HOW[clip.deinterlace]}{_of_film(clip)}")
    elif clip.field_order:
        notes.append("the source is interlaced and stays so: its combing is enlarged")
    if clip.is_hdr and clip.color_transfer is not None:
        name = NAMES[clip.color_transfer]
        if clip.keeps_hdr:
            notes.append(f"HDR ({name}) is kept, with {'32' if suffix == '.exr' else depth} bits")
        elif clip.color_transfer == LINEAR:
            notes.append("linear light is written as sRGB: values above white are clipped")
        else:
            why = "" if options.hdr == "sdr" else f": {_lacks(options, suffix)}"
            notes.append(f"HDR ({name}) is tone-mapped to SDR{why}")
    elif clip.bit_depth > 8 and depth == 8 and options.bit_depth == AUTO:
        notes.append(f"{clip.bit_depth} bits are reduced to 8: {_lacks(options, suffix)}")
    if clip.has_alpha and not clip.keep_alpha:
        what = suffix if suffix not in CONTAINERS else f"{options.codec} in {suffix}"
        shown = "any transparency" if clip.kind == "pipe" else "transparency"
        notes.append(f"{shown} is shown over white: {what} has no transparency")
    if clip.keep_alpha and suffix == ".gif":
        notes.append("transparency in a GIF is all or nothing: cut at one half")
    notes += clip.marks.lost(suffix, options.codec)
    notes += _picture_notes(clip, suffix)
    if clip.kind == "folder" and (others := other_files(clip.path)):
        notes.append(f"files in the folder that are not pictures left out: {some_names(others)}")
    if clip.kind == "folder" and (below := subfolders(clip.path)):
        notes.append(f"subfolders of the folder of frames left out: {some_names(below)}")
    return notes + lost_tags(clip, suffix, depth)


def left_out_notes(clip: ClipInfo, suffix: str) -> list[str]:
    """What can be said before a run about frames that will be left out; their writer counts them
    and reports it for the result."""
    if suffix != ".gif" or clip.kind != "video" or clip.fps <= MOST_OF_GIF:
        return []
    return [f"a GIF shows no more than {MOST_OF_GIF} frames a second: some are left out"]


def _picture_notes(clip: ClipInfo, suffix: str) -> list[str]:
    """What a target that is no video file loses of times, colours and pixel aspect ratio."""
    notes = []
    if suffix == ".gif":
        notes.append("a GIF has 256 colours a frame")
    if suffix in TIFFS and clip.num_frames != 1 and clip.codec != "tiff":
        notes.append("TIFF pages have no times: frame durations are lost")
    if clip.written_primaries in WIDE and suffix not in ("", ".png", ".apng", *CONTAINERS):
        told = WIDE[clip.written_primaries]
        notes.append(f"{suffix} cannot record the source's {told} colours: shown as sRGB, paler")
    shape = clip.sample_aspect_ratio
    if shape != 1 and suffix not in (PIPED, *CONTAINERS):
        told = f"{shape.numerator}:{shape.denominator}"
        notes.append(f"pictures cannot record the source's {told} pixels: shown as square")
    return notes


def _of_film(clip: ClipInfo) -> str:
    if not clip.is_telecined or clip.deinterlace == FILM:
        return ""
    return " (this looks like telecined film: deinterlacing by film recovers its frames)"


def target_size(clip: ClipInfo, options: UpscaleOptions) -> tuple[int, int]:
    """Height and width of the result in pixels, by ``scale`` or by the target size asked for.

    A requested side is met to the pixel, and the other is even. InputError if the clip would
    become smaller, or more than four times as large.
    """
    height, width = clip.height, clip.width
    if options.height is not None:
        sides = options.height, _even(width * Fraction(options.height, height))
    elif options.width is not None:
        sides = _even(height * Fraction(options.width, width)), options.width
    elif options.fit_size is not None:
        most_wide, most_high = options.fit_size
        shown = width * clip.sample_aspect_ratio
        if shown * most_high > most_wide * height:
            factor = most_wide / shown
        else:
            factor = Fraction(most_high, height)
        sides = _even(height * factor), _even(width * factor)
    else:
        scale = options.scale
        return max(1, round(height * scale)), max(1, round(width * scale))
    least, most = _SMALLEST_SCALE, _LARGEST_SCALE
    factors = sides[0] / height, sides[1] / width
    tolerance = 2 / min(height, width)
    if min(factors) < least - tolerance or max(factors) > most + tolerance:
        asked = next(name for name in ("height", "width", "fit") if getattr(options, name))
        raise InputError(
            f"{{path}} is {width}x{height}, and {{setting}} would make it {sides[1]}x{sides[0]}",
            remedy=f"give a size from {width}x{height} to {4 * width}x{4 * height}",
            path=clip.path,
            setting=Setting(asked, getattr(options, asked)),
        )
    return sides


def _even(side: Fraction) -> int:
    return max(2 * round(side / 2), 2)


def _holds_alpha(suffix: str, codec: str) -> bool:
    if suffix in CONTAINERS:
        encoder = ENCODERS.get(codec)
        return encoder is not None and bool(encoder.alpha)
    return not suffix or suffix in WITH_ALPHA


def _holds_hdr(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> bool:
    if not clip.is_hdr:
        return True
    if clip.color_transfer == LINEAR:
        return suffix == ".exr"
    if suffix in ("", ".png", ".apng"):
        return options.bit_depth != 8
    if suffix not in CONTAINERS or options.bit_depth == 8:
        return False
    return deepest(options.codec, clip.has_alpha and _holds_alpha(suffix, options.codec)) > 8


def _holds_profile(clip: ClipInfo, options: UpscaleOptions, suffix: str) -> bool:
    """A single file that says its colours. Those of more bits are only read as they are."""
    if suffix in (".png", ".apng", ".webp", *JPEGS):
        return holds_profile_of(clip, suffix)
    return suffix in DEEP and suffix != ".exr" and clip.bit_depth == 8 and options.bit_depth != 10


def _lacks(options: UpscaleOptions, suffix: str) -> str:
    if options.bit_depth == 8:
        return "8 bits are too few"
    if suffix == PIPED:
        return "piped frames are not marked as HDR"
    if suffix in CONTAINERS:
        return f"{options.codec} is written with 8 bits here"
    return f"{suffix} holds 8 bits"
