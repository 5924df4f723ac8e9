"""Runtimes that compile the networks: held to torch's pictures, left for torch when they fail."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import save_tiny_model
from torch import Tensor

from dloral.cli import main
from dloral.errors import OptionError
from dloral.models.adapters import add_adapters
from dloral.models.lora_conv import two_lora_convs
from dloral.options import AUTO, TORCH
from dloral.packages import missing_modules
from dloral.pipeline import DLoRALPipeline
from dloral.runtimes import choice
from dloral.runtimes.backends import BACKENDS, Backend, Run
from dloral.runtimes.bicubic import BicubicGenerator
from dloral.runtimes.choice import agreement, in_runtime
from dloral.runtimes.compiled import KEPT_SCALES, CompiledGenerator
from dloral.runtimes.graphs import DECODE, ENCODE, PREDICT, STEPS, graphs_of, write_onnx
from dloral.training.fresh import build_pipeline
from dloral.training.start import TINY_SIZES


def needs(runtime: str) -> pytest.MarkDecorator:
    missing = missing_modules(BACKENDS[runtime].extra)
    return pytest.mark.skipif(bool(missing), reason=f"without {', '.join(missing)}")


EACH = [pytest.param(name, marks=needs(name)) for name in BACKENDS]
ONE = [pytest.param("onnx", marks=needs("onnx"))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces are kept from test to test, as they are from start to start."""
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "dloral")
    return lambda: [record.getMessage() for record in caplog.records]


