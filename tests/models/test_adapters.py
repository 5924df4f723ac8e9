"""C-LoRA and D-LoRA on the UNet: live, merged, saved."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from dloral.models.adapters import (
    ADAPTERS,
    LORA_ALPHA,
    adapter_parameters,
    add_adapters,
    load_adapter,
    lora_layers,
    save_adapter,
    target_modules,
)
from dloral.models.unet import TwoLoRAUNet, plain_state_dict, replace_adapter, widen_conv_in
from dloral.pipeline import DLoRALPipeline

RANKS = {"consistency": 2, "detail": 3}
SCALES = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 1.7), (0.0, 0.0)]


@pytest.fixture
def unet(make_pipeline: Callable[[], DLoRALPipeline]) -> TwoLoRAUNet:
    return make_pipeline().unet


@pytest.fixture
def sample() -> Tensor:
    """[aligned, retrieved] latents (2,8,6,10)."""
    return torch.randn(2, 8, 6, 10, generator=torch.Generator().manual_seed(3))


def run(unet: TwoLoRAUNet, sample: Tensor) -> Tensor:
    with torch.no_grad():
        return unet.predict(sample[:, :4], sample[:, 4:], None)


def base_weights(unet: TwoLoRAUNet) -> list[Tensor]:
    return [layer.get_base_layer().weight.detach().clone() for layer in lora_layers(unet)]


@pytest.mark.parametrize(("consistency", "detail"), SCALES)
def test_merged_equals_live(
    unet: TwoLoRAUNet, sample: Tensor, consistency: float, detail: float
) -> None:
    unet.set_scales(consistency=consistency, detail=detail, merge=False)
    live = run(unet, sample)
    unet.set_scales(consistency=consistency, detail=detail)
    torch.testing.assert_close(run(unet, sample), live, atol=1e-4, rtol=1e-4)


def test_a_large_unet_keeps_no_copies_on_a_cpu(
    unet: TwoLoRAUNet, sample: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its LoRAs run live, with the same result, and no memory is planned for copies."""
    unet.set_scales(consistency=0.3, detail=1.7)
    merged = run(unet, sample)
    unet.unmerge()
    pristine = base_weights(unet)
    copied = unet.bytes_to_merge()
    assert copied == sum(weight.nbytes for weight in pristine)
    monkeypatch.setattr("dloral.models.unet.MOST_TO_COPY", copied)
    assert not unet.too_large_to_merge
    monkeypatch.setattr("dloral.models.unet.MOST_TO_COPY", copied - 1)
    assert unet.too_large_to_merge
    assert unet.bytes_to_merge() == 0
    unet.set_scales(consistency=0.3, detail=1.7)
    assert all(map(torch.equal, base_weights(unet), pristine))
    torch.testing.assert_close(run(unet, sample), merged, atol=1e-4, rtol=1e-4)


def test_effective_weight_is_the_written_sum(unet: TwoLoRAUNet) -> None:
    """W + c * 8/rank * B A, computed here by hand for two 3 x 3 layers."""
    pristine = {name: tensor.clone() for name, tensor in plain_state_dict(unet).items()}
    unet.set_scales(consistency=0.5, detail=2.0)
    for name in ("conv_in", "mid_block.resnets.0.conv1"):
        layer = unet.get_submodule(name)
        expected = pristine[f"{name}.weight"].clone()
        for adapter, scale in (("consistency", 0.5), ("detail", 2.0)):
            a = layer.lora_A[adapter].weight.flatten(1)
            b = layer.lora_B[adapter].weight.flatten(1)
            delta = (b @ a).view_as(expected) * LORA_ALPHA / RANKS[adapter]
            assert delta.abs().max() > 0
            expected += scale * delta.detach()
        torch.testing.assert_close(layer.get_base_layer().weight, expected)


