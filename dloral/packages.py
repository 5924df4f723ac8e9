"""Optional packages: what each extra provides, and the command that installs it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from dloral.errors import MissingPackageError

EXTRAS = {
    "page": ("gradio",),
    "evaluate": ("moviepy", "imageio_ffmpeg", "matplotlib"),
    "train": ("tensorboard", "matplotlib"),
    "ray": ("ray",),
    "openvino": ("openvino", "onnx"),
    "onnx": ("onnxruntime", "onnx"),
}
"""Extra of ``pyproject.toml`` -> the modules that are imported from it."""

_FILES = {
    "page": "-r requirements.txt",
    "evaluate": "-r requirements.txt -r requirements-train.txt",
    "train": "-r requirements-train.txt",
    "ray": "-r requirements-ray.txt",
    "openvino": "-r requirements-runtimes.txt",
    "onnx": "-r requirements-runtimes.txt",
}
"""What a clone installs in an extra's place."""


_RUNNERS = {
    "uv": 'uvx --from "dloral[{extra}]" dloral',
    "pipx": 'pipx run --spec "dloral[{extra}]" dloral',
}
"""Programs that keep an environment of their own for a command: what starts it with an extra."""


def install_command(extra: str) -> str:
    """The command that installs ``extra``: by the package's name if it is installed, by the pinned
    requirements file in a clone, by a new start where uvx or pipx made the environment."""
    folders = Path(sys.prefix).parts
    for runner, start in _RUNNERS.items():
        if runner in folders:
            return start.format(extra=extra)
    try:
        distribution("dloral")
    except PackageNotFoundError:
        return f"python -m pip install {_FILES[extra]}"
    return f'python -m pip install "dloral[{extra}]"'


def missing_modules(extra: str) -> list[str]:
    """Modules of ``extra`` that are not installed, without importing any."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Around imports of optional packages: MissingPackageError in one line if one of ``extra`` is
    not installed; ``what`` needs it. Imports that fail for other reasons raise as usual."""
    try:
        yield
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS[extra] or find_spec(module) is not None:
            raise
        raise MissingPackageError(
            "{what} needs the package {value}",
            remedy="{command}",
            what=what,
            value=module,
            command=install_command(extra),
        ) from error
