"""The released checkpoint (a pickle) + a Stable Diffusion 2.1 folder -> a folder of safetensors.

The pickle holds ``state_dict_unet`` (the whole UNet with its adapters, named as PEFT does),
``state_dict_bpp`` (flow net and cross-frame retrieval) and the LoRAs' ranks. It is opened with
``weights_only=True``, which builds tensors and plain containers and runs no code.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from dloral.errors import OutputError, WeightsError
from dloral.models.adapters import CONSISTENCY, DETAIL, add_adapters
from dloral.models.building import building
from dloral.models.cfr import CrossFrameRetrieval
from dloral.models.flow import SPyNet
from dloral.models.unet import TwoLoRAUNet, cast
from dloral.pipeline import DLoRALPipeline
from dloral.weights.card import write_card
from dloral.weights.checkpoint_io import BROKEN, first_line, make_readable, open_pickle, quiet_bars

RELEASED_ADAPTERS = {CONSISTENCY: "consistency", DETAIL: "quality"}
"""Our adapter -> the suffix of the release's adapter names (``default_encoder_quality``, ...)."""

UNET_PARTS = ("encoder", "decoder", "others")

RELEASED_RETRIEVAL = {
    "query_conv": "to_q",
    "key_conv": "to_k",
    "value_conv": "to_v",
    "proj_out": "proj",
    "threshold_fc": "threshold",
}
RELEASED = "give DLoRAL's released model.pkl"
BASE_FOLDER = (
    "give a Stable Diffusion 2.1-base folder in diffusers' layout (unet, vae, text_encoder, "
    "tokenizer, scheduler)"
)

HEAD_DIM = 64  # of the released CFR; its tensors tell only heads * head_dim


