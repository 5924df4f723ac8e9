"""Folders that carry their own code: run by diffusers where dloral is not installed."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hub_server import Hub, repo_of
from safetensors import safe_open

from dloral import UpscaleOptions, upscale_video
from dloral.bundle import modules, pipeline_source, read_module
from dloral.errors import OptionError
from dloral.frames.resize import resize_bicubic
from dloral.models.adapters import ADAPTERS, load_adapter
from dloral.pipeline import DLoRALPipeline
from dloral.weights.card import CARD
from dloral.weights.loading import load_pipeline

Make = Callable[[], DLoRALPipeline]

WITHOUT_DLORAL = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dloral":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
"""

ELSEWHERE = """
import torch
from pathlib import Path
frames = torch.load("frames.pt")
torch.save(pipe(frames).frames, "restored.pt")

seen = []
def told(pipe, step, timestep, kwargs):
    seen.append((step, timestep, tuple(kwargs["frame"].shape)))
    pipe._interrupt = step == 1
    return {"frame": torch.zeros_like(kwargs["frame"])} if step else {}

part = pipe(frames, callback_on_step_end=told).frames
assert seen == [(0, 1, (3, 32, 32)), (1, 1, (3, 32, 32))], seen
assert part.shape == (2, 3, 32, 32) and not part[1].any() and part[0].any()

pipe.set_adapters("consistency", 0.5)
assert pipe.get_active_adapters() == ["consistency"]
torch.save(pipe(frames).frames, "halved.pt")
pipe.set_adapters(["consistency", "detail"])
pipe.load_lora_weights("me/tiny", adapter_name="detail", weight_name="unet/detail.safetensors")
pipe.enable_vae_tiling()
torch.save(pipe(frames).frames, "again.pt")
pipe.save_pretrained("saved")
assert Path("saved/pipeline.py").is_file()
"""


def test_diffusers_alone_runs_it(hub: Hub, make_pipeline: Make, tmp_path: Path) -> None:
    """The frame is the command line's, and the card's own words are what is run."""
    model = tmp_path / "model"
    make_pipeline().save_pretrained(model)
    hub.repos["me/tiny"] = repo_of(model)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), pixels)
    lq = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    frames = resize_bicubic(lq, 32, 32).expand(3, -1, -1, -1).clone()
    torch.save(frames, tmp_path / "frames.pt")
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 24, (8, 8)
    )
    for _ in range(3):
        writer.write(pixels)
    writer.release()
    (snippet,) = re.findall(r"```python\n(.*?)```", CARD.format(name="me/tiny", precision=""), re.S)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DLORAL + snippet + ELSEWHERE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "might require" not in done.stderr
    assert (tmp_path / "restored.mp4").stat().st_size > 100

    options = UpscaleOptions(model=str(model), device="cpu", dtype="float32")
    upscale_video(tmp_path / "in.png", tmp_path / "out.png", options)
    written = cv2.imread(str(tmp_path / "out.png"))[..., ::-1]
    restored = torch.load(tmp_path / "restored.pt")
    codes = (restored[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(codes, written)

    pipe = load_pipeline(tmp_path / "saved", "cpu", "float32")  # what was saved there runs here
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(pipe(frames).frames, restored, **close)
    torch.testing.assert_close(torch.load(tmp_path / "again.pt"), restored, **close)
    halved = pipe(frames, consistency=0.5, detail=0.0).frames
    torch.testing.assert_close(torch.load(tmp_path / "halved.pt"), halved, **close)
    assert (halved - restored).abs().max() > 1e-3


def test_no_name_of_the_code_means_two_things() -> None:
    """The modules share one namespace there."""
    defined: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for node in ast.parse(read_module(module)).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined[node.name].add(module)
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                same = isinstance(node.value, ast.Constant)  # one thing wherever it is said
                for name in names:
                    defined[name].add(ast.dump(node.value) if same else module)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                source = getattr(node, "module", "") or ""
                for alias in node.names:
                    if not source.startswith("dloral"):
                        defined[alias.asname or alias.name].add(f"{source}.{alias.name}")
    assert {name: found for name, found in defined.items() if len(found) > 1} == {}


def test_the_code_needs_nothing_of_ours() -> None:
    source = pipeline_source()
    imported = {
        str(node.module) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)
    }
    assert not [name for name in imported if name.startswith("dloral")]
    for module in modules():
        assert f"dloral.{module} -" in source
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--ignore-noqa",
            "--select",
            "F821,F811",
            "-",
        ],
        input=source,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout  # no name without a meaning


