"""Real-ESRGAN's small networks from files: the published architecture, and files that are not."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dloral.errors import WeightsError
from dloral.models.srvgg import SRVGG
from dloral.weights.srvgg import load_srvgg


@pytest.fixture
def network() -> SRVGG:
    torch.manual_seed(0)
    return SRVGG(width=6, depth=2, scale=2)


def test_the_published_arithmetic(network: SRVGG) -> None:
    frames = torch.rand(2, 3, 5, 7)
    tensors = network.state_dict()
    hidden = frames
    for layer in range(0, 8, 2):
        weight, bias = tensors[f"body.{layer}.weight"], tensors[f"body.{layer}.bias"]
        hidden = F.conv2d(hidden, weight, bias, padding=1)
        if layer < 6:
            hidden = F.prelu(hidden, tensors[f"body.{layer + 1}.weight"])
    shuffled = hidden.unflatten(1, (3, 2, 2)).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 10, 14)
    nearest = frames.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.allclose(network(frames), shuffled + nearest, atol=1e-6)


def test_the_released_size() -> None:
    assert sum(p.numel() for p in SRVGG().parameters()) == 1_213_296


@pytest.mark.parametrize("kind", ["safetensors", "params", "params_ema", "plain"])
def test_every_form_of_the_file(kind: str, network: SRVGG, tmp_path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in network.state_dict().items()}
    path = tmp_path / ("n.safetensors" if kind == "safetensors" else "n.pth")
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors if kind == "plain" else {kind: tensors}, path)
    loaded = load_srvgg(path)
    assert loaded.scale == 2
    frames = torch.rand(1, 3, 4, 4)
    assert torch.allclose(loaded(frames), network.half().float()(frames))
    assert not any(p.requires_grad for p in loaded.parameters())


class Hostile:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("name", "stored", "said"),
    [
        ("absent.pth", None, "does not exist"),
        ("absent.safetensors", None, "does not exist"),
        ("text.safetensors", b"hello", "is corrupt"),
        ("hostile.pth", Hostile(), "was refused"),
        ("list.pth", [1, 2], "does not contain named tensors"),
        ("text.pth", {"params": {"body.0.weight": "w"}}, "not finite tensors"),
        ("infinite.pth", {"body.0.weight": torch.full((2, 3, 3, 3), torch.inf)}, "finite"),
        ("other.pth", {"conv.weight": torch.zeros(2, 3, 3, 3)}, "not an SRVGGNetCompact"),
        (
            "half.pth",
            {"body.0.weight": torch.zeros(2, 3, 3, 3), "body.2.weight": torch.zeros(12, 2, 3, 3)},
            "not an SRVGGNetCompact",
        ),
    ],
)
def test_other_files_are_one_line(name: str, stored: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(stored, bytes):
        path.write_bytes(stored)
    elif stored is not None:
        torch.save(stored, path)
    with pytest.raises(WeightsError) as caught:
        load_srvgg(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
