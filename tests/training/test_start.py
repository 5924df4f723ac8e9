"""What a training starts from: Stable Diffusion's folder, a model of ours, random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from dloral.data.clips import Clips
from dloral.errors import WeightsError
from dloral.models.adapters import adapter_parameters, add_adapters, lora_layers
from dloral.models.unet import TwoLoRAUNet, widen_conv_in
from dloral.training.config import ModelConfig
from dloral.training.phases.algorithm1 import Algorithm1Config, Algorithm1Task
from dloral.training.schedule import StageSchedule
from dloral.training.start import SD21_UNET, Prompts, build_start
from dloral.weights.loading import load_pipeline
from dloral.weights.tagger import convert_tagger, load_tagger

CPU = torch.device("cpu")
ALL = {"l2": 1.0, "flow": 1.0, "csd": 1.0, "temporal": 1.0}


@pytest.fixture(scope="module")
def base(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Stable Diffusion folder, tiny, its UNet with four input channels."""
    folder = tmp_path_factory.mktemp("sd") / "base"
    shutil.copytree(reference / "sd_base", folder)
    torch.manual_seed(0)
    config = UNet2DConditionModel.load_config(folder / "unet")
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    return folder


def clips(batch: int = 2) -> Clips:
    draw = torch.Generator().manual_seed(0)
    frames = torch.rand(batch, 3, 3, 64, 64, generator=draw)
    return Clips(frames, 0.9 * frames, torch.zeros(batch, 2, 2, 64, 64))


def test_stable_diffusion_starts_as_itself_with_two_loras_and_no_retrieval(
    base: Path, converted: Path
):
    config = ModelConfig(f"sd21:{base}", flow=str(converted / "flow"), detail_rank=3)
    pipe = build_start(config, CPU)
    assert pipe.unet.config.in_channels == 8
    for adapter, rank in (("consistency", 4), ("detail", 3)):
        matrices = adapter_parameters(pipe.unet, adapter)
        assert {len(m) for name, m in matrices.items() if "lora_A" in name} == {rank}
    now, before = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pipe.retrieval(now, before), now)
    plain = UNet2DConditionModel.from_pretrained(base / "unet")
    embeds = pipe.encode_prompt("")
    with torch.no_grad():
        ours = pipe.unet.predict(now, torch.zeros_like(now), embeds)
        theirs = plain(now, 1, encoder_hidden_states=embeds).sample
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_full_size_has_two_loras_of_rank_4():
    """Stable Diffusion 2.1's sizes, without memory: 4 (in k k + out) for each adapted layer."""
    with torch.device("meta"):
        unet = TwoLoRAUNet(**SD21_UNET)
        assert sum(p.numel() for p in unet.parameters()) == 865_910_724
        widen_conv_in(unet)
        add_adapters(unet, 4)
    layers = [layer.get_base_layer() for layer in lora_layers(unet)]
    assert len(layers) == 258
    expected = sum(4 * (layer.weight[0].numel() + len(layer.weight)) for layer in layers)
    for adapter in ("consistency", "detail"):
        count = sum(p.numel() for p in adapter_parameters(unet, adapter).values())
        assert count == expected == 4_055_856


