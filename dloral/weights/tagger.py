"""Converting RAM's and DAPE's released files to a tagger folder of safetensors, and loading it.

Both files are pickles and are opened with ``weights_only=True``. RAM's contains more than tagging
needs (a text decoder, a tag encoder, masks derived from sizes); that is left out. DAPE's LoRA stays
in a separate file next to RAM's weights: training uses RAM, inference uses RAM with DAPE.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dloral.errors import OutputError, Setting, WeightsError
from dloral.models.building import building
from dloral.models.tagger import Tagger
from dloral.models.unet import cast
from dloral.weights.checkpoint_io import BROKEN, first_line, make_readable, open_pickle, quiet_bars
from dloral.weights.registry import TAGGER, fetched, make_again

TAGGER_FOLDER = "tagger"
"""The tagger's folder within a model's folder."""

DAPE_FILE = "dape.safetensors"

NO_TAGGER = Setting("tagger", "none")

RELEASED_HEADS = 4
"""Attention heads of the tagging head, which its tensor shapes do not reveal."""

RELEASED_NAMES = (
    (r"^swin\.embeddings\.patch_embeddings\.projection\.", "visual_encoder.patch_embed.proj."),
    (r"^swin\.embeddings\.norm\.", "visual_encoder.patch_embed.norm."),
    (r"^swin\.layernorm\.", "visual_encoder.norm."),
    (r"^swin\.encoder\.layers\.", "visual_encoder.layers."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
    (r"^layers\.(\d+)\.(query|key|value)\.", r"layers.\1.crossattention.self.\2."),
    (r"^layers\.(\d+)\.out\.", r"layers.\1.crossattention.output.dense."),
    (r"^layers\.(\d+)\.attended_norm\.", r"layers.\1.crossattention.output.LayerNorm."),
    (r"^layers\.(\d+)\.widen\.", r"layers.\1.intermediate.dense."),
    (r"^layers\.(\d+)\.narrow\.", r"layers.\1.output.dense."),
    (r"^layers\.(\d+)\.norm\.", r"layers.\1.output.LayerNorm."),
    (r"^layers\.", "tagging_head.encoder.layer."),
    (r"^label_proj\.", "wordvec_proj."),
)
"""Patterns of our tensor names and their replacements in the release, applied in this order."""

LORA_LAYERS = re.compile(r"(.*\.[qv]_proj|layers\.\d+\.(query|key))$")
"""Layers that DAPE's LoRA changes."""

TIED = ("tagging_head.", "tag_encoder.")
"""Two parts of RAM that share the weights of their cross-attention."""


