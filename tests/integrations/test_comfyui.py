"""The node pack in a small stand-in of ComfyUI's loader and of its executor."""

import importlib.util
import json
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dloral.errors import DLoRALError
from dloral.frames.resize import resize_bicubic
from dloral.pipeline import DLoRALPipeline

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"
Make = Callable[[], DLoRALPipeline]


@pytest.fixture
def nodes() -> Iterator[dict[str, Any]]:
    """The pack's classes, loaded from its folder under a name of the loader's."""
    name = "custom_nodes.dloral"
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS.keys() == module.NODE_DISPLAY_NAME_MAPPINGS.keys()
    yield module.NODE_CLASS_MAPPINGS
    for loaded in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[loaded]


@pytest.fixture
def model(make_pipeline: Make) -> DLoRALPipeline:
    return make_pipeline()


def clip(frames: int, height: int = 8, width: int = 8, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(frames, height, width, channels, generator=generator)


def defaults(node: Any) -> dict[str, Any]:
    """What a node's widgets say at first."""
    values = {}
    for inputs in node.INPUT_TYPES().values():
        for name, (kind, *rest) in inputs.items():
            options = rest[0] if rest else {}
            if isinstance(kind, list):
                values[name] = options.get("default", kind[0])
            elif "default" in options:
                values[name] = options["default"]
    return values


def run_node(kind: type, **given: Any) -> tuple[Any, ...]:
    values = {**defaults(kind), **given}
    known = {name for inputs in kind.INPUT_TYPES().values() for name in inputs}  # type: ignore[attr-defined]
    assert values.keys() <= known
    result: tuple[Any, ...] = getattr(kind(), kind.FUNCTION)(**values)  # type: ignore[attr-defined]
    assert len(result) == len(kind.RETURN_TYPES)  # type: ignore[attr-defined]
    return result


def run_workflow(path: Path, nodes: dict[str, Any], built_in: dict[str, Callable[..., Any]]) -> Any:
    """Every node of an editor's file in its order; what the last one was given."""
    workflow = json.loads(path.read_text())
    made: dict[tuple[int, int], Any] = {}
    for node in sorted(workflow["nodes"], key=lambda node: node["order"]):
        links = {link: (source, slot) for link, source, slot, *_ in workflow["links"]}
        given = {entry["name"]: made[links[entry["link"]]] for entry in node["inputs"]}
        kind = nodes.get(node["type"])
        if kind is None:
            results = built_in[node["type"]](**given)
        else:
            fields = [field for group in kind.INPUT_TYPES().values() for field in group.items()]
            widgets = [name for name, (what, *_) in fields if what not in ("IMAGE", "DLORAL_MODEL")]
            values = node["widgets_values"]
            results = run_node(kind, **given, **dict(zip(widgets, values, strict=True)))
        for slot, result in enumerate(results):
            made[node["id"], slot] = result
    return given


def test_the_example_workflow_equals_the_python_call(
    nodes: dict[str, Any], model: DLoRALPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = clip(16)
    monkeypatch.setattr("dloral.load_pipeline", lambda *names: model, raising=False)
    built_in: dict[str, Callable[..., Any]] = {
        "LoadVideo": lambda: (images,),
        "GetVideoComponents": lambda video: (video, "sound", 30.0),
        "CreateVideo": lambda images, audio, fps: ((images, audio, fps),),
        "SaveVideo": lambda video: (),
    }
    workflow = PACK / "example_workflows" / "restore_a_clip.json"
    restored, sound, fps = run_workflow(workflow, nodes, built_in)["video"]
    expected = model(resize_bicubic(images.permute(0, 3, 1, 2), 32, 32)).frames
    assert (sound, fps) == ("sound", 30.0)
    assert torch.equal(restored, expected.permute(0, 2, 3, 1))


def test_a_model_is_loaded_by_name(nodes: dict[str, Any]) -> None:
    (loaded,) = run_node(nodes["DLoRALLoadModel"], model="bicubic")
    (restored,) = run_node(nodes["DLoRALUpscale"], model=loaded, images=clip(2), scale=2.0)
    assert restored.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    ("asked", "shape"),
    [
        ({"scale": 1.5}, (2, 14, 10, 3)),
        ({"target_width": 21}, (2, 28, 21, 3)),
        ({"target_height": 20, "strength": 0.0}, (2, 20, 16, 3)),
    ],
)
def test_sizes(
    nodes: dict[str, Any], model: DLoRALPipeline, asked: dict[str, Any], shape: tuple[int, ...]
) -> None:
    images = clip(2, 9, 7)
    (restored,) = run_node(nodes["DLoRALUpscale"], model=model, images=images, **asked)
    assert restored.shape == shape
    if "strength" in asked:
        bicubic = resize_bicubic(images.permute(0, 3, 1, 2), *shape[1:3]).permute(0, 2, 3, 1)
        assert torch.allclose(restored, bicubic)


def test_what_is_not_a_clip_of_colours_is_said_in_one_line(
    nodes: dict[str, Any], model: DLoRALPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    upscale = nodes["DLoRALUpscale"]
    (one,) = run_node(upscale, model=model, images=clip(1))
    assert one.shape == (1, 32, 32, 3)
    (alpha,) = run_node(upscale, model=model, images=clip(2, channels=4))
    assert alpha.shape == (2, 32, 32, 4)
    assert [record.message for record in caplog.records] == [
        "DLoRAL: one picture is no clip: there are no earlier frames to be consistent with",
        "DLoRAL: alpha is enlarged by bicubic beside the restored colour",
    ]
    (grey,) = run_node(upscale, model=model, images=clip(2, channels=1))
    assert grey.shape == (2, 32, 32, 3)
    wrong = [clip(1, channels=2), clip(1, channels=5), clip(1)[0], clip(0), clip(1).bool()]
    for images in wrong:
        with pytest.raises(DLoRALError, match="images ") as caught:
            run_node(upscale, model=model, images=images)
        assert "\n" not in str(caught.value)
    with pytest.raises(DLoRALError, match="give a size from 8x8 to 32x32"):
        run_node(upscale, model=model, images=clip(1), target_width=4000)


def test_scales_are_previewed(nodes: dict[str, Any], model: DLoRALPipeline) -> None:
    images = clip(3)
    preview = nodes["DLoRALPreviewScales"]
    pictures, lines = run_node(preview, model=model, images=images, frame=2, detail="0, 1.5")
    assert lines == "consistency 1, detail 0\nconsistency 1, detail 1.5"
    frames = resize_bicubic(images.permute(0, 3, 1, 2), 32, 32)
    expected = model(frames, detail=1.5).frames[2].permute(1, 2, 0)
    torch.testing.assert_close(pictures[1], expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="the batch has frames 0 to 2"):
        run_node(preview, model=model, images=images, frame=3)
    with pytest.raises(ValueError, match="not a list of numbers"):
        run_node(preview, model=model, images=images, detail="much")


def test_progress_and_the_button_to_stop(
    nodes: dict[str, Any], model: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    class Bar:
        def __init__(self, total: int) -> None:
            told.append(total)

        def update(self, count: int) -> None:
            told.append(count)

    def stopped() -> None:
        if len(told) == 3:
            raise InterruptedError

    management, utils = types.ModuleType("comfy.model_management"), types.ModuleType("comfy.utils")
    vars(management)["throw_exception_if_processing_interrupted"] = stopped
    vars(utils)["ProgressBar"] = Bar
    for module in (types.ModuleType("comfy"), management, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(InterruptedError):
        run_node(nodes["DLoRALUpscale"], model=model, images=clip(5))
    assert told == [5, 1, 1]


def test_loading_the_pack_loads_nothing_else() -> None:
    code = (
        "import importlib.util as u, sys;"
        f"s = u.spec_from_file_location('dloral_nodes', {str(PACK / '__init__.py')!r});"
        "m = u.module_from_spec(s); sys.modules['dloral_nodes'] = m; s.loader.exec_module(m);"
        "print(sorted({'torch', 'dloral', 'numpy'} & set(sys.modules)), len(m.NODE_CLASS_MAPPINGS))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[] 3\n"


def test_the_pack_is_described() -> None:
    told = tomllib.loads((PACK / "pyproject.toml").read_text())
    assert told["tool"]["comfy"].keys() >= {"PublisherId", "DisplayName"}
    assert "torch" not in " ".join(told["project"]["dependencies"])