def clip_of(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("runtime", EACH)
def test_the_picture_is_torchs(
    pipe: DLoRALPipeline, make_pipeline: Callable[[], DLoRALPipeline], runtime: str, cache: Path
) -> None:
    """Of any size and number of frames, with windows and tiles, at any scales of the LoRAs."""
    fast = CompiledGenerator(pipe, graphs_of(pipe, cache), runtime)
    plain = make_pipeline()
    for size, options in (
        ((24, 32), {"consistency": 1.0, "detail": 0.0}),
        ((41, 50), {"consistency": 0.3, "detail": 1.4, "batch_size": 2, "window": 3}),
        ((64, 40), {"tile": 4, "tile_overlap": 2}),
    ):
        clip = clip_of(3, *size)
        expected = plain(clip, **options).frames
        torch.testing.assert_close(fast(clip, **options).frames, expected, atol=1e-4, rtol=1e-4)
    prepared = fast.prepare(clip)
    pictures = [fast.finish(prepared, detail=detail) for detail in (0.0, 1.0, 2.0)]
    for detail, picture in zip((0.0, 1.0, 2.0), pictures, strict=True):
        expected = plain.finish(plain.prepare(clip), detail=detail)
        torch.testing.assert_close(picture, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(pictures[0], pictures[2], atol=1e-2)
    assert len(fast._at["predict"]) == KEPT_SCALES


@pytest.mark.parametrize("runtime", EACH)
def test_a_decoder_with_loras_follows_their_scales(runtime: str, cache: Path) -> None:
    sizes = replace(TINY_SIZES, decoder_sees_input=True, direct_head=True, rectified=True)
    pipe = build_pipeline(sizes)
    add_adapters(pipe.unet, 2)
    pipe.vae.add_adapters(2, 3)
    for conv in two_lora_convs(pipe.vae):
        for up in conv.lora_up.values():
            torch.nn.init.normal_(up.weight, std=0.3)
    fast, clip = CompiledGenerator(pipe, graphs_of(pipe, cache), runtime), clip_of(1, 24, 32)
    pictures = []
    for scales in ({}, {"detail": 0.0}, {"consistency": 0.3, "detail": 1.4}, {}):
        pictures.append(fast(clip, **scales).frames)
        expected = pipe(clip, **scales).frames
        torch.testing.assert_close(pictures[-1], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(pictures[0], pictures[1], atol=1e-2)
    assert torch.equal(pictures[0], pictures[3])


@pytest.mark.parametrize("runtime", EACH)
def test_in_bfloat16_the_picture_holds(pipe: DLoRALPipeline, runtime: str, cache: Path) -> None:
    pipe.to(torch.bfloat16)
    weights = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    fast = in_runtime(pipe, runtime, cache)
    assert isinstance(fast, CompiledGenerator)
    assert fast.compute_dtype == torch.bfloat16
    assert agreement(pipe, fast) > 40
    pipe.unet.unmerge()  # what was traced in float32 is as it was
    for name, weight in pipe.unet.state_dict().items():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize("runtime", ONE)
def test_auto_measures_once(
    pipe: DLoRALPipeline, runtime: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def seconds(opened: dict[str, object]) -> dict[str, float]:
        measured.append(list(opened))
        return {name: 1.0 if name == TORCH else 0.5 for name in opened}

    monkeypatch.setattr(choice, "BACKENDS", {runtime: BACKENDS[runtime]})
    monkeypatch.setattr(choice, "_seconds", seconds)
    for _ in range(2):
        opened = in_runtime(pipe, AUTO, tmp_path)
        assert isinstance(opened, CompiledGenerator)
        assert opened.runtime == runtime
    assert measured == [[TORCH, runtime]]
    (tmp_path / choice.CHOICES).write_text("{")  # damaged: measured again
    monkeypatch.setattr(choice, "MARGIN", 0.4)  # too little of a gain
    for _ in range(2):
        assert in_runtime(pipe, AUTO, tmp_path) is pipe
    assert len(measured) == 2


def test_auto_without_runtimes_is_torch(
    pipe: DLoRALPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    monkeypatch.setattr(choice, "missing_modules", lambda extra: ["onnx"])
    assert in_runtime(pipe, AUTO, tmp_path) is pipe
    assert not lines()
    assert not list(tmp_path.iterdir())


def refuses(model: bytes, precision: torch.dtype, threads: int) -> Run:
    raise RuntimeError("no AVX2\nstack of calls")


def draws_nothing(model: bytes, precision: torch.dtype, threads: int) -> Run:
    return lambda *inputs: np.zeros_like(inputs[-1])


@pytest.mark.parametrize(
    ("compile_", "said"),
    [
        (refuses, "runtime openvino does not start here: no AVX2; using torch"),
        (draws_nothing, "runtime openvino "),
    ],
)
@pytest.mark.skipif(bool(missing_modules("onnx")), reason="without onnx")
def test_a_runtime_that_fails_is_one_line(
    pipe: DLoRALPipeline,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
    compile_: Callable[[bytes, torch.dtype, int], Run],
    said: str,
) -> None:
    monkeypatch.setattr(choice, "missing_modules", lambda extra: [])
    monkeypatch.setitem(BACKENDS, "openvino", Backend("openvino", compile_))
    assert in_runtime(pipe, "openvino", cache) is pipe
    (line,) = lines()
    assert line.startswith(said)
    assert line.endswith("; using torch")
    assert "\n" not in line


def test_another_picture_is_one_line(
    pipe: DLoRALPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    class Darker(BicubicGenerator):
        def __init__(self, base: DLoRALPipeline, *rest: object) -> None:
            super().__init__()

    monkeypatch.setattr(choice, "missing_modules", lambda extra: [])
    monkeypatch.setattr(choice, "graphs_of", lambda base, cache: {})
    monkeypatch.setattr(choice, "CompiledGenerator", Darker)
    assert in_runtime(pipe, "onnx", tmp_path) is pipe
    (line,) = lines()
    assert line.startswith("runtime onnx gives different pictures from torch (")


def test_a_runtime_that_is_not_installed_is_one_line(
    pipe: DLoRALPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[str]],
) -> None:
    monkeypatch.setattr(choice, "missing_modules", lambda extra: ["openvino"])
    assert in_runtime(pipe, "openvino", tmp_path) is pipe
    (line,) = lines()
    assert line.startswith("runtime openvino needs openvino; python -m pip install")


def test_a_model_without_networks_stays_as_it_is(
    tmp_path: Path, lines: Callable[[], list[str]]
) -> None:
    bicubic = BicubicGenerator()
    assert in_runtime(bicubic, "onnx", tmp_path) is bicubic
    assert lines() == ["runtime onnx: this model has no networks in torch; using torch"]
    with pytest.raises(OptionError, match="has no networks"):
        write_onnx(bicubic, tmp_path)


def test_a_name_that_is_none_is_refused(pipe: DLoRALPipeline, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="runtime is 'tensorrt'; choose from torch, auto"):
        in_runtime(pipe, "tensorrt", tmp_path)


def test_export_without_onnx_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    folder = save_tiny_model(tmp_path / "model")
    assert main(["export", "--model", str(folder), "-o", str(tmp_path / "onnx")]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("dloral: a graph in ONNX needs the package onnx; ")
    assert printed.count("\n") == 1
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("runtime", ONE)
def test_exported_files_are_the_steps(
    tmp_path: Path, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, target = save_tiny_model(tmp_path / "model"), tmp_path / "onnx"
    command = ["export", "--model", str(folder), "-o", str(target), "--detail", "0.5"]
    assert main(command) == 0
    assert capsys.readouterr().out.count("wrote ") == len(STEPS)
    pipe = DLoRALPipeline.from_pretrained(folder)
    pipe.set_scales(1, 0.5)
    frames = clip_of(1, 8 * 3, 8 * 4)
    with torch.no_grad():
        latents = pipe.encode(frames)
        expected = {
            ENCODE: latents,
            PREDICT: pipe.predict(latents, latents, None),
            DECODE: pipe.decode(latents, frames),
        }
    tensors = {"lq_frames": frames}
    for step, output in expected.items():
        run = BACKENDS[runtime].compile((target / f"{step}.onnx").read_bytes(), torch.float32, 1)
        inputs = (tensors.get(name, latents) for name in STEPS[step].inputs)
        result = torch.from_numpy(run(*(tensor.numpy() for tensor in inputs)))
        torch.testing.assert_close(result, output, atol=1e-4, rtol=1e-4)
