"""Errors carry facts; each face words them."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dloral
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


HOSTILE = "{value.__class__.__init__.__globals__}{value[0]}{0}{{{value!r:>9}"


def test_braces_that_name_no_fact_stand_as_they_are() -> None:
    error = InputError(f"{{path}} {HOSTILE}", remedy="{other}", path=Path(HOSTILE), value="here")
    assert str(error) == f"{HOSTILE} {HOSTILE}; {{other}}"
    assert str(InputError("{value:.1f} of {most:.1f} s", value="?", most=2)) == "? of 2.0 s"
    assert (
        str(InputError("{value:,} {value!r} {value:g}", value=1e6)) == "1,000,000.0 1000000.0 1e+06"
    )


def _errors_raised(tree: ast.AST, kinds: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
            yield node


def _text(node: ast.expr | None) -> str:
    """What of a message is written in the code."""
    parts = [] if node is None else ast.walk(node)
    return " ".join(
        str(part.value) for part in parts if isinstance(part, ast.Constant) and part.value
    )


def test_facts_that_messages_name_are_given() -> None:
    files = sorted(Path(dloral.__file__).parent.rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    kinds, count = {"DLoRALError"}, 0
    for _ in range(3):  # errors of errors
        for tree in trees.values():
            classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
            kinds |= {one.name for one in classes if kinds & {*map(ast.unparse, one.bases)}}
    missing = []
    for path, tree in trees.items():
        for call in _errors_raised(tree, kinds):
            given = {keyword.arg for keyword in call.keywords}
            remedy = next((word.value for word in call.keywords if word.arg == "remedy"), None)
            texts = _text(call.args[0] if call.args else None) + _text(remedy)
            named = {field[1] for field in re.finditer(r"\{([a-z_]\w*)[!:}]", texts)}
            count += bool(named)
            if None not in given and not named <= given:
                missing.append(f"{path.name}:{call.lineno} names {named - given}")
    assert not missing
    assert count > 200
