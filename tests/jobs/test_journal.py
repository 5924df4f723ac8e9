"""The journal of a job that is damaged, another one's, or no journal."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from dloral.errors import OptionError
from dloral.jobs.journal import JOURNAL, Journal, JournalError, Segment, journal_folder
from dloral.jobs.segments import SegmentFile

JOB = {"scale": 2}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Of a job with three segments that are done."""
    target = tmp_path / "out.mp4"
    journal = Journal(target, JOB)
    for number in range(3):
        file: SegmentFile = journal.new_file(number)
        file.close()
        whole = Segment(number, 48, Fraction(0), Fraction(2), file.bytes, file.sha256)
        journal.add(whole, file.path)
    return target


def lines(target: Path) -> list[str]:
    return (journal_folder(target) / JOURNAL).read_text().splitlines(keepends=True)


def write(target: Path, *content: str) -> None:
    (journal_folder(target) / JOURNAL).write_text("".join(content))


def test_a_journal_that_cannot_be_read_at_all_begins_anew(target):
    write(target, "\0" * 200)
    journal = Journal(target, JOB)
    assert (journal.segments, journal.is_anew) == ({}, True)
    assert journal.resumed == "the list of finished parts was damaged: starting over"
    assert [file.name for file in journal.folder.iterdir()] == [JOURNAL]
    assert Journal(target, JOB).resumed == ""


def test_nothing_of_somebody_elses_goes_with_it(target):
    (journal_folder(target) / "letter.txt").write_text("Dear")
    write(target, "no journal")
    with pytest.raises(OptionError, match="holds other files"):
        Journal(target, JOB)
    assert len(list(journal_folder(target).iterdir())) == 5


@pytest.mark.parametrize(
    "line",
    [
        '{"segmenu": 1}',
        '{"segment": 1, "frames": 48, "origin": "0/0", "end": "2", "bytes": 1, "sha256": ""}',
        '{"total": "many"}',
        "[]",
    ],
)
def test_a_line_that_says_nothing_ends_what_is_known(target, line):
    head, first, _, third = lines(target)
    write(target, head, first, line + "\n", third)
    journal = Journal(target, JOB)
    assert (list(journal.segments), journal.total) == ([0], None)
    assert not journal.file(2).exists()


def test_anothers_journal_is_refused_by_its_kind(target):
    with pytest.raises(JournalError, match="belongs to a job with another scale"):
        Journal(target, {"scale": 3})
    head, *rest = lines(target)
    write(target, json.dumps(json.loads(head) | {"journal": 99}) + "\n", *rest)
    with pytest.raises(JournalError, match="another version"):
        Journal(target, JOB)
