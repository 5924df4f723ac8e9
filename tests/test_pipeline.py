"""The generator from frames to frames, with a small pipeline of real parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import make_clip
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from dloral.errors import OptionError
from dloral.frames.crisp import crisp
from dloral.frames.grid import without_grid
from dloral.frames.resize import shrink_for_flow
from dloral.pipeline import DLoRALPipeline


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (8, 8), (50, 61), (3, 130)])
@pytest.mark.parametrize("color_fix", ["adain", "wavelet", "none"])
def test_as_many_frames_of_the_same_size(
    pipe: DLoRALPipeline, height: int, width: int, color_fix: str
) -> None:
    restored = pipe(make_clip(3, height, width), color_fix=color_fix).frames
    assert restored.shape == (3, 3, height, width)
    assert restored.isfinite().all()
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_each_step_gets_what_the_one_before_gave(
    pipe: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step in turn gives something that can be told, which the next must have been given."""
    clip = make_clip(2)
    known: dict[str, tuple[Tensor, ...]] = {}
    for name in ("encode", "retrieve", "predict", "decode"):
        own = getattr(pipe, name)

        def step(*given: Tensor, own: Any = own, name: str = name) -> Any:
            made = own(*given)
            known[name] = (*given, *(made if isinstance(made, tuple) else (made,)))
            return made

        monkeypatch.setattr(pipe, name, step)
    frames = pipe(clip, color_fix="none").frames
    lq_frame, _, latents = known["encode"]
    assert torch.equal(lq_frame[0], clip[1])
    current, small, before, small_before, retrieved, aligned = known["retrieve"]
    assert torch.equal(current, latents)
    assert torch.equal(before[0], pipe.encode(clip[:1]))
    assert torch.equal(small, shrink_for_flow(clip[1:]))
    assert torch.equal(small_before[0], shrink_for_flow(clip[:1]))
    assert torch.equal(known["predict"][0], aligned)
    assert torch.equal(known["predict"][1], retrieved)
    restored, lq_frame, _, decoded = known["decode"]
    assert torch.equal(restored, retrieved - known["predict"][3])
    assert torch.equal(lq_frame[0], clip[1])
    assert torch.equal(frames[1], decoded[0].clamp(0, 1))
    assert not torch.equal(aligned, retrieved)


@pytest.mark.parametrize("detail", [0.0, 0.5, 1.5])
def test_frames_are_made_crisp_as_far_as_detail_says(pipe: DLoRALPipeline, detail: float) -> None:
    """At the end, and in each of the two ways to get there."""
    clip = make_clip(2, 45, 50)
    plain = pipe(clip, detail=detail).frames
    pipe.register_to_config(crispness=0.8)
    found = pipe(clip, detail=detail).frames
    how = {"amount": 0.8 * max(detail, 1.0), "share": min(detail, 1.0)}
    assert torch.equal(found, crisp(plain, **how) if detail else plain)
    assert torch.equal(plain, found) == (detail == 0)
    again = pipe.finish(pipe.prepare(clip), detail=detail)
    torch.testing.assert_close(again, found, atol=1e-5, rtol=0)
    pipe.register_to_config(smoothing=0.0)
    steeper = crisp(plain, **how, smoothing=0.0) if detail else plain
    assert torch.equal(pipe(clip, detail=detail).frames, steeper)


def test_a_grid_is_taken_out_before_frames_are_made_crisp(pipe: DLoRALPipeline) -> None:
    """At any detail, and in each of the two ways to get there."""
    clip = make_clip(2, 45, 50)
    plain = pipe(clip).frames
    pipe.register_to_config(grid_period=4)
    without = without_grid(plain, 4)
    assert not torch.equal(without, plain)
    assert torch.equal(pipe(clip).frames, without.clamp(0, 1))
    pipe.register_to_config(crispness=0.8)
    assert torch.equal(pipe(clip).frames, crisp(without, 0.8))
    finished = pipe.finish(pipe.prepare(clip))
    torch.testing.assert_close(finished, crisp(without, 0.8), atol=1e-5, rtol=0)


def test_frames_that_were_enlarged_less_are_made_less_crisp(pipe: DLoRALPipeline) -> None:
    clip = make_clip(2, 45, 50)
    plain = pipe(clip).frames
    pipe.register_to_config(crispness=0.8)
    assert torch.equal(pipe(clip, enlarged=1.0).frames, plain)
    assert torch.equal(pipe(clip, enlarged=0.5).frames, plain)
    torch.testing.assert_close(pipe(clip, enlarged=2.5).frames, crisp(plain, 0.8, share=0.5))
    assert torch.equal(pipe(clip, enlarged=6.0).frames, crisp(plain, 0.8))
    finished = pipe.finish(pipe.prepare(clip), enlarged=2.5)
    torch.testing.assert_close(finished, crisp(plain, 0.8, share=0.5), atol=1e-5, rtol=0)
    for wrong in (0.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="enlarged is"):
            pipe(clip, enlarged=wrong)


