"""Cross-frame retrieval: the formula, its gradient, its memory."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dloral.models import cfr
from dloral.models.cfr import CrossFrameRetrieval

HEADS, HEAD_DIM = 3, 8


@pytest.fixture
def retrieval() -> CrossFrameRetrieval:
    torch.manual_seed(0)
    return CrossFrameRetrieval(
        latent_channels=4, num_heads=HEADS, head_dim=HEAD_DIM, temperature=7.0
    )


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Tiles that divide none of the sizes below."""
    monkeypatch.setattr(cfr, "CPU_TILE", (64, 48))
    return cfr.CPU_TILE


def latents(height: int, width: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed))


def naive(module: CrossFrameRetrieval, current: Tensor, aligned: Tensor) -> Tensor:
    """Step 4 of the generator as it is written down, head by head, with the N x N matrix."""

    def head(layer: torch.nn.Module, source: Tensor, index: int) -> Tensor:
        features = layer(source)[:, index * HEAD_DIM : (index + 1) * HEAD_DIM]
        return features.flatten(2).transpose(1, 2)  # (B,N,d)

    outputs = []
    for index in range(HEADS):
        query = head(module.to_q, current, index)
        key = head(module.to_k, aligned, index)
        value = head(module.to_v, aligned, index)
        similarity = torch.einsum("bid,bjd->bij", query, key) / HEAD_DIM**0.5
        threshold = query @ module.threshold.weight[0] + module.threshold.bias
        weights = torch.relu((similarity - threshold[..., None]) / module.config.temperature)
        outputs.append((weights @ value).transpose(1, 2))
    return current + module.proj(torch.cat(outputs, dim=1).unflatten(2, current.shape[-2:]))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (20, 23)])
def test_tiles_equal_the_formula(
    retrieval: CrossFrameRetrieval, small_tiles: tuple[int, int], size: tuple[int, int]
) -> None:
    current, aligned = latents(*size), latents(*size, seed=1)
    with torch.no_grad():
        expected = naive(retrieval, current, aligned)
        torch.testing.assert_close(retrieval(current, aligned), expected, atol=1e-4, rtol=1e-4)
        assert (expected - current).abs().max() > 0.01


def test_gradients_equal_the_formulas(
    retrieval: CrossFrameRetrieval, small_tiles: tuple[int, int]
) -> None:
    gradients = []
    for compute in (retrieval, lambda *given: naive(retrieval, *given)):
        current = latents(13, 17).requires_grad_()
        aligned = latents(13, 17, seed=1).requires_grad_()
        retrieval.zero_grad()
        (compute(current, aligned) * latents(13, 17, seed=2)).sum().backward()
        named = {name: p.grad.clone() for name, p in retrieval.named_parameters()}
        gradients.append({"current": current.grad, "aligned": aligned.grad, **named})
    ours, theirs = gradients
    for name, gradient in theirs.items():
        assert gradient.any(), name
        torch.testing.assert_close(ours[name], gradient, atol=1e-3, rtol=1e-3, msg=name)


class LargestTensor(TorchDispatchMode):
    """Records the most elements any operation's result had, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                # What it holds in memory, not what an expanded view shows.
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.itemsize)
        return result


@pytest.mark.parametrize("training", [False, True])
def test_memory_grows_with_positions_not_their_square(
    retrieval: CrossFrameRetrieval, small_tiles: tuple[int, int], training: bool
) -> None:
    largest = []
    for side in (16, 32):
        positions = side * side
        current = latents(side, side, batch=1).requires_grad_(training)
        aligned = latents(side, side, batch=1, seed=1).requires_grad_(training)
        with torch.set_grad_enabled(training), LargestTensor() as seen:
            result = retrieval(current, aligned)
            if training:
                result.sum().backward()
        largest.append(seen.elements)
        assert seen.elements <= HEADS * small_tiles[0] * positions
        assert seen.elements < HEADS * positions**2
    assert largest[1] <= 4 * largest[0]


def test_training_keeps_no_similarities(
    retrieval: CrossFrameRetrieval, small_tiles: tuple[int, int]
) -> None:
    """What autograd saves for the backward pass is of the size of queries, keys and values."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes() // tensor.itemsize
        return tensor

    positions = 32 * 32
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        retrieval(latents(32, 32, batch=1), latents(32, 32, batch=1, seed=1))
    assert 0 < sum(saved.values()) < 12 * HEADS * HEAD_DIM * positions


def test_default_tiles_are_bounded() -> None:
    query = torch.randn(1, 2, 1500, 4)
    with torch.no_grad(), LargestTensor() as seen:
        cfr.thresholded_attention(query, query, query, query[..., :1], 3.0)
    assert seen.elements <= 2 * cfr.CPU_TILE[0] * cfr.CPU_TILE[1]


def test_bfloat16_is_close(retrieval: CrossFrameRetrieval) -> None:
    current, aligned = latents(16, 16), latents(16, 16, seed=1)
    with torch.no_grad():
        full = retrieval(current, aligned) - current
        half = current.bfloat16(), aligned[None].bfloat16()
        found = retrieval.bfloat16().retrieve(*half).float()
    assert (found - full).abs().mean() < 0.03 * full.abs().mean()


def test_the_fast_relu_is_torchs_to_the_bit() -> None:
    numbers = torch.randn(3, 64, 48, generator=torch.Generator().manual_seed(0)).bfloat16()
    numbers[0, 0, :4] = torch.tensor([0.0, -0.0, float("inf"), -float("inf")])
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        given = numbers.to(dtype)
        assert torch.equal(cfr.rectified_(given.clone()), torch.relu(given))


