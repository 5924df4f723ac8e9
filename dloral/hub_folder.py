"""What a model's folder carries besides its weights, so that diffusers alone can run it.

``pipeline.py`` holds the classes (:mod:`dloral.bundle` makes it from this package), the index names
it, and ``dloral_parts.py`` in each part's folder imports it. Safetensors headers describe each file
(ModelSpec 1.0.1). This package never runs code from a folder: it only reads the classes' names.
"""

import json
import shutil
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

CODE = "pipeline"
PARTS = "dloral_parts"
PIPELINE = "DLoRALPipeline"
MODULES = {
    "SPyNet": "dloral.models.flow",
    "CrossFrameRetrieval": "dloral.models.cfr",
    "TwoLoRAUNet": "dloral.models.unet",
    "CompactVAE": "dloral.models.vae",
}
"""Classes of parts that neither diffusers nor transformers has: where this package has them."""

SHIM = '''"""The classes of this folder's weights, which are in the repository's pipeline.py.

diffusers looks for them here once it has loaded that file.
"""

import sys


def __getattr__(name):
    return getattr(sys.modules[__name__.rpartition(".")[0] + ".pipeline"], name)
'''

_LONGEST_HEADER = 2**27
"""Bytes, as in the safetensors library."""


def is_package() -> bool:
    """Whether this is the package, and not a model's own ``pipeline.py``."""
    return __name__ == "dloral.hub_folder"


def pipeline_source() -> str:
    """The text of ``pipeline.py``."""
    if is_package():
        # by name: diffusers takes every import statement in ``pipeline.py`` for a requirement
        text: str = import_module("dloral.bundle").pipeline_source()
        return text
    return Path(__file__).read_text(encoding="utf-8")


def write_code(folder: Path) -> None:
    """Add the code to a saved folder, and name it in the index."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["_class_name"] = [CODE, PIPELINE]
    for name, entry in index.items():
        if not name.startswith("_") and isinstance(entry, list) and entry[1:] in _ours():
            index[name] = [PARTS, entry[1]]
            (folder / name / f"{PARTS}.py").write_text(SHIM, encoding="utf-8")
    (folder / f"{CODE}.py").write_text(pipeline_source(), encoding="utf-8")
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def drop_code(folder: Path) -> None:
    """Undo :func:`write_code`: remove the code and name this package's classes in the index."""
    path = folder / "model_index.json"
    index = named_as_here(json.loads(path.read_text(encoding="utf-8")))
    for code in (folder / f"{CODE}.py", *folder.glob(f"*/{PARTS}.py")):
        code.unlink(missing_ok=True)
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _ours() -> list[list[str]]:
    return [[name] for name in MODULES]


def named_as_here(index: dict[str, Any]) -> dict[str, Any]:
    """An index that names this package's classes instead of those in ``pipeline.py``."""
    kind = index.get("_class_name")
    if isinstance(kind, list) and kind[:1] == [CODE]:
        index = {**index, "_class_name": kind[-1]}
    for name, entry in index.items():
        if isinstance(entry, list) and entry[:1] == [PARTS] and entry[-1] in MODULES:
            index = {**index, name: [MODULES[entry[-1]], entry[-1]]}
    return index


def write_headers(folder: Path, architecture: str, licence: str) -> None:
    """Record in each safetensors file of a model's folder what it is."""
    for path in sorted(folder.glob("*/*.safetensors")):
        part = path.parent.name
        is_lora = part == "unet" and not path.name.startswith("diffusion")
        what = f"{path.stem} LoRA" if is_lora else part.replace("_", " ")
        told = {
            "sai_model_spec": "1.0.1",
            "architecture": f"{architecture}/{'lora' if is_lora else part}",
            "implementation": "diffusers",
            "title": f"DLoRAL ({architecture.removeprefix('dloral-')}), {what}",
            "description": "One-step diffusion video super-resolution, arXiv 2506.15591",
            "license": licence,
        }
        add_metadata(path, {f"modelspec.{key}": value for key, value in told.items()})


def add_metadata(path: Path, told: dict[str, str]) -> None:
    """Add to a safetensors file's header by rewriting the file; does nothing if already there."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path.name} has no header of safetensors")
        header = json.loads(file.read(length))
        known = header.get("__metadata__", {})
        if known.items() >= told.items():
            return
        header["__metadata__"] = {**known, **told}
        text = json.dumps(header, separators=(",", ":")).encode()
        # Tensors start at a multiple of 64, so that mapped ones are aligned for any kernel.
        text += b" " * (-(len(text) + 8) % 64)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as anew:
            anew.write(struct.pack("<Q", len(text)) + text)
            shutil.copyfileobj(file, anew, 2**22)
    part.replace(path)
