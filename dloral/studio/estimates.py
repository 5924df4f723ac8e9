"""What the page says about a clip, and about a run before it starts, in plain words."""

from dataclasses import replace
from typing import Any, overload

from dloral.frames.resize import LATENT_STRIDE
from dloral.jobs.spans import chosen_tile, expected_frames, output_size
from dloral.options import UpscaleOptions
from dloral.studio.runtime import Model
from dloral.studio.settings import PNG_ZIP, Settings, as_restored, suffix_of
from dloral.video.carried import carried_notes
from dloral.video.hdr import NAMES
from dloral.video.known import source_notes
from dloral.video.probe import ClipInfo
from dloral.video.treatment import left_out_notes, treatment_notes

COMFORTABLE_PIXELS = 2560 * 1440
"""Output pixels a frame, beyond which twice is suggested instead of four times."""

FIRST_SECONDS = 5
"""Of a long clip, what is suggested for a first try."""

SHORT_SECONDS = 10
"""A clip up to this is no long one: nobody expects a part of it."""

SLOW_SECONDS = 120
"""A run that takes longer gets a word of warning."""

MEASURED_MEMORY = {"compact": (0.55e9, 100, 9)}
"""Of models whose peak was measured, in float32 on a CPU, bytes: the process itself; for each
output pixel; and what cross-frame retrieval takes for each pair of cells in a tile. Fitted to the
peaks at 512 x 512, 768 x 768 and 1024 x 1024 (third compact model: 0.67, 1.40 and 1.39 GB;
``python -m tests.studio.bench_page memory``)."""

_CODEC_NAMES = {
    "h264": "H.264",
    "hevc": "H.265",
    "mpeg1video": "MPEG-1",
    "mpeg2video": "MPEG-2",
    "mpeg4": "MPEG-4",
    "png": "PNG",
    "gif": "GIF",
    "jpeg": "JPEG",
    "mjpeg": "Motion JPEG",
    "prores": "ProRes",
    "dvvideo": "DV",
    "theora": "Theora",
    "webp": "WebP",
    "cfhd": "CineForm",
    "dnxhd": "DNxHD",
    "vc1": "VC-1",
    "qtrle": "QuickTime Animation",
    "rawvideo": "uncompressed",
}


def suggested_scale(clip: ClipInfo) -> float:
    """4, or 2 where four times would be too much for a laptop."""
    return 4.0 if 16 * clip.width * clip.height <= COMFORTABLE_PIXELS else 2.0


def suggested_seconds(clip: ClipInfo, most: float | None = None) -> float | None:
    """A short first part of a long clip; None: all of it."""
    if clip.kind == "image" or clip.duration is None:
        return None
    if clip.duration <= (SHORT_SECONDS if most is None else min(SHORT_SECONDS, most)):
        return None
    return float(FIRST_SECONDS if most is None else min(FIRST_SECONDS, most))


def clip_facts(clip: ClipInfo) -> list[str]:
    """Size, frames, rate, length, codec, what is unusual of the picture, and sound."""
    parts = [f"{clip.width} × {clip.height}"]
    if clip.kind != "image":
        if clip.num_frames is not None:
            parts.append(counted(clip.num_frames, "frame"))
        parts.append(f"{float(clip.fps):.4g} fps")
        if clip.duration is not None:
            parts.append(time_in_words(float(clip.duration)))
    parts.append(_CODEC_NAMES.get(clip.codec, clip.codec.upper()))
    if clip.field_order:
        parts.append("interlaced")
    if clip.is_hdr and clip.color_transfer is not None:
        parts.append(f"HDR ({NAMES[clip.color_transfer]})")
    elif clip.bit_depth > 8:
        parts.append(f"{clip.bit_depth} bits")
    if clip.has_alpha:
        parts.append("transparency")
    if clip.kind == "video":
        parts.append("with sound" if clip.has_audio else "no sound")
    return parts


def described(clip: ClipInfo, most_seconds: float | None) -> dict[str, Any]:
    """Everything the page has to know about a clip."""
    return {
        "name": clip.path.name,
        "kind": clip.kind,
        "width": clip.width,
        "height": clip.height,
        "frames": clip.num_frames or 1,
        "fps": float(clip.fps),
        "seconds": float(clip.duration or 0),
        "sound": clip.has_audio,
        "facts": clip_facts(clip),
        "suggested": {
            "scale": suggested_scale(clip),
            "duration": suggested_seconds(clip, most_seconds),
        },
    }