def gradients(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Of all losses of a text model together, at every parameter that learns."""
    pipe = build_start(config, CPU)
    with torch.no_grad():
        for adapter in ("consistency", "detail"):
            draw = torch.Generator().manual_seed(2)
            for parameter in adapter_parameters(pipe.unet, adapter).values():
                parameter.normal_(std=0.05, generator=draw)
        pipe.retrieval.proj.weight.normal_(std=0.1, generator=draw)
    task = Algorithm1Task(
        pipe,
        {},
        Algorithm1Config(schedule=StageSchedule(9, 9, 0, ALL, ALL), first_frame_share=0.5),
        prompts=Prompts(pipe, config),
        gradient_checkpointing=config.gradient_checkpointing,
    )
    for parameter in task.trainable().values():
        parameter.requires_grad_()
    rng = np.random.default_rng(0)
    pipe.unet.set_scales(consistency=1.0, detail=1.0, merge=False)
    restored = task.restore(clips(), rng)
    losses = task.losses(restored, "enhancement", ALL, rng)
    assert losses.keys() == ALL.keys()
    torch.stack(list(losses.values())).sum().backward()
    found = {}
    for name, parameter in task.trainable().items():
        assert parameter.grad is not None, name
        found[name] = parameter.grad
    return found


def test_gradient_checkpointing_changes_no_gradient(base: Path, converted: Path):
    """Nor does CSD, which switches the LoRAs off between the two forward passes."""
    start = {"start": f"sd21:{base}", "flow": str(converted / "flow"), "prompt": "a cat"}
    expected = gradients(ModelConfig(**start))
    found = gradients(ModelConfig(**start, gradient_checkpointing=True))
    assert any(gradient.abs().max() > 1e-4 for gradient in expected.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3, msg=name)


def test_frozen_parts_in_half_precision_leave_what_learns_in_float32(base: Path, converted: Path):
    config = ModelConfig(f"sd21:{base}", flow=str(converted / "flow"), frozen_dtype="bfloat16")
    pipe = build_start(config, CPU)
    assert pipe.vae.dtype == pipe.text_encoder.dtype == torch.bfloat16
    for name, parameter in pipe.unet.named_parameters():
        expected = torch.float32 if ".lora_" in name else torch.bfloat16
        assert parameter.dtype == expected, name
    for part in (pipe.retrieval, pipe.flow):
        assert {parameter.dtype for parameter in part.parameters()} == {torch.float32}


def test_the_embedded_model_fresh_or_as_it_is():
    embedded = load_pipeline("compact", device="cpu", dtype="float32")
    fresh = build_start(ModelConfig("compact", consistency_rank=5, detail_rank=6), CPU)
    kept = build_start(ModelConfig("compact", fresh=False), CPU)
    for pipe in (fresh, kept):
        assert torch.equal(
            pipe.unet.conv_in.get_base_layer().weight, embedded.unet.conv_in.get_base_layer().weight
        )
    assert fresh.unet.conv_in.lora_A["consistency"].weight.shape[0] == 5
    assert fresh.unet.conv_in.lora_A["detail"].weight.shape[0] == 6
    assert not fresh.retrieval.proj.weight.any()
    assert fresh.crispness == 0
    assert not fresh.unet.conv_in.lora_B["detail"].weight.any()
    assert torch.equal(kept.retrieval.proj.weight, embedded.retrieval.proj.weight)
    for name, parameter in adapter_parameters(kept.unet, "detail").items():
        assert torch.equal(parameter, adapter_parameters(embedded.unet, "detail")[name])


def test_prompts_hold_the_tags_of_the_ground_truth(base: Path, converted: Path, tmp_path: Path):
    """The tagger is the reference's tiny RAM, without DAPE."""
    files = Path(__file__).parents[1] / "data" / "ram_tiny"
    lists = (files / "ram_tag_list.txt", files / "ram_tag_list_threshold.txt")
    convert_tagger(files / "ram_tiny.pth", None, *lists, tmp_path / "tagger")
    tagger = tmp_path / "tagger"
    config = ModelConfig(
        f"sd21:{base}", flow=str(converted / "flow"), prompt="film", tagger=str(tagger)
    )
    pipe = build_start(config, CPU)
    batch = clips()
    tags = load_tagger(tagger, dape=False).tags_of(batch.hq_frames[:, -1])
    assert any(tags)
    expected = [pipe.encode_prompt(f"{', '.join(words)}, film,") for words in tags]
    assert torch.equal(Prompts(pipe, config)(batch), torch.cat(expected))
    untagged = ModelConfig(config.start, flow=config.flow, prompt="film")
    assert torch.equal(Prompts(pipe, untagged)(batch), pipe.encode_prompt("film"))


def test_a_folder_without_a_part_is_one_line(base: Path, converted: Path, tmp_path: Path):
    shutil.copytree(base, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "vae")
    config = ModelConfig(f"sd21:{tmp_path / 'base'}", flow=str(converted / "flow"))
    with pytest.raises(WeightsError, match="vae does not exist") as caught:
        build_start(config, CPU)
    assert "\n" not in str(caught.value)