def test_many_changes_drift_by_nothing(
    unet: TwoLoRAUNet, make_pipeline: Callable[[], DLoRALPipeline]
) -> None:
    generator = torch.Generator().manual_seed(0)
    pristine = base_weights(unet)
    for consistency, detail in torch.rand(200, 2, generator=generator).tolist():
        unet.set_scales(consistency=2 * consistency, detail=2 * detail)
    unet.set_scales(consistency=0.7, detail=0.4)
    fresh = make_pipeline().unet
    fresh.set_scales(consistency=0.7, detail=0.4)
    for ours, theirs in zip(base_weights(unet), base_weights(fresh), strict=True):
        assert torch.equal(ours, theirs)
    unet.unmerge()
    for ours, before in zip(base_weights(unet), pristine, strict=True):
        assert torch.equal(ours, before)


@pytest.mark.parametrize("merge", [True, False])
def test_scales_of_zero_are_the_plain_unet(unet: TwoLoRAUNet, sample: Tensor, merge: bool) -> None:
    plain = TwoLoRAUNet.from_config(unet.config).eval()
    plain.load_state_dict(plain_state_dict(unet))
    plain.to(memory_format=torch.channels_last)
    unet.set_scales(consistency=1.0, detail=1.0)
    assert not torch.equal(run(unet, sample), run(plain, sample))
    unet.set_scales(consistency=0.0, detail=0.0, merge=merge)
    torch.testing.assert_close(run(unet, sample), run(plain, sample), atol=0, rtol=0)


def test_fresh_adapters_change_nothing(unet: TwoLoRAUNet, sample: Tensor) -> None:
    plain = TwoLoRAUNet.from_config(unet.config).eval()
    before = run(plain, sample)
    add_adapters(plain, 4)
    assert torch.equal(run(plain, sample), before)
    a_matrices = [p for n, p in plain.named_parameters() if ".lora_A." in n]
    assert all(matrix.any() for matrix in a_matrices)


def test_gradients_reach_both_loras_and_not_each_other(unet: TwoLoRAUNet, sample: Tensor) -> None:
    unet.set_scales(consistency=1.0, detail=0.0, merge=False)
    unet.predict(sample[:, :4], sample[:, 4:], None).square().sum().backward()
    for adapter, reached in (("consistency", True), ("detail", False)):
        gradients = [p.grad for p in adapter_parameters(unet, adapter).values()]
        assert any(g is not None and bool(g.any()) for g in gradients) == reached


def test_targets_are_the_released_checkpoints(reference: Path) -> None:
    checkpoint = torch.load(reference / "model.pkl", weights_only=True)
    config = TwoLoRAUNet.load_config(reference / "sd_base" / "unet")
    targets = target_modules(TwoLoRAUNet.from_config(config))
    for adapter in ("quality", "consistency"):
        released = [
            name
            for part in ("encoder", "decoder", "others")
            for name in checkpoint[f"unet_lora_{part}_modules_{adapter}"]
        ]
        assert sorted(name.removesuffix(".weight") for name in released) == sorted(targets)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_saved_adapter_reloads_equal(unet: TwoLoRAUNet, tmp_path: Path, adapter: str) -> None:
    save_adapter(unet, adapter, tmp_path / "lora.safetensors")
    loaded = load_adapter(tmp_path / "lora.safetensors")
    parameters = adapter_parameters(unet, adapter)
    assert len(loaded) == len(parameters) == 2 * len(list(lora_layers(unet)))
    for name, parameter in parameters.items():
        assert torch.equal(loaded[name.replace(f".{adapter}.", ".")], parameter)


def test_saved_unet_reloads_equal(unet: TwoLoRAUNet, sample: Tensor, tmp_path: Path) -> None:
    unet.set_scales(consistency=0.6, detail=1.2)
    unet.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"consistency.safetensors", "detail.safetensors", "config.json"} <= names
    loaded = TwoLoRAUNet.from_pretrained(tmp_path)
    assert loaded.has_adapters
    for name, tensor in unet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for scaled in (unet, loaded):
        scaled.set_scales(consistency=0.6, detail=1.2)
    torch.testing.assert_close(run(loaded, sample), run(unet, sample), atol=1e-5, rtol=1e-5)


