"""Resolving a model's name to its folder: registry names, folders, Hub ids.

Imports none of the libraries that run models, so that the page can find its model and start before
they are loaded.
"""

import errno
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)

from dloral.errors import Setting, WeightsError
from dloral.weights.checkpoint_io import quiet_hub
from dloral.weights.fetch import FetchProgress, TerminalFetch, fetch, fetch_steps
from dloral.weights.fetch_plan import FetchPlan
from dloral.weights.hub import no_space, reason_of
from dloral.weights.registry import SD21, fetched

EMBEDDED = {"compact": Path(__file__).parent / "compact"}
"""Models inside the package, by registry name."""

BUILT_IN = {"bicubic": Path(__file__).parent / "bicubic"}
"""Models without weights, by name."""

FETCHED = (SD21,)
"""Models that are fetched on first use, by registry name."""

LARGE = 2**26
"""Files of this many bytes or more are not read by :func:`known_weights`."""

WANTED_FILES = ["*.json", "*.safetensors", "*.txt"]
INDEX = "model_index.json"
COMPACT = Setting("model", "compact")
USE_COMPACT = "use {instead}"

RUNTIMES = {
    "DLoRALPipeline": "dloral.weights.torch_folder",
    "BicubicGenerator": "dloral.runtimes.bicubic",
}
"""The class named in a model's index -> the module whose ``open_folder`` loads such a folder."""


def fetch_missing(model: str) -> Iterator[FetchPlan | FetchProgress]:
    """Fetch a model that is not on this machine, step by step; otherwise do nothing."""
    if model in FETCHED and not _is_folder(model) and not fetched(model):
        yield from fetch_steps(model)


def find_model(model: str) -> Path:
    """The folder of a model. A missing one is downloaded once and kept: a registry name by
    :func:`dloral.weights.fetch.fetch` (progress on stderr), a Hub id in the Hub's cache.
    """
    if model in EMBEDDED or model in BUILT_IN:
        return _checked({**EMBEDDED, **BUILT_IN}[model], model)
    if _is_folder(model):
        return _checked(Path(model), model)
    if model in FETCHED:
        shown = TerminalFetch()
        folder = fetched(model) or fetch(model, on_plan=shown.plan, on_progress=shown.progress)
        return _checked(folder, model)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return _checked(_from_hub(model), model)
    known = ", ".join([*EMBEDDED, *BUILT_IN, *FETCHED])
    raise WeightsError(
        "model {value!r} is unknown: it is not a name ({known}), an existing folder or a Hub id "
        "(owner/name)",
        remedy=USE_COMPACT,
        value=model[:80],
        known=known,
        instead=COMPACT,
    )


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # too long to be a path
        return False


def _checked(folder: Path, model: str) -> Path:
    """``folder`` if it contains one of our pipelines."""
    index = folder / INDEX
    if not index.is_file():
        raise WeightsError(
            "model {value!r}: {path} has no {index}",
            remedy="give a folder written by `python -m dloral convert`, or use {instead}",
            value=model,
            path=folder,
            index=INDEX,
            instead=COMPACT,
        )
    try:
        kind = index_kind(folder)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(
            "model {value!r}: {path} cannot be read as JSON",
            remedy=USE_COMPACT,
            value=model,
            path=index,
            instead=COMPACT,
        ) from error
    if kind not in RUNTIMES:
        raise WeightsError(
            "model {value!r} is a {kind}, which is not supported",
            remedy=USE_COMPACT,
            value=model,
            kind=str(kind)[:80],
            instead=COMPACT,
        )
    return folder


def index_kind(folder: Path) -> str:
    """The class of a model's folder, from its index; raises whatever reading it raises."""
    kind = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("_class_name")
    # for a folder that carries its code: [its file, the class], the diffusers convention
    return str(kind[-1] if isinstance(kind, list) and kind else kind)


def _from_hub(model: str) -> Path:
    """The index first: a Hub id of something else may be a hundred gigabytes."""
    try:
        with quiet_hub():
            index = hf_hub_download(model, INDEX)
        _checked(Path(index).parent, model)
        return Path(snapshot_download(model, allow_patterns=WANTED_FILES))
    except HFValidationError as error:
        raise WeightsError(
            "model {value!r} is neither a folder nor a Hub id",
            remedy=USE_COMPACT,
            value=model[:80],
            instead=COMPACT,
        ) from error
    except LocalEntryNotFoundError as error:
        offline = constants.HF_HUB_OFFLINE
        reason = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        raise WeightsError(
            "model {value!r} is not on this machine, and {reason}",
            remedy=USE_COMPACT,
            value=model,
            reason=reason,
            instead=COMPACT,
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            "model {value!r} on the Hub has no {index}, so it is not a DLoRAL model",
            remedy="give one made by `python -m dloral convert`, or use {instead}",
            value=model,
            index=INDEX,
            instead=COMPACT,
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(Path(constants.HF_HUB_CACHE), 0) from error
        raise WeightsError(
            "model {value!r} could not be fetched from the Hub: it {reason}",
            remedy=USE_COMPACT,
            value=model,
            reason=reason_of(error),
            instead=COMPACT,
        ) from error


def hash_of_model(folder: Path, most: int | None = None) -> str:
    """SHA-256 over all weights and configurations in a model's folder, in name order; a file of
    more than ``most`` bytes counts by its size only."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json") and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            size = path.stat().st_size
            if most is not None and size > most:
                digest.update(str(size).encode())
                continue
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def known_weights(model: str) -> str | None:
    """What tells a model from an earlier one of the same name: :func:`hash_of_model`, with large
    files by size. None for one that has to be looked up on the Hub."""
    folder = EMBEDDED.get(model, Path(model))
    return hash_of_model(folder, LARGE) if _is_folder(str(folder)) else None
