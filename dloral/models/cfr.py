"""Cross-frame retrieval (CFR): what the aligned predecessor knows, added to the current latents.

Legend: B batch, C latent channels, N = h*w latent positions, n heads of d channels.

Step 4 of the generator: per head, ``sim = Q K^T / sqrt(d)`` over all N x N positions, a learned
threshold per query, weights ``relu((sim - threshold) / temperature)``. There is no softmax and no
row normalisation, so sums over tiles of keys are exact and the N x N matrix never has to exist:
memory grows with N, in training too, where a tile is computed again for its gradient.
"""

from functools import reduce

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CPU_TILE = (512, 1024)
"""Queries and keys of a tile on processors: a megabyte of similarities for each head in bfloat16,
whatever the number of positions. With 256 keys, 4,096 queries of 1,024 took 12.8 ms instead of 7.7,
in products too small to be fast."""

GPU_ELEMENTS = 2**23
"""Similarities of a tile (all heads and frames together) on a GPU, where few large products are
faster; a tile has all keys."""


LEAST_DOUBT = 2.0**-8
"""What a gate leaves to the current frame at least, where trust becomes odds: bfloat16's last step
below 1."""


class CrossFrameRetrieval(ModelMixin, ConfigMixin):
    """``retrieved = current + proj(weights V)``; queries from current, the rest from aligned.

    ``temperature=3000`` is the released model's constant (notes, step 4). The sum over positions
    grows with their number, so a constant suits pictures of the training size; with
    ``temperature=None`` the weights are divided by the number of positions (our decision, for
    the compact model, which trains on small crops).

    ``picture_channels``: the last channels of the latents hold a small picture (see
    :class:`~dloral.models.vae.CompactVAE`). For these, the predecessor's values at the same place
    are added to the extent that a :class:`TrustGate` allows; this averages noise out before
    anything is drawn (our decision).

    ``key_reduction``: keys and values come from ``aligned`` averaged over squares of this side in
    cells, which divides the similarities by its square (our decision, for the compact model).
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        num_heads: int = 9,
        head_dim: int = 64,
        temperature: float | None = 3000.0,
        key_reduction: int = 1,
        picture_channels: int = 0,
    ) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.to_q = nn.Conv2d(latent_channels, inner, 1)
        self.to_k = nn.Conv2d(latent_channels, inner, 1)
        self.to_v = nn.Conv2d(latent_channels, inner, 1)
        self.threshold = nn.Linear(head_dim, 1)
        self.proj = nn.Conv2d(inner, latent_channels, 1)
        self.gate = TrustGate(picture_channels) if picture_channels else None

    def forward(self, current_latents: Tensor, aligned_latents: Tensor) -> Tensor:
        """(B,C,h,w), (B,C,h,w) -> retrieved latents (B,C,h,w)."""
        return current_latents + self.retrieve(current_latents, aligned_latents[None])

    @apply_forward_hook  # CPU offloading otherwise moves a module for its forward() alone
    def retrieve(self, current_latents: Tensor, aligned_window: Tensor) -> Tensor:
        """The addition alone, from K predecessors (K,B,C,h,w): what is retrieved from them is
        averaged, as in the paper; the small picture is weighted by :meth:`at_the_place`."""
        found = [self._anywhere(current_latents, aligned) for aligned in aligned_window]
        average = found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)
        if self.gate is None:
            return average
        return average + self.at_the_place(current_latents, aligned_window)

    def at_the_place(self, current_latents: Tensor, aligned_window: Tensor) -> Tensor:
        """The addition of the small picture alone, from the same place (B,C,h,w); 0 without one.

        A gate says how far one predecessor is to be trusted against the current frame. For several
        (K,B,C,h,w), trust is converted to odds: with a trust of a half in each, all frames count
        the same, so noise falls with their number, whereas an average of additions would leave the
        current frame its half (our decision).
        """
        nothing = torch.zeros_like(current_latents)
        if self.gate is None:
            return nothing
        picture = slice(-self.config.picture_channels, None)
        now = current_latents[:, picture]
        earlier = aligned_window[:, :, picture]
        trusts = [self.gate(now, before) for before in earlier]
        if len(trusts) == 1:
            nothing[:, picture] = trusts[0] * (earlier[0] - now)
            return nothing
        odds = torch.stack([trust / (1 - trust).clamp(min=LEAST_DOUBT) for trust in trusts])
        nothing[:, picture] = (odds * (earlier - now)).sum(dim=0) / (1 + odds.sum(dim=0))
        return nothing

    def _anywhere(self, current_latents: Tensor, aligned_latents: Tensor) -> Tensor:
        height, width = current_latents.shape[-2:]
        if self.config.key_reduction > 1:
            aligned_latents = F.avg_pool2d(
                aligned_latents, self.config.key_reduction, ceil_mode=True
            )
        keys = aligned_latents.shape[-2] * aligned_latents.shape[-1]
        query = self._heads(self.to_q(current_latents)).contiguous()
        key = self._heads(self.to_k(aligned_latents))
        value = self._heads(self.to_v(aligned_latents))
        found = thresholded_attention(
            query, key, value, self.threshold(query), self.config.temperature or keys
        )
        # (B,n,N,d) -> (B,n*d,h,w)
        return self.proj(found.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width)))

    def _heads(self, features: Tensor) -> Tensor:
        """(B,n*d,h,w) -> (B,n,N,d), without a copy in either layout of the features."""
        split = features.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (self.config.num_heads, -1))
        return split.transpose(1, 2)


class TrustGate(nn.Module):
    """How far to trust an aligned predecessor, place by place: 0 not at all, 1 it alone.

    Current and previous small pictures (B,12,h,w) -> (B,12,h,w), the same for the three colours of
    a place. It sees both and how far they differ.
    """

    def __init__(self, channels: int, width: int = 32, colours: int = 3) -> None:
        super().__init__()
        self.colours = colours
        self.layers = nn.Sequential(
            nn.Conv2d(3 * channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, channels // colours, 3, padding=1),
        )

    def forward(self, now: Tensor, before: Tensor) -> Tensor:
        trust = self.layers(torch.cat([now, before, (before - now).abs()], dim=1)).sigmoid()
        return trust.repeat(1, self.colours, 1, 1)  # channels are places of a colour, in turn


def thresholded_attention(
    query: Tensor, key: Tensor, value: Tensor, threshold: Tensor, temperature: float
) -> Tensor:
    """``relu((Q K^T / sqrt(d) - threshold) / temperature) V`` in tiles of queries and keys.

    query, key, value (B,n,N,d), threshold (B,n,N,1) -> (B,n,N,d).
    """
    # relu(x / t) = relu(x) / t: scale the small matrices once, not every tile. The threshold is
    # one more channel of the query, against ones: subtracting it costs no separate pass.
    scaled_query = torch.cat([query * query.shape[-1] ** -0.5, -threshold], dim=-1).flatten(0, 1)
    key = key.transpose(2, 3)  # (B,n,d,N), which is how convolutions give it
    key = torch.cat([key, torch.ones_like(key[:, :, :1])], dim=2).flatten(0, 1)
    scaled_value = (value / temperature).flatten(0, 1)
    recompute = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (scaled_query, key, value)
    )
    queries, keys = _tile(query)
    sums = torch.promote_types(query.dtype, torch.float32)
    # Laid out once: products would copy a tile each time it is used.
    sources = [
        (_laid_out(some_keys), _laid_out(values))
        for some_keys, values in zip(
            key.split(keys, dim=2), scaled_value.split(keys, dim=1), strict=True
        )
    ]
    outputs = []
    for rows in map(_laid_out, scaled_query.split(queries, dim=1)):
        parts = (
            checkpoint(_attend, rows, *source, use_reentrant=False)
            if recompute
            else rectified_(torch.bmm(rows, source[0])).bmm(source[1])
            for source in sources
        )
        outputs.append(reduce(torch.add, (part.to(sums) for part in parts)).to(query.dtype))
    return torch.cat(outputs, dim=1).unflatten(0, query.shape[:2])


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.relu_(torch.bmm(query, key)).bmm(value)


def rectified_(similarities: Tensor) -> Tensor:
    """``torch.relu_`` to the bit, without gradients.

    A bfloat16's bits, read as an integer, are negative where the number is. torch's own kernel
    widens each number and rounds it again, which takes a CPU six times as long.
    """
    if similarities.dtype != torch.bfloat16 or similarities.device.type != "cpu":
        return torch.relu_(similarities)
    similarities.view(torch.int16).clamp_min_(0)
    return similarities


def _laid_out(tile: Tensor) -> Tensor:
    """Contiguous on CPUs; GPUs take any strides."""
    return tile.contiguous() if tile.device.type == "cpu" else tile


def _tile(query: Tensor) -> tuple[int, int]:
    """How many queries and keys to take at once."""
    if query.device.type == "cpu":
        return CPU_TILE
    batch, heads, positions, _ = query.shape
    return max(64, GPU_ELEMENTS // (batch * heads * positions)), positions
