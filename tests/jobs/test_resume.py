"""Jobs that are stopped, killed or damaged, and resumed: the same result, nothing left behind."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clips import frames_of, names_in, options, sound_of, write_clip
from PIL import Image

import dloral.jobs.running
import dloral.upscale
import dloral.video.frame_writers
from dloral import UpscaleOptions, upscale_steps, upscale_video
from dloral.cli import main
from dloral.errors import OptionError, OutputError, ResourceError, Terminated
from dloral.jobs import journal as journal_module
from dloral.jobs.locks import lock_target
from dloral.jobs.progress import Progress
from dloral.pipeline import DLoRALPipeline


def stop_at(frame: int, clip: Path, target: Path, options: UpscaleOptions, pipe, error=None):
    steps = upscale_steps(clip, target, options, pipe)
    for progress in steps:
        if progress.frame == frame:
            break
    if error is None:
        steps.close()
    else:
        with pytest.raises(error):
            steps.throw(error)


@pytest.fixture
def stopped(long_clip, chosen, loaded, tmp_path) -> Path:
    """The target of a job that was stopped after 18 of 20 frames, two segments."""
    target = tmp_path / "out.mp4"
    stop_at(18, long_clip, target, chosen, loaded)
    return target


def segment(target: Path, number: int) -> Path:
    return target.with_name(target.name + ".resume") / f"{number:08d}.segment"


def run(clip: Path, target: Path, options: UpscaleOptions, pipe) -> list[Progress]:
    return list(upscale_steps(clip, target, options, pipe))


def restored(events: list[Progress]) -> list[int]:
    return [event.frame for event in events if event.stage == "restoring"]


def test_a_stopped_job_keeps_whole_segments_and_goes_on_from_them(
    stopped, long_clip, chosen, loaded, whole
):
    assert names_in(stopped.with_name("out.mp4.resume")) == [
        "00000000.segment",
        "00000001.segment",
        "journal.jsonl",
    ]
    assert not stopped.exists()
    events = run(long_clip, stopped, chosen, loaded)
    assert restored(events) == list(range(17, 21))
    assert events[0].message == "resuming: 16 frames are done"
    assert frames_of(stopped) == frames_of(whole)
    assert sound_of(stopped) == sound_of(whole)
    assert names_in(stopped.parent) == ["out.mp4"]


@pytest.mark.parametrize(
    "target", ["out.mkv", "out.gif", "out.apng", "out.webp", "out.tif", "frames"]
)
@pytest.mark.parametrize("window", [0, 3])
def test_windows_and_other_targets(long_clip, chosen, loaded, tmp_path, target, window):
    chosen = replace(chosen, window=window, bit_depth=10)
    direct = upscale_video(
        long_clip, tmp_path / f"whole-{target}", replace(chosen, resume=False), pipe=loaded
    )
    stop_at(10, long_clip, tmp_path / target, chosen, loaded)
    run(long_clip, tmp_path / target, chosen, loaded)
    assert frames_of(tmp_path / target) == frames_of(direct)
    assert names_in(tmp_path) == sorted([target, direct.name])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
def test_a_damaged_segment_is_made_again(stopped, long_clip, chosen, loaded, whole, number, damage):
    file = segment(stopped, number)
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "altered":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    events = run(long_clip, stopped, chosen, loaded)
    assert "1 damaged segments are redone" in events[0].message
    assert len(restored(events)) == 8 + 4
    assert frames_of(stopped) == frames_of(whole)


def test_a_journal_that_was_cut_short_loses_what_it_does_not_name(
    stopped, long_clip, chosen, loaded, whole
):
    journal = segment(stopped, 0).with_name("journal.jsonl")
    journal.write_bytes(journal.read_bytes()[:-5])
    events = run(long_clip, stopped, chosen, loaded)
    assert len(restored(events)) == 8 + 4
    assert frames_of(stopped) == frames_of(whole)


@pytest.mark.parametrize(
    ("changes", "named"), [({"detail": 0.5}, "detail"), ({"crf": 30}, "crf"), ({}, "source_time")]
)
def test_another_setting_or_source_is_said(
    stopped, long_clip, chosen, loaded, tmp_path, changes, named
):
    source = long_clip
    if not changes:
        source = write_clip(tmp_path / "other.mp4", 20)
    with pytest.raises(OptionError, match=f"a job with another .*{named}") as caught:
        upscale_video(source, stopped, replace(chosen, resume="auto", **changes), pipe=loaded)
    assert "\n" not in str(caught.value)
    assert segment(stopped, 1).is_file()


@pytest.mark.parametrize("name", ["model_index.json", "unet/diffusion_pytorch_model.safetensors"])
def test_other_weights_of_the_same_name_are_said(long_clip, chosen, loaded, model, tmp_path, name):
    own = shutil.copytree(model, tmp_path / "model")
    chosen = replace(chosen, model=str(own))
    stop_at(18, long_clip, tmp_path / "out.mp4", chosen, loaded)
    changed = bytearray((own / name).read_bytes())
    changed[-3] ^= 1
    (own / name).write_bytes(changed)
    with pytest.raises(OptionError, match=r"a job with another .*weights"):
        upscale_video(long_clip, tmp_path / "out.mp4", replace(chosen, resume="auto"), pipe=loaded)


def test_a_journal_of_another_version_is_said(stopped, long_clip, chosen, loaded):
    journal = segment(stopped, 0).with_name("journal.jsonl")
    lines = journal.read_text().splitlines()
    head = json.loads(lines[0]) | {"journal": 99}
    journal.write_text("\n".join([json.dumps(head), *lines[1:]]))
    with pytest.raises(OptionError, match="by another version"):
        upscale_video(long_clip, stopped, chosen, pipe=loaded)


def test_a_frame_written_anew_is_another_source(loaded, model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(10):
        Image.new("RGB", (40, 24), (20 * index, 90, 20)).save(folder / f"{index}.bmp")
    chosen = options(model, scale=1, resume=True)
    stop_at(9, folder, tmp_path / "out", chosen, loaded)
    (folder / "notes.txt").write_text("not a frame")
    status = (folder / "0.bmp").stat()
    Image.new("RGB", (40, 24), (250, 90, 20)).save(folder / "0.bmp")  # of the same size
    os.utime(folder / "0.bmp", ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    with pytest.raises(OptionError, match="another source_frames"):
        upscale_video(folder, tmp_path / "out", chosen, pipe=loaded)
    os.utime(folder / "0.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "out.resume" / "notes.txt").write_text("mine")
    *_, last = upscale_steps(folder, tmp_path / "out", chosen, loaded)
    assert last.stage == "done"
    assert any("out.resume could not be removed" in note for note in last.notes)
    assert len(list((tmp_path / "out").iterdir())) == 10


@pytest.mark.parametrize("name", ["00000000.png", "notes.txt", "link", "file"])
def test_a_folder_that_is_no_journal_is_left_alone(long_clip, chosen, loaded, tmp_path, name):
    folder = tmp_path / "out.mp4.resume"
    if name == "link":
        folder.symlink_to(tmp_path / "nothing")
    elif name == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / name).write_text("mine")
    with pytest.raises(OptionError, match=r"holds other files|is a link or a file"):
        upscale_video(long_clip, tmp_path / "out.mp4", chosen, pipe=loaded)
    assert names_in(tmp_path) == ["out.mp4.resume"]


def test_long_jobs_keep_segments_unasked_and_say_so(
    long_clip, chosen, loaded, tmp_path, monkeypatch
):
    target, chosen = tmp_path / "out.mp4", replace(chosen, resume="auto")
    events = run(long_clip, target, chosen, loaded)
    assert {event.kept for event in events} == {None}
    monkeypatch.setattr(dloral.upscale, "LONG_JOB_SECONDS", 1e-9)
    steps = upscale_steps(long_clip, target, chosen, loaded)
    told = [next(steps) for _ in range(12)]
    (message,) = [event.message for event in told if event.message]
    assert "finished parts are kept in" in message
    assert segment(target, 0).is_file()
    steps.close()  # Ctrl-C: the job is not wanted any more
    assert names_in(tmp_path) == ["out.mp4"]
    stop_at(10, long_clip, target, chosen, loaded, Terminated)  # a shutdown
    assert segment(target, 0).is_file()
    assert len(restored(run(long_clip, target, chosen, loaded))) == 12
    assert names_in(tmp_path) == ["out.mp4"]


def test_a_second_run_to_one_target_is_told(long_clip, chosen, loaded, tmp_path):
    target = tmp_path / "out.mp4"
    with lock_target(target), pytest.raises(OutputError, match="by another run"):
        upscale_video(long_clip, target, chosen, pipe=loaded)
    assert names_in(tmp_path) == []


def test_what_killed_runs_left_goes_with_the_next(long_clip, chosen, loaded, tmp_path):
    others = [".other.0a1b2c3d.part.mp4", ".out.0a1b2c3d.part.mkv", "out.part.mp4"]
    for name in (".out.0a1b2c3d.part.mp4", *others):
        (tmp_path / name).write_bytes(b"half")
    steps = upscale_steps(long_clip, tmp_path / "out.mp4", chosen, loaded)
    next(steps)
    steps.close()
    assert names_in(tmp_path) == sorted(others)


def test_kill_9_loses_one_segment_at_most(tmp_path, capsys):
    """The process dies by SIGKILL as soon as its journal names a segment."""
    clip = write_clip(tmp_path / "in.mp4", 200)
    target = tmp_path / "out.mp4"
    call = ["upscale", str(clip), "-o", str(target), "--resume", "--scale", "1"]
    call += ["--model", "bicubic"]
    running = subprocess.Popen([sys.executable, "-m", "dloral", *call, "--quiet"])
    journal = segment(target, 0).with_name("journal.jsonl")
    deadline = time.monotonic() + 60
    while not journal.is_file() or '"segment"' not in journal.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not target.exists()
    with pytest.MonkeyPatch.context() as patch:  # as long as the killed process had them
        for module in (journal_module, dloral.jobs.running, dloral.video.frame_writers):
            patch.setattr(module, "SEGMENT_FRAMES", 48)
        assert main(call) == 0
        whole = upscale_video(
            clip, tmp_path / "whole.mp4", UpscaleOptions("bicubic", 1, resume=False)
        )
    assert "resuming: " in capsys.readouterr().err
    assert len(frames_of(target)) == 200
    assert sound_of(target) == sound_of(whole)
    assert names_in(tmp_path) == ["in.mp4", "out.mp4", "whole.mp4"]


def test_a_full_disk_is_one_line_and_nothing_is_lost(
    long_clip, chosen, loaded, whole, tmp_path, monkeypatch
):
    """The disk is full for the second segment, then has room again."""
    import dloral.jobs.segments

    target = tmp_path / "out.mp4"
    put = dloral.jobs.segments.SegmentFile._put

    def full(file, content: bytes) -> None:
        if "00000001" in file.path.name:
            raise OSError(28, "No space left on device")
        put(file, content)

    monkeypatch.setattr(dloral.jobs.segments.SegmentFile, "_put", full)
    with pytest.raises(OutputError, match=r"no space left on device.*progress is kept"):
        upscale_video(long_clip, target, chosen, pipe=loaded)
    monkeypatch.undo()
    assert names_in(target.with_name("out.mp4.resume")) == ["00000000.segment", "journal.jsonl"]
    upscale_video(long_clip, target, chosen, pipe=loaded)
    assert frames_of(target) == frames_of(whole)


def test_a_pipeline_is_not_touched_by_what_is_done(stopped, long_clip, chosen, loaded):
    """A resumed job restores its missing frames and the halo alone."""
    seen = []

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(loaded, name)

        def stream(self, frames, **settings):
            def counted():
                for frame in frames:
                    seen.append(1)
                    yield frame

            return DLoRALPipeline.stream(loaded, counted(), **settings)

    run(long_clip, stopped, chosen, Counting())
    assert len(seen) == 4 + chosen.window


def test_a_disk_that_is_full_while_segments_are_joined_loses_nothing(
    stopped, long_clip, chosen, loaded, whole
):
    """No file may grow beyond half of the result: segments fit, the result does not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(OutputError, match=r"^\S+ cannot be written.*progress is kept in"):
            upscale_video(long_clip, stopped, chosen, pipe=loaded)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names_in(stopped.parent) == ["out.mp4.resume"]
    assert restored(run(long_clip, stopped, chosen, loaded)) == []
    assert frames_of(stopped) == frames_of(whole)
    assert names_in(stopped.parent) == ["out.mp4"]


def test_an_encoder_that_writes_another_stream_is_said(
    stopped, long_clip, chosen, loaded, monkeypatch
):
    """As x265 does without room for its threads: such a segment could not be joined."""
    begin = dloral.video.encoding._VideoEncoder.__init__
    begun = []

    def other(encoder, *given) -> None:
        begin(encoder, *given)
        begun.append(encoder)
        encoder.header = "as ever" if len(begun) == 1 else "another"  # the first is the job's own

    monkeypatch.setattr(dloral.video.encoding._VideoEncoder, "__init__", other)
    target = stopped.with_name("new.mp4")
    with pytest.raises(ResourceError, match="h264 is encoded differently here"):
        upscale_video(long_clip, target, chosen, pipe=loaded)
    assert names_in(target.parent) == ["out.mp4.resume"]
    with pytest.raises(OptionError, match="belongs to a job with another encoder"):
        upscale_video(long_clip, stopped, chosen, pipe=loaded)
