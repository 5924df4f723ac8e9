"""Cross-frame retrieval (CFR): what the aligned predecessor knows, added to the current latents.

Legend: B batch, C latent channels, N = h*w latent positions, n heads of d channels.

Step 4 of the generator: per head, ``sim = Q K^T / sqrt(d)`` over all N x N positions, a learned
threshold per query, weights ``relu((sim - threshold) / temperature)``. There is no softmax and no
row normalisation, so sums over blocks of keys are exact and the N x N matrix never has to exist:
memory grows with N, in training too, where a block is computed again for its gradient.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BLOCK_ELEMENTS = 2**20
"""Similarities held at a time (all heads and frames together): 4 MB in float32. On processors a
block that leaves the cache costs twice the time."""

GPU_BLOCKS = 8
"""How many times more on a GPU, where few large products are faster."""


class CrossFrameRetrieval(ModelMixin, ConfigMixin):
    """``retrieved = current + proj(weights V)``; queries from current, the rest from aligned.

    ``temperature=3000`` is the released model's constant (notes, step 4). The sum over positions
    grows with their number, so a constant suits pictures as large as those of training; with
    ``temperature=None`` the weights are divided by the number of positions (our decision, for
    the compact model, which trains on small crops).
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        num_heads: int = 9,
        head_dim: int = 64,
        temperature: float | None = 3000.0,
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.to_q = nn.Conv2d(latent_channels, inner, 1)
        self.to_k = nn.Conv2d(latent_channels, inner, 1)
        self.to_v = nn.Conv2d(latent_channels, inner, 1)
        self.threshold = nn.Linear(head_dim, 1)
        self.proj = nn.Conv2d(inner, latent_channels, 1)

    def forward(self, current_latents: Tensor, aligned_latents: Tensor) -> Tensor:
        """(B,C,h,w), (B,C,h,w) -> retrieved latents (B,C,h,w)."""
        return current_latents + self.retrieve(current_latents, aligned_latents)

    @apply_forward_hook  # CPU offloading otherwise moves a module for its forward() alone
    def retrieve(self, current_latents: Tensor, aligned_latents: Tensor) -> Tensor:
        """The addition alone, so that a window of several predecessors can average it."""
        height, width = current_latents.shape[-2:]
        query = self._heads(self.to_q(current_latents))
        key = self._heads(self.to_k(aligned_latents))
        value = self._heads(self.to_v(aligned_latents))
        found = thresholded_attention(
            query, key, value, self.threshold(query), self.config.temperature or height * width
        )
        # (B,n,N,d) -> (B,n*d,h,w)
        return self.proj(found.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width)))

    def _heads(self, features: Tensor) -> Tensor:
        """(B,n*d,h,w) -> (B,n,N,d)."""
        split = features.flatten(2).unflatten(1, (self.config.num_heads, -1))
        return split.transpose(2, 3).contiguous()


def thresholded_attention(
    query: Tensor, key: Tensor, value: Tensor, threshold: Tensor, temperature: float
) -> Tensor:
    """``relu((Q K^T / sqrt(d) - threshold) / temperature) V`` in blocks.

    query, key, value (B,n,N,d), threshold (B,n,N,1) -> (B,n,N,d).
    """
    # relu(x / t) = relu(x) / t: scale the small matrices once, not every block. The threshold is
    # one more channel of the query, against ones: taking it away costs no pass of its own.
    scaled_query = torch.cat([query * query.shape[-1] ** -0.5, -threshold], dim=-1)
    key = torch.cat([key, torch.ones_like(key[..., :1])], dim=-1).transpose(2, 3)
    scaled_value = value / temperature
    batch, heads, positions, _ = query.shape
    elements = BLOCK_ELEMENTS * (1 if query.device.type == "cpu" else GPU_BLOCKS)
    block = max(64, elements // (batch * heads * positions))
    recompute = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (scaled_query, key, value)
    )
    outputs = []
    for start in range(0, positions, block):
        inputs = (scaled_query[:, :, start : start + block], key, scaled_value)
        if recompute:
            outputs.append(checkpoint(_attend, *inputs, use_reentrant=False))
        else:
            outputs.append(_attend(*inputs))
    return torch.cat(outputs, dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.relu_(query @ key) @ value
