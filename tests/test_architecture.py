"""The house: which room may import which, what importing costs, what every room says of itself."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import dloral

PACKAGE = Path(dloral.__file__).parent

FLOORS = {
    "app": 0,
    "__main__": 0,
    "cli": 0,
    "upscale_command": 0,
    "studio": 0,
    "integrations": 0,
    "engines": 1,
    "jobs": 1,
    "terminal": 1,  # shows the progress of jobs; the command line uses it
    "bench": 1,
    "doctor": 1,
    "training": 1,
    "evaluation": 1,
    "prompts": 2,
    "upscale": 2,
    "data": 2,
    "pipeline": 3,
    "runtimes": 3,
    "weights": 3,
    "hub_pipeline": 4,
    "bundle": 4,  # the text of the others, as one file
    "frame_generator": 4,
    "hub_folder": 4,
    "generator": 5,
    "looks": 5,
    "memory": 6,
    "models": 7,
    "frames": 7,
    "video": 7,
    "devices": 8,
    "arguments": 8,  # of every command line
}
"""Room -> floor, 0 on top. Imports point down, or stay on their floor where SAME_FLOOR says so."""

OPEN_TO_ALL = {"options", "errors", "files", "packages", "stages", "threads", "__init__"}

SAME_FLOOR = {
    ("__main__", "cli"),
    ("cli", "studio"),
    ("cli", "upscale_command"),
    ("app", "studio"),
    ("engines", "upscale"),
    ("engines", "jobs"),
    ("terminal", "jobs"),
    ("upscale", "jobs"),
    ("jobs", "prompts"),
    ("upscale", "prompts"),
    ("video", "frames"),  # alpha is enlarged as the frame beside it
    ("evaluation", "training"),  # a study trains what it measures
    ("evaluation", "terminal"),
    ("bench", "evaluation"),  # the baselines, as peers
    ("weights", "pipeline"),
    ("weights", "runtimes"),  # a model that is loaded is put into one
    ("hub_pipeline", "frame_generator"),
    ("hub_pipeline", "hub_folder"),
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    """``dloral.models.flow`` -> ``models``; ``dloral`` itself -> ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(path: Path) -> str:
    parts = ["dloral", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module of ours that the file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("dloral"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import; say the module's full name"
            assert node.module is not None
            if node.module == "dloral":
                for alias in node.names:
                    module = PACKAGE / alias.name
                    known = module.is_dir() or module.with_suffix(".py").is_file()
                    yield f"dloral.{alias.name}" if known else "dloral"
            elif node.module.startswith("dloral."):
                yield node.module


def wrong_arrows(room: str, imported: Iterator[str]) -> list[str]:
    wrong = []
    for module in imported:
        other = room_of(module)
        if room == other or other in OPEN_TO_ALL:
            continue
        if FLOORS[room] < FLOORS[other] or (room, other) in SAME_FLOOR:
            continue
        wrong.append(f"{room} -> {module}")
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    room = room_of(name_of(path))
    if room == "__init__":
        return  # the public names, loaded when first used
    if room in OPEN_TO_ALL:
        # Open to all, so they may know nothing but names of the lowest floor.
        assert {room_of(module) for module in imports_of(path)} <= {"errors", "frames"}
        return
    assert room in FLOORS, f"{path} is in no room of the house; say in FLOORS where it stands"
    assert not wrong_arrows(room, imports_of(path))


LAZY_CYCLES = {
    ("dloral.evaluation.report", "dloral.evaluation.page"),
}
"""Imports inside a function that close a cycle: (importer, imported). None may be added."""


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, lazily too, but for LAZY_CYCLES."""
    names = {name_of(path): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        found = {other for other in imports_of(path) if other in names and other != name}
        graph[name] = {other for other in found if (name, other) not in LAZY_CYCLES}
    return graph


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """A cycle for every module that can reach itself, as the way from it and back."""

    def way_back(start: str) -> list[str]:
        ways, seen = [[start]], {start}
        for way in ways:
            for following in sorted(graph[way[-1]]):
                if following == start:
                    return [*way, start]
                if following not in seen:
                    seen.add(following)
                    ways.append([*way, following])
        return []

    return [way for way in map(way_back, graph) if way]


def test_no_import_cycles() -> None:
    assert not import_cycles(import_graph())
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}}
    assert import_cycles(graph) == [["b", "c", "b"], ["c", "b", "c"]]


LONG_FUNCTIONS = {
    "dloral.pipeline.stream",
    "dloral.studio.restoration.restore",
    "dloral.upscale.upscale_steps",
}
"""Longer than the rule when it was made a test; whoever works on one takes it off the list."""


def long_functions(path: Path, most: int = 60) -> set[str]:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return {
        f"{name_of(path)}.{node.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno >= most
    }


def long_files(paths: Iterable[Path], most: int = 400) -> set[Path]:
    return {p for p in paths if len(p.read_text(encoding="utf-8").splitlines()) > most}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    assert long_functions(path) <= LONG_FUNCTIONS


def test_files_are_short() -> None:
    """Those beside the package too."""
    root = Path(__file__).parents[1]
    beside = ("tests", "benchmarks", "examples", "integrations", "space", "docs")
    files = [*MODULES, *(path for name in beside for path in (root / name).rglob("*.py"))]
    assert Path(__file__) in files
    assert not long_files(files)


def test_a_long_file_is_found(tmp_path: Path) -> None:
    for lines in (400, 401):
        (tmp_path / f"{lines}.py").write_text("1\n" * lines)
    assert long_files(tmp_path.iterdir()) == {tmp_path / "401.py"}


def test_a_long_function_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "m.py").write_text("def fits():\n" + 59 * " 1\n" + "def long():\n" + 60 * " 1\n")
    assert long_functions(tmp_path / "m.py") == {"dloral.m.long"}


def test_app_imports_the_studio_alone() -> None:
    app = PACKAGE.parent / "app.py"
    if not app.is_file():
        pytest.skip("installed without app.py")
    assert {room_of(module) for module in imports_of(app)} <= {"studio", "errors", "__init__"}


def test_a_wrong_arrow_is_found() -> None:
    assert wrong_arrows("models", iter(["dloral.pipeline"])) == ["models -> dloral.pipeline"]
    assert wrong_arrows("pipeline", iter(["dloral.weights.loading"]))
    assert not wrong_arrows("upscale", iter(["dloral.video.reader", "dloral.errors"]))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"


def test_importing_costs_nothing() -> None:
    """The name, the version and the command line's help come without torch."""
    code = "import sys, dloral, dloral.cli; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "dloral.cli" in loaded
    assert not loaded & {"torch", "diffusers", "transformers", "gradio", "av", "cv2", "numpy"}


def test_public_names_are_there() -> None:
    for name in dloral.__all__:
        assert getattr(dloral, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        dloral.no_such_name  # noqa: B018
