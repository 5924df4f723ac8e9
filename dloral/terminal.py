"""Jobs on the command line: a bar with frames, rate and time left; a table for a batch."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from dloral.errors import COMMAND_LINE, DLoRALError, one_line
from dloral.jobs.batches import DONE, FAILED, SKIPPED, BatchProgress, Outcome
from dloral.jobs.progress import Progress, ending, time_in_words
from dloral.weights.fetch import TerminalFetch


def show_progress(
    steps: Generator[Progress, None, None], quiet: bool = False, closing: TextIO | None = None
) -> None:
    """Run a job to its end and show it on stderr; a closing line on stdout, or wherever ``closing``
    says, tells what was written.

    However it ends, the job is closed, so that it removes half-written files. A SIGTERM is passed
    on to the job, which then keeps its finished parts.
    """
    last = Progress("waiting")
    with _bar(quiet) as bar, ending(steps):
        shown = _Shown(bar, quiet)
        for last in steps:
            bar.total = last.num_frames
            bar.set_description_str(last.stage)
            bar.update(last.frame - bar.n)
            shown.show(last)
    for note in last.notes:
        print(one_line(f"note: {note}"), file=sys.stderr)
    if not quiet:
        line = f"{last.target}: {last.frame} frames, {last.frames_per_second:.1f} frames/s"
        print(one_line(line), file=closing)


def show_batch(
    steps: Generator[BatchProgress, None, tuple[Outcome, ...]], quiet: bool = False
) -> tuple[Outcome, ...]:
    """Run a batch to its end with one bar for all of it, then report how each item ended: failures
    on stderr, one line each, and a table on stdout. Ctrl-C ends it, with the table so far."""
    outcomes: tuple[Outcome, ...] = ()
    with _bar(quiet) as bar, ending(steps):
        shown = _Shown(bar, quiet)
        try:
            while True:
                told = next(steps)
                outcomes = told.outcomes
                bar.total = told.num_frames
                name = one_line(told.item.source.name)
                bar.set_description_str(f"{told.index + 1}/{told.count} {name}")
                bar.update(told.frame - bar.n)
                shown.show(told.progress)
        except StopIteration as stop:
            outcomes = stop.value
        except KeyboardInterrupt:
            bar.close()
            _print_outcomes(outcomes, quiet)
            raise
    _print_outcomes(outcomes, quiet)
    return outcomes


class _Shown:
    """What a job reports besides its numbers, each line once."""

    def __init__(self, bar: "tqdm[None]", quiet: bool) -> None:
        self._bar, self._quiet = bar, quiet
        self._fetching = TerminalFetch()

    def show(self, progress: Progress) -> None:
        if progress.fetched is not None:
            self._fetching.show(progress.fetched)
        if self._quiet:
            return
        if progress.message:
            self._bar.write(progress.message, file=sys.stderr)
        if progress.stage == "looking":
            scene = progress.scenes[-1]
            if scene.prompt:
                line = f"from {float(scene.start):.2f} s: {scene.prompt}"
                self._bar.write(line, file=sys.stderr)


def _bar(quiet: bool) -> "tqdm[None]":
    return tqdm(unit="frame", dynamic_ncols=True, disable=quiet or not sys.stderr.isatty())


def _print_outcomes(outcomes: tuple[Outcome, ...], quiet: bool) -> None:
    for outcome in outcomes:
        for note in outcome.notes:
            print(one_line(f"note: {outcome.item.source}: {note}"), file=sys.stderr)
    for outcome in outcomes:
        if outcome.error is not None:
            line = _line_of(outcome.error)
            name = one_line(str(outcome.item.source))
            told = line if name in line else f"{name}: {line}"
            print(f"dloral: {told}", file=sys.stderr)
    if quiet or not outcomes:
        return
    names = [one_line(str(outcome.item.source)) for outcome in outcomes]
    widest = max(map(len, names))
    for name, outcome in zip(names, outcomes, strict=True):
        row = f"{name:<{widest}}  {outcome.state:<7}"
        if outcome.state == DONE:
            took = time_in_words(outcome.seconds)
            row += f"  {outcome.frames:>7} frames  {took:>10}  {outcome.item.target}"
        elif outcome.state == SKIPPED:
            row += f"  {outcome.item.target} exists"
        print(one_line(row))
    counts = {
        state: sum(outcome.state == state for outcome in outcomes)
        for state in (DONE, SKIPPED, FAILED)
    }
    print(", ".join(f"{count} {state}" for state, count in counts.items()))


def _line_of(error: Exception) -> str:
    if isinstance(error, DLoRALError):
        return error.render(COMMAND_LINE)
    return one_line(f"{type(error).__name__}: {error}; this is a bug in DLoRAL")


@contextmanager
def frame_bar(quiet: bool = False) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on stderr, updated with (what, frames done, total frames) from time to time."""
    with tqdm(unit="frame", dynamic_ncols=True, disable=quiet or not sys.stderr.isatty()) as bar:
        shown = ""

        def show(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:
                bar.reset(total)
                bar.set_description_str(one_line(what))
                shown = what
            bar.update(done - bar.n)

        yield show
