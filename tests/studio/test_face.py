"""How the page words errors: names of files, no folders, no flags."""

from pathlib import Path

import pytest

from dloral.errors import InputError, OptionError, OutputError, Setting
from dloral.studio.face import FULL, OUR_MISTAKE, told, worded


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            InputError(
                "{path} is empty", remedy="get it anew", path=Path("/home/ann b/x/clip.mp4")
            ),
            "clip.mp4 is empty; get it anew",
        ),
        (
            OptionError("{option} is {value}", option=Setting("tile_overlap"), value=9),
            "the tiles' overlap is 9",
        ),
        (InputError("/tmp/page/ab/clip.mp4 cannot be read"), "clip.mp4 cannot be read"),
        (InputError("'/srv/models/mine' is broken"), "'mine' is broken"),
        (
            InputError("4/3 of https://hub.example/a/b is here"),
            "4/3 of https://hub.example/a/b is here",
        ),
        (InputError("choose and/or leave it"), "choose and/or leave it"),
    ],
)
def test_errors_are_worded_for_visitors(error: Exception, words: str):
    assert worded(error) == words


def test_a_full_disk_is_one_line_wherever_it_was_met():
    full = OSError(28, "No space left on device")
    assert told(full) == FULL
    elsewhere = "no space left on device"  # of a process whose error came over as text
    assert told(OutputError("{path} is {value}", path=Path("/tmp/a"), value=elsewhere)) == FULL
    later = OutputError("part.mp4 cannot be written")
    later.__cause__ = full
    assert told(later) == FULL
    assert told(OSError(13, "Permission denied")) == OUR_MISTAKE
    assert told(InputError("/tmp/page/ab/clip.mp4 cannot be read")) == "clip.mp4 cannot be read"
