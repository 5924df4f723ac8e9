"""A job's pipeline, fetched and loaded in steps that report progress."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from dloral.jobs.progress import Progress
from dloral.options import UpscaleOptions
from dloral.weights.resolve import fetch_missing

if TYPE_CHECKING:
    from dloral.frame_generator import FrameGenerator


def load_steps(
    options: UpscaleOptions, message: str = "", total: int | None = None
) -> Generator[Progress, None, "FrameGenerator"]:
    """The pipeline of ``options``, fetched if it is not here."""
    for told in fetch_missing(options.model):
        yield Progress("fetching", num_frames=total, fetched=told)
    yield Progress("loading", num_frames=total, message=message)
    from dloral.weights.loading import load_pipeline  # takes seconds, too long for the page

    return load_pipeline(options.model, options.device, options.dtype, options.vae, options.runtime)
