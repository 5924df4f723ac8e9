"""The prompt extractor Y: RAM, a tagger, with or without DAPE's LoRA.

Legend: B pictures, S their side (384), N = (S/32)^2 places of the Swin transformer's last stage,
T tags, D the width that labels and image features share (512).

A Swin transformer encodes the picture; each tag's text embedding is a query that attends to its
features through two layers of cross-attention; one linear layer turns each into a logit. Sources:
Huang et al., "Open-Set Image Tagging with Multi-Grained Text Supervision" (RAM); Wu et al., "SeeSR"
(DAPE, a LoRA that makes RAM answer the same for a degraded picture). The Swin transformer itself
is transformers' own.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel

from dloral.models.flow import IMAGENET_MEAN, IMAGENET_STD

BERT_EPSILON = 1e-12
"""Of BERT's layer normalisations, which the tagging head took over."""

DAPE_SCALE = 1 / 8
"""What DAPE's low-rank products count: alpha 1 at rank 8 (notes)."""


class TaggingLayer(nn.Module):
    """A BERT layer without self-attention: labels (B,T,H) attend to features (B,1+N,D)."""

    def __init__(self, width: int, inner: int, heads: int, feature_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(feature_width, width)
        self.value = nn.Linear(feature_width, width)
        self.out = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, eps=BERT_EPSILON)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=BERT_EPSILON)

    def forward(self, labels: Tensor, features: Tensor) -> Tensor:
        query, key, value = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(labels), self.key(features), self.value(features))
        )
        # Not torch's fused attention; see Tagger.swin.
        found = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1) @ value
        labels = self.attended_norm(labels + self.out(found.transpose(1, 2).flatten(2)))
        return self.norm(labels + self.narrow(F.gelu(self.widen(labels))))


class Tagger(ModelMixin, ConfigMixin):
    """Pictures (B,3,S,S) in [0, 1] -> logits (B,T); :meth:`tags_of` says them in words.

    The defaults are RAM's (``ram_swin_large_14m``). ``tags`` and ``thresholds`` have one entry per
    tag: a tag is reported if its logit's sigmoid is above its threshold.
    """

    @register_to_config
    def __init__(
        self,
        tags: Sequence[str] = (),
        thresholds: Sequence[float] = (),
        image_size: int = 384,
        window: int = 12,
        embed_dim: int = 192,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        head_width: int = 768,
        head_inner: int = 3072,
        head_heads: int = 4,
        head_layers: int = 2,
        label_width: int = 512,
    ) -> None:
        super().__init__()
        if len(tags) != len(thresholds):
            raise ValueError(f"{len(tags)} tags have {len(thresholds)} thresholds")
        self.swin = SwinModel(
            SwinConfig(
                image_size=image_size,
                embed_dim=embed_dim,
                depths=list(depths),
                num_heads=list(num_heads),
                window_size=window,
                # Summed as in the reference; torch's fused attention rounds differently, and the
                # tagging head amplifies such a difference hundreds of times.
                attn_implementation="eager",
            )
        )
        self.image_proj = nn.Linear(self.swin.num_features, label_width)
        self.label_embed = nn.Parameter(torch.zeros(len(tags), label_width))
        self.label_proj = nn.Linear(label_width, head_width)
        self.layers = nn.ModuleList(
            TaggingLayer(head_width, head_inner, head_heads, label_width)
            for _ in range(head_layers)
        )
        self.fc = nn.Linear(head_width, 1)

    def embed(self, pictures: Tensor) -> Tensor:
        """Pictures (B,3,S,S) in [0, 1] -> features (B,1+N,D): their mean first, then the places."""
        mean, std = (
            pictures.new_tensor(statistic).view(3, 1, 1)
            for statistic in (IMAGENET_MEAN, IMAGENET_STD)
        )
        seen = self.swin(((pictures - mean) / std).to(self.dtype))
        features = torch.cat([seen.pooler_output[:, None], seen.last_hidden_state], dim=1)
        return self.image_proj(features)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B,3,S,S) in [0, 1] -> logits (B,T)."""
        return self.logits(self.embed(pictures))

    def logits(self, features: Tensor) -> Tensor:
        """Features (B,1+N,D) of :meth:`embed` -> logits (B,T)."""
        labels = F.relu(self.label_proj(self.label_embed)).expand(len(features), -1, -1)
        for layer in self.layers:
            labels = layer(labels, features)
        return self.fc(labels)[..., 0]

    @torch.no_grad()
    def tags_of(self, frames: Tensor) -> list[list[str]]:
        """The tags of each of the frames (B,3,H,W) in [0, 1], of any size, in the list's order."""
        pictures = shrink_to_square(frames.to(self.device).float(), self.config.image_size)
        likely = self(pictures).float().sigmoid().cpu()
        named = likely > torch.tensor(self.config.thresholds)
        return [[self.config.tags[i] for i in row.nonzero()[:, 0].tolist()] for row in named]

    @torch.no_grad()
    def merge_lora(self, lora: Mapping[str, Tensor], scale: float = DAPE_SCALE) -> None:
        """Add ``scale * B A`` to the weights of the layers named ``<layer>.lora_A.weight``.

        Raises ``ValueError`` naming a tensor that has no place here.
        """
        for name in lora:
            layer, _, rest = name.partition(".lora_")
            weights = self.state_dict().get(f"{layer}.weight") if rest else None
            other = lora.get(f"{layer}.lora_{'B' if rest[:1] == 'A' else 'A'}.weight")
            if weights is None or other is None:
                raise ValueError(f"LoRA tensor {name!r} has no place or no partner")
        for name, down in lora.items():
            if name.endswith(".lora_A.weight"):
                layer = name.removesuffix(".lora_A.weight")
                weight = self.get_submodule(layer).weight
                assert isinstance(weight, Tensor)
                delta = lora[f"{layer}.lora_B.weight"].float() @ down.float()
                weight.copy_(weight.float() + scale * delta.to(weight.device))


def shrink_to_square(frames: Tensor, side: int) -> Tensor:
    """Frames (B,3,H,W) -> (B,3,side,side) by antialiased bilinear, as RAM is used everywhere."""
    if frames.shape[-2:] == (side, side):
        return frames
    return F.interpolate(frames, (side, side), mode="bilinear", align_corners=False, antialias=True)


def make_prompt(tags: Sequence[str], user_prompt: str) -> str:
    """The prompt for a frame with these tags, in the form that the released model was used with."""
    return f"{', '.join(tags)}, {user_prompt},"
