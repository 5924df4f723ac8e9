"""The package's generator as one file: what a model's folder carries as ``pipeline.py``.

Made by concatenating the modules themselves, so that it cannot differ from them. They share one
namespace there: a test makes sure that no name means two things.
"""

import ast
import re
from collections import defaultdict
from importlib.resources import files
from importlib.resources.abc import Traversable

from dloral import __version__

_ROOT = "pipeline"

_HEAD = '''"""DLoRAL's pipeline for diffusers: one-step diffusion video super-resolution.

Made by dloral {version} from its own modules; nothing else of that package is needed. It needs
torch, diffusers, transformers, peft and accelerate. Imports no file and opens no connection but as
diffusers does.
"""

# ruff: noqa
# mypy: ignore-errors

'''


def pipeline_source() -> str:
    """The file's text, identical for the same version."""
    plain: set[str] = set()
    chosen: dict[str, set[str]] = defaultdict(set)
    bodies = []
    for name in modules():
        text = read_module(name)
        tree = ast.parse(text)
        for module, alias in _imports(tree):
            (chosen[module] if alias else plain).add(alias or module)
        bodies.append(f"# {'-' * 10} dloral.{name} {'-' * 10}\n\n{_body(text, tree)}")
    lines = [f"import {name}" for name in sorted(plain)]
    lines += [f"from {name} import {', '.join(sorted(chosen[name]))}" for name in sorted(chosen)]
    head = _HEAD.format(version=__version__) + "\n".join(lines)
    return head + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


def modules() -> list[str]:
    """Every module that the pipeline needs, dependencies first: ``errors``, ``models.unet``."""
    found: list[str] = []

    def add(name: str) -> None:
        if name in found:
            return
        for node in ast.parse(read_module(name)).body:
            if isinstance(node, ast.ImportFrom) and _is_ours(node):
                for alias in node.names:
                    add(_module_of(node, alias.name))
        found.append(name)

    add(_ROOT)
    return found


def _module_of(node: ast.ImportFrom, name: str) -> str:
    """``models.vae_kinds``, whether it or something from it is imported."""
    package = str(node.module).removeprefix("dloral").removeprefix(".")
    inner = f"{package}.{name}".removeprefix(".")
    return inner if _file(inner).is_file() else package


def _file(name: str) -> Traversable:
    return files("dloral").joinpath(*f"{name.replace('.', '/')}.py".split("/"))


def read_module(name: str) -> str:
    """The source of a module of this package."""
    return _file(name).read_text(encoding="utf-8")


def _imports(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, imported name or nothing) for every import from outside this package."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [(_as(alias), "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not _is_ours(node):
            found += [(str(node.module), _as(alias)) for alias in node.names]
    return found


def _as(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _is_ours(node: ast.ImportFrom) -> bool:
    return str(node.module).partition(".")[0] == "dloral"


def _body(text: str, tree: ast.Module) -> str:
    """A module without its docstring and imports; other modules' names lose their prefix."""
    lines: list[str | None] = [*text.splitlines()]
    for index, node in enumerate(tree.body):
        is_docstring = index == 0 and isinstance(node, ast.Expr)
        if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = None
        if isinstance(node, ast.ImportFrom) and _is_ours(node):
            for alias in node.names:
                if _module_of(node, alias.name).endswith(f".{alias.name}"):
                    lines = [
                        line and re.sub(rf"\b{alias.name}\.(?!py\b)", "", line) for line in lines
                    ]
    return "\n".join(line for line in lines if line is not None).strip("\n")
