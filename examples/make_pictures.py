"""The pictures that the page and the README show of the example clips, made with the compact model.

python -m examples.make_pictures        # from the root of the repository; takes some minutes
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dloral import UpscaleOptions, upscale_video
from dloral.frames.clips import as_bytes
from dloral.frames.resize import resize_bicubic
from dloral.studio.comparison import LAYOUTS
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

EXAMPLES = Path("examples")
PICTURES = Path("dloral/studio/web/pictures")
THUMBNAIL = (320, 180)
DETAILS = {
    "people": (24, (0.45, 0.30)),
    "butterfly": (20, (0.62, 0.45)),
    "film": (30, (0.72, 0.28)),
    "city": (10, (0.55, 0.55)),
}
"""Which frame of each clip, and where in it, its thumbnail shows."""

WIPE = "butterfly"
README_WIDTH, README_FPS = 640, 12


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        for name, (frame, centre) in DETAILS.items():
            clip = EXAMPLES / f"{name}.mp4"
            restored = Path(place) / f"{name}.mkv"
            upscale_video(clip, restored, UpscaleOptions(scale=4, codec="ffv1"))
            thumbnail(clip, restored, frame, centre).save(PICTURES / f"{name}.webp", quality=82)
            if name == WIPE:
                wipe(clip, restored)


def pairs(clip: Path, restored: Path):
    """Bicubic and restored frames, (3,H,W) in [0, 1], with their times."""
    source, target = probe(clip), probe(restored)
    with read_frames(source) as before, read_frames(target) as after:
        for small, large in zip(before, after, strict=False):
            yield (
                resize_bicubic(small.pixels[None], target.height, target.width)[0],
                large.pixels,
                large,
            )


def thumbnail(clip: Path, restored: Path, frame: int, centre: tuple[float, float]) -> Image.Image:
    """The left half before, the right half after, of one detail at its full size."""
    found = next(pair for index, pair in enumerate(pairs(clip, restored)) if index == frame)
    before, after = (as_bytes(pixels) for pixels in found[:2])
    height, width = before.shape[:2]
    left = round(min(max(centre[0] * width - THUMBNAIL[0] / 2, 0), width - THUMBNAIL[0]))
    top = round(min(max(centre[1] * height - THUMBNAIL[1] / 2, 0), height - THUMBNAIL[1]))
    box = slice(top, top + THUMBNAIL[1]), slice(left, left + THUMBNAIL[0])
    joined = np.array(after[box])
    half = THUMBNAIL[0] // 2
    joined[:, :half] = before[box][:, :half]
    joined[:, half - 1 : half + 1] = 255
    return Image.fromarray(joined)


def wipe(clip: Path, restored: Path) -> None:
    """The page's first picture, as a clip and its still, and the README's."""
    target = probe(restored)
    frames = []
    with open_writer(
        PICTURES / "wipe.mp4", width=target.width, height=target.height, source=target, crf=27
    ) as writer:
        for before, after, frame in pairs(clip, restored):
            picture = LAYOUTS["wipe"](before, after, frame.time * 4 / target.duration)
            writer.write(picture, frame.time, frame.duration)
            frames.append(Image.fromarray(as_bytes(picture)))
    frames[len(frames) // 4].save(PICTURES / "wipe.webp", quality=80)
    every = round(target.fps / README_FPS)
    height = round(README_WIDTH * target.height / target.width)
    small = [frame.resize((README_WIDTH, height), Image.LANCZOS) for frame in frames[::every]]
    small[0].save(
        Path("docs/pictures/wipe.webp"),
        save_all=True,
        append_images=small[1:],
        duration=1000 // README_FPS,
        loop=0,
        quality=72,
        method=4,
    )


if __name__ == "__main__":
    main()