def test_one_lora_file_alone_is_refused(unet: TwoLoRAUNet, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    (tmp_path / "detail.safetensors").unlink()
    with pytest.raises(ValueError, match=r"consistency\.safetensors"):
        TwoLoRAUNet.from_pretrained(tmp_path)


def test_lora_of_another_unet_is_refused(unet: TwoLoRAUNet, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path)
    path = tmp_path / "detail.safetensors"
    tensors = load_adapter(path)
    tensors.pop("conv_in.lora_A.weight")
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"detail\.safetensors.*conv_in"):
        TwoLoRAUNet.from_pretrained(tmp_path)


def test_widened_conv_in_halves_are_the_old_weights(unet: TwoLoRAUNet) -> None:
    config = {**unet.config, "in_channels": 4}
    plain = TwoLoRAUNet.from_config(config)
    old = plain.conv_in
    widen_conv_in(plain)
    assert plain.config.in_channels == 8
    assert torch.equal(plain.conv_in.weight[:, :4], old.weight)
    assert torch.equal(plain.conv_in.weight[:, 4:], old.weight)
    one, other = torch.randn(2, 1, 4, 5, 5)
    with torch.no_grad():
        wide = plain.conv_in(torch.cat([one, other], dim=1))
        torch.testing.assert_close(wide, old(one + other), atol=1e-5, rtol=1e-5)


def test_merging_in_bfloat16_comes_from_pristine_weights(unet: TwoLoRAUNet) -> None:
    torch.nn.Module.to(unet, torch.bfloat16)
    pristine = base_weights(unet)
    for scale in (2.0, 0.1, 1.3, 0.0):
        unet.set_scales(consistency=scale, detail=scale)
        assert all(weight.dtype == torch.bfloat16 for weight in base_weights(unet))
    for weight, before in zip(base_weights(unet), pristine, strict=True):
        assert torch.equal(weight, before)


def test_scales_leave_to_the_training_what_learns(unet: TwoLoRAUNet) -> None:
    """PEFT makes an adapter trainable when it activates it; a stage's frozen LoRA must stay so."""
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name in adapter_parameters(unet, "consistency"))
    unet.set_scales(consistency=1.0, detail=1.0, merge=False)
    learning = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert learning == adapter_parameters(unet, "consistency").keys()


@pytest.mark.parametrize(("rank", "alpha", "rslora"), [(4, 4, False), (2, 8, False), (3, 6, True)])
def test_a_lora_of_diffusers_keeps_its_strength(
    unet: TwoLoRAUNet, sample: Tensor, tmp_path: Path, rank: int, alpha: int, rslora: bool
) -> None:
    """Whatever alpha it was trained with."""
    plain = TwoLoRAUNet.from_config(unet.config)
    plain.load_state_dict(plain_state_dict(unet))
    before = run(plain, sample)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        init_lora_weights=False,
        target_modules=target_modules(plain),
    )
    plain.add_adapter(config, adapter_name="style")
    plain.save_lora_adapter(tmp_path, adapter_name="style")
    wanted = run(plain, sample)
    assert (wanted - before).abs().max() > 0.01
    replace_adapter(unet, "detail", load_adapter(tmp_path / "pytorch_lora_weights.safetensors"))
    unet.set_scales(consistency=0.0, detail=1.0)
    torch.testing.assert_close(run(unet, sample), wanted, rtol=0, atol=1e-5)


def test_a_lora_of_another_kind_is_refused(tmp_path: Path) -> None:
    file, config = tmp_path / "dora.safetensors", {"r": 4, "lora_alpha": 4, "use_dora": True}
    metadata = {LORA_ADAPTER_METADATA_KEY: json.dumps(config)}
    save_file({"conv_in.lora_A.weight": torch.zeros(4, 8, 3, 3)}, file, metadata=metadata)
    with pytest.raises(ValueError, match="use_dora cannot be used here"):
        load_adapter(file)
