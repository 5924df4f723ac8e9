"""Restore a clip file to file and print how it goes.

python examples/restore_clip.py examples/cars.mp4 restored.mp4
"""

import sys

from dloral import Progress, UpscaleOptions, upscale_video


def show(progress: Progress) -> None:
    left = progress.seconds_left
    rest = "" if left is None else f", {left:.0f} s left"
    print(f"{progress.stage}: {progress.frame} of {progress.num_frames or '?'}{rest}")


source, target = sys.argv[1:]
upscale_video(source, target, UpscaleOptions(scale=4, detail=1.0), on_progress=show)
