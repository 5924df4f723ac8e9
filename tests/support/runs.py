"""Runs of the whole program without a network."""

from pathlib import Path

from dloral import UpscaleOptions, upscale_video


def notes_of(source: Path, target: Path, **options) -> tuple[str, ...]:
    """What a run says of its result, which has the source's size unless ``options`` say more."""
    told = []
    chosen = UpscaleOptions(**{"model": "bicubic", "scale": 1, **options})
    upscale_video(source, target, chosen, told.append)
    return tuple(told[-1].notes)
