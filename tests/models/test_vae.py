"""The compact VAE."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate, pixel_shuffle

from dloral.models.lora_conv import two_lora_convs
from dloral.models.vae import CompactVAE, DoublingConv, _enlarged_folded

ENDS = {
    "plain": {},
    "upsamples": {"decoder_sees_input": True, "upsample": True},
    "direct head": {"decoder_sees_input": True, "direct_head": True},
    "small picture": {"decoder_sees_input": True, "direct_head": True, "small_picture": True},
    "rectified": {"decoder_sees_input": True, "direct_head": True, "rectified": True},
}
CHANNELS = 18  # where there is a small picture, 12 hold it


@pytest.fixture(params=list(ENDS))
def vae(request: pytest.FixtureRequest) -> CompactVAE:
    torch.manual_seed(0)
    sizes = {"latent_channels": CHANNELS, "width": 8, "encoder_blocks": 1, "decoder_blocks": 2}
    return CompactVAE(**sizes, **ENDS[request.param])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 64), (40, 16)])
def test_latents_are_an_eighth(vae: CompactVAE, height: int, width: int) -> None:
    frames = torch.rand(2, 3, height, width) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(frames)[0]
        decoded = vae.decode(latents, lq_frames=frames).sample
    assert latents.shape == (2, CHANNELS, height // 8, width // 8)
    assert decoded.shape == frames.shape
    assert torch.equal(vae.encode(frames, return_dict=False)[0], latents)
    assert torch.equal(vae.decode(latents, return_dict=False, lq_frames=frames)[0], decoded)
    assert torch.equal(vae(frames), decoded)


def test_a_fresh_decoder_adds_next_to_nothing(vae: CompactVAE) -> None:
    """Its output is a difference to the bicubic frame: training starts beside bicubic."""
    frames = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert vae(frames).abs().max() < 0.1


def test_a_fresh_decoder_has_no_dot_grid(vae: CompactVAE) -> None:
    """Before ``finish``, the pixels of a shuffled cell are equal (ICNR)."""
    if vae.config.direct_head:
        pytest.skip("nothing is shuffled before its head")
    factor = 2 if vae.config.upsample else 4
    with torch.no_grad():
        shuffled = vae.decoder(torch.randn(1, CHANNELS, 4, 4))
    cells = torch.nn.functional.pixel_unshuffle(shuffled, factor).unflatten(1, (-1, factor**2))
    torch.testing.assert_close(cells, cells[:, :, :1].expand_as(cells), atol=1e-6, rtol=0)
    assert cells.std() > 0


def test_every_weight_gets_a_gradient(vae: CompactVAE) -> None:
    vae(torch.rand(1, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_saved_and_loaded(vae: CompactVAE, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path)
    loaded = CompactVAE.from_pretrained(tmp_path)
    frames = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(vae(frames), loaded(frames))
    assert loaded.config.scaling_factor == 1.0


def test_a_decoder_that_sees_its_input_uses_it() -> None:
    torch.manual_seed(0)
    vae = CompactVAE(6, 8, 1, 1, decoder_sees_input=True)
    latents, frames = torch.randn(1, 6, 2, 2), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        one, other = (vae.decode(latents, lq_frames=frame[None]).sample for frame in frames)
    assert not torch.equal(one, other)


def test_a_direct_head_is_a_convolution_and_a_shuffle_by_four() -> None:
    """Of the features and the mean colour of each cell of the frame."""
    torch.manual_seed(0)
    vae = CompactVAE(6, 8, 1, 2, decoder_sees_input=True, direct_head=True)
    frames, features = torch.rand(1, 3, 16, 24), torch.randn(1, 8, 4, 6)
    means = torch.nn.functional.avg_pool2d(frames, 4)
    conv = vae.finish.conv
    expected = torch.nn.functional.pixel_shuffle(conv(torch.cat([features, means], 1)), 4)
    found = vae.finish(features, torch.nn.functional.pixel_unshuffle(frames, 4))
    torch.testing.assert_close(found, expected)


def test_ends_that_do_not_go_together() -> None:
    for others in ({}, {"decoder_sees_input": True, "upsample": True}):
        with pytest.raises(ValueError, match="direct head"):
            CompactVAE(6, 8, 1, 2, direct_head=True, **others)


def test_the_doubling_convolution_is_one_after_nearest_enlargement() -> None:
    torch.manual_seed(0)
    conv, features = DoublingConv(5, 3, 3, padding=1), torch.randn(2, 5, 4, 7)
    doubled = torch.nn.functional.interpolate(features, scale_factor=2, mode="nearest")
    plain = torch.nn.functional.conv2d(doubled, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(features), plain)


def with_picture() -> CompactVAE:
    torch.manual_seed(0)
    vae = CompactVAE(
        CHANNELS, 8, 1, 2, decoder_sees_input=True, direct_head=True, small_picture=True
    )
    for parameter in vae.decoder[0].parameters():  # what learns in the latents has no say
        torch.nn.init.zeros_(parameter)
    for name, parameter in vae.named_parameters():
        if not name.startswith("decoder.0"):
            torch.nn.init.normal_(parameter, std=0.1)
    return vae


def enlarged(small: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(small, scale_factor=4, mode="bicubic")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_change_of_the_picture_is_enlarged_as_torch_does(dtype: torch.dtype) -> None:
    """Its borders too; in half precision to a part in a hundred of the largest change."""
    change = torch.randn(2, 3, 5, 7)
    wanted = interpolate(change, scale_factor=4, mode="bicubic", align_corners=False)
    found = pixel_shuffle(_enlarged_folded(change.to(dtype)), 4).float()
    precision = 1e-5 if dtype is torch.float32 else 0.01 * change.abs().max().item()
    torch.testing.assert_close(found, wanted, atol=precision, rtol=0)


def test_an_enlarged_change_lets_gradients_through_after_inference() -> None:
    with torch.inference_mode():
        _enlarged_folded(torch.randn(1, 3, 4, 4, dtype=torch.float64))
    change = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    _enlarged_folded(change).square().sum().backward()
    assert change.grad is not None
    assert change.grad.any()


def test_another_small_picture_is_drawn_as_another_frame() -> None:
    """Latents that hold the picture of one frame, decoded beside another: as if it were the one.
    Smooth pictures, of which the middle of a square says all."""
    vae = with_picture()
    grid = torch.linspace(0, 3, 24)
    now = enlarged(0.5 * torch.sin(grid + grid[:, None]).expand(1, 3, 24, 24))
    before = enlarged(0.5 * torch.cos(grid - grid[:, None]).expand(1, 3, 24, 24))
    mixed = vae.decode(vae.encode(before)[0], lq_frames=now).sample + now
    wanted = vae.decode(vae.encode(before)[0], lq_frames=before).sample + before
    apart = vae.decode(vae.encode(now)[0], lq_frames=now).sample + now
    assert (mixed - wanted).abs().mean() < 0.02 * (apart - wanted).abs().mean()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silent_latents_change_nothing(dtype: torch.dtype) -> None:
    """They hold the frame's own picture: what is drawn is drawn of that frame alone."""
    vae, frames = with_picture().to(dtype), (torch.rand(1, 3, 32, 40) * 2 - 1).to(dtype)
    silent = vae.silent_latents(frames)
    assert torch.equal(silent[:, -12:], vae.encode(frames)[0][:, -12:])
    assert not silent[:, :-12].any()
    folded = torch.nn.functional.pixel_unshuffle(frames, 4)
    features = vae.decoder[2:](vae.decoder[:2](silent[:, :-12]) + vae.join(folded))
    torch.testing.assert_close(
        vae.decode(silent, lq_frames=frames).sample, vae.finish(features, folded)
    )


