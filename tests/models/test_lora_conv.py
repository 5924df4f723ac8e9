"""A convolution with both LoRAs."""

import itertools

import pytest
import torch
from torch.nn.functional import conv2d

from dloral.models.lora_conv import TwoLoRAConv, two_lora_convs


def with_loras() -> TwoLoRAConv:
    torch.manual_seed(0)
    conv = TwoLoRAConv(5, 7, 3, padding=1)
    conv.add_adapters(2)
    for up in conv.lora_up.values():
        torch.nn.init.normal_(up.weight)
    return conv


@torch.no_grad()
def test_it_computes_as_branches_beside_it() -> None:
    conv, x = with_loras(), torch.randn(2, 5, 9, 8)
    conv.set_scales(consistency=0.3, detail=1.7)
    wanted = conv2d(x, conv.weight, conv.bias, padding=1)
    for scale, name in ((0.3, "consistency"), (1.7, "detail")):
        seen = conv2d(x, conv.lora_down[name].weight.view(2, 5, 3, 3), padding=1)
        wanted = wanted + scale * conv2d(seen, conv.lora_up[name].weight.view(7, 2, 1, 1))
    torch.testing.assert_close(conv(x), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_a_lora_adds_is_set_as_closely_as_its_rank_allows() -> None:
    conv = with_loras()
    other = conv.change("consistency").clone()
    x = torch.randn(1, 5, 9, 8)
    conv(x)  # its sum is kept
    wanted = torch.randn(7, 2) @ torch.randn(2, 45)
    conv.set_change("detail", wanted)
    torch.testing.assert_close(conv.change("detail"), wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(conv.change("consistency"), other)
    weight = conv.weight + (other + wanted).view_as(conv.weight)
    torch.testing.assert_close(conv(x), conv2d(x, weight, conv.bias, padding=1))
    full = torch.randn(7, 45)
    conv.set_change("detail", full)
    left = (full - conv.change("detail")).square().sum()
    torch.testing.assert_close(left, torch.linalg.svdvals(full)[2:].square().sum())


@torch.no_grad()
def test_a_kept_sum_follows_every_change() -> None:
    conv, x = with_loras(), torch.randn(1, 5, 9, 8)

    def as_summed() -> torch.Tensor:
        found = conv(x)
        assert torch.equal(found, conv2d(x, conv.summed_weight(), conv.bias, padding=1))
        return found

    seen = [as_summed()]
    assert conv._weight_now() is conv._weight_now()
    conv.set_scales(consistency=0.3, detail=1.7)
    seen.append(as_summed())
    conv.lora_up["detail"].weight.mul_(2)
    seen.append(as_summed())
    conv.weight.copy_(torch.randn_like(conv.weight))
    seen.append(as_summed())
    other = {name: torch.randn_like(tensor) for name, tensor in conv.state_dict().items()}
    conv.load_state_dict(other, assign=True)
    seen.append(as_summed())
    conv.load_state_dict({name: torch.randn_like(t) for name, t in other.items()}, assign=True)
    seen.append(as_summed())
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_same_scales_again_keep_the_sum(dtype: torch.dtype) -> None:
    """As the generator sets them with every frame."""
    conv = with_loras().to(dtype)
    conv.set_scales(consistency=0.3, detail=1.7)
    kept = conv._weight_now()
    conv.set_scales(consistency=0.3, detail=1.7)
    assert conv._weight_now() is kept
    conv.set_scales(consistency=0.3, detail=1.6)
    assert not torch.equal(conv._weight_now(), kept)


def test_each_lora_learns_where_its_scale_lets_it() -> None:
    conv = with_loras()
    conv.set_scales(consistency=1.0, detail=0.0)
    conv(torch.randn(1, 5, 6, 6)).square().sum().backward()
    assert conv.lora_down["consistency"].weight.grad.abs().sum() > 0
    assert not conv.lora_up["detail"].weight.grad.any()


def test_in_a_lower_precision_and_in_another_memory_format() -> None:
    conv, x = with_loras(), torch.randn(1, 5, 9, 8)
    wanted = conv(x)
    conv.to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert conv.summed_weight().is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(conv(x.bfloat16()).float(), wanted, atol=0.2, rtol=0.05)
    for part in (conv.lora_down, conv.lora_up):  # as in training, where only these learn
        part.float()
    found = conv(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.2, rtol=0.05)


def test_without_loras_it_is_a_plain_convolution() -> None:
    plain, x = TwoLoRAConv(5, 7, 3), torch.randn(1, 5, 9, 8)
    assert torch.equal(plain(x), conv2d(x, plain.weight, plain.bias))
    assert not two_lora_convs(torch.nn.Sequential(plain))
    assert [*plain.state_dict()] == ["weight", "bias"]
