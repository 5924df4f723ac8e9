"""From a model's name to a pipeline that runs: registry names, folders, Hub ids."""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from dloral.errors import OptionError, WeightsError
from dloral.models.unet import plain_state_dict
from dloral.pipeline import DLoRALPipeline

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda", "mps")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

EMBEDDED = {"compact": Path(__file__).parent / "compact"}
"""Models inside the package, by registry name."""

CONVERTED = {
    "sd21": "python -m dloral convert model.pkl --base SD21_DIR -o DIR, then --model DIR",
}
"""Models that a person brings, by registry name, and the call that makes a folder of them."""

BROKEN = (OSError, ValueError, RuntimeError, SafetensorError)
"""What libraries raise for files that do not hold what they should."""

WANTED_FILES = ["*.json", "*.safetensors", "*.txt"]
INDEX = "model_index.json"


def load_pipeline(
    model: str | Path = "compact", device: str = AUTO, dtype: str = AUTO
) -> DLoRALPipeline:
    """A pipeline ready to run, in evaluation mode.

    ``model``: ``"compact"``, a folder that ``save_pretrained`` or ``convert`` wrote, or a Hub id
    ``owner/name`` of such a folder. ``device``: auto takes CUDA, else Apple's MPS, else the CPU;
    ``cuda:1`` and the like name one. ``dtype``: float32, bfloat16, float16 or auto (see
    :func:`choose_dtype`). Raises :class:`WeightsError` or :class:`OptionError`.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    folder = find_model(str(model))
    try:
        _check_folders(folder)
        with quiet_bars():
            pipe = DLoRALPipeline.from_pretrained(
                folder, dtype=precision, local_files_only=True, use_safetensors=True
            )
        _check_complete(pipe, folder)
    except (*BROKEN, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"model {str(model)!r} cannot be loaded from {folder}: {first_line(error)}; "
            "convert or fetch it again, or use --model compact"
        ) from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipe.to(place).channels_last()


def _check_folders(folder: Path) -> None:
    """Raise ``ValueError`` for a part of the index that has no folder: the libraries' words for
    that name no part, and a tokenizer without files would simply know no words."""
    for name, kind in json.loads((folder / INDEX).read_text()).items():
        # a part is [library, class]; one that the model does without is [null, null]
        if isinstance(kind, list) and kind[0] and not any((folder / name).glob("*.json")):
            raise ValueError(f"the folder {name!r} is missing or empty")


def _check_complete(pipe: DLoRALPipeline, folder: Path) -> None:
    """Raise ``ValueError`` for a tensor that no file holds: diffusers would leave it random."""
    for name, part in pipe.components.items():
        if not isinstance(part, diffusers.ModelMixin):
            continue
        stored: set[str] = set()
        for path in (folder / name).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                stored.update(file.keys())
        if missing := plain_state_dict(part).keys() - stored:
            raise ValueError(f"{name}: {len(missing)} tensors are missing, one is {min(missing)}")


def find_model(model: str) -> Path:
    """The folder of a model; a Hub id is downloaded once and kept in the Hub's cache."""
    if model in EMBEDDED:
        return _checked(EMBEDDED[model], model)
    if _is_folder(model):
        return _checked(Path(model), model)
    if model in CONVERTED:
        raise WeightsError(f"model {model!r} is not on this machine; make it: {CONVERTED[model]}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return _checked(_from_hub(model), model)
    known = ", ".join([*EMBEDDED, *CONVERTED])
    raise WeightsError(
        f"model {model!r} is unknown: no name ({known}), no folder here, no Hub id owner/name; "
        "use --model compact"
    )


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # too long to be a path
        return False


def _checked(folder: Path, model: str) -> Path:
    """``folder`` if it holds a pipeline of ours."""
    index = folder / INDEX
    if not index.is_file():
        raise WeightsError(
            f"model {model!r}: {folder} has no {INDEX}; give a folder that "
            "`python -m dloral convert` wrote, or use --model compact"
        )
    try:
        kind = json.loads(index.read_text()).get("_class_name")
    except (ValueError, AttributeError, UnicodeDecodeError) as error:
        raise WeightsError(f"model {model!r}: {index} is not readable JSON") from error
    if kind != DLoRALPipeline.__name__:
        raise WeightsError(
            f"model {model!r} is a {kind}, not a {DLoRALPipeline.__name__}; use --model compact"
        )
    return folder


def _from_hub(model: str) -> Path:
    try:
        return Path(snapshot_download(model, allow_patterns=WANTED_FILES))
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"model {model!r} is neither a folder here nor on the Hub (or it is private: set "
            "HF_TOKEN); use --model compact"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"model {model!r} could not be fetched from the Hub: {first_line(error)}; check the "
            "network or use --model compact"
        ) from error


def choose_device(device: str) -> torch.device:
    """The device by its name, if this machine has it."""
    if device == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = device.split(":")[0]
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind not in present:
        raise OptionError(f"device is {device!r}; choose from {', '.join(DEVICES)}")
    if not present[kind]:
        raise OptionError(f"device {device!r} is not on this machine; use --device cpu or auto")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise OptionError(
            f"device {device!r} is not understood; say cpu, cuda or cuda:1"
        ) from error
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (place.index or 0) >= count:
        raise OptionError(f"device {device!r} is not on this machine; it has {count} of that kind")
    return place


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Auto: bfloat16 where the device multiplies it natively, else float16 on a GPU, float32 on a
    CPU (emulated bfloat16 is slower than float32 there)."""
    if dtype != AUTO and dtype not in DTYPES:
        raise OptionError(f"dtype is {dtype!r}; choose from {', '.join([AUTO, *DTYPES])}")
    if dtype != AUTO:
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    has = torch.cpu.get_capabilities()
    native = any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


@contextmanager
def quiet_bars() -> Iterator[None]:
    """No bars of other libraries while a model loads: it takes a second, and ours come after.

    Nor their advice on what is missing: :func:`load_pipeline` says that in one line.
    """
    libraries = (diffusers.utils.logging, transformers.utils.logging)
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


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for messages of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