def convert_tagger(
    ram: Path,
    dape: Path | None,
    tags: Path,
    thresholds: Path,
    target: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the folder ``target`` from ``ram_swin_large_14m.pth``, ``DAPE.pth`` and the two lists.

    ``dape=None`` leaves DAPE out. ``dtype``: as stored if None. Raises :class:`WeightsError` for a
    corrupt, malicious or mismatched file, naming what is missing, and :class:`OutputError` if
    ``target`` already exists or cannot be written.
    """
    if target.exists():
        raise OutputError(
            "{path} already exists", remedy="give a new folder or remove it first", path=target
        )
    tagger = read_released(ram, _read_lines(tags), _read_numbers(thresholds))
    lora = read_dape(dape, tagger) if dape else None
    if dtype is not None:
        cast(tagger, dtype)
        lora = {name: tensor.to(dtype) for name, tensor in lora.items()} if lora else None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder,
            quiet_bars(),
        ):
            unfinished = Path(folder, TAGGER_FOLDER)
            tagger.save_pretrained(unfinished)
            if lora:
                save_file(lora, unfinished / DAPE_FILE)
            make_readable(unfinished)
            unfinished.rename(target)
    except BROKEN as error:
        raise OutputError(
            "{path} could not be written: {reason}", path=target, reason=first_line(error)
        ) from error


def find_tagger(model: Path | None) -> Path | None:
    """The tagger in a model's folder, or else the fetched one; None if there is neither."""
    if model is not None and (model / TAGGER_FOLDER / "config.json").is_file():
        return model / TAGGER_FOLDER
    return fetched(TAGGER)


def load_tagger(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    dape: bool,
) -> Tagger:
    """A converted tagger, for inference; with DAPE's LoRA merged into it if ``dape``.

    Raises :class:`WeightsError` for a folder that is missing, incomplete or corrupt.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(
            "{path} contains no tagger",
            remedy="fetch it (python -m dloral fetch sd21), or use {instead}",
            path=folder,
            instead=NO_TAGGER,
        )
    try:
        with quiet_bars():
            tagger, report = Tagger.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, output_loading_info=True
            )
        if missing := report["missing_keys"]:
            raise ValueError(f"missing tensors: {min(missing)} ({len(missing)} in total)")
        if dape:
            tagger.merge_lora(load_file(folder / DAPE_FILE))
    except (*BROKEN, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(
            "the tagger in {path} cannot be loaded: {reason}",
            remedy="{again}, or use {instead}",
            path=folder,
            again=make_again(folder),
            reason=first_line(error),
            instead=NO_TAGGER,
        ) from error
    return tagger.requires_grad_(False).eval().to(device)


def read_released(path: Path, tags: list[str], thresholds: list[float]) -> Tagger:
    """RAM's released file as a :class:`Tagger` in stored precision, sized by the file."""
    checkpoint = open_pickle(path, "RAM's released .pth")
    tensors = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(tensors, dict):
        raise WeightsError(
            "{path} has no 'model' entry", remedy="give RAM's ram_swin_large_14m.pth", path=path
        )
    try:
        tagger = _empty_tagger(tensors, tags, thresholds)
    except (KeyError, AttributeError, ValueError) as error:
        raise WeightsError(
            "{path} is not a matching RAM checkpoint ({kind}: {reason})",
            remedy="give RAM's ram_swin_large_14m.pth with its own tag and threshold lists",
            path=path,
            kind=type(error).__name__,
            reason=first_line(error),
        ) from error
    shapes = {name: tensor.shape for name, tensor in tagger.state_dict().items()}
    filled = _gather(tensors, {name: released_name(name) for name in shapes}, "qkv", path)
    for name, shape in shapes.items():
        if filled[name].shape != shape:
            raise WeightsError(
                "{path}: tensor {value!r} has shape {found}, but {name} needs {wanted}",
                path=path,
                value=released_name(name),
                found=tuple(filled[name].shape),
                name=name,
                wanted=tuple(shape),
            )
    tagger.load_state_dict(filled, assign=True)
    return tagger


def read_dape(path: Path, tagger: Tagger) -> dict[str, Tensor]:
    """DAPE's LoRA for ``tagger``: ``<layer>.lora_A.weight`` (r, in) and ``B`` (out, r)."""
    released = open_pickle(path, "DAPE's released .pth")
    if not isinstance(released, dict):
        raise WeightsError(
            "{path} contains a {value}, not a LoRA",
            remedy="give DAPE.pth",
            path=path,
            value=type(released).__name__,
        )
    layers = {name: part for name, part in tagger.named_modules() if LORA_LAYERS.fullmatch(name)}
    names = {
        f"{layer}.lora_{kind}.weight": released_name(f"{layer}.lora_{kind}")
        for layer in layers
        for kind in "AB"
    }
    lora = _gather(released, names, "qv", path)
    tied = _gather(
        released,
        {ours: name.replace(*TIED) for ours, name in names.items() if TIED[0] in name},
        "qv",
        path,
    )
    for layer, module in layers.items():
        for tensors in (lora, tied):
            down, up = (tensors.get(f"{layer}.lora_{kind}.weight") for kind in "AB")
            if down is None or up is None:
                continue
            if (len(up), down.shape[1]) != module.weight.shape or len(down) != up.shape[1]:
                raise WeightsError(
                    "{path}: the LoRA of {layer} has shapes {down} and {up}, which do not match "
                    "this RAM model",
                    remedy="give the DAPE.pth made for it",
                    path=path,
                    layer=layer,
                    down=tuple(down.shape),
                    up=tuple(up.shape),
                )
    # RAM ties these weights to its tag encoder's, so the tag encoder's LoRA, merged into the same
    # tensors, counts too: two products of rank 8 are one of rank 16.
    for name, tensor in tied.items():
        lora[name] = torch.cat([lora[name], tensor], dim=int(".lora_B." in name))
    return lora


def released_name(name: str) -> str:
    """The release's name of our tensor ``name``."""
    for pattern, released in RELEASED_NAMES:
        name = re.sub(pattern, released, name)
    return name


def _gather(
    tensors: Mapping[str, Any], names: Mapping[str, str], thirds: str, path: Path
) -> dict[str, Tensor]:
    """The tensors under our names; ``names`` maps ours to the release's.

    Swin's query, key and value are one tensor in the release: as many parts as ``thirds`` has
    letters, in that order. Raises :class:`WeightsError` naming what is missing or not finite.
    """
    if missing := sorted({name for name in names.values() if name not in tensors}):
        raise WeightsError(
            "{path}: {value} tensors are missing: {missing}",
            path=path,
            value=len(missing),
            missing=", ".join(missing[:5]) + (" ..." if len(missing) > 5 else ""),
        )
    found = {}
    for ours, released in names.items():
        tensor = tensors[released]
        if not isinstance(tensor, Tensor) or not torch.isfinite(tensor).all():
            raise WeightsError(
                "{path}: {value!r} is not a finite tensor", path=path, value=released
            )
        if part := re.search(r"\.([qkv])_proj\.", ours):
            size = len(tensor) // len(thirds)
            tensor = tensor[thirds.index(part[1]) * size :][:size].clone()
        found[ours] = tensor
    return found


def _empty_tagger(tensors: Mapping[str, Any], tags: list[str], thresholds: list[float]) -> Tagger:
    """A tagger sized like the released tensors, without its weights yet.

    Raises ``KeyError``, ``AttributeError`` or ``ValueError`` where a tensor that determines a size
    is missing or not a tensor."""
    if len(tensors["label_embed"]) != len(tags):
        raise ValueError(f"{len(tensors['label_embed'])} label embeddings but {len(tags)} tags")
    tables = "visual_encoder.layers.{}.blocks.{}.attn.relative_position_bias_table"
    depths: list[int] = []
    heads: list[int] = []
    layers = 0
    while (stage := tables.format(len(depths), 0)) in tensors:
        heads.append(tensors[stage].shape[1])
        blocks = 1
        while tables.format(len(depths), blocks) in tensors:
            blocks += 1
        depths.append(blocks)
    while f"tagging_head.encoder.layer.{layers}.intermediate.dense.weight" in tensors:
        layers += 1
    # A window of w has 2w - 1 relative positions per side.
    window = (round(len(tensors[tables.format(0, 0)]) ** 0.5) + 1) // 2
    with building(), init_empty_weights(include_buffers=False):
        return Tagger(
            tags=tags,
            thresholds=thresholds,
            window=window,
            embed_dim=len(tensors["visual_encoder.patch_embed.proj.weight"]),
            depths=depths,
            num_heads=heads,
            head_width=len(tensors["wordvec_proj.weight"]),
            head_inner=len(tensors["tagging_head.encoder.layer.0.intermediate.dense.weight"]),
            head_heads=RELEASED_HEADS,
            head_layers=layers,
            label_width=tensors["label_embed"].shape[1],
        )


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            "{path} cannot be read: {reason}", path=path, reason=first_line(error)
        ) from error


def _read_numbers(path: Path) -> list[float]:
    lines = [line for line in _read_lines(path) if line]
    try:
        return [float(line) for line in lines]
    except ValueError as error:
        raise WeightsError(
            "{path} is not a list of thresholds: {reason}", path=path, reason=first_line(error)
        ) from error
