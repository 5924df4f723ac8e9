"""PReLU with a quicker gradient."""

import pytest
import torch
from torch import nn

from dloral.models.prelu import PReLU


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_torchs_own_with_the_same_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mine, own = PReLU(8), nn.PReLU(8)
    with torch.no_grad():
        mine.weight.copy_(torch.linspace(-0.5, 1.5, 8))
    own.load_state_dict(mine.state_dict())
    x = torch.randn(2, 8, 5, 7).to(dtype).to(memory_format=torch.channels_last)
    x[0, :, 0, 0] = 0
    weigh = torch.randn(2, 8, 5, 7).to(dtype)
    found = []
    for layer in (mine, own):
        seen = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = layer(seen)
        (y * weigh).sum().backward()
        found.append((y, seen.grad, layer.weight.grad))
    (y, gradient, slopes), (expected_y, expected, expected_slopes) = found
    assert y.dtype == expected_y.dtype == dtype
    torch.testing.assert_close(y, expected_y, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected)
    assert slopes.dtype == expected_slopes.dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(slopes, expected_slopes, rtol=0.02, atol=tolerance)
