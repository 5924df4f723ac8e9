"""Errors carry facts; each face words them."""

import pickle
from pathlib import Path

import pytest

from dloral.errors import (
    COMMAND_LINE,
    DLoRALError,
    Face,
    InputError,
    OptionError,
    OutputError,
    Setting,
    exit_status,
)


def an_error() -> InputError:
    return InputError(
        "{path} has {value} frames",
        remedy="use {instead}, or a lower {option}",
        path=Path("folder/{clip}.mp4"),
        value=0,
        instead=Setting("model", "compact"),
        option=Setting("tile_overlap"),
    )


def test_python_and_the_command_line_word_the_same_facts_differently() -> None:
    error = an_error()
    assert str(error) == (
        'folder/{clip}.mp4 has 0 frames; use model="compact", or a lower tile_overlap'
    )
    assert error.render(COMMAND_LINE) == (
        "folder/{clip}.mp4 has 0 frames; use --model compact, or a lower --tile-overlap"
    )


def test_a_face_decides_how_a_path_is_shown() -> None:
    class Page(Face):
        def path(self, path):
            return path.name

    assert an_error().render(Page()).startswith("{clip}.mp4 has 0 frames")


def test_facts_can_be_asked_for() -> None:
    error = an_error()
    assert (error.value, error.path) == (0, Path("folder/{clip}.mp4"))
    assert DLoRALError("stopped").path is None


@pytest.mark.parametrize("text", ["stopped", "{not} a fact", "100%"])
def test_a_text_without_facts_stands_as_it_is(text: str) -> None:
    assert str(OptionError(text)) == str(OutputError(text)) == text


def test_an_error_survives_a_way_through_another_process() -> None:
    error = pickle.loads(pickle.dumps(an_error()))
    assert (str(error), error.facts) == (str(an_error()), an_error().facts)
    output = OutputError("{path} is full", remedy="make room", path=Path("x"))
    assert str(pickle.loads(pickle.dumps(output))) == "x is full; make room"


def test_a_command_line_ends_with_its_own_wording(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise an_error()

    assert exit_status(fails) == 1
    assert capsys.readouterr().err.startswith("dloral: folder/{clip}.mp4 has 0 frames; use --model")
