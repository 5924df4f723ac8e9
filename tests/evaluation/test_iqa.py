"""Measures of other packages, with random weights: the real packages, nothing fetched."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dloral.errors import WeightsError
from dloral.evaluation.catalogue import METRIC_SPECS
from dloral.evaluation.iqa import PyIQA, TorchMetric
from dloral.evaluation.measures import FrameSet
from dloral.evaluation.steadiness import RAFTFlow
from dloral.evaluation.torchvision_ops import import_torchvision


def frames(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def torchvision() -> None:
    pytest.importorskip("torchmetrics", reason="needs torchmetrics: see docs/evaluation.md")
    try:
        import_torchvision()
    except ImportError:
        pytest.skip("needs torchvision: see docs/evaluation.md")


def test_torchvision_is_imported_by_a_fresh_process(torchvision: None) -> None:
    code = (
        "from dloral.evaluation.torchvision_ops import import_torchvision as t; t(); t(); "
        "from torchvision.models import alexnet; print(sum(1 for _ in alexnet().parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["16"], done.stderr[-500:]


def test_lpips_is_torchmetrics_over_torchvision_s_trunk(
    torchvision: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random AlexNet in torch's cache; the formula with torchmetrics' own heads beside it."""
    from torchmetrics.functional.image import lpips
    from torchvision.models import alexnet

    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    spec = METRIC_SPECS["lpips"]
    with pytest.raises(WeightsError, match=r"alexnet-owt-7be5be79\.pth \(233 MB\)") as caught:
        TorchMetric(spec)
    assert "\n" not in str(caught.value)

    torch.manual_seed(0)
    trunk = alexnet()
    torch.save(trunk.state_dict(), tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    measure = TorchMetric(spec)
    restored, hq = frames(3, 64, 80), frames(3, 64, 80).flip(-1)
    found = [measure.update(FrameSet(restored, other))["lpips"] for other in (hq, restored, hq)]
    assert found[1] == 0
    assert found[0] == found[2] > 0

    heads = torch.load(
        Path(lpips.__file__).parent / "lpips_models" / "alex.pth", map_location="cpu"
    )
    mean, deviation = ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
    expected = 0.0
    pair = [
        (2 * f[None] - 1 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)
        for f in (restored, hq)
    ]
    level = 0
    with torch.no_grad():
        for layer in trunk.features:
            pair = [layer(part) for part in pair]
            if isinstance(layer, torch.nn.ReLU):
                ours, theirs = (p / p.square().sum(1, keepdim=True).sqrt() for p in pair)
                weight = heads[f"lin{level}.model.1.weight"]
                expected += ((ours - theirs).square() * weight).sum(1).mean().item()
                level += 1
    assert level == 5
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_raft_runs_on_weights_from_a_file(torchvision: None, tmp_path: Path) -> None:
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    torch.save(raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    estimate = RAFTFlow(tmp_path / "raft.pth")
    flow = estimate(frames(3, 132, 140), frames(3, 132, 140))
    assert flow.shape == (2, 132, 140)
    assert torch.isfinite(flow).all()


def test_musiq_runs_with_random_weights(torchvision: None) -> None:
    pytest.importorskip("pyiqa", reason="see docs/evaluation.md")
    torch.manual_seed(0)
    measure = PyIQA(METRIC_SPECS["musiq"], pretrained=False)
    values = [measure.update(FrameSet(frames(3, 96, 128) * part))["musiq"] for part in (1, 0.5)]
    assert np.isfinite(values).all()
    assert values[0] != values[1]
