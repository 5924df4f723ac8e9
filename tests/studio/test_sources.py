"""Frames for previews: those asked for, kept exactly and within one bound, large ones by turns."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dloral.errors import InputError, ResourceError
from dloral.options import AUTO
from dloral.studio import sources
from dloral.studio.sources import Sources, packed, source_frames, unpacked
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import read_frames


def read(kept: Sources, clip: ClipInfo, index: int, window: int = 0) -> list[Tensor]:
    with kept.reading(clip, index, window, AUTO) as frames:
        return list(frames)


def picture_of(folder: Path, name: str, codes: np.ndarray) -> ClipInfo:
    Image.fromarray(codes).save(folder / name)
    return probe(folder / name)


def test_source_frames_are_those_asked_for(clip):
    with read_frames(clip) as frames:
        everything = [frame.pixels for frame in frames]
    for first, last in ((0, 0), (0, 3), (5, 8), (11, 11)):
        found = list(source_frames(probe(clip), first, last))
        assert len(found) == last - first + 1
        for frame, expected in zip(found, everything[first:], strict=False):
            assert torch.equal(frame, expected)


@pytest.mark.parametrize(("kind", "peak"), [(np.uint8, 255), (np.uint16, 65535)])
def test_codes_are_kept_as_codes_and_come_back_exactly(kind, peak):
    codes = np.random.default_rng(0).integers(0, peak, (3, 600, 70), kind, endpoint=True)
    frame = torch.from_numpy(codes.astype(np.float32)) / peak
    kept = packed(frame)
    assert kept.dtype == kind
    assert torch.equal(unpacked(kept), frame)


def test_what_is_no_code_is_kept_as_it_is():
    frame = torch.zeros(3, 600, 70)
    frame[2, 599, 69] = 0.3337  # where the first look does not fall
    for odd in (frame, frame + 1.5, frame.neg(), torch.full((3, 8, 8), float("nan"))):
        kept = packed(odd)
        assert kept.dtype == np.float32
        assert torch.equal(unpacked(kept).nan_to_num(7), odd.nan_to_num(7))


def test_frames_read_anew_and_kept_ones_are_the_same(clip, tmp_path):
    deep = np.random.default_rng(1).integers(0, 65535, (20, 30), np.uint16)
    small = np.random.default_rng(2).integers(0, 255, (20, 30, 3), np.uint8)
    sizes = []
    for info in (
        probe(clip),
        picture_of(tmp_path, "deep.png", deep),
        picture_of(tmp_path, "small.png", small),
    ):
        kept, index = Sources(), (info.num_frames or 1) - 1
        first, again = read(kept, info, index, 1), read(kept, info, index, 1)
        expected = list(source_frames(info, max(index - 1, 0), index))
        assert len(first) == len(again) == len(expected)
        for frames in zip(first, again, expected, strict=True):
            assert torch.equal(frames[0], frames[2])
            assert torch.equal(frames[1], frames[2])
        sizes.append(kept.kept / (3 * info.height * info.width * len(expected)))
    assert sizes == [4, 2, 1]  # bytes a value: a video's floats, codes of 16 and of 8 bits


def test_what_is_kept_of_all_visitors_stays_within_one_bound(clip, tmp_path):
    frame = 3 * 4 * 48 * 32
    kept = Sources(kept_bytes=3 * frame)
    clips = [replace(probe(clip), path=tmp_path / f"{index}.mp4") for index in range(4)]
    for info in clips:
        info.path.write_bytes(clip.read_bytes())
        read(kept, info, 5)
        read(kept, info, 6)  # one of each clip
    assert kept.kept == 3 * frame
    for info in clips:
        info.path.unlink()
    assert len(read(kept, clips[3], 6)) == 1
    with pytest.raises(InputError, match=r"0\.mp4"):  # used longest ago
        read(kept, clips[0], 6)
    kept.forget(clips[3])
    assert kept.kept == 2 * frame
    read(kept, probe(clip), 11, 5)  # six of them are more than the bound: none is kept
    assert kept.kept == 2 * frame


def test_large_frames_are_read_by_turns(clip):
    info = probe(clip)
    kept = Sources(read_bytes=2 * sources.COPIES * 3 * 4 * 48 * 32)  # of two calls
    inside, most, counting = 0, [], threading.Lock()
    may_end = threading.Event()

    def call() -> None:
        nonlocal inside
        with kept.reading(info, 3, 0, AUTO) as frames:
            with counting:
                inside += 1
                most.append(inside)
            list(frames)
            may_end.wait(20)
            with counting:
                inside -= 1

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    threads[-1].join(0.5)
    assert max(most) == 2
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert len(most) == 5
    assert max(most) == 2


def test_a_frame_that_the_memory_has_no_room_for_is_refused(clip):
    huge = replace(probe(clip), width=2**20, height=2**20)
    kept = Sources()
    with pytest.raises(ResourceError, match=r"1048576x1048576: to show a frame takes 39582\.\d GB"):
        read(kept, huge, 0)
    assert len(read(kept, probe(clip), 0)) == 1  # its place is free again
