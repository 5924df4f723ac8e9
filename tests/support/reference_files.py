"""The reference checkpoint in the released formats, put together from what is stored of it.

Most of its weights are a fresh network's, uniform from torch's generator; of these
``tests/data/dloral_tiny/drawn.json`` says the seed and the place in its sequence, and they are
drawn again, equal to the bit. All others lie in ``stored.safetensors``.
"""

import json
import shutil
from math import prod
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"
STORED = DATA / "dloral_tiny"


def write_reference(folder: Path) -> None:
    """Into a new ``folder``: ``model.pkl``, ``sd_base``, ``expected.safetensors``, inputs."""
    shutil.copytree(STORED, folder, ignore=shutil.ignore_patterns("drawn.json", "stored.*"))
    contents = json.loads((STORED / "drawn.json").read_text(encoding="utf-8"))
    tensors = load_file(STORED / "stored.safetensors")
    for seed, rows in contents["drawn"].items():
        tensors |= _draw(int(seed), rows)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in sorted(tensors.items()):
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = tensor
    vae = folder / "sd_base" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(parts.pop("vae"), vae, metadata={"format": "pt"})
    torch.save(parts | contents["entries"], folder / "model.pkl")


def _draw(seed: int, rows: list[tuple[int, str, list[int]]]) -> dict[str, Tensor]:
    """Weights as torch's layers start: uniform within 1 / sqrt(inputs). A row: place in the
    generator's sequence, name, shape; in the order of places."""
    generator, place, drawn = torch.Generator().manual_seed(seed), 0, {}
    for start, name, shape in rows:
        torch.rand(start - place, generator=generator)
        bound = prod(shape[1:]) ** -0.5
        drawn[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
        place = start + drawn[name].numel()
    return drawn
