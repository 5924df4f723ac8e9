"""One job for the page: its result, its comparison clip, stopping it, what it leaves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dloral import UpscaleOptions, load_pipeline
from dloral.errors import CancelledError, InputError
from dloral.frames.resize import resize_bicubic
from dloral.pipeline import DLoRALPipeline
from dloral.studio.pairs import compared_pair
from dloral.studio.sessions import Session, Sessions
from dloral.video.probe import probe
from dloral.video.reader import read_frames


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> DLoRALPipeline:
    return load_pipeline(tiny_model, device="cpu", dtype="float32")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "visitor")


def run(session: Session, pipe: DLoRALPipeline, **chosen: object):
    job = session.start_job(UpscaleOptions(**chosen), pipe)
    for _ in job.watch(0.05):
        pass
    return session.end_job()


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_result_and_the_bicubic_clip_have_the_same_frames(session, clip, pipe):
    session.open_clip(clip)
    result = run(session, pipe, scale=2)
    assert result.file.name == "bar-restored.mp4"
    assert result.restored_player == result.file
    for path in (result.file, result.bicubic_player):
        info = probe(path)
        assert (info.width, info.height, info.num_frames) == (96, 64, 12)
    with read_frames(clip) as source, read_frames(result.bicubic_player) as bicubic:
        for old, new in zip(source, bicubic, strict=True):
            assert old.time == new.time
            enlarged = resize_bicubic(old.pixels[None], 64, 96)[0]
            assert (enlarged - new.pixels).abs().mean() < 0.02


def test_a_codec_that_browsers_lack_gets_a_clip_to_play(session, clip, pipe):
    session.open_clip(clip)
    result = run(session, pipe, scale=1.1, codec="ffv1", start=0.5, duration=0.4)
    assert result.file.suffix == ".mkv"
    kept, played = probe(result.file), probe(result.restored_player)
    assert (kept.width, kept.height, kept.num_frames, kept.codec) == (53, 35, 4, "ffv1")
    assert (played.width, played.height, played.num_frames) == (52, 34, 4)
    assert (played.codec, played.pixel_format) == ("h264", "yuv420p")


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_the_compared_pictures_are_of_the_frame_asked_for(session, clip, pipe, codec):
    session.open_clip(clip)
    result = run(session, pipe, scale=2, start=0.3, codec=codec)
    assert len(result.times) == 9
    with read_frames(result.file) as frames:
        restored = [np.asarray(frame.pixels.permute(1, 2, 0) * 255) for frame in frames]
    for index in (0, 5, 8):
        before, after = (np.asarray(Image.open(path)) for path in compared_pair(result, index))
        assert np.abs(after - restored[index]).max() <= 1
        light = (before[32, :, 0] > 120).sum()
        assert abs(light - 2 * 2 * (index + 3)) <= 3  # the bar of frame index + 3, twice as wide


def test_old_compared_pictures_go(session, clip, pipe):
    session.open_clip(clip)
    result = run(session, pipe, scale=1)
    for index in range(12):
        last = compared_pair(result, index)
    assert len(list((result.file.parent / "frames").iterdir())) == 12
    assert all(Path(path).exists() for path in last)


def test_an_image_gives_an_image(session, picture, pipe):
    session.open_clip(picture)
    result = run(session, pipe, scale=3)
    assert result.bicubic_player is None
    assert Image.open(result.file).size == (99, 63)
    before, after = compared_pair(result, 0)
    assert Image.open(before).size == Image.open(after).size == (99, 63)


def test_a_stopped_job_ends_soon_and_leaves_nothing(session, long_clip, pipe):
    session.open_clip(long_clip)
    job = session.start_job(UpscaleOptions(scale=1), pipe)
    watching = job.watch(0.05)
    while next(watching).frame < 3:
        pass
    job.cancel()
    with pytest.raises(CancelledError):
        list(watching)
    assert job.newest.frame < 2400
    assert session.end_job() is None
    assert [path.name for path in everything_in(session.folder)] == ["long.mp4"]


def test_a_failed_job_says_why_and_leaves_nothing(session, clip, pipe):
    session.open_clip(clip)
    job = session.start_job(UpscaleOptions(start=99), pipe)
    with pytest.raises(InputError, match="no frame from 99 s on"):
        list(job.watch(0.05))
    assert session.end_job() is None
    assert [path.name for path in everything_in(session.folder)] == ["bar.mp4"]


def test_a_new_clip_removes_the_old_one_and_its_result(session, clip, picture, pipe):
    session.open_clip(clip)
    run(session, pipe, scale=1)
    session.open_clip(picture)
    assert [path.name for path in everything_in(session.folder)] == ["photo.png"]


def test_no_clip_is_refused_in_one_line_without_the_folder(session, no_clip):
    with pytest.raises(InputError) as caught:
        session.open_clip(no_clip)
    assert session.clip is None
    assert not everything_in(session.folder)
    assert "\n" not in str(caught.value)
    assert session.without_folder(caught.value).startswith("letter.mp4 is no video or image")


def test_the_page_does_not_say_where_files_are(session, clip):
    info = session.open_clip(clip)
    error = InputError(f"{info.path} is damaged")
    assert session.without_folder(error) == "bar.mp4 is damaged"


def test_a_closed_page_stops_its_job_and_takes_its_files(tmp_path, clip, long_clip, pipe):
    sessions = Sessions(tmp_path)
    sessions["a"].open_clip(long_clip)
    sessions["b"].open_clip(clip)
    job = sessions["a"].start_job(UpscaleOptions(scale=1), pipe)
    sessions.close("a")
    assert job.wait(0)
    assert [path.name for path in everything_in(tmp_path)] == ["bar.mp4"]
    assert long_clip.exists()
    sessions.close_all()
    assert not everything_in(tmp_path)
    assert len(sessions) == 0
