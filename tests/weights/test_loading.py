"""From a model's name to a pipeline, and what is said where there is none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dloral.errors import OptionError, WeightsError
from dloral.pipeline import DLoRALPipeline
from dloral.weights import loading
from dloral.weights.checkpoint_io import first_line
from dloral.weights.loading import choose_device, choose_dtype, load_pipeline


def refusal(model: str | Path, dtype: str = "float32") -> str:
    with pytest.raises(WeightsError) as caught:
        load_pipeline(model, device="cpu", dtype=dtype)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line.replace(str(model), "")) < 500
    return line


@pytest.fixture
def folder(make_pipeline: Callable[[], DLoRALPipeline], tmp_path: Path) -> Path:
    """The small pipeline, saved."""
    make_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize(
    "content",
    [b"", (2**62).to_bytes(8, "little") + b"{}", bytes(200), b"\x02" + bytes(7) + b"[]"],
    ids=["empty", "huge header", "zeros", "no table"],
)
def test_damaged_safetensors(folder: Path, content: bytes, dtype: str) -> None:
    """In every precision: for auto, headers are read before anything is loaded."""
    next((folder / "vae").glob("*.safetensors")).write_bytes(content)
    assert "cannot be loaded" in refusal(folder, dtype)


@pytest.mark.parametrize("kind", [["hostile", "Part"], ["subprocess", "Popen"], ["../vae", "VAE"]])
def test_index_that_names_other_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: list[str]
) -> None:
    """Refused before a module of that name, which lies there, is run."""
    (folder / "hostile.py").write_text("open('proof', 'w')\nclass Part: pass\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": kind}))
    assert "cannot be loaded" in refusal(folder)
    assert not (folder / "proof").exists()


@pytest.mark.parametrize("model", ["nonsense", "no/such/folder", "./nothing", "x" * 5000, "a b/c"])
def test_unknown_model(model: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_pipeline(model, device="cpu")
    assert "is unknown" in str(caught.value)
    assert "compact" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["owner/name.git", "a--b/c", "a/..", "o/" + "n" * 200])
def test_neither_a_directory_nor_a_hub_id(model: str) -> None:
    assert "nor a Hub id" in refusal(model)


def test_folder_without_index(tmp_path: Path) -> None:
    assert f"{tmp_path} has no model_index.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ('{"_class_name": "StableDiffusionPipeline"}', "StableDiffusionPipeline"),
        ("{}", "None"),
        ("[1]", "cannot be read as JSON"),
        ("{ not json", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"_class_name": "DLoRALPipeline", "vae": []}', "cannot be loaded"),
    ],
)
def test_folder_of_something_else(tmp_path: Path, index: str | bytes, said: str) -> None:
    (tmp_path / "model_index.json").write_bytes(
        index if isinstance(index, bytes) else index.encode()
    )
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("part", ["vae", "unet", "flow", "retrieval"])
@pytest.mark.parametrize("damage", ["absent", "config", "cut", "noise", "missing tensor", "shape"])
def test_damaged_part(folder: Path, part: str, damage: str) -> None:
    weights = folder / part / "diffusion_pytorch_model.safetensors"
    if damage == "absent":
        shutil.rmtree(folder / part)
    elif damage == "config":
        (folder / part / "config.json").write_text("{ not json")
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "noise":
        weights.write_bytes(b"\xff" * 2000)
    else:
        tensors = load_file(weights)
        name = min(tensors)
        if damage == "shape":
            tensors[name] = torch.zeros(3, 1, 4, 1, 5)
        else:
            del tensors[name]
        save_file(tensors, weights, metadata={"format": "pt"})
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("damage", ["absent", "cut", "empty", "missing tensor", "shape"])
def test_damaged_lora(folder: Path, damage: str) -> None:
    path = folder / "unet" / "detail.safetensors"
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        tensors = load_file(path) if damage != "empty" else {}
        if damage == "missing tensor":
            tensors.pop("conv_in.lora_B.weight")
        elif damage == "shape":
            tensors["conv_in.lora_B.weight"] = torch.zeros(2, 2)
        save_file(tensors, path)
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "scheduler"])
def test_part_of_the_full_model_is_absent(converted: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(converted, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    assert part in refusal(tmp_path / "model")


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    weights = folder / "flow" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert "safetensors" in refusal(folder)


def test_nothing_but_the_one_line_is_said(
    folder: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    refusal(folder)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_index_names_a_class_that_is_not_there(folder: Path) -> None:
    index = folder / "model_index.json"
    changed = json.loads(index.read_text())
    changed["vae"] = ["diffusers", "NoSuchClass"]
    index.write_text(json.dumps(changed))
    assert str(folder) in refusal(folder)


def test_round_trip(make_pipeline: Callable[[], DLoRALPipeline], folder: Path) -> None:
    clip = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    loaded = load_pipeline(folder, device="cpu", dtype="float32")
    torch.testing.assert_close(
        loaded(clip, detail=0.5).frames,
        make_pipeline()(clip, detail=0.5).frames,
        atol=1e-5,
        rtol=0,
    )
    expected = {part: m.state_dict() for part, m in parts(make_pipeline()).items()}
    loaded.unet.unmerge()
    for part, module in parts(loaded).items():
        assert module.state_dict().keys() == expected[part].keys()
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, expected[part][name]), f"{part}.{name}"


def parts(pipe: DLoRALPipeline) -> dict[str, torch.nn.Module]:
    return {name: m for name, m in pipe.components.items() if isinstance(m, torch.nn.Module)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_loaded_for_inference_in_the_wanted_precision(folder: Path, dtype: str) -> None:
    loaded = load_pipeline(folder, device="cpu", dtype=dtype)
    for module in parts(loaded).values():
        assert not module.training
        for parameter in module.parameters():
            # Where the CPU has no such instructions, what is small is float32 (see below).
            assert parameter.dtype == getattr(torch, dtype) or parameter.ndim < 2
            assert not parameter.requires_grad


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_a_cpu_without_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Weights are kept in it, every layer computes in float32: what float32 makes of those."""
    clip = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    kept = load_pipeline(folder, device="cpu", dtype=dtype)
    restored = kept(clip, detail=0.5).frames
    assert kept.unet.conv_in.base_layer.weight.dtype == getattr(torch, dtype)
    assert kept.unet.dtype == kept.vae.dtype == torch.float32
    wide = load_pipeline(folder, device="cpu", dtype="float32")
    for part in parts(wide).values():
        for parameter in part.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype)).float()
    wide.set_scales(1, 0.5)
    torch.testing.assert_close(restored, wide(clip, detail=0.5).frames, atol=1e-2, rtol=0)


