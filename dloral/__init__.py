"""DLoRAL: one-step diffusion video super-resolution, consistent in time and rich in detail."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dloral.errors import DLoRALError
    from dloral.options import UpscaleOptions
    from dloral.pipeline import DLoRALPipeline
    from dloral.upscale import Progress, upscale_steps, upscale_video
    from dloral.weights.loading import load_pipeline

_HOMES = {
    "DLoRALError": "dloral.errors",
    "DLoRALPipeline": "dloral.pipeline",
    "Progress": "dloral.upscale",
    "UpscaleOptions": "dloral.options",
    "load_pipeline": "dloral.weights.loading",
    "upscale_steps": "dloral.upscale",
    "upscale_video": "dloral.upscale",
}

__all__ = [
    "DLoRALError",
    "DLoRALPipeline",
    "Progress",
    "UpscaleOptions",
    "__version__",
    "load_pipeline",
    "upscale_steps",
    "upscale_video",
]


def __getattr__(name: str) -> Any:
    """Load a public name when first used, so that ``dloral --help`` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
