"""torchvision with a torch that its wheel was not built for.

PyPI's torchvision is built for PyPI's torch. With a CPU build of torch its compiled operators do
not load, and its import fails at two of them, for which it registers shapes. No measure uses them,
so declaring them is enough (our decision). transformers imports whichever torchvision it finds, so
the declaration has to come first; only our measures need torchvision.
"""

import importlib
import sys
from contextlib import suppress
from importlib.util import find_spec

import torch

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a declaration lasts as long as its library


def make_torchvision_importable() -> None:
    """Make sure that transformers can import torchvision, if installed; call this first."""
    if find_spec("torchvision") is not None:
        with suppress(ImportError):
            import_torchvision()


def import_torchvision() -> None:
    """Import torchvision, if need be without its operators; ``ImportError`` if not installed."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _declared or "torchvision::" not in str(error):
            raise ImportError(f"torchvision does not go with this torch: {error}") from error
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name, schema in _OPERATORS.items():
            library.define(name + schema)
        _declared.append(library)
        import_torchvision()