def plan(clip: ClipInfo, settings: Settings, model: Model) -> dict[str, Any]:
    """What a run will make, between how many seconds it takes, once that is known, and with about
    how much memory. ``notes``: what is unusual of the source, what is done about it, and what the
    format loses, as the result says it. InputError where the run would end with one at once."""
    seconds = run_seconds(clip, settings, model)
    clip = as_restored(clip, settings)
    options = replace(settings.options, model=model.name, vae=model.vae)
    height, width = output_size(clip, options)
    suffix = suffix_of(clip, settings)
    num_frames = 1 if clip.kind == "image" else expected_frames(clip, options)
    parts = [f"{width} × {height}"]
    if num_frames is not None and clip.kind != "image":
        of = "" if num_frames == clip.num_frames else f" of {clip.num_frames}"
        parts.append(f"{num_frames}{of} frame{'s' if num_frames != 1 or of else ''}")
    if seconds is not None:
        parts.append(range_in_words(*seconds))
    if (needed := memory(height, width, options)) is not None:
        parts.append(f"{needed / 1e9:.1f}\N{NO-BREAK SPACE}GB of memory")
    return {
        "width": width,
        "height": height,
        "frames": num_frames,
        "seconds": seconds,
        "words": parts,
        "notes": [
            *source_notes(clip, options.start, options.size_changes),
            *treatment_notes(clip, options, suffix),
            *left_out_notes(clip, suffix),
            *carried_notes(clip, suffix, options.audio),
        ],
        "warning": _warning(clip, settings, sum(seconds) / 2 if seconds else None, height * width),
    }


@overload
def run_seconds(
    clip: ClipInfo, settings: Settings, model: Model, cost: float, unknown_frames: int
) -> tuple[float, float]: ...
@overload
def run_seconds(clip: ClipInfo, settings: Settings, model: Model) -> tuple[float, float] | None: ...
def run_seconds(
    clip: ClipInfo,
    settings: Settings,
    model: Model,
    cost: float | None = None,
    unknown_frames: int | None = None,
) -> tuple[float, float] | None:
    """Between how many seconds a run takes. None while that is not known; ``cost`` (seconds for
    each unit of work, on a machine that is lent for it) and ``unknown_frames`` stand in."""
    clip = as_restored(clip, settings)
    options = replace(settings.options, model=model.name, vae=model.vae)
    frames = 1 if clip.kind == "image" else expected_frames(clip, options) or unknown_frames
    if frames is None:
        return None
    size = output_size(clip, options)
    is_elsewhere = cost is not None
    own = model.cost if cost is None else cost
    return model.speeds.estimate(options, settings.format, size, frames, own, is_elsewhere)


def memory(height: int, width: int, options: UpscaleOptions) -> float | None:
    """Approximate peak memory in bytes of the model of ``options``, where it was measured."""
    if options.model not in MEASURED_MEMORY:
        return None
    program, for_pixel, for_pair = MEASURED_MEMORY[options.model]
    tile, cells = chosen_tile(options), height * width / LATENT_STRIDE**2
    in_tile = cells if tile is None else min(cells, tile**2)
    return program + for_pixel * height * width + for_pair * in_tile**2


def _warning(clip: ClipInfo, settings: Settings, seconds: float | None, pixels: int) -> str | None:
    options = settings.options
    if settings.format == PNG_ZIP and clip.kind == "image":
        return None
    if seconds is None or seconds < SLOW_SECONDS:
        return None
    smaller = next((s for s in (2.0, 1.5, 1.0) if s < options.scale), None)
    if pixels > COMFORTABLE_PIXELS and smaller:
        saved = (smaller / options.scale) ** 2 * seconds
        return f"This is slow. A scale of {smaller:g} would take about {time_in_words(saved)}."
    if clip.kind != "image":
        return "This takes a while. Try a shorter part first: drag the ends of the strip."
    return None


def counted(number: int, word: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def time_in_words(seconds: float) -> str:
    """``2.5 s``, ``40 s``, ``1:05 min``, ``2:00:00 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def range_in_words(least: float, most: float) -> str:
    """``about 2 s``, ``50 s to 1:20 min``, ``25 to 50 min``: nobody knows it better."""
    least, most = _rounded(least), _rounded(most)
    words, longest = _whole(least), _whole(most)
    if least >= most or most <= 2:
        return f"about {longest}"
    # without the unit where both have the same
    unit = longest.rpartition(" ")[1] + longest.rpartition(" ")[2]
    return f"{words.removesuffix(unit)} to {longest}"


def _whole(seconds: float) -> str:
    """Rounded seconds as text; minutes and hours without a zero remainder."""
    if seconds < 10:
        return f"{round(seconds)} s"
    return time_in_words(seconds).replace(":00 h", " h").replace(":00 min", " min")


def _rounded(seconds: float) -> float:
    step = next(step for most, step in _STEPS if seconds < most)
    return max(1, round(seconds / step) * step)


_STEPS = ((20, 1), (60, 5), (300, 10), (1200, 60), (7200, 300), (float("inf"), 1800))
"""Seconds below which an estimate is rounded to so many."""
