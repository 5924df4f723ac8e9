"""The losses: what they see, and that they pull the output the right way."""

import copy
from collections.abc import Sequence
from pathlib import Path

import cv2
import huggingface_hub
import numpy as np
import pytest
import torch
from torch import Tensor

from dloral.data.motion import MotionConfig, sample_clip
from dloral.errors import OptionError, WeightsError
from dloral.models.adapters import add_adapters, lora_layers
from dloral.models.flow import SPyNet, warp
from dloral.models.perceptual import BLOCKS, WIDTHS, VGGTrunk
from dloral.models.unet import TwoLoRAUNet, widen_conv_in
from dloral.pipeline import DLoRALPipeline
from dloral.training import perceptual
from dloral.training.csd import CSDConfig, ScoreDistillation, adapters_off
from dloral.training.losses import (
    FeatureDistance,
    charbonnier,
    detail,
    excess_detail,
    flow_consistency,
    grid,
    l2,
    tempered,
    temporal_difference,
)
from dloral.training.objective import Objective, Restored
from dloral.training.schedule import named_schedule
from dloral.weights.resolve import EMBEDDED


@pytest.fixture(scope="module")
def flow_net() -> SPyNet:
    """The embedded model's, trained."""
    return SPyNet.from_pretrained(EMBEDDED["compact"] / "flow").float().requires_grad_(False)


