"""The frames of a clip in turn: what each depends on, in batches, tiles and streams; what of the
past a model keeps that blends frames with their predecessors."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from clips import make_clip
from torch import Tensor

from dloral.errors import OptionError
from dloral.frames.steady import steady
from dloral.frames.window import Window
from dloral.integrations.random_access import FrameServer
from dloral.options import UpscaleOptions
from dloral.pipeline import DLoRALPipeline
from dloral.runtimes.bicubic import BicubicGenerator


def still_clip(count: int, height: int = 45, width: int = 50) -> Tensor:
    """One picture under fresh noise, so that frames agree."""
    torch.manual_seed(0)
    frame = F.interpolate(torch.rand(1, 3, 5, 5), (height, width), mode="bilinear")
    return (frame + 0.05 * torch.randn(count, 3, height, width)).clamp(0, 1)


@pytest.fixture
def steadying(pipe: DLoRALPipeline) -> DLoRALPipeline:
    pipe.register_to_config(steadying=0.5, crispness=0.8)
    return pipe


def test_each_frame_is_blended_with_the_one_before_it(steadying: DLoRALPipeline) -> None:
    """As it was before it was blended itself; the first stays, and C-LoRA's scale says how far, up
    to a half."""
    pipe, clip = steadying, still_clip(4)
    pipe.register_to_config(steadying=0.0)
    plain = {c: pipe(clip, consistency=c).frames for c in (0.0, 0.5, 1.0, 1.5)}
    pipe.register_to_config(steadying=0.5)
    found = {c: pipe(clip, consistency=c).frames for c in plain}
    assert torch.equal(found[0.0], plain[0.0])
    small = pipe.prepare(clip).flow
    assert small is not None
    for consistency, share in ((0.5, 0.25), (1.0, 0.5), (1.5, 0.5)):
        frames = plain[consistency]
        wanted = steady(frames[1:], frames[:-1], small[1:], share, pipe.latent_stride)
        assert torch.equal(found[consistency][0], frames[0])
        torch.testing.assert_close(found[consistency][1:], wanted, atol=1e-5, rtol=0)
        assert (wanted - frames[1:]).abs().max() > 0.004
    alone = pipe(clip, window=0).frames
    pipe.register_to_config(steadying=0.0)
    assert torch.equal(alone, pipe(clip, window=0).frames)


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"tile": 3, "tile_overlap": 1}])
def test_every_way_gives_the_same(steadying: DLoRALPipeline, options: dict[str, Any]) -> None:
    pipe, clip = steadying, still_clip(6)
    whole = pipe(clip, **options).frames
    same = {"atol": 1e-5, "rtol": 0}
    for batch_size in (2, 3, 4):
        found = pipe(clip, batch_size=batch_size, **options).frames
        torch.testing.assert_close(found, whole, **same)
    torch.testing.assert_close(pipe.finish(pipe.prepare(clip, **options)), whole, **same)
    reach = pipe.reach(options.get("window", 1))
    assert reach == options.get("window", 1) + 1
    for count in (1, 2):
        if len(clip) < reach + count:
            continue
        seen = clip[len(clip) - reach - count :]
        prepared = pipe.prepare(seen, count=count, **options).to("cpu")
        torch.testing.assert_close(pipe.finish(prepared), whole[-count:], **same)


def test_a_still_need_not_be_blended(steadying: DLoRALPipeline) -> None:
    """Then no second frame is restored beside it."""
    pipe, clip = steadying, still_clip(3)
    alone = pipe.prepare(clip, count=1, steadied=False)
    assert len(alone.frames) == 1
    found = pipe.finish(alone)
    pipe.register_to_config(steadying=0.0)
    torch.testing.assert_close(found, pipe(clip).frames[2:], atol=1e-5, rtol=0)


def test_frames_in_any_order_are_a_runs(steadying: DLoRALPipeline) -> None:
    clip = still_clip(8, 8, 8)
    options = UpscaleOptions(scale=2, window=1)
    server = FrameServer(lambda n: clip[n], len(clip), steadying, options)
    again = FrameServer(lambda n: clip[n], len(clip), steadying, options)
    in_order = [server.frame(n) for n in range(len(clip))]
    for number in (5, 2, 7, 0):
        torch.testing.assert_close(again.frame(number), in_order[number], atol=1e-5, rtol=0)


def test_one_result_is_kept_of_a_batch(
    steadying: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the batch around it; none, and no flow, where nothing is blended."""
    windows: list[Window] = []
    copied = Window.copy
    monkeypatch.setattr(Window, "copy", lambda self: windows.append(copied(self)) or windows[-1])
    clip = still_clip(6)
    steadying(clip, batch_size=3)
    kept = windows[-1].finished
    assert kept is not None
    assert kept.untyped_storage().nbytes() == kept.nbytes == clip[:1].nbytes
    asked: list[int] = []
    own = steadying.estimate_flows
    monkeypatch.setattr(
        steadying, "estimate_flows", lambda now, then: asked.append(len(then)) or own(now, then)
    )
    steadying(clip, consistency=0.0, batch_size=3)
    assert windows[-1].finished is None
    assert asked == [1, 1]  # by retrieval alone
    steadying(clip, window=3, tile=3, tile_overlap=1, batch_size=6)
    tiles = asked[2:]
    assert tiles[0] == 1  # for blending, the nearest alone
    assert set(tiles[1:]) == {3}