@pytest.mark.parametrize("layouts", ["contiguous", "channels last", "one of each"])
def test_any_layout_gives_the_same(retrieval: CrossFrameRetrieval, layouts: str) -> None:
    current, aligned = latents(6, 9), latents(6, 9, seed=1)
    with torch.no_grad():
        expected = naive(retrieval, current, aligned)
        if layouts != "contiguous":
            current = current.to(memory_format=torch.channels_last)
        if layouts == "channels last":
            aligned = aligned.to(memory_format=torch.channels_last)
        torch.testing.assert_close(retrieval(current, aligned), expected, atol=1e-4, rtol=1e-4)


def test_frames_of_a_batch_do_not_touch(retrieval: CrossFrameRetrieval) -> None:
    current, aligned = latents(6, 9, batch=3), latents(6, 9, batch=3, seed=1)
    with torch.no_grad():
        alone = torch.cat([retrieval(current[i : i + 1], aligned[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(retrieval(current, aligned), alone, atol=1e-5, rtol=1e-5)


def test_without_a_temperature_a_larger_picture_of_the_same_changes_nothing():
    """Divided by the number of positions, the sum means the same at every picture size."""
    torch.manual_seed(0)
    retrieval = CrossFrameRetrieval(4, 2, 8, temperature=None)
    current, aligned = torch.randn(1, 4, 4, 6), torch.randn(1, 4, 4, 6)
    alone = retrieval.retrieve(current, aligned[None])
    twice = retrieval.retrieve(torch.cat([current] * 2, 3), torch.cat([aligned] * 2, 3)[None])
    assert alone.abs().max() > 1e-3
    assert torch.allclose(twice[..., :6], alone, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 6)])
def test_averaged_keys_equal_the_formula_on_averages(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module = CrossFrameRetrieval(4, HEADS, HEAD_DIM, temperature=7.0, key_reduction=2)
    current, aligned = latents(*size), latents(*size, seed=1)
    height, width = size
    rows, columns = ([slice(at, at + 2) for at in range(0, side, 2)] for side in (height, width))
    averages = torch.stack(
        [
            torch.stack([aligned[:, :, row, column].mean(dim=(2, 3)) for column in columns], dim=-1)
            for row in rows
        ],
        dim=-2,
    )
    with torch.no_grad():
        torch.testing.assert_close(module(current, aligned), naive(module, current, averages))


def gated(trust: float) -> CrossFrameRetrieval:
    """Latents of one channel and a small picture; trusts the predecessor everywhere as much."""
    torch.manual_seed(0)
    retrieval = CrossFrameRetrieval(13, 1, 4, temperature=7.0, picture_channels=12)
    assert retrieval.gate is not None
    last = retrieval.gate.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, float(torch.tensor(trust).logit()))
    return retrieval


@torch.no_grad()
@pytest.mark.parametrize("trust", [0.1, 0.5])
def test_the_small_picture_is_mixed_at_its_place(trust: float) -> None:
    retrieval = gated(trust)
    current, aligned = torch.randn(2, 2, 13, 5, 6)
    added = retrieval.at_the_place(current, aligned[None])
    assert not added[:, :1].any()
    wanted = trust * (aligned - current)[:, 1:]
    torch.testing.assert_close(added[:, 1:], wanted)
    torch.nn.init.zeros_(retrieval.proj.weight)
    torch.nn.init.zeros_(retrieval.proj.bias)
    torch.testing.assert_close(retrieval(current, aligned), current + added)


@torch.no_grad()
@pytest.mark.parametrize(("trust", "shares"), [(0.5, (1, 1, 1, 1)), (0.75, (1, 3, 3, 3))])
def test_several_predecessors_share_by_odds(trust: float, shares: tuple[int, ...]) -> None:
    """Trusted by a half, all four frames count the same, and their noise falls to a half."""
    retrieval = gated(trust)
    current, window = torch.randn(1, 13, 30, 30), torch.randn(3, 1, 13, 30, 30)
    steadied = (current + retrieval.at_the_place(current, window))[:, 1:]
    parts = zip(shares, (current, *window), strict=True)
    wanted = sum(share * frame[:, 1:] for share, frame in parts) / sum(shares)
    torch.testing.assert_close(steadied, wanted)
    if trust == 0.5:
        assert float(steadied.std()) == pytest.approx(0.5, abs=0.02)


@torch.no_grad()
def test_a_window_averages_what_it_found_anywhere() -> None:
    torch.manual_seed(0)
    retrieval = CrossFrameRetrieval(4, 2, 8, temperature=7.0)
    current, window = torch.randn(1, 4, 5, 6), torch.randn(3, 1, 4, 5, 6)
    alone = torch.stack([retrieval(current, aligned) - current for aligned in window])
    torch.testing.assert_close(retrieval.retrieve(current, window), alone.mean(dim=0))


@torch.no_grad()
def test_trust_is_a_places_and_not_a_colours() -> None:
    """Channels are places of one colour in turn, as pixel-unshuffle has them."""
    retrieval = gated(0.5)
    assert retrieval.gate is not None
    torch.nn.init.normal_(retrieval.gate.layers[-1].weight)
    now, before = torch.randn(2, 1, 12, 4, 4)
    trust = retrieval.gate(now, before)
    assert trust.std() > 0.01
    unfolded = torch.nn.functional.pixel_shuffle(trust, 2)
    assert torch.equal(unfolded[:, :1].expand(-1, 3, -1, -1), unfolded)


@torch.no_grad()
def test_a_frame_that_is_its_own_predecessor_gains_nothing() -> None:
    current = torch.randn(1, 13, 4, 4)
    assert not gated(0.5).at_the_place(current, current[None]).any()
