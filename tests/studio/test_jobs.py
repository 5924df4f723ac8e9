"""One job for the page: its result, what the viewer gets, stopping it, what it leaves."""

import io
import json
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dloral.errors import CancelledError, InputError
from dloral.frames.resize import resize_bicubic
from dloral.studio.animated import as_shown
from dloral.studio.comparison import comparison_clip, comparisons_of
from dloral.studio.jobs import Job
from dloral.studio.models import Models
from dloral.studio.records import Result, read_result, write_result
from dloral.studio.restoration import viewer_size
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Session
from dloral.studio.settings import settings_from
from dloral.studio.stills import before_and_after, still, still_pair, thumbnails
from dloral.video.images import load_image
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from tests.studio.conftest import write_clip


@pytest.fixture
def session(tmp_path: Path, models: Models) -> Session:
    return Session(tmp_path / "visitor", models, JobQueue())


def give(session: Session, path: Path) -> None:
    session.open_clip(path.name, lambda copy: copy.write_bytes(path.read_bytes()))


def run(session: Session, **chosen: object) -> Result:
    job = session.start_job(settings_from(chosen, "compact"))
    assert job.wait(60)
    if job.error is not None:
        raise job.error
    assert job.result is not None
    return job.result


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def bar(half: np.ndarray) -> int:
    """How many columns are light."""
    return int((half[len(half) // 2, :, 0] > 120).sum())


def test_the_viewers_clip_holds_both_pictures_of_every_frame(session, clip):
    give(session, clip)
    result = run(session, scale=2, start=0.3)
    info = probe(result.file)
    assert (info.width, info.height, info.num_frames, info.has_audio) == (96, 64, 9, True)
    seen = probe(result.viewer_file)
    assert (seen.width, seen.height, seen.num_frames, seen.has_audio) == (96, 128, 9, True)
    with read_frames(clip, start=0.3) as source, read_frames(result.viewer_file) as pairs:
        for index, (old, pair) in enumerate(zip(source, pairs, strict=True)):
            enlarged = resize_bicubic(old.pixels[None], 64, 96)[0]
            assert (enlarged - pair.pixels[:, :64]).abs().mean() < 0.02
            restored = pair.pixels[:, 64:].permute(1, 2, 0).numpy() * 255
            assert abs(bar(restored) - 2 * (2 * (index + 3) + 1)) <= 3


def test_a_still_is_the_frame_asked_for_and_exact(session, clip):
    give(session, clip)
    result = run(session, scale=2, format="ffv1")
    with read_frames(result.file) as frames:
        restored = [np.asarray(frame.pixels.permute(1, 2, 0) * 255) for frame in frames]
    for index in (0, 5, 11, 99):
        (session.folder / "still.png").write_bytes(still(result, index))
        pair = np.asarray(Image.open(session.folder / "still.png"))
        assert pair.shape == (128, 96, 3)
        assert np.abs(pair[64:] - restored[min(index, 11)]).max() <= 1
        assert abs(bar(pair[:64]) - 2 * (2 * min(index, 11) + 1)) <= 3


def test_png_frames_come_in_a_zip_file(session, clip):
    give(session, clip)
    result = run(session, scale=2, format="png", bit_depth=10, duration=0.4)
    assert result.file.name == "bar-restored.zip"
    with zipfile.ZipFile(result.file) as archive:
        assert archive.namelist() == [f"{index:08d}.png" for index in range(4)]
        archive.extract("00000002.png", session.folder)
    assert probe(session.folder / "00000002.png").bit_depth == 16
    assert load_image(session.folder / "00000002.png").shape == (3, 64, 96)
    assert not (result.file.parent / "frames").exists()
    assert still(result, 3)


def test_settings_are_saved_and_measures_cover_every_frame(session, clip):
    give(session, clip)
    result = run(session, scale=2, detail=0.25, strength=0.5)
    saved = json.loads(result.settings_file.read_text())
    assert saved["settings"]["detail"] == 0.25
    assert saved["settings"]["strength"] == 0.5
    assert saved["model"] == Path(session.preview.model.name).name  # not where it lies
    assert settings_from(saved["settings"], session.preview.model.name) == result.settings
    assert {len(values) for values in result.measures.values()} == {12}
    assert Image.open(result.profile_file).size == (96, 24)


def test_half_the_strength_is_half_way_to_bicubic(session, clip):
    give(session, clip)
    whole = run(session, scale=2, format="ffv1").measures["difference"]
    half = run(session, scale=2, format="ffv1", strength=0.5).measures["difference"]
    none = run(session, scale=2, format="ffv1", strength=0).measures["difference"]
    assert half == pytest.approx([value / 2 for value in whole], rel=0.02)
    assert max(none) == 0


@pytest.mark.parametrize(("layout", "width"), [("side", 192), ("wipe", 96), ("after", 96)])
def test_a_comparison_clip_shows_both(session, clip, layout, width):
    give(session, clip)
    result = run(session, scale=2)
    file = comparison_clip(result, layout)
    info = probe(file)
    assert (info.width, info.height, info.num_frames, info.has_audio) == (width, 64, 12, True)
    assert comparison_clip(result, layout) == file
    loop = comparison_clip(result, layout, "loop")
    info = probe(loop)
    assert (info.width, info.height, info.num_frames, info.has_audio) == (width, 64, 36, False)
    assert comparison_clip(result, layout, "loop") == loop
    assert set(comparisons_of(result)) == {file, loop}


def test_the_line_of_a_loop_ends_where_it_began(session, clip):
    give(session, clip)
    result = run(session, scale=2, strength=0)
    with read_frames(comparison_clip(result, "wipe", "loop")) as frames:
        lines = [int(frame.pixels[:, -1].mean(0).argmax()) for frame in frames]
        # the only white column: the clip itself is grey, and both of its halves are alike
    assert abs(lines[0] - lines[-1]) <= 6
    assert max(lines) > 80
    assert lines.index(max(lines)) == pytest.approx(18, abs=1)


def test_an_image_gives_an_image(session, picture):
    give(session, picture)
    result = run(session, scale=3)
    assert Image.open(result.file).size == (99, 63)
    assert Image.open(result.viewer_file).size == (99, 126)
    assert still(result, 0)
    with pytest.raises(InputError, match="a picture has no comparison clip"):
        comparison_clip(result, "side")


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_what_a_picture_hides_is_white_on_both_sides(session, tmp_path, suffix):
    """The colour that is spread into it for the network is nothing to look at."""
    path = tmp_path / f"ball{suffix}"
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:, :, 0] = 255  # hidden
    pixels[16:32, 20:44] = 20, 80, 220, 255
    Image.fromarray(pixels).save(path, lossless=True)
    give(session, path)
    result = run(session, scale=2)
    for before_or_after in still_pair(result, 0):
        assert before_or_after[:, :16, :24].min() > 0.98
        middle = before_or_after[:, 44:52, 60:68].mean(dim=(1, 2))
        assert middle[2] > 2 * middle[0]
    viewer = np.asarray(Image.open(result.viewer_file).convert("RGB"))
    assert min(viewer[:16, :24].min(), viewer[96:112, :24].min()) > 240
    thumbnail = np.asarray(Image.open(io.BytesIO(before_and_after(result))))
    assert thumbnail[:4, :4].min() > 240
    assert thumbnail[:4, -4:].min() > 240


def test_thumbnails_are_spread_over_the_clip(clip):
    (strip := clip.with_name("strip.jpg")).write_bytes(thumbnails(probe(clip), 6))
    pixels = np.asarray(Image.open(strip).convert("RGB"))
    assert pixels.shape == (64, 6 * 96, 3)
    bars = [bar(pixels[:, 96 * index : 96 * (index + 1)]) for index in range(6)]
    assert bars == sorted(bars)
    assert bars[0] < bars[5]
    # of the last quarter alone: frames 9 to 11
    strip.write_bytes(thumbnails(probe(clip), 3, start=0.9, duration=0.3))
    pixels = np.asarray(Image.open(strip).convert("RGB"))
    bars = [bar(pixels[:, 96 * index : 96 * (index + 1)]) for index in range(3)]
    assert bars[0] > 2 * 17
    assert bars == sorted(bars)


def test_the_thumbnail_of_a_picture_is_the_picture(tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(thumbnails(probe(tmp_path / "a.png"), 1))
    assert np.asarray(Image.open(tmp_path / "b.jpg"))[32, 32].tolist() == pytest.approx(
        [255, 0, 0], abs=6
    )


def test_a_stopped_job_ends_soon_and_leaves_nothing(session, long_clip):
    give(session, long_clip)
    job = session.start_job(settings_from({"scale": 1}, "compact"))
    while job.newest is None or job.newest.frame < 3:
        assert not job.wait(0.01)
    job.cancel()
    assert job.wait(10)
    assert job.stage == "stopped"
    assert isinstance(job.error, CancelledError)
    assert session.result is None
    assert everything_in(session.folder) == ["long.mp4"]


@pytest.mark.parametrize("kept_as", ["h264", "png"])
def test_a_job_that_is_ended_early_keeps_a_playable_part(
    session, tmp_path, models, tiny_pipe, kept_as
):
    """Stopped behind the first segment, in the middle of the next: all frames that are done, the
    sound up to there, and the result says so, also to the next server."""
    give(session, write_clip(tmp_path / "sound.mp4", 400, sound=True))
    settings = {"scale": 1, "format": kept_as, "start": 1}
    job = session.start_job(settings_from(settings, "compact"))
    job.row = None
    while job.newest is None or job.newest.frame < 60:
        assert not job.wait(0.005)
    job.stop()
    assert job.wait(20)
    result = session.result
    assert result is not None
    assert result.is_part
    count = len(result.times)
    assert 60 <= count < 390
    assert f"stopped early: a partial result, {count} of 390 frames" in result.notes
    assert probe(result.viewer_file).num_frames == count
    assert {len(values) for values in result.measures.values()} == {count}
    if kept_as == "png":
        with zipfile.ZipFile(result.file) as archive:
            assert len(archive.namelist()) == count
        return
    info = probe(result.file)
    assert (info.num_frames, info.has_audio) == (count, True)
    with av.open(str(result.file)) as container:
        sound = container.streams.audio[0]
        last = max(packet.pts + packet.duration for packet in container.demux(sound) if packet.size)
        assert float(last * sound.time_base) == pytest.approx(count / 10, abs=0.15)
    write_result(result)
    again = read_result(result.file.parent, session.clip, result.settings)
    assert again == result


def test_a_job_that_waits_can_be_stopped(tmp_path, models, clip, long_clip):
    queue = JobQueue()
    first, second = (Session(tmp_path / name, models, queue) for name in "ab")
    give(first, long_clip)
    give(second, clip)
    running = first.start_job(settings_from({"scale": 1}, "compact"))
    waiting = second.start_job(settings_from({"scale": 1}, "compact"))
    assert waiting.before == 1
    waiting.cancel()
    assert waiting.wait(1)
    assert waiting.stage == "stopped"
    assert not running.has_ended
    first.close()
    assert running.has_ended


def test_a_failed_job_says_why_and_leaves_nothing(session, clip):
    give(session, clip)
    with pytest.raises(InputError, match=r"bar.mp4 lasts 1.2 s, and start is 99"):
        run(session, start=99)
    assert everything_in(session.folder) == ["bar.mp4"]


def test_a_mistake_of_ours_ends_the_job_and_not_the_queue(session, clip, monkeypatch):
    give(session, clip)
    with monkeypatch.context() as patch:
        patch.setattr("dloral.studio.restoration.upscale_steps", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(session)
    assert run(session, scale=1).file.exists()


@pytest.mark.parametrize(
    ("height", "width", "is_image", "expected"),
    [
        (63, 99, False, (62, 98)),
        (63, 99, True, (63, 99)),
        (1, 4, False, (2, 4)),
        (4320, 7680, False, (1152, 2048)),
    ],
)
def test_the_viewers_size(height, width, is_image, expected):
    assert viewer_size(height, width, is_image) == expected


def test_jobs_say_how_many_are_before_them(tmp_path, models, long_clip):
    queue = JobQueue(most=1)
    sessions = [Session(tmp_path / str(index), models, queue) for index in range(3)]
    for session in sessions:
        give(session, long_clip)
    jobs: list[Job] = []
    for session in sessions[:2]:
        jobs.append(session.start_job(settings_from({"scale": 1}, "compact")))
        jobs[0].wait(0.3)
    assert [job.before for job in jobs] == [0, 1]
    with pytest.raises(InputError, match="2 clips ahead of yours"):
        sessions[2].start_job(settings_from({}, "compact"))
    sessions[0].close()
    while jobs[1].before:
        assert not jobs[1].wait(0.01)
    sessions[1].close()


@pytest.mark.parametrize("kept_as", ["gif", "webp"])
def test_an_animation_is_a_result_like_others(session, clip, kept_as):
    """To be fetched, seen in the viewer, and exact where a frame stands still."""
    give(session, clip)
    result = run(session, scale=2, format=kept_as, bit_depth=10, crf=20, duration=0.5)
    assert result.file.name == f"bar-restored.{kept_as}"
    with Image.open(result.file) as animation:
        assert (animation.size, animation.n_frames) == ((96, 64), 5)
        assert animation.info["loop"] == 0
    assert probe(result.viewer_file).num_frames == 5
    assert any("sound" in note for note in result.notes)
    saved = json.loads(result.settings_file.read_text())["settings"]
    assert (saved["format"], saved["crf"], saved["bit_depth"]) == (kept_as, None, "auto")
    for index in (0, 4):
        with Image.open(io.BytesIO(still(result, index))) as pair:
            before, after = np.split(np.asarray(pair), 2)
        assert abs(bar(before) - 2 * (2 * index + 1)) <= 3
        assert abs(bar(after) - 2 * (2 * index + 1)) <= 3


@pytest.mark.parametrize("rate", [30, 60])
def test_each_frame_has_the_one_that_a_gif_shows_then(session, tmp_path, rate):
    """Times of 30 a second are rounded in a GIF; of 60 a second some frames are left out."""
    source = write_clip(tmp_path / "quick.mp4", 24, rate=rate)
    give(session, source)
    result = run(session, scale=1, format="gif", start=6 / rate)
    most = 0 if rate == 30 else 1  # frames, to either side
    for index in range(18):
        with Image.open(io.BytesIO(still(result, index))) as pair:
            before, after = (bar(half) for half in np.split(np.asarray(pair), 2))
        assert abs(round((before - after) / 2)) <= most
    with read_frames(source, start=6 / rate) as frames, read_frames(result.file) as gif:
        pairs = list(as_shown(frames, gif))
    assert len(pairs) == 18
    for frame, shown in pairs:
        columns = [int((one.pixels[0, 16] > 0.47).sum()) for one in (frame, shown)]
        assert abs(round((columns[0] - columns[1]) / 2)) <= most
    with read_frames(source) as frames, read_frames(result.file) as gif:
        assert len(list(as_shown(frames, gif))) == 18  # a part ends with the GIF
