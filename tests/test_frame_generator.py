"""What a model that blends frames with their predecessors needs of the past."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

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