def test_this_package_runs_its_own_classes(make_pipeline: Make, tmp_path: Path) -> None:
    """Whatever the code in a folder says."""
    make_pipeline().save_pretrained(tmp_path)
    for file in tmp_path.rglob("*.py"):
        file.write_text("raise SystemExit('a stranger was here')")
    pipe = load_pipeline(tmp_path, "cpu", "float32")
    assert type(pipe) is DLoRALPipeline
    assert type(DLoRALPipeline.from_pretrained(tmp_path)) is DLoRALPipeline


def test_headers_say_what_they_are(make_pipeline: Make, tmp_path: Path) -> None:
    make_pipeline().save_pretrained(tmp_path)
    told = {}
    for path in tmp_path.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            told[path.name if path.parent.name == "unet" else path.parent.name] = file.metadata()
            assert file.keys()
    assert told["detail.safetensors"] == {
        "format": "pt",
        "lora_alpha": "8",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "dloral-compact/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "DLoRAL (compact), detail LoRA",
        "modelspec.description": "One-step diffusion video super-resolution, arXiv 2506.15591",
        "modelspec.license": "apache-2.0",
    }
    assert told["flow"]["modelspec.architecture"] == "dloral-compact/flow"
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "DLoRALPipeline"]
    assert index["unet"] == ["dloral_parts", "TwoLoRAUNet"]


def test_a_lora_of_another_rank(make_pipeline: Make, tmp_path: Path) -> None:
    pipe = make_pipeline()
    pipe.save_pretrained(tmp_path)
    frames = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = pipe(frames).frames
    lora = load_adapter(tmp_path / "unet" / "detail.safetensors")
    doubled = {  # of rank 6, scaled by 8 / 6 where rank 3 is by 8 / 3: the same sum
        name: torch.cat([tensor, tensor], dim=0 if ".lora_A." in name else 1)
        for name, tensor in lora.items()
    }
    pipe.load_lora_weights(doubled, adapter_name="detail")
    torch.testing.assert_close(pipe(frames).frames, before, rtol=0, atol=1e-5)
    off = pipe(frames, detail=0.0).frames
    pipe.load_lora_weights({name: 0 * tensor for name, tensor in lora.items()}, "detail")
    torch.testing.assert_close(pipe(frames).frames, off, rtol=0, atol=1e-6)
    assert (off - before).abs().max() > 1e-3
    with pytest.raises(ValueError, match="do not fit this UNet"):
        pipe.load_lora_weights({"x.lora_A.weight": torch.zeros(1, 1)}, "detail")
    with pytest.raises(ValueError, match="has shape"):
        pipe.load_lora_weights({name: tensor[:1] for name, tensor in lora.items()}, "detail")
    with pytest.raises(OptionError, match="'style'; choose from consistency, detail"):
        pipe.load_lora_weights(lora, "style")
    torch.testing.assert_close(pipe(frames).frames, off, rtol=0, atol=1e-6)


def test_adapters_are_set_by_name(make_pipeline: Make) -> None:
    pipe = make_pipeline()
    pipe.set_adapters([*ADAPTERS], [0.3, 1.5])
    frames = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    asked = pipe(frames, consistency=0.3, detail=1.5).frames
    torch.testing.assert_close(pipe(frames).frames, asked)
    for wrong, line in [("style", "'style'"), (["detail", "consistency"], "holds 1")]:
        with pytest.raises(OptionError, match=line):
            pipe.set_adapters(wrong, [1.0])
    with pytest.raises(OptionError, match="from 0 to 2"):
        pipe.set_adapters("detail", 2.5)