def test_auto_keeps_half_where_float32_does_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(loading, "free_memory", lambda device: 1000)
    assert load_pipeline(folder, device="cpu").unet.conv_out.weight.dtype == torch.bfloat16
    monkeypatch.setattr(loading, "free_memory", lambda device: 10**12)
    assert load_pipeline(folder, device="cpu").unet.conv_out.weight.dtype == torch.float32


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "gpu", "", "cpu:"])
def test_wrong_device(device: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_device(device)
    assert repr(device) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device_that_is_not_there() -> None:
    with pytest.raises(OptionError, match="not on this machine"):
        choose_device("cuda")


def test_device_number_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(OptionError, match="not on this machine"):
        choose_device("cuda:7")


def test_wrong_dtype() -> None:
    with pytest.raises(OptionError, match=r"float64.*bfloat16"):
        choose_dtype("float64", torch.device("cpu"))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"bf16": False}, torch.float32),
    ],
)
def test_auto_dtype_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_dtype_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_dtype("auto", torch.device("cuda")) == expected
    assert choose_dtype("auto", torch.device("mps")) == torch.float16
    assert choose_dtype("float32", torch.device("cuda")) == torch.float32


def test_sd_vae_keeps_its_layout_on_a_cpu(converted: Path) -> None:
    """torch's channels-last group norm on a CPU is too coarse for it (see ``channels_last``)."""
    loaded = load_pipeline(converted, device="cpu", dtype="float32")
    assert loaded.vae.encoder.conv_in.weight.is_contiguous()
    assert not loaded.unet.conv_out.base_layer.weight.is_contiguous()


def test_first_line() -> None:
    assert first_line(ValueError("one.\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
