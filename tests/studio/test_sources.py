"""Frames for previews: those asked for, kept exactly and within one bound, large ones by turns."""

import threading
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dloral.errors import InputError, ResourceError
from dloral.options import AUTO, UpscaleOptions
from dloral.studio import sessions, sources
from dloral.studio.api import Calls
from dloral.studio.limits import Limits
from dloral.studio.models import Models
from dloral.studio.motion import motion_steps
from dloral.studio.preview import Preview, Region
from dloral.studio.records import Result
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Session
from dloral.studio.settings import Settings
from dloral.studio.sources import Sources, packed, reading_bytes, source_frames, unpacked
from dloral.studio.stills import before_and_after, still, thumbnails
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
    assert sizes[1:] == [2, 1]  # bytes a value: codes of 16 and of 8 bits
    assert 0.5 < sizes[0] < 0.52  # a video's 4:2:0 and a head


def test_what_is_kept_of_all_visitors_stays_within_one_bound(clip, tmp_path):
    first = Sources()
    read(first, probe(clip), 5)
    frame = first.kept
    kept = Sources(kept_bytes=4 * frame - 1)
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
    kept = Sources(0, read_bytes=2 * sources.COPIES * 3 * 4 * 48 * 32)  # of two calls
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
    with pytest.raises(ResourceError, match=r"1048576x1048576: showing a frame needs 39582\.\d GB"):
        read(kept, huge, 0)
    assert len(read(kept, probe(clip), 0)) == 1  # its place is free again


def test_frames_read_while_a_clip_is_being_closed_go_with_it(clip, tmp_path, model, monkeypatch):
    kept = Sources()
    session = Session(tmp_path / "s", Models(model), JobQueue(), sources=kept)
    info = session.open_clip("a.mp4", lambda copy: copy.write_bytes(clip.read_bytes()))
    remove = sessions.shutil.rmtree

    def read_and_remove(folder: Path, **named) -> None:
        if folder == info.path.parent:
            read(kept, info, 5)
        remove(folder, **named)

    monkeypatch.setattr(sessions.shutil, "rmtree", read_and_remove)
    session.close_clip()
    assert kept.kept == 0


def test_frames_of_the_apis_clips_go_where_their_preview_fails(clip, model, monkeypatch):
    kept = Sources()

    def failing(preview: Preview, index: int, options: UpscaleOptions) -> bytes:
        read(kept, preview._clip, index)
        assert kept.kept
        raise InputError("the frame is damaged")

    monkeypatch.setattr(Preview, "whole", failing)
    visits = SimpleNamespace(sources=kept)
    calls = Calls(SimpleNamespace(model=model, limits=Limits(10**7), sessions=visits))
    with pytest.raises(gr.Error, match="damaged"):
        calls.preview_frame({"clip": str(clip), "frame": 0, "scale": 2.0})
    assert kept.kept == 0


def asked_by(kept: Sources, monkeypatch, call) -> int:
    """The bytes that ``call`` waits for."""
    asked = []

    @contextmanager
    def held_back(clip: ClipInfo, needed: int):
        asked.append(needed)
        yield

    monkeypatch.setattr(kept, "held_back", held_back)
    call()
    (needed,) = asked
    return needed