def test_what_is_yielded_may_be_written_on(steadying: DLoRALPipeline) -> None:
    clip = still_clip(3)
    wanted = steadying(clip).frames
    for frame, expected in zip(steadying.stream(clip), wanted, strict=True):
        torch.testing.assert_close(frame, expected, atol=1e-6, rtol=0)
        frame.zero_()


def test_a_model_without_a_window_restores_no_second_frame(steadying: DLoRALPipeline) -> None:
    steadying.register_to_config(max_window=0)
    prepared = steadying.prepare(still_clip(3), count=1)
    assert (len(prepared.frames), prepared.lead) == (1, 0)


def test_reach() -> None:
    assert BicubicGenerator().reach(5) == 0


def test_reach_of_a_model_that_does_not_mix(pipe: DLoRALPipeline) -> None:
    assert [pipe.reach(window) for window in (0, 1, 5)] == [0, 1, 5]
    pipe.register_to_config(steadying=0.5)
    assert [pipe.reach(window) for window in (0, 1, 5)] == [0, 2, 6]


def changed_at(clip: Tensor, index: int) -> Tensor:
    other = clip.clone()
    other[index] = 1 - other[index]
    return other


@pytest.mark.parametrize("window", [0, 1, 3, 5])
def test_frame_depends_on_its_window_alone(pipe: DLoRALPipeline, window: int) -> None:
    clip = make_clip(8)
    restored = pipe(clip, window=window).frames
    for changed in range(8):
        again = pipe(changed_at(clip, changed), window=window).frames
        differs = [t for t in range(8) if not torch.equal(restored[t], again[t])]
        assert differs == [t for t in range(8) if t - window <= changed <= t]


def test_frame_zero_is_its_own_predecessor(pipe: DLoRALPipeline) -> None:
    frame = make_clip(1)
    twice = pipe(frame.repeat(2, 1, 1, 1)).frames
    torch.testing.assert_close(pipe(frame).frames[0], twice[1], atol=1e-5, rtol=0)


