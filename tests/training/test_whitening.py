"""Convolutions that learn in coordinates in which their inputs are uncorrelated."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dloral.training.whitening import Moments


def smooth(count: int = 4) -> Tensor:
    """(N,3,16,16): neighbours and channels say nearly the same."""
    points = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    details = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return F.interpolate(points, (16, 16), mode="bicubic") + 0.02 * details


def whitened(net: nn.Module, frames: Tensor) -> Moments:
    moments = Moments(module for module in net.modules() if isinstance(module, nn.Conv2d))
    with moments.watching(), torch.no_grad():
        net(frames)
    moments.whiten()
    return moments


def a_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 2, 1))


def test_the_network_stays_the_same() -> None:
    net, frames = a_net(), smooth()
    names, before = {name for name, _ in net.named_parameters()}, net(frames)
    moments = whitened(net, frames)
    assert {name for name, _ in net.named_parameters()} != names
    torch.testing.assert_close(net(frames), before, rtol=1e-4, atol=1e-5)
    moments.restore()
    assert {name for name, _ in net.named_parameters()} == names
    torch.testing.assert_close(net(frames), before, rtol=1e-4, atol=1e-5)
    assert not net[0]._forward_hooks


def test_the_moments_are_of_the_patches_that_were_seen() -> None:
    net, frames = nn.Conv2d(3, 2, 3, padding=1), smooth()
    whitened(net, frames)
    matrix = net.parametrizations.weight[0].inverse
    patches = F.unfold(frames, 3, padding=1).transpose(1, 2).flatten(0, 1) @ matrix
    strengths = torch.linalg.eigvalsh(patches.T.cov(correction=0))
    assert 0.9 < strengths.max() <= 1 + 1e-4
    assert strengths.min() > 0.005  # of the patches themselves 1e-4 of the greatest


def test_the_bias_is_learnt_at_the_mean() -> None:
    """A change of what is learnt of the weight leaves the mean of what comes out."""
    net, frames = nn.Conv2d(3, 2, 3, padding=1), smooth()
    whitened(net, frames)
    before = net(frames).mean(dim=(0, 2, 3))
    with torch.no_grad():
        net.parametrizations.weight.original.add_(1.0)
    torch.testing.assert_close(net(frames).mean(dim=(0, 2, 3)), before, rtol=1e-4, atol=1e-4)


def distance_after(steps: int, white: bool) -> float:
    """Of a convolution from another one, as seen where details count."""
    torch.manual_seed(3)
    taught, net = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    frames = smooth(16)
    if white:
        whitened(net, frames)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    wanted = taught(frames).detach()
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(net(frames), wanted).backward()
        optimizer.step()
    return F.mse_loss(net(frames), wanted).item()


def test_what_varies_little_is_learnt_as_fast() -> None:
    plain, white = distance_after(400, False), distance_after(400, True)
    assert white < 0.3 * plain


def test_gradients_reach_what_is_learnt_in_bfloat16_too() -> None:
    net, frames = a_net(), smooth()
    whitened(net, frames)
    with torch.autocast("cpu", torch.bfloat16):
        net(frames).float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_an_input_that_a_hook_puts_there_counts() -> None:
    net, frames = nn.Conv2d(3, 2, 3, padding=1), smooth()
    moments = Moments([net])
    with moments.watching(), torch.no_grad():
        handle = net.register_forward_pre_hook(lambda _, inputs: (frames,))
        net(torch.zeros_like(frames))
        handle.remove()
    moments.whiten()
    patches = F.unfold(frames, 3, padding=1).transpose(1, 2).flatten(0, 1)
    seen = patches @ net.parametrizations.weight[0].inverse
    assert torch.linalg.eigvalsh(seen.T.cov()).max() > 0.9
