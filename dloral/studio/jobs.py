"""One restoration for the page: runs in a thread of its own, can be watched and stopped.

The thread belongs to the job and not to the page, so that a page that is slow, hidden or gone
never holds the restoration up, and only the newest picture is sent.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from dloral.errors import CancelledError, DLoRALError
from dloral.options import UpscaleOptions
from dloral.pipeline import DLoRALPipeline
from dloral.upscale import Progress, output_size, upscale_steps
from dloral.video.probe import ClipInfo
from dloral.video.writer import Writer, open_writer

PLAYER_CRF = 18
"""Of the two H.264 clips that a browser plays side by side; the file to keep has its own."""

_SUFFIXES = {"vp9": ".webm", "prores": ".mov", "ffv1": ".mkv"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a finished job left in its folder.

    ``file`` is to be kept. ``restored_player`` and ``bicubic_player`` are H.264 clips of even size
    that every browser plays, None for an image. ``times``: when each frame is shown in the source,
    in seconds. ``size``: height and width.
    """

    clip: ClipInfo
    file: Path
    restored_player: Path | None
    bicubic_player: Path | None
    times: tuple[Fraction, ...]
    size: tuple[int, int]
    notes: tuple[str, ...]


def result_suffix(clip: ClipInfo, codec: str) -> str:
    """Of the file that a restored clip is downloaded as."""
    return ".png" if clip.kind == "image" else _SUFFIXES.get(codec, ".mp4")


def restore(
    clip: ClipInfo, folder: Path, options: UpscaleOptions, pipe: DLoRALPipeline
) -> Generator[Progress | Result, None, None]:
    """Restore ``clip`` into ``folder`` with the two clips to compare; the last value is the Result.

    Closing the generator stops the job and leaves nothing in the folder.
    """
    height, width = output_size(clip, options.scale)
    target = folder / f"{clip.path.stem}-restored{result_suffix(clip, options.codec)}"
    plays_itself = (options.codec, options.bit_depth) == ("h264", 8) and not (width | height) & 1
    restored_player, bicubic_player = folder / "restored.mp4", folder / "bicubic.mp4"
    times: list[Fraction] = []
    last = Progress("loading")
    with closing(upscale_steps(clip.path, target, options, pipe)) as steps, ExitStack() as players:

        def player(path: Path) -> Writer:
            return players.enter_context(
                open_writer(
                    path,
                    width=_even(width),
                    height=_even(height),
                    source=clip,
                    crf=PLAYER_CRF,
                    start=options.start,
                    duration=options.duration,
                )
            )

        bicubic = player(bicubic_player) if clip.kind == "video" else None
        second = None if bicubic is None or plays_itself else player(restored_player)
        for last in steps:
            if last.restored_frame is not None and last.lq_frame is not None:
                times.append(last.time)
                if bicubic is not None:
                    bicubic.write(_playable(last.lq_frame), last.time, last.duration)
                if second is not None:
                    second.write(_playable(last.restored_frame), last.time, last.duration)
            yield last
    is_video = clip.kind == "video"
    shown = (target if plays_itself else restored_player) if is_video else None
    compared = bicubic_player if is_video else None
    yield Result(clip, target, shown, compared, tuple(times), (height, width), last.notes)


def _even(pixels: int) -> int:
    return max(pixels // 2 * 2, 2)


def _playable(frame: Tensor) -> Tensor:
    """(3,H,W) without the odd last row and column, which H.264 for browsers cannot hold."""
    height, width = frame.shape[1:]
    return frame.expand(3, max(height, 2), max(width, 2))[:, : _even(height), : _even(width)]


class Job:
    """A running :func:`restore`. ``newest`` is what it said last, ``error`` one line if it failed.

    ``cancel`` returns at once; the job ends within a frame.
    """

    def __init__(self, steps: Generator[Progress | Result, None, None], folder: Path) -> None:
        self.folder = folder
        self.newest: Progress | None = None
        self.result: Result | None = None
        self.error: Exception | None = None
        self._steps = steps
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="restore", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether the job has ended, after at most ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def watch(self, pause: float) -> Iterator[Progress]:
        """The newest progress, at most every ``pause`` seconds, until the job has ended.

        Raises what the job raised; CancelledError if it was stopped.
        """
        seen: Progress | None = None
        while not self.wait(pause):
            if self.newest is not None and self.newest is not seen:
                seen = self.newest
                yield seen
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with closing(self._steps) as steps:
                for step in steps:
                    if isinstance(step, Result):
                        self.result = step
                    elif self._stopped.is_set():
                        raise CancelledError("Stopped; nothing was kept.")
                    else:
                        self.newest = step
        except DLoRALError as error:
            self.error = error
        except Exception as error:
            # A mistake of ours: the page says so in one line, the terminal has the traceback.
            _log.exception("a job failed")
            self.error = error