def test_frames_that_will_be_kept_count_while_they_are_read(clip, monkeypatch):
    info = probe(clip)
    kept = Sources()
    needed = asked_by(kept, monkeypatch, lambda: read(kept, info, 11, 5))
    assert 0 < kept.kept <= needed - reading_bytes(info)
    none = Sources(kept_bytes=kept.kept // 2)  # they would go again as soon as they are read
    assert asked_by(none, monkeypatch, lambda: read(none, info, 11, 5)) == reading_bytes(info)
    assert none.kept == 0
    little = 2 * sum(frame.numel() for frame in read(none, info, 0))
    monkeypatch.setattr(sources, "free_memory", lambda device: little)
    short = Sources()  # a tenth of that memory is not enough for them
    assert asked_by(short, monkeypatch, lambda: read(short, info, 11, 5)) == reading_bytes(info)


def test_kept_frames_wait_for_nobody_who_reads(clip, tmp_path, monkeypatch):
    info, kept = probe(clip), Sources(read_bytes=10**6)
    codes = np.random.default_rng(3).integers(0, 255, (20, 30, 3), np.uint8)
    small = picture_of(tmp_path, "small.png", codes)
    first = read(kept, info, 5), read(kept, small, 0)
    began, may_end = threading.Event(), threading.Event()

    def large() -> None:
        with kept.held_back(info, 10**6):
            began.set()
            may_end.wait(60)

    others = [threading.Thread(target=large) for _ in range(2)]  # one reads, one waits
    for thread in others:
        thread.start()
    assert began.wait(20)
    found = []
    ours = threading.Thread(target=lambda: found.extend(read(kept, info, 5) + read(kept, small, 0)))
    ours.start()
    ours.join(20)
    is_done = not ours.is_alive()
    may_end.set()
    for thread in (*others, ours):
        thread.join(20)
    assert is_done
    assert torch.equal(found[0], first[0][0])
    assert torch.equal(found[1], first[1][0])


def test_kept_frames_are_shown_where_no_memory_is_left_to_read_any(clip, monkeypatch):
    info, kept = probe(clip), Sources()
    read(kept, info, 5)
    free = reading_bytes(info) - 1
    monkeypatch.setattr(sources, "free_memory", lambda device: free)
    assert len(read(kept, info, 5)) == 1
    with pytest.raises(ResourceError, match="48x32: showing a frame needs"):
        read(kept, info, 6)


def test_frames_of_a_clip_that_was_closed_while_they_were_read_are_not_kept(clip):
    info, kept = probe(clip), Sources()
    with kept.reading(info, 5, 2, AUTO) as frames:
        next(frames)
        kept.forget(info)
        assert len(list(frames)) == 2
    assert kept.kept == 0
    read(kept, info, 5)  # the same file, opened anew
    assert kept.kept


def test_tiles_of_a_frame_are_made_of_frames_that_are_decoded_once(clip, model, monkeypatch):
    """Six frames, and a bound that has no room for three of them as floats."""
    decoded = []

    def counted(*asked):
        decoded.append(asked)
        return source_frames(*asked)

    monkeypatch.setattr(sources, "source_frames", counted)
    preview = Preview(probe(clip), model, Sources(kept_bytes=3 * 3 * 4 * 48 * 32 - 1))
    options = UpscaleOptions(scale=2, window=5)
    for x in (0, 32, 64):
        preview.fill(11, options, Region(x, 0, 32, 32))
    assert len(decoded) == 1


def looks_at(clip: ClipInfo, folder: Path, model, kept: Sources) -> dict:
    """The calls, other than previews, that read large frames."""
    times = (Fraction(0),)
    files = (folder / name for name in ("r.mp4", "s.json", "v.mp4", "p.json"))
    size = clip.height, clip.width
    result = Result(clip, Settings(UpscaleOptions()), *files, times, times, size, {}, ())
    region, options = Region(0, 0, 16, 16), UpscaleOptions(scale=1)
    motion = clip, model, 0, options, region, folder / "m.mp4", kept
    return {
        "thumbnails": lambda: thumbnails(clip, 3, sources=kept),
        "still": lambda: still(result, 0, kept),
        "small still": lambda: before_and_after(result, kept),
        "motion": lambda: list(motion_steps(*motion)),
    }


@pytest.mark.parametrize("name", ["thumbnails", "still", "small still", "motion"])
def test_whatever_reads_large_frames_is_refused_where_there_is_no_room(clip, tmp_path, model, name):
    huge = replace(probe(clip), width=2**20, height=2**20)
    with pytest.raises(ResourceError, match="1048576x1048576: showing a frame needs"):
        looks_at(huge, tmp_path, model, Sources())[name]()


def test_motion_is_as_crisp_as_a_run(clip, tmp_path, model, monkeypatch):
    pipe, given = model.pipe(), []
    stream = pipe.stream

    def watched(*frames, **settings):
        given.append(settings["enlarged"])
        return stream(*frames, **settings)

    monkeypatch.setattr(pipe, "stream", watched)
    region, options = Region(0, 0, 32, 32), UpscaleOptions(scale=2)
    list(motion_steps(probe(clip), model, 0, options, region, tmp_path / "m.mp4", Sources()))
    assert given == [2.0]


@pytest.mark.parametrize("name", ["thumbnails", "motion"])
def test_whatever_reads_large_frames_waits_its_turn(clip, tmp_path, model, name):
    info, kept = probe(clip), Sources(read_bytes=reading_bytes(probe(clip)))
    call = threading.Thread(target=looks_at(info, tmp_path, model, kept)[name])
    with kept.held_back(info, 1):
        call.start()
        call.join(1)
        assert call.is_alive()
    call.join(60)
    assert not call.is_alive()


def test_frames_of_a_file_that_was_rewritten_are_read_anew(tmp_path):
    kept = Sources()
    for level in (10, 200):
        picture = picture_of(tmp_path, "a.png", np.full((8, 8, 3), level, np.uint8))
        (frame,) = read(kept, picture, 0)
        assert (255 * frame).round().unique().tolist() == [level]
