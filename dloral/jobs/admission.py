"""Whether a job's frames fit the machine, known from the source's header alone."""

import torch

from dloral.errors import ResourceError, Setting
from dloral.jobs.spans import output_size
from dloral.memory import free_memory
from dloral.options import UpscaleOptions
from dloral.video.probe import ClipInfo


def admitted_size(clip: ClipInfo, options: UpscaleOptions) -> tuple[int, int]:
    """Height and width of the result, in pixels (:func:`dloral.jobs.spans.output_size`).

    ResourceError, before a pixel is decoded, where the frames themselves would not fit the memory
    that is free. A model answers for what it takes beside them.
    """
    height, width = output_size(clip, options)
    frame, enlarged = (3 * 4 * pixels for pixels in (clip.height * clip.width, height * width))
    held = min(2 * options.batch_size, clip.num_frames or 2)  # see dloral.upscale
    # read: as bytes and as floats; written: enlarged, restored, and as it is encoded
    needed = 2 * frame + 3 * enlarged + (held - 1) * (frame + 2 * enlarged)
    free = free_memory(torch.device("cpu"))
    if needed > free:
        raise ResourceError(
            f"{{path}} is {clip.width}x{clip.height} and would become {width}x{height}: that takes "
            f"{needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free",
            remedy="use a smaller {scale}",
            path=clip.path,
            scale=Setting("scale"),
        )
    return height, width
