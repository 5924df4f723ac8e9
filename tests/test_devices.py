"""Kinds of device: which are accepted, which auto takes, what is said of one that is not there.

Other accelerators than CUDA are absent from every machine this ran on: what torch says of them is
replaced, what is chosen of it is ours.
"""

import sys
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from dloral import devices
from dloral.devices import accelerators, choose_device, half_precision, wide_device
from dloral.errors import COMMAND_LINE, OptionError
from dloral.models.tiled_vae import _Statistics


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without an accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    devices._directml_module.cache_clear()
    yield
    devices._directml_module.cache_clear()


def have(monkeypatch: pytest.MonkeyPatch, kind: str, count: int = 1) -> None:
    if kind == "mps":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        return
    if kind == "directml":
        fake = SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: count,
            device=lambda index: torch.device("privateuseone", index),
        )
        monkeypatch.setitem(sys.modules, "torch_directml", fake)
        monkeypatch.setattr(devices, "find_spec", lambda name: object())
        return
    monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: True)
    monkeypatch.setattr(getattr(torch, kind), "device_count", lambda: count)


def test_auto_takes_the_cpu_where_nothing_else_is() -> None:
    assert choose_device("auto") == torch.device("cpu")
    assert accelerators() == []


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        (["mps"], "mps"),
        (["xpu"], "xpu"),
        (["directml"], "privateuseone:0"),
        (["xpu", "cuda"], "cuda"),
        (["directml", "xpu"], "xpu"),
    ],
)
def test_auto_takes_the_best(monkeypatch: pytest.MonkeyPatch, kinds: list[str], taken: str) -> None:
    for kind in kinds:
        have(monkeypatch, kind)
    assert choose_device("auto") == torch.device(taken)


def test_a_device_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "xpu", 2)
    assert choose_device("xpu:1") == torch.device("xpu:1")
    assert accelerators() == ["xpu:0", "xpu:1"]
    with pytest.raises(OptionError, match="which has 2 of that kind"):
        choose_device("xpu:2")


def test_rocm_is_cuda_to_a_torch_built_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "cuda", 2)
    with pytest.raises(OptionError, match="not built for ROCm"):
        choose_device("rocm")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert choose_device("rocm:1") == torch.device("cuda:1")
    assert accelerators() == ["cuda:0", "cuda:1"]  # each once


@pytest.mark.parametrize("kind", ["cuda", "rocm", "xpu", "mps", "directml"])
def test_an_absent_device_is_one_line(kind: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_device(kind)
    line = caught.value.render(COMMAND_LINE)
    assert line.startswith(f"--device '{kind}' is not on this machine (")
    assert line.endswith("; use --device cpu or --device auto")
    assert "\n" not in line


@pytest.mark.parametrize("name", ["vulkan", "cuda:x", "mps:-1", "xpu:", "cuda:1:2", "CUDA"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(OptionError, match=r"choose from auto, cpu, cuda, rocm|no number after"):
        choose_device(name)


def test_precision_follows_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated bfloat16 is slower than float16."""
    for native, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        supported = partial(
            lambda native, including_emulation=True: native or including_emulation, native
        )
        monkeypatch.setattr(torch.xpu, "is_bf16_supported", supported)
        assert half_precision(torch.device("xpu")) == dtype
    assert half_precision(torch.device("mps")) == torch.float16
    assert half_precision(torch.device("privateuseone:0")) == torch.float32


def test_statistics_of_tiles_without_float64_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group statistics are kept on the CPU for devices that have no float64."""
    assert wide_device(torch.device("mps")) == torch.device("cpu")
    assert wide_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    norm = torch.nn.GroupNorm(2, 4)
    torch.nn.init.normal_(norm.weight)
    features = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    statistics = _Statistics()
    for half in (features[..., :3], features[..., 3:]):
        statistics.normalise(norm, half)
    statistics.settle()
    torch.testing.assert_close(statistics.normalise(norm, features), norm(features))