@pytest.mark.parametrize("levels", [2, 5])
def test_latents_of_another_stride(pipe: DLoRALPipeline, levels: int) -> None:
    """A VAE with cells of 2 or 16 pixels: everything that depends on it comes from it."""
    torch.manual_seed(0)
    pipe.vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(4,) * levels,
        norm_num_groups=2,
        latent_channels=4,
    ).eval()
    stride = 2 ** (levels - 1)
    assert pipe.latent_stride == stride
    restored = pipe(make_clip(2, 35, 50), tile=3, tile_overlap=1).frames
    assert restored.shape == (2, 3, 35, 50)
    latents = pipe(make_clip(1, 35, 50), output_type="latent").frames
    assert latents.shape == (1, 4, -(-35 // stride), -(-50 // stride))
    whole, tiles = (pipe.encode(make_clip(1, 64, 64), tile) for tile in (None, 2))
    assert tiles.shape == whole.shape == (1, 4, 64 // stride, 64 // stride)


def test_scales_change_the_result(pipe: DLoRALPipeline) -> None:
    clip = make_clip(2)
    results = [
        pipe(clip, consistency=c, detail=d).frames for c, d in [(1, 1), (1, 0), (0, 1), (0, 0)]
    ]
    for index, one in enumerate(results):
        for other in results[index + 1 :]:
            assert not torch.equal(one, other)


def test_window_averages_retrieval(pipe: DLoRALPipeline) -> None:
    """The mean over the window of what each predecessor alone would add; aligned: the nearest."""
    clip = make_clip(4)
    small = shrink_for_flow(clip)
    with torch.no_grad():
        latents = pipe.encode(clip)
        singly = [
            pipe.retrieve(latents[3:], small[3:], latents[None, p : p + 1], small[None, p : p + 1])
            for p in (2, 1, 0)
        ]
        order = [2, 1, 0]
        retrieved, aligned = pipe.retrieve(
            latents[3:], small[3:], latents[order][:, None], small[order][:, None]
        )
    expected = torch.stack([alone for alone, _ in singly]).mean(dim=0)
    torch.testing.assert_close(retrieved, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(aligned, singly[0][1], atol=1e-5, rtol=0)


def test_forms_of_input_agree(pipe: DLoRALPipeline) -> None:
    pictures = (make_clip(2) * 255).round().byte()
    arrays = pictures.permute(0, 2, 3, 1).numpy()
    expected = pipe(pictures.float() / 255).frames
    forms = {
        "uint8": pictures,
        "double": pictures.double() / 255,
        "channels last": pictures.permute(0, 2, 3, 1),
        "array": arrays,
        "array of floats": arrays.astype(np.float32) / 255,
        "pil": [Image.fromarray(array) for array in arrays],
        "pil with alpha": [Image.fromarray(array).convert("RGBA") for array in arrays],
        "list of arrays": list(arrays),
        "list of tensors": list(pictures),
    }
    for name, form in forms.items():
        torch.testing.assert_close(pipe(form).frames, expected, atol=1e-5, rtol=0, msg=name)
    streamed = torch.stack(list(pipe.stream(iter(pictures))))
    torch.testing.assert_close(streamed, expected, atol=1e-5, rtol=0)


def test_output_types(pipe: DLoRALPipeline) -> None:
    clip = make_clip(2, 20, 30)
    frames = pipe(clip, output_type="pt").frames
    arrays = pipe(clip, output_type="np").frames
    pictures = pipe(clip, output_type="pil").frames
    latents = pipe(clip, output_type="latent").frames
    assert frames.dtype == torch.float32
    assert arrays.shape == (2, 20, 30, 3)
    assert np.array_equal(arrays, frames.permute(0, 2, 3, 1).numpy())
    assert [picture.size for picture in pictures] == [(30, 20), (30, 20)]
    assert np.abs(np.asarray(pictures[1]) / 255 - arrays[1]).max() <= 0.51 / 255
    assert latents.shape == (2, 4, 3, 4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"window": 2}, "window is 2"),
        ({"window": -1}, "window is -1"),
        ({"tile": 8, "tile_overlap": 8}, "overlap"),
        ({"tile": 0}, "tile is 0"),
        ({"tile": "auto"}, "tile is 'auto'"),
        ({"tile": 8, "tile_overlap": -1}, "overlap"),
        ({"color_fix": "sepia"}, "sepia"),
        ({"output_type": "jpeg"}, "jpeg"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"consistency": -0.1}, "consistency is -0.1"),
        ({"detail": float("nan")}, "detail is nan"),
        ({"detail": float("inf")}, "detail is inf"),
        ({"detail": 2.01}, "detail is 2.01"),
    ],
)
def test_wrong_options_in_one_line(
    pipe: DLoRALPipeline, options: dict[str, object], named: str
) -> None:
    with pytest.raises(OptionError) as caught:
        pipe(make_clip(1), **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        torch.zeros(0, 3, 8, 8),
        torch.zeros(3, 8, 8),
        torch.zeros(2, 4, 8, 8),
        torch.zeros(2, 3, 8, 8, dtype=torch.int64),
        [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))],
    ],
    ids=["none", "no frames", "one picture", "four channels", "integers", "mixed sizes"],
)
def test_wrong_frames_in_one_line(pipe: DLoRALPipeline, frames: object) -> None:
    with pytest.raises(OptionError) as caught:
        pipe(frames)
    assert str(caught.value).startswith("frames")
    assert "\n" not in str(caught.value)


