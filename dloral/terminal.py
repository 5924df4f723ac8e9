"""The command line's face of a job: a bar with frames, rate and time left."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager

from tqdm import tqdm

from dloral.upscale import Progress
from dloral.weights.fetch import TerminalFetch


def show_progress(steps: Generator[Progress, None, None], quiet: bool = False) -> None:
    """Run a job to its end and show it on stderr; a closing line on stdout says what was written.

    However it ends, the job is closed, so that it takes away what it had half written.
    """
    bar = tqdm(unit="frame", dynamic_ncols=True, disable=quiet or not sys.stderr.isatty())
    fetching = TerminalFetch()
    with bar, closing(steps):
        for progress in steps:
            bar.total = progress.num_frames
            bar.set_description_str(progress.stage)
            bar.update(progress.frame - bar.n)
            if progress.fetched is not None:
                fetching.show(progress.fetched)
            if progress.stage == "looking" and not quiet:
                scene = progress.scenes[-1]
                if scene.prompt:
                    bar.write(f"from {float(scene.start):.2f} s: {scene.prompt}", file=sys.stderr)
            if progress.stage == "done":
                result = progress
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if not quiet:
        print(f"{result.target}: {result.frame} frames, {result.frames_per_second:.1f} frames/s")


@contextmanager
def frame_bar(quiet: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on stderr, told (what, frames done, frames in all) from time to time."""
    with tqdm(unit="frame", dynamic_ncols=True, disable=quiet or not sys.stderr.isatty()) as bar:
        shown = ""

        def show(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:
                bar.reset(total)
                bar.set_description_str(what)
                shown = what
            bar.update(done - bar.n)

        yield show
