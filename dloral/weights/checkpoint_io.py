"""Reading third-party files: pickles without running their code, libraries without log noise."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError

from dloral.errors import WeightsError
from dloral.models.building import building

BROKEN = (OSError, ValueError, RuntimeError, SafetensorError)
"""What libraries raise for files with invalid contents."""


def open_pickle(path: Path, wanted: str) -> Any:
    """The contents of a pickle of tensors, read without running any of its code.

    Tensors are memory-mapped where possible. ``wanted`` describes the file in the one-line
    :class:`WeightsError`.
    """
    if not path.is_file():
        raise WeightsError(
            "{path} does not exist", remedy="give the path to {wanted}", path=path, wanted=wanted
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says it, in one line
            return torch.load(path, weights_only=True, map_location="cpu", mmap=_is_mappable(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "{path} was refused: it is not a plain tensor file, or would run code when loaded "
            "({reason})",
            remedy="download {wanted} again from its source",
            path=path,
            reason=_refusal(error),
            wanted=wanted,
        ) from error
    except Exception as error:  # damaged bytes can make the reader raise anything
        raise WeightsError(
            "{path} is corrupt or truncated at {value:,} bytes ({reason})",
            remedy="download it again",
            path=path,
            value=path.stat().st_size,
            reason=first_line(error),
        ) from error


def _is_mappable(path: Path) -> bool:
    """Whether tensors are stored uncompressed; torch maps compressed ones too, as garbage."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _refusal(error: pickle.UnpicklingError) -> str:
    """What caused the refusal of a pickle, from torch's long message."""
    _, found, reason = str(error).partition("WeightsUnpickler error: ")
    return reason.splitlines()[0][:120].rstrip(". ") if found and reason else "unknown pickle"


def make_readable(folder: Path) -> None:
    """Give files the usual permissions of new ones: safetensors makes its files owner-only."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Hide other libraries' progress bars while a model loads, which one at a time does.

    Their advice on what is missing is hidden too: :func:`load_pipeline` reports it in one line.
    """
    import diffusers  # here, since both take seconds and most of this module needs neither
    import transformers

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    with building():  # all of this is the whole process's
        active = [library.is_progress_bar_enabled() for library in libraries]
        verbosity = diffusers.utils.logging.get_verbosity()
        for library in libraries:
            library.disable_progress_bar()
        diffusers.utils.logging.set_verbosity(diffusers.utils.logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
                yield
        finally:
            diffusers.utils.logging.set_verbosity(verbosity)
            for library, was_active in zip(libraries, active, strict=True):
                if was_active:
                    library.enable_progress_bar()


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence the Hub client's per-attempt log; we report one line once all attempts failed."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for one-line messages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
