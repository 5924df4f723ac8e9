"""Loading Real-ESRGAN's small networks (a baseline and a teacher) from the user's own file."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from dloral.errors import WeightsError
from dloral.models.srvgg import SRVGG, srvgg_from_tensors
from dloral.weights.checkpoint_io import BROKEN, first_line, open_pickle

RELEASED_KEYS = ("params_ema", "params")
"""The keys of the tensors in released ``.pth`` files."""

REMEDY = "give realesr-general-x4v3 as .pth or .safetensors"


def load_srvgg(path: Path) -> SRVGG:
    """The network from a safetensors file or a released ``.pth``, float32, for inference.

    A ``.pth`` is opened with ``weights_only=True``. Raises :class:`WeightsError` for a file that
    is missing, corrupt, malicious, or of another architecture.
    """
    tensors = _tensors(path)
    if not all(
        isinstance(tensor, Tensor) and tensor.isfinite().all() for tensor in tensors.values()
    ):
        raise WeightsError(
            "{path} has entries that are not finite tensors", remedy=REMEDY, path=path
        )
    try:
        return srvgg_from_tensors(tensors)
    except ValueError as error:
        raise WeightsError(
            "{path} is not an SRVGGNetCompact ({found})",
            remedy=REMEDY,
            path=path,
            found=first_line(error),
        ) from error


def teacher_file(name: str) -> Path:
    """The path of a teacher's weights; :class:`WeightsError` if there is no such file."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise WeightsError(
            "{path} does not exist", remedy="give the path to realesr-general-x4v3", path=path
        )
    return path


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        stored = open_pickle(path, "realesr-general-x4v3.pth")
        inner = [stored[key] for key in RELEASED_KEYS if isinstance(stored, dict) and key in stored]
        found = inner[0] if inner else stored
        if not isinstance(found, dict):
            raise WeightsError("{path} does not contain named tensors", remedy=REMEDY, path=path)
        return found
    if not path.is_file():
        raise WeightsError("{path} does not exist", remedy=REMEDY, path=path)
    try:
        return load_file(path)
    except BROKEN as error:
        raise WeightsError(
            "{path} is corrupt ({found})",
            remedy="download it again",
            path=path,
            found=first_line(error),
        ) from error