def test_gradients_flow_through_every_step(pipe: DLoRALPipeline) -> None:
    clip = make_clip(2).requires_grad_()
    small = shrink_for_flow(clip)
    pipe.unet.set_scales(consistency=1.0, detail=1.0, merge=False)
    latents = pipe.encode(clip)
    retrieved, aligned = pipe.retrieve(latents[1:], small[1:], latents[None, :1], small[None, :1])
    frame = pipe.decode(pipe.refine(aligned, retrieved, None), clip[1:])
    frame.square().sum().backward()
    assert clip.grad is not None
    assert clip.grad[0].any()  # the predecessor, through warp and retrieval
    assert clip.grad[1].any()
    parts = {"vae": pipe.vae, "unet": pipe.unet, "flow": pipe.flow, "retrieval": pipe.retrieval}
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{part}.{name}"
        for kind in ("lora_A.consistency", "lora_B.detail") if part == "unet" else ():
            grads = [p.grad for name, p in module.named_parameters() if kind in name]
            assert any(grad is not None and grad.any() for grad in grads), kind


def test_call_keeps_no_gradients(pipe: DLoRALPipeline) -> None:
    assert not pipe(make_clip(1).requires_grad_()).frames.requires_grad


def test_the_device_is_looked_for_once(
    pipe: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers walks through every layer for it, milliseconds each time."""
    asked = []
    place = pipe.execution_device
    device = property(lambda self: asked.append(1) or place)
    monkeypatch.setattr(DLoRALPipeline, "execution_device", device)
    counts = []
    for length in (2, 6):
        asked.clear()
        pipe(make_clip(length))
        counts.append(len(asked))
    assert counts[0] == counts[1] > 0


def test_bfloat16_is_close(make_pipeline: Callable[[], DLoRALPipeline]) -> None:
    clip = make_clip(3, 64, 64)
    full = make_pipeline()(clip).frames
    half_pipe = make_pipeline()
    half_pipe.to(dtype=torch.bfloat16)
    half = half_pipe(clip).frames
    assert half.dtype == torch.float32
    assert (full - half).abs().mean() < 0.01
    assert (full - half).abs().max() < 0.1


def test_saved_pipeline_computes_the_same(pipe: DLoRALPipeline, tmp_path: Path) -> None:
    clip = make_clip(2)
    before = pipe(clip, detail=0.5).frames  # saved while its scales are merged
    pipe.save_pretrained(tmp_path / "model")
    loaded = DLoRALPipeline.from_pretrained(tmp_path / "model").channels_last()
    again = loaded(clip, detail=0.5).frames
    torch.testing.assert_close(again, before, atol=1e-5, rtol=0)
    assert torch.equal(before, pipe(clip, detail=0.5).frames)


def test_plain_unet_runs_and_scales_do_nothing(
    make_pipeline: Callable[[], DLoRALPipeline], tmp_path: Path
) -> None:
    pipe = make_pipeline()
    pipe.save_pretrained(tmp_path / "model")
    for path in (tmp_path / "model" / "unet").glob("*.safetensors"):
        if path.stem in ("consistency", "detail"):
            path.unlink()
    plain = DLoRALPipeline.from_pretrained(tmp_path / "model").channels_last()
    clip = make_clip(2)
    assert torch.equal(plain(clip).frames, plain(clip, detail=0.0).frames)
    assert torch.equal(plain(clip).frames, pipe(clip, consistency=0.0, detail=0.0).frames)


def test_progress_bar_follows_diffusers_setting(
    pipe: DLoRALPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(make_clip(2, 8, 8))
    assert not capsys.readouterr().err
    pipe.set_progress_bar_config(disable=False)
    pipe(make_clip(2, 8, 8))
    assert "2/2" in capsys.readouterr().err
