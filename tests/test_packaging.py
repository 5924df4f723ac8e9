"""What pip reads: ranges hold what is pinned, extras are true, nothing is written twice."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dloral
from dloral import packages
from dloral.errors import COMMAND_LINE, MissingPackageError
from dloral.packages import EXTRAS, install_command, missing_modules, needs_extra

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

MODULES_OF = {"imageio-ffmpeg": "imageio_ffmpeg"}


def pins(*names: str) -> dict[str, str]:
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    pairs = (line.split("==") for line in lines if "==" in line and line[0] != "#")
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def ranges() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(t for e in extras if e != "all" for t in extras[e])]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("range_", ranges(), ids=str)
def test_a_range_has_a_lower_bound_and_holds_what_is_pinned(range_: Requirement) -> None:
    assert [part.operator for part in range_.specifier].count(">=") == 1
    optional = ("requirements-train.txt", "requirements-ray.txt", "requirements-runtimes.txt")
    pinned = pins("requirements.txt", *optional)
    assert pinned[canonicalize_name(range_.name)] in range_.specifier


def test_what_is_pinned_for_the_page_is_what_the_package_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["page"], *extras["evaluate"]]
    names = {canonicalize_name(Requirement(text).name) for text in asked}
    assert names == {*pins("requirements.txt"), "matplotlib"}


def test_extras_are_the_modules_that_are_imported() -> None:
    declared = PROJECT["optional-dependencies"]
    everything = Requirement(declared.pop("all")[0])
    assert everything.extras == set(declared) == set(EXTRAS)
    for extra, texts in declared.items():
        names = [Requirement(text).name for text in texts]
        assert {MODULES_OF.get(name, name) for name in names} == set(EXTRAS[extra])


def test_the_base_has_no_page_and_no_windows() -> None:
    base = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not base & {"gradio", "moviepy", "opencv-python", "ray", "tensorboard", "matplotlib"}


def test_the_version_is_written_once() -> None:
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    assert dloral.__version__ == "0.1.0"


OPTIONAL_ROOMS = {
    "page": "dloral.studio",
    "evaluate": "nobody",
    "train": "dloral.training.curve",
    "ray": "nobody",
    "openvino": "nobody",
    "onnx": "nobody",
}
"""Whose modules import an extra's packages at their top; everybody else does when they are used."""


def imported_at_the_top(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_the_base_imports_no_optional_package() -> None:
    for path in (ROOT / "dloral").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        imported = imported_at_the_top(path)
        for extra, room in OPTIONAL_ROOMS.items():
            if not name.startswith(room):
                assert not imported & set(EXTRAS[extra]) - {"matplotlib"}, name
        assert "matplotlib" not in imported or name.startswith(OPTIONAL_ROOMS["train"])


WITHOUT_GRADIO = """
import sys
from importlib.machinery import PathFinder
real = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "gradio" else real(name, *rest)
from dloral.cli import main
sys.exit(main(["app"]))
"""


def test_the_page_without_gradio_is_one_line() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_GRADIO], capture_output=True, text=True, cwd=ROOT
    )
    assert result.stderr == f"dloral: the page needs the package gradio; {page_command()}\n"
    assert result.returncode == 1


def page_command() -> str:
    try:
        importlib.metadata.version("dloral")
    except importlib.metadata.PackageNotFoundError:
        return "python -m pip install -r requirements.txt"
    return 'python -m pip install "dloral[page]"'


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    monkeypatch.setattr(packages, "distribution", lambda name: None)
    with pytest.raises(MissingPackageError) as caught, needs_extra("ray", "the engine ray"):
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    line = 'the engine ray needs the package ray; python -m pip install "dloral[ray]"'
    assert caught.value.render(COMMAND_LINE) == line
    assert missing_modules("train") == ["tensorboard", "matplotlib"]


def test_another_import_that_fails_is_not_called_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="json_"), needs_extra("page", "the page"):
        raise ModuleNotFoundError("No module named 'json_'", name="json_")


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("/home/ann/.cache/uv/archive-v0/a1b2", 'uvx --from "dloral[page]" dloral'),
        ("/home/ann/.local/share/uv/tools/dloral", 'uvx --from "dloral[page]" dloral'),
        ("/home/ann/.local/pipx/venvs/dloral", 'pipx run --spec "dloral[page]" dloral'),
    ],
)
def test_a_runner_of_its_own_environments_is_told_to_start_anew(
    prefix: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.sys, "prefix", prefix)
    assert install_command("page") == said


def test_a_clone_is_told_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", absent)
    for extra in EXTRAS:
        words = install_command(extra).split()
        assert words[:4] == ["python", "-m", "pip", "install"]
        files = [word for word in words[4:] if word != "-r"]
        pinned = pins(*files)
        assert {MODULES_OF.get(name, name) for name in pinned} >= set(EXTRAS[extra])