def convert(checkpoint: Path, base: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write ``target``, a folder for ``load_pipeline``, atomically.

    ``base``: a Stable Diffusion 2.1-base folder in diffusers' layout. ``dtype``: as stored if
    None. Raises :class:`WeightsError` for a corrupt, malicious or mismatched file, and
    :class:`OutputError` if ``target`` already exists or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(
            "{path} already exists", remedy="give a new folder or remove it first", path=target
        )
    pipe = build_released(read_checkpoint(checkpoint), base, checkpoint)
    for part in pipe.components.values():
        if dtype is not None and isinstance(part, nn.Module):
            cast(part, dtype)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder,
            quiet_bars(),
        ):
            unfinished = Path(folder, "model")
            pipe.save_pretrained(unfinished)
            write_card(unfinished, target.name, str(dtype or "").removeprefix("torch."))
            make_readable(unfinished)
            if target.exists():
                target.rmdir()
            unfinished.rename(target)
    except BROKEN as error:
        free = shutil.disk_usage(target.parent).free if target.parent.exists() else 0
        raise OutputError(
            "{path} could not be written ({free:.1f} GB free): {reason}",
            path=target,
            free=free / 1e9,
            reason=first_line(error),
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The released dictionary, with its keys checked."""
    checkpoint = open_pickle(path, "the released model.pkl")
    if not isinstance(checkpoint, dict):
        raise WeightsError(
            "{path} contains a {value}, not DLoRAL's dictionary",
            remedy=RELEASED,
            path=path,
            value=type(checkpoint).__name__,
        )
    for key in ("state_dict_unet", "state_dict_bpp"):
        tensors = checkpoint.get(key)
        if not isinstance(tensors, dict):
            raise WeightsError("{path} has no {key!r} tensors", remedy=RELEASED, path=path, key=key)
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise WeightsError(
                    "{path}: {key}: {value!r} is not a tensor name",
                    remedy=RELEASED,
                    path=path,
                    key=key,
                    value=name,
                )
            if not isinstance(tensor, Tensor):
                raise WeightsError(
                    "{path}: {key}: {name!r} is a {value}, not a tensor",
                    remedy=RELEASED,
                    path=path,
                    key=key,
                    name=name,
                    value=type(tensor).__name__,
                )
    for key in (f"lora_rank_unet_{theirs}" for theirs in RELEASED_ADAPTERS.values()):
        rank = checkpoint.get(key)
        if not isinstance(rank, int) or rank < 1:
            raise WeightsError(
                "{path}: {key!r} is {value}",
                remedy=RELEASED,
                path=path,
                key=key,
                value="missing" if rank is None else repr(rank),
            )
    return checkpoint


@building()
def build_released(checkpoint: Mapping[str, Any], base: Path, name: Path) -> DLoRALPipeline:
    """The pipeline of a released checkpoint and its Stable Diffusion base, in stored precision."""
    parts = {
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "scheduler": DDPMScheduler,
    }
    with quiet_bars():
        loaded = {part: _load_part(kind, base, part) for part, kind in parts.items()}
    return DLoRALPipeline(
        **loaded,
        unet=_released_unet(checkpoint, base, name),
        flow=_released_flow(checkpoint["state_dict_bpp"], name),
        retrieval=_released_retrieval(checkpoint["state_dict_bpp"], name),
    )


def _load_part(kind: Any, base: Path, part: str) -> Any:
    if not (base / part).is_dir():
        raise WeightsError(
            "{path} has no {value!r} folder", remedy=BASE_FOLDER, path=base, value=part
        )
    try:
        if part == "tokenizer" and not any((base / part).glob("*.json")):
            # transformers would make a tokenizer of no words from an empty folder
            raise OSError("the folder has no vocabulary")
        return kind.from_pretrained(base / part)
    except BROKEN as error:
        raise WeightsError(
            "{path} cannot be loaded: {reason}",
            remedy=BASE_FOLDER,
            path=base / part,
            reason=first_line(error),
        ) from error


def _released_unet(checkpoint: Mapping[str, Any], base: Path, name: Path) -> TwoLoRAUNet:
    if not (base / "unet" / "config.json").is_file():
        raise WeightsError("{path} has no unet/config.json", remedy=BASE_FOLDER, path=base)
    try:
        config = dict(TwoLoRAUNet.load_config(base / "unet"))
        config["in_channels"] = 2 * config["out_channels"]
        with init_empty_weights():  # every weight comes from the checkpoint
            unet = TwoLoRAUNet.from_config(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            "{path} is not a valid UNet configuration: {reason}",
            remedy=BASE_FOLDER,
            path=base / "unet" / "config.json",
            reason=first_line(error),
        ) from error
    ranks = {
        ours: _checked_rank(checkpoint, theirs, name) for ours, theirs in RELEASED_ADAPTERS.items()
    }
    add_adapters(unet, ranks)
    renamed = {}
    for key, tensor in checkpoint["state_dict_unet"].items():
        for ours, theirs in RELEASED_ADAPTERS.items():
            for part in UNET_PARTS:
                key = key.replace(f".default_{part}_{theirs}.", f".{ours}.")
        renamed[key] = tensor
    _fill(unet, renamed, name, "state_dict_unet")
    return unet


def _checked_rank(checkpoint: Mapping[str, Any], adapter: str, name: Path) -> int:
    """The rank a release claims for a LoRA, checked against its tensors: matrices are allocated by
    it before they are filled, so a false one could demand any amount of memory."""
    rank = int(checkpoint[f"lora_rank_unet_{adapter}"])
    ranks = {
        len(tensor)
        for key, tensor in checkpoint["state_dict_unet"].items()
        if tensor.ndim and ".lora_A." in key and f"_{adapter}." in key
    }
    if rank not in ranks:
        found = ", ".join(map(str, sorted(ranks))) or "none"
        raise WeightsError(
            "{path}: 'lora_rank_unet_{adapter}' is {value}, but the rank of its tensors is {found}",
            remedy=RELEASED,
            path=name,
            adapter=adapter,
            value=rank,
            found=found,
        )
    return rank


def _released_flow(tensors: Mapping[str, Tensor], name: Path) -> SPyNet:
    flow = SPyNet()
    renamed = {}
    for key, tensor in tensors.items():
        if not key.startswith("spynet."):
            continue
        match key.split("."):
            # spynet.basic_module.LEVEL.basic_module.LAYER.conv.weight; a ReLU sits between layers
            case [_, _, level, _, layer, _, kind] if layer.isdecimal():
                renamed[f"pyramid.{level}.{2 * int(layer)}.{kind}"] = tensor
            case [_, statistic]:
                renamed[statistic] = tensor
            case _:
                raise WeightsError(
                    "{path}: tensor {value!r} belongs to a different flow network",
                    remedy=RELEASED,
                    path=name,
                    value=key,
                )
    _fill(flow, renamed, name, "state_dict_bpp, spynet")
    return flow


def _released_retrieval(tensors: Mapping[str, Tensor], name: Path) -> CrossFrameRetrieval:
    prefix = "cross_attn_module."
    query = tensors.get(f"{prefix}query_conv.weight")
    if query is None or query.ndim != 4 or query.shape[0] % HEAD_DIM:
        found = "missing" if query is None else f"of shape {tuple(query.shape)}"
        raise WeightsError(
            "{path}: tensor {tensor!r} is {found}",
            remedy=RELEASED,
            path=name,
            tensor=f"{prefix}query_conv.weight",
            found=found,
        )
    retrieval = CrossFrameRetrieval(query.shape[1], query.shape[0] // HEAD_DIM, HEAD_DIM)
    renamed = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix):
            theirs, dot, kind = key.removeprefix(prefix).partition(".")
            renamed[RELEASED_RETRIEVAL.get(theirs, theirs) + dot + kind] = tensor
    _fill(retrieval, renamed, name, "state_dict_bpp, cross_attn_module")
    return retrieval


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], name: Path, part: str) -> None:
    """Load every tensor, or say in one line which is missing, misshapen or unexpected."""
    wanted = module.state_dict()
    where: dict[str, Any] = {"path": name, "part": part}
    for key in wanted:
        if key not in tensors:
            raise WeightsError("{path}: {part}: tensor {value!r} is missing", value=key, **where)
        if wanted[key].shape != tensors[key].shape:
            raise WeightsError(
                "{path}: {part}: tensor {value!r} has shape {found}, but this base needs {wanted}",
                remedy="the checkpoint was made for a different base",
                value=key,
                found=tuple(tensors[key].shape),
                wanted=tuple(wanted[key].shape),
                **where,
            )
        if not torch.isfinite(tensors[key]).all():
            raise WeightsError(
                "{path}: {part}: tensor {value!r} contains non-finite values",
                value=key,
                **where,
            )
    if unknown := tensors.keys() - wanted.keys():
        raise WeightsError(
            "{path}: {part}: unexpected tensor {value!r} for this base",
            value=min(unknown),
            **where,
        )
    module.load_state_dict(dict(tensors), assign=True)