def test_oldest_frame_stands_in_for_those_before_the_clip(pipe: DLoRALPipeline) -> None:
    clip = make_clip(3)
    padded = torch.cat([clip[:1].repeat(5, 1, 1, 1), clip])
    torch.testing.assert_close(
        pipe(clip, window=5).frames, pipe(padded, window=5).frames[5:], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("tile", [None, 3])
def test_batches_change_nothing(pipe: DLoRALPipeline, window: int, tile: int | None) -> None:
    clip = make_clip(7)
    options = {"window": window, "tile": tile, "tile_overlap": 1, "detail": 0.5}
    one = pipe(clip, batch_size=1, **options).frames
    three = pipe(clip, batch_size=3, **options).frames
    torch.testing.assert_close(one, three, atol=1e-5, rtol=0)


def test_stream_equals_call(pipe: DLoRALPipeline) -> None:
    clip = make_clip(4)
    streamed = torch.stack(list(pipe.stream(iter(clip), window=3)))
    assert torch.equal(streamed, pipe(clip, window=3).frames)


def test_streams_side_by_side_keep_their_scales(pipe: DLoRALPipeline) -> None:
    clip = make_clip(3)
    apart = [pipe(clip, detail=detail).frames for detail in (0.0, 2.0)]
    pairs = zip(pipe.stream(clip, detail=0.0), pipe.stream(clip, detail=2.0), strict=True)
    together = [torch.stack(frames) for frames in zip(*pairs, strict=True)]
    assert torch.equal(together[0], apart[0])
    assert torch.equal(together[1], apart[1])
    assert not torch.equal(*apart)


@pytest.mark.parametrize(("window", "tile"), [(0, None), (3, None), (1, 3)])
def test_prepare_and_finish_are_a_run_in_halves(
    pipe: DLoRALPipeline, window: int, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared once, on the CPU or not, finished at any scales: what a run gives at those."""
    clip = make_clip(4, 45, 50)
    options: dict[str, Any] = {"window": window, "tile": tile, "tile_overlap": 1}
    runs = {
        detail: pipe(clip, detail=detail, consistency=0.5, color_fix="adain", **options).frames
        for detail in (0.0, 2.0)
    }
    prepared = pipe.prepare(clip, **options).to("cpu")
    last = pipe.prepare(clip, count=1, **options)
    monkeypatch.setattr(pipe, "retrieve", None)  # not asked again
    for detail, run in runs.items():
        found = pipe.finish(prepared, 0.5, detail, "adain")
        torch.testing.assert_close(found, run, atol=1e-5, rtol=0)
        alone = pipe.finish(last, 0.5, detail, "adain")
        torch.testing.assert_close(alone, run[3:], atol=1e-5, rtol=0)
    assert (runs[0.0] - runs[2.0]).abs().max() > 1e-3
    for count in (0, 5):
        with pytest.raises(OptionError, match=f"count is {count}"):
            pipe.prepare(clip, count=count)


@pytest.mark.parametrize("window", [1, 5])
def test_each_frame_is_encoded_once(pipe: DLoRALPipeline, window: int) -> None:
    seen: list[int] = []
    pipe.vae.encoder.register_forward_hook(
        lambda _module, inputs, _out: seen.append(len(inputs[0]))
    )
    pipe(make_clip(7), window=window, batch_size=2)
    assert seen == [2, 2, 2, 1]


def test_memory_does_not_grow_with_the_clip(pipe: DLoRALPipeline) -> None:
    """Of 200 frames given one by one, no more are alive than the window and batch need."""
    alive: list[weakref.ref[Tensor]] = []
    batch_size, window = 2, 3

    def frames() -> Iterator[Tensor]:
        for value in range(200):
            frame = torch.full((3, 8, 8), value / 200)
            alive.append(weakref.ref(frame))
            yield frame

    most = given_back = 0
    for _ in pipe.stream(frames(), window=window, batch_size=batch_size):
        given_back += 1
        most = max(most, sum(reference() is not None for reference in alive))
    assert given_back == 200
    assert most <= batch_size + 1


def test_memory_of_tensors_stays_level(pipe: DLoRALPipeline) -> None:
    """Live tensors of any kind, latents and small frames too, after 20 frames and after 60."""
    counts = []
    for index, _ in enumerate(pipe.stream(iter(make_clip(60, 8, 8)), window=3)):
        if index in (19, 59):
            gc.collect()
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert counts[0] == counts[1]
