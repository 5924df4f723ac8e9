"""What the page says and shows, as HTML: facts of a clip, what a run will make, how a run goes."""

import base64
import io
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from dloral.frames.resize import resize_bicubic
from dloral.options import UpscaleOptions
from dloral.upscale import Progress, expected_frames, output_size
from dloral.video.probe import ClipInfo

PREVIEW_SIDE = 1280
"""Pixels; pictures that are only looked at while a job runs are sent no larger."""

COMFORTABLE_PIXELS = 2560 * 1440
"""Output pixels a frame, beyond which twice is suggested instead of four times."""

FIRST_SECONDS = 5
"""Of a long clip, what is suggested for a first try."""

_CODEC_NAMES = {
    "h264": "H.264",
    "hevc": "H.265",
    "mpeg1video": "MPEG-1",
    "mpeg2video": "MPEG-2",
    "mpeg4": "MPEG-4",
    "png": "PNG",
    "gif": "GIF",
}


def suggested_scale(clip: ClipInfo) -> float:
    """4, or 2 where four times would be more than a laptop does with ease."""
    return 4.0 if 16 * clip.width * clip.height <= COMFORTABLE_PIXELS else 2.0


def suggested_seconds(clip: ClipInfo) -> float | None:
    """A short first part of a long clip; None: all of it."""
    if clip.kind != "video" or clip.duration is None or clip.duration <= FIRST_SECONDS:
        return None
    return float(FIRST_SECONDS)


def facts(clip: ClipInfo) -> str:
    """The clip's name, size, frames, rate, length, codec and sound."""
    parts = [f"{clip.width} × {clip.height}"]
    if clip.kind == "video":
        if clip.num_frames is not None:
            parts.append(_counted(clip.num_frames, "frame"))
        parts.append(f"{float(clip.fps):.4g} per second")
        if clip.duration is not None:
            parts.append(_time(float(clip.duration)))
    parts.append(_CODEC_NAMES.get(clip.codec, clip.codec.upper()))
    if clip.kind == "video":
        parts.append("with sound" if clip.has_audio else "no sound")
    return f"<p class='facts'>{' · '.join(escape(part) for part in parts)}</p>"


def plan(clip: ClipInfo, options: UpscaleOptions) -> str:
    """What a run with these options will make."""
    height, width = output_size(clip, options.scale)
    text = f"Makes <b>{width} × {height}</b>"
    num_frames = expected_frames(clip, options)
    if clip.kind == "video" and num_frames is not None and clip.num_frames is not None:
        part = "all" if num_frames == clip.num_frames else f"{num_frames} of"
        text += f", {part} {_counted(clip.num_frames, 'frame')}"
    if height * width > COMFORTABLE_PIXELS:
        text += " · large: a smaller scale is much faster"
    return f"<p class='plan'>{text}</p>"


def empty_stage() -> str:
    return (
        "<div class='stage'><div class='screen nothing'>"
        "<p>Drop a clip or an image on the left, or take an example.</p></div></div>"
    )


def clip_stage(frame: Tensor) -> str:
    """The clip as it is, before anything is run."""
    return _stage(picture_of(frame), "The clip as it is. Press Restore.", None)


def waiting_stage(text: str, picture: str | None = None) -> str:
    """Something is going on whose length is not known."""
    return _stage(picture, escape(text), None, busy=True)


def running_stage(progress: Progress, picture: str | None) -> str:
    """Frame k of N, frames a second, time left, and the newest restored picture."""
    if progress.stage == "loading":
        return waiting_stage("Reading the clip …", picture)
    if progress.stage == "writing":
        return _stage(picture, "Writing the last frames and the sound …", 1.0)
    of = f" of {progress.num_frames}" if progress.num_frames else ""
    parts = [f"Frame <b>{progress.frame}</b>{of}"]
    if progress.frames_per_second:
        parts.append(f"{progress.frames_per_second:.2g} frames/s")
    if progress.seconds_left is not None:
        parts.append(f"{_time(progress.seconds_left)} left")
    share = progress.frame / progress.num_frames if progress.num_frames else None
    return _stage(picture, " · ".join(parts), share, busy=share is None)


def message(text: str, kind: str = "error") -> str:
    """One line in place. ``kind``: error (something is wrong) or note."""
    role = "alert" if kind == "error" else "status"
    return f"<p class='message {kind}' role='{role}'>{escape(text)}</p>"


def picture_of(frame: Tensor) -> str:
    """A frame, (3,H,W) in [0, 1], as the address of a picture that holds itself."""
    height, width = frame.shape[1:]
    if max(height, width) > PREVIEW_SIDE:
        ratio = PREVIEW_SIDE / max(height, width)
        small = max(1, round(height * ratio)), max(1, round(width * ratio))
        frame = resize_bicubic(frame[None].float(), *small)[0]
    data = io.BytesIO()
    Image.fromarray(bytes_of(frame)).save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def bytes_of(frame: Tensor) -> np.ndarray:
    """(3,H,W) in [0, 1] as uint8 (H,W,3)."""
    scaled = frame.float().clamp(0, 1).mul(255).round()
    return scaled.byte().permute(1, 2, 0).contiguous().cpu().numpy()


def _stage(picture: str | None, caption: str, share: float | None, busy: bool = False) -> str:
    screen = f"<img src='{picture}' alt='newest picture'>" if picture else ""
    percent = 100 * share if share is not None else 0
    bar = ""
    if share is not None or busy:
        known = f" aria-valuenow='{percent:.0f}'" if share is not None else ""
        bar = (
            f"<div class='bar{'' if share is not None else ' busy'}' role='progressbar' "
            f"aria-label='progress' aria-valuemin='0' aria-valuemax='100'{known}>"
            f"<div style='width:{percent:.1f}%'></div></div>"
        )
    return (
        f"<div class='stage'><div class='screen'>{screen}</div>"
        f"{bar}<p class='caption' role='status'>{caption}</p></div>"
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
