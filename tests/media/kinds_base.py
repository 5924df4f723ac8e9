"""The kinds of file that people bring: a table of what makes each and what is wanted of it.

Nothing is stored: ffmpeg makes each from the same few seconds of four flat patches and a tone, and
bytes are damaged afterwards. ``make_all`` builds many with one process, since starting it costs
more than such a clip.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

PATCHES = ((0x20, 0x40, 0xC0), (0xC0, 0x40, 0x20), (0x20, 0xA0, 0x40), (0xC0, 0xC0, 0xC0))
"""RGB of the quarters: top left, top right, bottom left, bottom right."""

SECONDS = Fraction(2, 5)
RATE = 25


def picture(
    width: int = 32, height: int = 32, rate: str = "25", seconds: Fraction = SECONDS
) -> list[str]:
    w, h = (width + 1) // 2, (height + 1) // 2
    colours = ["0x" + bytes(patch).hex() for patch in PATCHES]
    boxes = [
        f"drawbox={x}:{y}:{w}:{h}:{colour}:t=fill"
        for (x, y), colour in zip(((w, 0), (0, h), (w, h)), colours[1:], strict=True)
    ]
    graph = f"color={colours[0]}:s={width}x{height}:r={rate}:d={float(seconds)},format=rgb24"
    return ["-f", "lavfi", "-i", ",".join([graph, *boxes])]


def tone(rate: int = 48000, layout: str = "mono", seconds: Fraction = SECONDS) -> list[str]:
    count = {"mono": 1, "stereo": 2, "2.1": 3, "quad": 4, "5.0": 5, "5.1": 6, "6.1": 7, "7.1": 8}
    waves = "|".join(f"0.1*sin({300 + 40 * n}*2*PI*t)" for n in range(count[layout]))
    return ["-f", "lavfi", "-i", f"aevalsrc={waves}:c={layout}:s={rate}:d={float(seconds)}"]


@dataclass(frozen=True)
class Kind:
    """One kind of file, by its ``name``.

    ``inputs``, ``output``: ffmpeg's arguments; ``made``: or what makes it from other kinds, given
    the folder. ``target``: suffix of the result, with its ``codec``. ``size``, ``frames``,
    ``aspect``: wanted.
    ``patches``: whether the four patches are there, to within ``tolerance`` of 255.
    ``sound``: tracks wanted. ``refused``: words of the one line that is wanted instead.
    ``either``: a result or one line; both are right for damaged data. ``notes``: words wanted.
    ``sound_end``: seconds, where ffmpeg's own reading is wrong; ``repeats``: whether it leaves out
    frames that are shown again. ``usual``: part of every run, not of the long one only.
    """

    name: str
    output: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    made: Callable[[Path], None] | None = None
    target: str = ".mp4"
    codec: str = "h264"
    size: tuple[int, int] = (32, 32)
    frames: int | None = 10
    aspect: Fraction = Fraction(1)
    patches: bool = True
    tolerance: int = 14
    sound: int = 0
    refused: str = ""
    either: bool = False
    notes: tuple[str, ...] = ()
    last: float | None = None
    layout: str = ""
    usual: bool = True
    needs: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    chapters: int = 0
    sound_end: float | None = None
    repeats: bool = False

    def __hash__(self) -> int:
        return hash(self.name)


def run(arguments: Iterable[str]) -> None:
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


PLAIN = tuple(picture())
BOTH = (*picture(), *tone())
YUV420 = ("-pix_fmt", "yuv420p")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", *YUV420)
