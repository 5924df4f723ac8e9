"""Still pictures of one frame, bicubic and restored, for the slider that compares them."""

import contextlib
from fractions import Fraction
from pathlib import Path

from PIL import Image
from torch import Tensor

from dloral.frames.resize import resize_bicubic
from dloral.studio.jobs import Result
from dloral.studio.words import bytes_of
from dloral.video.probe import ClipInfo
from dloral.video.reader import read_frames

KEPT = 12
"""Pictures that stay; a browser may still be fetching the last ones."""


def compared_pair(result: Result, index: int) -> tuple[str, str]:
    """Files of frame ``index``: its bicubic enlargement, and the frame of the result."""
    folder = result.file.parent / "frames"
    folder.mkdir(exist_ok=True)
    bicubic, restored = (folder / f"{index:06d}-{name}.png" for name in ("bicubic", "restored"))
    if not restored.exists():
        height, width = result.size
        time = result.times[index]
        lq_frame = _frame_at(result.clip, time)
        _write(resize_bicubic(lq_frame[None], height, width)[0], bicubic)
        _write(_frame_at(result.file, time - result.times[0]), restored)
        files = sorted(folder.glob("*.png"), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-KEPT]:
            with contextlib.suppress(FileNotFoundError):  # another look was faster
                file.unlink()
    return str(bicubic), str(restored)


def _frame_at(source: ClipInfo | Path, time: Fraction) -> Tensor:
    """The frame that begins at ``time``, (3,H,W) in [0, 1]; containers round times to 1 ms."""
    with read_frames(source, start=max(time - Fraction(1, 1000), Fraction(0))) as frames:
        return next(frames).pixels


def _write(frame: Tensor, path: Path) -> None:
    """At once under its last name, so that no half-written picture is ever sent."""
    part = path.with_suffix(".part")
    Image.fromarray(bytes_of(frame)).save(part, "PNG", compress_level=1)
    part.replace(path)