class Pair:
    """A true pair (1,3,H,W) with exact flow, and an output whose second frame wobbles."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (24, 28, 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (260, 220), interpolation=cv2.INTER_CUBIC)
        clip = sample_clip(photo, None, 2, 96, rng, MotionConfig(3, still_probability=0))
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255
        self.hq_previous, self.hq = frames[:1], frames[1:]
        self.flow, self.known = torch.from_numpy(clip.flow), torch.from_numpy(clip.known)[:, None]
        wobble = torch.zeros_like(self.flow)
        wobble[:, 0] = 0.8
        self.previous = self.hq_previous.clone()
        self.current = warp(self.hq, wobble, padding="border")

    def warping_error(self, current: Tensor, previous: Tensor) -> float:
        change = (current - warp(previous, self.flow, padding="border")).square()
        return ((change * self.known).sum() / self.known.sum()).item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("reduction", [1, 2])
def test_flow_consistency_pulls_the_output_towards_the_true_motion(
    reduction: int, seed: int, flow_net: SPyNet
):
    """Its gradient at both output frames is not zero, and a step along it lowers the warping error;
    a step as long in a random direction does not."""
    pair = Pair(seed)

    def loss(current: Tensor, previous: Tensor) -> Tensor:
        return flow_consistency(
            flow_net, current, previous, pair.hq, pair.hq_previous, reduction
        ).sum()

    assert loss(pair.hq, pair.hq_previous).item() == 0
    frames = [pair.current.requires_grad_(), pair.previous.requires_grad_()]
    gradients = torch.autograd.grad(loss(*frames), frames)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)

    def after_a_step(directions: Sequence[Tensor]) -> list[Tensor]:
        steps = [0.001 * direction / direction.abs().mean() for direction in directions]
        return [frame.detach() - step for frame, step in zip(frames, steps, strict=True)]

    before = pair.warping_error(*frames)
    assert loss(*after_a_step(gradients)) < loss(*frames)
    assert pair.warping_error(*after_a_step(gradients)) < before
    draw = torch.Generator().manual_seed(seed)
    anywhere = [torch.randn(frame.shape, generator=draw) for frame in frames]
    assert pair.warping_error(*after_a_step(anywhere)) > before


def test_flow_consistency_is_the_difference_of_the_flows_in_picture_sizes(flow_net: SPyNet):
    pair = Pair(0)
    found = flow_consistency(flow_net, pair.current, pair.previous, pair.hq, pair.hq_previous)
    ours, theirs = (
        flow_net(2 * now - 1, 2 * before - 1)
        for now, before in ((pair.current, pair.previous), (pair.hq, pair.hq_previous))
    )
    expected = ((ours - theirs) / 96).abs().mean()
    torch.testing.assert_close(found, expected[None])


def test_temporal_difference_is_zero_for_the_truth_and_sees_flicker():
    draw = torch.Generator().manual_seed(0)
    frames = [torch.rand(1, 3, 16, 16, generator=draw) for _ in range(2)]
    flow = torch.zeros(1, 2, 16, 16)
    assert temporal_difference(*frames, *frames, flow).item() == 0
    output = (frames[0] + 0.1).requires_grad_()
    loss = temporal_difference(output, frames[1], *frames, flow).sum()
    assert abs(loss.item() - 0.1) < 1e-4
    loss.backward()
    assert output.grad.abs().sum() > 0


def test_grid_sees_a_pattern_and_nothing_else():
    draw = torch.Generator().manual_seed(0)
    hq_frames = torch.rand(2, 3, 64, 64, generator=draw)
    assert grid(hq_frames + 0.1, hq_frames).max() < 1e-6  # an even shift is no grid
    dots = torch.zeros(8, 8)
    dots[::4, ::4] = 0.16  # period 4
    drawn = grid(hq_frames + dots.tile(8, 8), hq_frames)
    assert torch.allclose(drawn, torch.full((2,), 0.01875), atol=1e-6)
    noise = grid(hq_frames + 0.05 * torch.randn(hq_frames.shape, generator=draw), hq_frames)
    assert noise.max() < 0.01


def test_l2_is_the_mean_square_of_each_frame():
    frames = torch.zeros(2, 3, 4, 4)
    assert torch.allclose(
        l2(frames + torch.tensor([0.1, 0.2]).view(2, 1, 1, 1), frames), torch.tensor([0.01, 0.04])
    )


# CSD -----------------------------------------------------------------------------------------


@pytest.fixture
def text_pipe(reference: Path) -> DLoRALPipeline:
    """The tiny Stable Diffusion of the reference, its UNet random, with lively LoRAs."""
    from diffusers import DDPMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    base = reference / "sd_base"
    torch.manual_seed(0)
    unet = TwoLoRAUNet.from_config(TwoLoRAUNet.load_config(base / "unet"))
    widen_conv_in(unet)
    add_adapters(unet, 2)
    for name, parameter in unet.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return DLoRALPipeline(
        vae=None,
        unet=unet.eval(),
        flow=None,
        retrieval=None,
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        scheduler=DDPMScheduler.from_pretrained(base / "scheduler"),
    )


def test_csd_is_guidance_between_two_prompts_by_the_plain_unet(text_pipe: DLoRALPipeline):
    """Equal to a calculation with a second, plain UNet: Stable Diffusion's own before widening."""
    config = CSDConfig(guidance=5.0)
    csd = ScoreDistillation(text_pipe, config)
    embeds = text_pipe.encode_prompt("a cat").detach()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    latents.requires_grad_()
    loss = csd(latents, embeds, np.random.default_rng(7))
    gradient = torch.autograd.grad(loss.sum(), latents)[0]

    plain = TwoLoRAUNet.from_config({**text_pipe.unet.config, "in_channels": 4}).eval()
    stored = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in text_pipe.unet.state_dict().items()
        if ".lora_" not in name
    }
    stored["conv_in.weight"] = stored["conv_in.weight"][:, :4]
    plain.load_state_dict(stored)
    rng = np.random.default_rng(7)
    times = torch.from_numpy(rng.integers(20, 500, 2))
    noise = torch.from_numpy(rng.standard_normal((2, 4, 8, 8), np.float32))
    with torch.no_grad():
        noised = text_pipe.scheduler.add_noise(latents, noise, times)
        negative = text_pipe.encode_prompt(config.negative_prompt)
        share = text_pipe.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
        clean = {}
        for name, prompt in (("positive", embeds), ("negative", negative)):
            eps = plain(noised, times, encoder_hidden_states=prompt.expand(2, -1, -1)).sample
            clean[name] = (noised - (1 - share).sqrt() * eps) / share.sqrt()
        guided = clean["negative"] + 5.0 * (clean["positive"] - clean["negative"])
        scale = (latents - guided).abs().mean(dim=(1, 2, 3), keepdim=True)
        pull = (clean["negative"] - guided) / scale
    torch.testing.assert_close(loss, pull.square().mean(dim=(1, 2, 3)), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradient, 2 * pull / pull[0].numel(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("step", [0, 3000, 5500, 9000, 13500, 17000, 20000])
def test_losses_are_half_the_public_script_s(
    step: int, text_pipe: DLoRALPipeline, flow_net: SPyNet
):
    """Computed from the script's formulas: frames in [-1, 1], sums over the pair, one flow.

    CSD alone comes and goes with the paper's s_t at every switch, in the script only at the first.
    """
    generator = torch.Generator().manual_seed(step)
    frames, hq_frames = torch.rand(2, 1, 2, 3, 64, 64, generator=generator)
    latents = torch.randn(1, 2, 4, 8, 8, generator=generator)
    embeds = text_pipe.encode_prompt("a cat").detach()
    text_pipe.flow, network = flow_net, FeatureDistance(VGGTrunk(2).eval())
    weights = named_schedule("public").weights_at(step + 1)
    objective = Objective(text_pipe, {*weights}, feature_distance=network)
    restored = Restored(frames, hq_frames, latents, None, embeds.expand(2, -1, -1))
    ours = objective.weighed(restored, weights, np.random.default_rng(3))

    consistency = step <= 5000 or 13000 < step <= 18000
    since = min(1.0, next((step - s) / 1000 for s in (18000, 13000, 5000, -9999) if step > s))
    pair, truth = 2 * frames[0] - 1, 2 * hq_frames[0] - 1
    lpips = since * 0.98 + 0.02 if 5000 < step <= 13000 else 0.02 if step <= 5000 else 1.0
    doubled = 1 + since if consistency else 2 - since
    public = {
        "l2": sum(torch.nn.functional.mse_loss(a, b) for a, b in zip(pair, truth, strict=True)),
        "perceptual": 2 * lpips * network(frames[0], hq_frames[0]).sum(),
    }
    flows = [flow_net(p[1:], p[:1]) / 64 for p in (pair, truth)]
    public["flow"] = 10 * doubled * (flows[0] - flows[1]).abs().mean()
    share = 0.0 if step <= 5000 else 1 - since if consistency else since
    if share:
        csd = ScoreDistillation(text_pipe, CSDConfig())
        public["csd"] = share * csd(latents[0], embeds, np.random.default_rng(3), frames=2).sum()
    assert {*ours} == {*public}
    for name, value in public.items():
        torch.testing.assert_close(2 * ours[name], value, rtol=1e-4, atol=1e-7, msg=name)


def test_csd_gives_the_frames_of_a_clip_the_same_noise(text_pipe: DLoRALPipeline):
    csd = ScoreDistillation(text_pipe, CSDConfig(least_time=0.02, most_time=0.021))
    embeds = text_pipe.encode_prompt("a cat").detach()
    one = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    other = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    loss = csd(torch.cat([one, one, other, other]), embeds, np.random.default_rng(0), frames=2)
    assert torch.equal(loss[0], loss[1])
    assert torch.equal(loss[2], loss[3])


def test_csd_leaves_the_unet_as_it_was(text_pipe: DLoRALPipeline):
    unet = text_pipe.unet
    unet.set_scales(consistency=0.5, detail=1.0, merge=False)
    scalings = [dict(layer.scaling) for layer in lora_layers(unet)]
    weights = copy.deepcopy(unet.state_dict())
    csd = ScoreDistillation(text_pipe, CSDConfig())
    embeds = text_pipe.encode_prompt("a cat").detach()
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    csd(latents, embeds, np.random.default_rng(0)).sum().backward()
    assert [dict(layer.scaling) for layer in lora_layers(unet)] == scalings
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unet.state_dict().items())
    with pytest.raises(RuntimeError), adapters_off(unet):
        raise RuntimeError
    assert [dict(layer.scaling) for layer in lora_layers(unet)] == scalings


def test_csd_refuses_a_model_that_reads_no_prompts_or_another_conv_in(
    pipe: DLoRALPipeline, text_pipe: DLoRALPipeline
):
    with pytest.raises(OptionError, match="adversarial"):
        ScoreDistillation(pipe, CSDConfig())
    with torch.no_grad():
        text_pipe.unet.conv_in.get_base_layer().weight[:, 0] += 1
    with pytest.raises(OptionError, match="conv_in"):
        ScoreDistillation(text_pipe, CSDConfig())
    with pytest.raises(OptionError, match="times"):
        CSDConfig(least_time=0.6)


# Perceptual ----------------------------------------------------------------------------------


def random_vgg() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights under torchvision's names and heads under the package's."""
    draw = torch.Generator().manual_seed(0)
    trunk, inner, place = {}, 3, 0
    for count, width in zip(BLOCKS, WIDTHS, strict=True):
        for _ in range(count):
            spread = (2 / (9 * inner)) ** 0.5
            weight = spread * torch.randn(width, inner, 3, 3, generator=draw)
            trunk[f"features.{place}.weight"] = weight
            trunk[f"features.{place}.bias"] = 0.1 * torch.randn(width, generator=draw)
            inner, place = width, place + 2  # a ReLU after each convolution
        place += 1  # and a pooling after each block
    trunk["classifier.weight"] = torch.zeros(1)
    heads = {
        f"lin{depth}.model.1.weight": torch.rand(1, width, 1, 1, generator=draw)
        for depth, width in enumerate(WIDTHS)
    }
    return trunk, heads


def test_lpips_is_the_published_formula():
    trunk, heads = random_vgg()
    draw = torch.Generator().manual_seed(1)
    one, other = torch.rand(2, 2, 3, 40, 36, generator=draw)

    def features(frames: Tensor) -> list[Tensor]:
        mean = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        std = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        x, found, place = (2 * frames - 1 - mean) / std, [], 0
        for depth, count in enumerate(BLOCKS):
            x = torch.nn.functional.max_pool2d(x, 2) if depth else x
            for _ in range(count):
                weight, bias = trunk[f"features.{place}.weight"], trunk[f"features.{place}.bias"]
                x, place = torch.conv2d(x, weight, bias, padding=1).relu(), place + 2
            place += 1
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    expected = sum(
        ((a - b).square() * heads[f"lin{depth}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
        for depth, (a, b) in enumerate(zip(features(one), features(other), strict=True))
    )
    network = perceptual.LPIPS(trunk, heads)
    torch.testing.assert_close(network(one, other), expected, rtol=1e-4, atol=1e-5)
    assert network(one, one).abs().max() == 0
    output = one.clone().requires_grad_()
    network(output, other).sum().backward()
    assert output.grad.abs().sum() > 0


def test_without_lpips_the_distance_is_called_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(perceptual, "IMAGENET_VGG", ("nobody/has-this", "model.safetensors"))
    monkeypatch.setattr(perceptual, "load_vgg_trunk", lambda blocks: torch.nn.Identity())
    with pytest.raises(WeightsError) as caught:
        perceptual.load_perceptual("lpips")
    assert "\n" not in str(caught.value)
    name, network = perceptual.load_perceptual("perceptual")
    assert name == "feature"
    assert isinstance(network, perceptual.FeatureDistance)
    assert any("not LPIPS" in message for message in caplog.messages)


def test_excess_detail_sees_dots_on_smooth_ground_and_no_lost_detail():
    torch.manual_seed(0)
    ramp = torch.linspace(0.2, 0.6, 64).expand(1, 3, 64, 64)
    stripes = ramp + 0.2 * (torch.arange(64) % 4 < 2)
    dots = torch.zeros(64, 64)
    dots[4::8, 4::8] = 0.1 * torch.linspace(-1, 1, 8)  # their strength follows the picture
    assert excess_detail(ramp + dots, ramp) > 5e-3
    assert excess_detail(ramp + dots, ramp) > 5 * grid(ramp + dots, ramp)
    assert excess_detail(ramp, stripes) == 0
    assert excess_detail(stripes, stripes) == 0


def test_detail_asks_for_the_amount_of_structure_and_not_for_its_place():
    ramp = torch.linspace(0.2, 0.6, 64).expand(1, 3, 64, 64)
    stripes = ramp + 0.2 * (torch.arange(64) % 4 < 2)
    shifted = ramp + 0.2 * ((torch.arange(64) + 1) % 4 < 2)
    assert detail(ramp, stripes) == detail(stripes, ramp) > 0.05
    assert detail(shifted, stripes) < 0.1 * detail(ramp, stripes)
    assert charbonnier(shifted, stripes) > 0.9 * charbonnier(ramp, stripes)


def test_detail_is_of_the_grey_picture():
    """Colours beside each other that are as bright as one another are no detail."""
    grey, fringed = torch.full((1, 3, 32, 32), 0.5), torch.full((1, 3, 32, 32), 0.5)
    fringed[:, 0, :, ::2] += 0.2
    fringed[:, 2, :, ::2] -= 0.2
    assert detail(fringed, grey) < 1e-3
    assert detail(fringed.mean(dim=1, keepdim=True) + 0.2 * torch.rand(32, 32), grey) > 0.02


def test_a_loss_of_any_size_does_not_drown_the_others() -> None:
    """Small ones stay as they are; of large ones each doubling weighs the same."""
    losses = torch.tensor([0.001, 0.1, 1e3, 2e3, 1e10], requires_grad=True)
    found = tempered(losses, 0.1)
    (gradient,) = torch.autograd.grad(found.sum(), losses)
    assert found[:2].tolist() == pytest.approx([0.001, 0.1 * np.log(2)], rel=0.01)
    assert (found[3] - found[2]).item() == pytest.approx(0.1 * np.log(2), rel=1e-3)
    assert (gradient * losses <= 0.1).all()
    assert float(gradient[0]) == pytest.approx(1, rel=0.02)