def test_a_small_picture_needs_the_input() -> None:
    with pytest.raises(ValueError, match="small picture"):
        CompactVAE(CHANNELS, 8, 1, 2, small_picture=True)


@pytest.fixture(params=[{"head_rank": 3}, {"block_rank": 2}, {"head_rank": 3, "block_rank": 2}])
def with_loras(request: pytest.FixtureRequest) -> CompactVAE:
    torch.manual_seed(0)
    vae = CompactVAE(CHANNELS, 8, 1, 2, **ENDS["rectified"])
    vae.add_adapters(**{"head_rank": 0} | request.param)
    for conv in two_lora_convs(vae):
        for up in conv.lora_up.values():
            torch.nn.init.normal_(up.weight)
    return vae


@torch.no_grad()
def test_loras_change_the_picture_by_their_scales(with_loras: CompactVAE) -> None:
    frames, drawn = torch.rand(2, 3, 16, 24) * 2 - 1, {}
    for scales in ((0, 0), (1, 0), (0, 1), (0.5, 1.5)):
        with_loras.set_scales(consistency=scales[0], detail=scales[1])
        drawn[scales] = with_loras(frames)
    torch.manual_seed(0)
    plain = CompactVAE(CHANNELS, 8, 1, 2, **ENDS["rectified"])
    assert torch.equal(drawn[0, 0], plain(frames))
    changes = {scales: picture - drawn[0, 0] for scales, picture in drawn.items()}
    assert min(changes[scales].abs().max() for scales in ((1, 0), (0, 1))) > 0.01
    for conv in two_lora_convs(with_loras):
        conv.lora_up["detail"].weight.zero_()
    with_loras.set_scales(consistency=0, detail=1)
    assert torch.equal(with_loras(frames), drawn[0, 0])
    if not with_loras.config.block_rank:  # of one convolution: what it adds is a sum
        wanted = drawn[0, 0] + 0.5 * changes[1, 0] + 1.5 * changes[0, 1]
        torch.testing.assert_close(drawn[0.5, 1.5], wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_new_loras_change_nothing(with_loras: CompactVAE) -> None:
    frames = torch.rand(1, 3, 16, 16)
    with_loras.set_scales(consistency=0, detail=0)
    before = with_loras(frames)
    with_loras.add_adapters(0, 4)
    with_loras.add_adapters(2)
    assert torch.equal(with_loras(frames), before)
    assert (with_loras.config.head_rank, with_loras.config.block_rank) == (2, 4)


@torch.no_grad()
def test_loras_come_back_from_a_folder(with_loras: CompactVAE, tmp_path: Path) -> None:
    """At a scale of 1, wherever the dials stood."""
    frames = torch.rand(1, 3, 16, 16)
    before = with_loras(frames)
    with_loras.set_scales(consistency=0.2, detail=0.3)
    assert not torch.equal(with_loras(frames), before)
    with_loras.save_pretrained(tmp_path)
    assert torch.equal(CompactVAE.from_pretrained(tmp_path)(frames), before)
    assert not torch.equal(with_loras(frames), before)


def test_loras_need_their_places() -> None:
    with pytest.raises(ValueError, match="need direct_head"):
        CompactVAE(CHANNELS, 8, 1, 2, head_rank=4)
    with pytest.raises(ValueError, match="need rectified blocks"):
        CompactVAE(CHANNELS, 8, 1, 2, **ENDS["direct head"], block_rank=4)


def test_rectified_blocks_need_a_direct_head() -> None:
    with pytest.raises(ValueError, match="rectified blocks need direct_head"):
        CompactVAE(rectified=True, decoder_sees_input=True)


@torch.no_grad()
def test_features_are_held_within_a_reach_at_every_fourth_block() -> None:
    torch.manual_seed(0)
    ends = ENDS["rectified"] | {"reach": 2.0}
    vae = CompactVAE(CHANNELS, 8, 1, 9, **ends)
    free = CompactVAE(CHANNELS, 8, 1, 9, **ENDS["rectified"])
    free.load_state_dict(vae.state_dict())
    reached: list[float] = []
    strong = 100 * torch.rand(1, 3, 16, 16)
    for decoder in (vae, free):
        for block in decoder.decoder[2:]:
            block.register_forward_hook(
                lambda _, __, features: reached.append(features.abs().max().item())
            )
        decoder(strong)
    held, grown = reached[:9], reached[9:]
    assert held[:3] == grown[:3]
    assert held[3] == 2 < grown[3]
    assert held[7] <= 2
    vae.load_state_dict({name: 0.01 * weight for name, weight in vae.state_dict().items()})
    free.load_state_dict(vae.state_dict())
    frames = torch.rand(1, 3, 16, 16)
    assert torch.equal(vae(frames), free(frames))


def test_a_reach_needs_rectified_blocks() -> None:
    with pytest.raises(ValueError, match="a reach needs rectified blocks"):
        CompactVAE(decoder_sees_input=True, direct_head=True, reach=2.0)
