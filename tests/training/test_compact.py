"""Putting a trained compact model where it is used from."""

import json
from pathlib import Path

import pytest
import torch

from dloral.models.adapters import add_adapters, lora_layers
from dloral.training import compact
from dloral.training.compact import CompactSizes, build_pipeline
from dloral.weights.loading import load_pipeline


@pytest.mark.parametrize("inside", ["pipeline", "."])
def test_embedding_scales_the_loras_and_halves_the_precision(
    inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = build_pipeline(CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4))
    add_adapters(pipe.unet, 2)
    for layer in lora_layers(pipe.unet):
        for part in layer.lora_B.values():
            torch.nn.init.ones_(part.weight)
    pipe.save_pretrained(tmp_path / "run" / inside)
    target = tmp_path / "used"
    call = ["compact", "embed", "--run", str(tmp_path / "run"), "--to", str(target)]
    monkeypatch.setattr("sys.argv", [*call, "--factors", "0.5", "2"])
    compact.main()
    used = load_pipeline(target, device="cpu", dtype="float16")
    for layer in lora_layers(used.unet):
        assert layer.lora_B["consistency"].weight.dtype == torch.float16
        assert (layer.lora_B["consistency"].weight == 0.5).all()
        assert (layer.lora_B["detail"].weight == 2).all()
    assert "_name_or_path" not in json.loads((target / "unet" / "config.json").read_text())
