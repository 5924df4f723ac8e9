"""Stages are watched while they last, and by nobody otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dloral.stages import DECODE, READ, each_in_stage, stage, watched_by


def test_each_stage_is_told_where_it_begins_and_ends() -> None:
    told = []

    @contextmanager
    def watcher(name: str) -> Iterator[None]:
        told.append(f"begin {name}")
        yield
        told.append(f"end {name}")

    with watched_by(watcher):
        with stage(DECODE):
            told.append("work")
        assert list(each_in_stage(READ, iter("ab"))) == ["a", "b"]
    with stage(DECODE):
        pass
    assert told[:3] == ["begin decode", "work", "end decode"]
    assert told[3:] == 3 * ["begin read", "end read"]  # the third finds the end


def test_unwatched_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), watched_by(None):  # type: ignore[arg-type]
        raise ZeroDivisionError
    with stage(DECODE) as nothing:
        assert nothing is None
