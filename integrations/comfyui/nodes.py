"""Load a model, restore a batch of pictures as one clip, and try scales on one of its frames.

A ComfyUI IMAGE is float (B,H,W,C) in [0, 1]; the pictures of a batch are the frames of a clip, in
order. They are enlarged and restored one after another, so that memory grows with the result alone.
"""

CATEGORY = "video/DLoRAL"
MODELS = ["compact", "sd21", "bicubic"]
WINDOWS = ["0", "1", "3", "5"]


class DLoRALLoadModel:
    """A model by its name, by a folder, or by a Hub id."""

    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = ("DLORAL_MODEL",)
    RETURN_NAMES = ("model",)
    DESCRIPTION = "compact comes with the package; sd21 is fetched when it is first asked for."

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (ComfyUI's name)
        return {
            "required": {
                "model": (MODELS,),
                "dtype": (["auto", "float32", "bfloat16", "float16"],),
            },
            "optional": {
                "folder_or_hub_id": ("STRING", {"default": "", "tooltip": "in the model's place"}),
                "device": ("STRING", {"default": "auto", "tooltip": "auto, cpu, cuda, cuda:1"}),
            },
        }

    def load(self, model, dtype, folder_or_hub_id="", device="auto"):
        from dloral import load_pipeline

        return (load_pipeline(folder_or_hub_id.strip() or model, device or "auto", dtype),)


class DLoRALUpscale:
    """A clip, larger and sharper."""

    CATEGORY = CATEGORY
    FUNCTION = "upscale"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "The pictures of the batch are the frames of a clip, in order."

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {
            "required": {
                "model": ("DLORAL_MODEL",),
                "images": ("IMAGE",),
                "scale": ("FLOAT", {"default": 4.0, "min": 1.0, "max": 4.0, "step": 0.05}),
                "consistency": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}),
                "detail": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "window": (WINDOWS, {"default": "1"}),
            },
            "optional": {
                "target_width": ("INT", {"default": 0, "min": 0, "max": 16384}),
                "target_height": ("INT", {"default": 0, "min": 0, "max": 16384}),
                "prompt": ("STRING", {"default": "", "multiline": True}),
                "tile": ("INT", {"default": 96, "min": 0, "max": 512, "tooltip": "0: no tiles"}),
                "color_fix": (["auto", "adain", "wavelet", "none"],),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
            },
        }

    def upscale(
        self,
        model,
        images,
        scale,
        consistency,
        detail,
        strength,
        window,
        target_width=0,
        target_height=0,
        prompt="",
        tile=96,
        color_fix="auto",
        batch_size=1,
    ):
        from dloral.options import UpscaleOptions

        size = {"width": target_width} if target_width else {}
        size |= {"height": target_height} if target_height else {}
        options = UpscaleOptions(
            scale=scale,
            consistency=consistency,
            detail=detail,
            strength=strength,
            window=int(window),
            prompt=prompt,
            tile=tile or None,
            tile_overlap=min(32, (tile or 96) // 3),
            color_fix=color_fix,
            batch_size=batch_size,
            **size,
        )
        return (_collected(images, options, model),)


class DLoRALPreviewScales:
    """One frame at several scales of both LoRAs: the costly half is done once."""

    CATEGORY = CATEGORY
    FUNCTION = "preview"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "scales")
    DESCRIPTION = "A picture for each pair of values, and a line that says which."

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {
            "required": {
                "model": ("DLORAL_MODEL",),
                "images": ("IMAGE",),
                "frame": ("INT", {"default": 0, "min": 0, "max": 1_000_000}),
                "scale": ("FLOAT", {"default": 4.0, "min": 1.0, "max": 4.0, "step": 0.05}),
                "consistency": ("STRING", {"default": "1"}),
                "detail": ("STRING", {"default": "0, 0.5, 1, 1.5"}),
                "window": (WINDOWS, {"default": "1"}),
            },
        }

    def preview(self, model, images, frame, scale, consistency, detail, window):
        import torch

        from dloral.frames.resize import resize_bicubic
        from dloral.integrations.memory_clips import enlarged_by, frames_of_images, size_of_result
        from dloral.options import UpscaleOptions

        options = UpscaleOptions(scale=scale, window=int(window))
        frames = frames_of_images(images)[:, :3]
        if frame >= len(frames):
            raise ValueError(f"frame is {frame}; the batch has frames 0 to {len(frames) - 1}")
        seen = frames[max(frame - model.reach(options.window), 0) : frame + 1]
        size = size_of_result(*seen.shape[2:], options)
        enlarged = enlarged_by(*seen.shape[2:], options)
        prepared = model.prepare(resize_bicubic(seen, *size), window=options.window, count=1)
        pairs = [(c, d) for c in _numbers(consistency) for d in _numbers(detail)]
        tell = _progress(len(pairs))
        pictures = []
        for pair in pairs:
            picture = model.finish(prepared, *pair, enlarged=enlarged)[0]
            pictures.append(picture.permute(1, 2, 0).float().cpu())
            tell()
        lines = [f"consistency {c:g}, detail {d:g}" for c, d in pairs]
        return torch.stack(pictures), "\n".join(lines)


def _collected(images, options, model):
    """The restored batch (B,H,W,C) on the CPU, filled frame by frame."""
    import torch

    from dloral.integrations.memory_clips import frames_of_images, restored_frames

    frames = frames_of_images(images)
    if len(frames) == 1 and options.window:
        _say("one picture is no clip: there are no earlier frames to be consistent with")
    if frames.shape[1] == 4:
        _say("alpha is enlarged by bicubic beside the restored colour")
    tell = _progress(len(frames))
    result = None
    for index, restored in enumerate(restored_frames(frames.cpu(), model, options, _say)):
        picture = restored.permute(1, 2, 0)
        if result is None:
            result = torch.empty(len(frames), *picture.shape)
        result[index] = picture
        tell()
    return result


def _progress(total):
    """To be called after each picture: ComfyUI's bar, and its button to stop. Nothing elsewhere."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:
        return lambda: None
    bar = ProgressBar(total)

    def tell():
        bar.update(1)
        throw_exception_if_processing_interrupted()

    return tell


def _say(line):
    import logging

    logging.getLogger("dloral").warning("DLoRAL: %s", line)


def _numbers(text):
    """``0, 0.5, 1`` as numbers; ValueError in one line for anything else."""
    try:
        return [float(part) for part in text.replace(";", ",").split(",") if part.strip()] or [1.0]
    except ValueError:
        raise ValueError(
            f"{text!r} is not a list of numbers; give some such as 0, 0.5, 1"
        ) from None


NODE_CLASS_MAPPINGS = {
    "DLoRALLoadModel": DLoRALLoadModel,
    "DLoRALUpscale": DLoRALUpscale,
    "DLoRALPreviewScales": DLoRALPreviewScales,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "DLoRALLoadModel": "DLoRAL: load model",
    "DLoRALUpscale": "DLoRAL: upscale",
    "DLoRALPreviewScales": "DLoRAL: preview scales",
}
