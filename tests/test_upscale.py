"""The whole story, file to file, with a tiny model and real clips."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dloral import DLoRALError, UpscaleOptions, load_pipeline, upscale_steps, upscale_video
from dloral.errors import InputError, OptionError, OutputError
from dloral.evaluation.restore import Scales, model_restorer
from dloral.integrations.memory_clips import restored_frames
from dloral.models.adapters import add_adapters
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.video.probe import probe
from dloral.video.reader import read_frames


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact model of a few thousand weights, random but for its start near bicubic."""
    sizes = CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4)
    pipe = build_pipeline(sizes)
    add_adapters(pipe.unet, 2)
    pipe.register_to_config(crispness=0.8)
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 40 x 24 at 12 frames a second with a second of sound; every frame differs."""
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=12, options={"crf": "10"})
        video.width, video.height, video.pix_fmt = 40, 24, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for index in range(12):
            pixels = np.full((24, 40, 3), 20 * index, np.uint8)
            pixels[:, : 3 * index + 2] = 255 - pixels[:, : 3 * index + 2]
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(48000) * 0.05, dtype=np.float32)[None]
        for start in range(0, 48000, 1024):
            part = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone[:, start : start + 1024]), "fltp", "mono"
            )
            part.sample_rate, part.pts = 48000, start
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def test_names_that_cannot_be_looked_up_are_one_line(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    chosen = UpscaleOptions("bicubic")
    out = tmp_path / "out.mp4"
    for name in (300 * "n", "loop/x.mp4", "file/x.mp4", "a\0b"):
        with pytest.raises(InputError, match=r"cannot be read|is not a file name"):
            upscale_video(f"{tmp_path}/{name}", out, chosen)
        with pytest.raises((OutputError, OptionError), match=r"be written|is not a file name"):
            upscale_video(clip, f"{tmp_path}/{name}", chosen)
    with pytest.raises(InputError, match="'' is not a file name"):
        upscale_video("", out, chosen)
    with pytest.raises(OptionError, match="'' is not a file name"):
        upscale_video(clip, "", chosen)
    assert not out.exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="every folder takes files")
@pytest.mark.parametrize("resume", ["auto", True])
def test_a_folder_that_takes_no_files(clip: Path, resume: bool | str) -> None:
    chosen = UpscaleOptions("bicubic", resume=resume)
    for name in ("x.mp4", "x"):
        with pytest.raises(OutputError, match="cannot be written: its folder takes no files"):
            upscale_video(clip, f"/proc/{name}", chosen)
    with pytest.raises(OutputError, match="/dev/full is a device or a pipe"):
        upscale_video(clip, "/dev/full", chosen)


def options(model: Path, **changed: object) -> UpscaleOptions:
    return UpscaleOptions(**{"model": str(model), "device": "cpu", "dtype": "float32"} | changed)


def test_a_clip_keeps_frames_times_size_and_sound(clip: Path, tiny_model: Path, tmp_path: Path):
    target = upscale_video(clip, tmp_path / "out.mp4", options(tiny_model, scale=2.5))
    before, after = probe(clip), probe(target)
    assert (after.width, after.height) == (100, 60)
    assert after.num_frames == 12
    assert after.duration == before.duration
    assert after.audio_codecs == before.audio_codecs
    with read_frames(clip) as old, read_frames(target) as new:
        assert [f.time for f in old] == [f.time for f in new]
    assert sound_of(clip) == sound_of(target)


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_the_result_is_the_pipelines(clip: Path, tiny_model: Path, tmp_path: Path):
    """The frames that are written are those the pipeline gives, in order, as crisp as their scale
    allows; and so are frames that come from memory, and those that are measured."""
    target = upscale_video(
        clip, tmp_path / "frames", options(tiny_model, scale=2, color_fix="none")
    )
    pipe = load_pipeline(tiny_model, device="cpu", dtype="float32")
    with read_frames(clip) as frames:
        small = torch.stack([frame.pixels for frame in frames])
    lq = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)
    expected = pipe(lq, color_fix="none", enlarged=2.0).frames
    assert not torch.allclose(expected, pipe(lq, color_fix="none").frames, atol=1e-3)
    in_memory = restored_frames(small, pipe, UpscaleOptions(scale=2, color_fix="none"))
    torch.testing.assert_close(torch.stack([*in_memory]), expected, atol=1e-5, rtol=0)
    measured = model_restorer(pipe, Scales(1.0, 1.0, 1))(small, (48, 80))
    torch.testing.assert_close(
        torch.stack([*measured]), pipe(lq, enlarged=2.0).frames, atol=1e-5, rtol=0
    )
    with read_frames(target) as frames:
        written = torch.stack([frame.pixels for frame in frames])
    assert (written - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_progress_counts_every_frame(clip: Path, tiny_model: Path, tmp_path: Path):
    events = list(upscale_steps(clip, tmp_path / "out.mp4", options(tiny_model, scale=1)))
    assert [event.stage for event in events] == (
        ["loading"] + ["restoring"] * 12 + ["writing", "writing", "done"]
    )
    assert [event.frame for event in events if event.stage == "restoring"] == list(range(1, 13))
    assert events[3].num_frames == 12
    assert events[3].seconds_left is not None
    assert events[3].restored_frame.shape == events[3].lq_frame.shape == (3, 24, 40)
    assert events[-1].target == tmp_path / "out.mp4"


def test_cancelling_leaves_nothing(clip: Path, tiny_model: Path, tmp_path: Path):
    (tmp_path / "out.mp4").write_bytes(b"an older result")
    steps = upscale_steps(clip, tmp_path / "out.mp4", options(tiny_model, scale=1))
    for event in steps:
        if event.frame == 3:
            break
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"an older result"


def test_an_error_in_the_middle_leaves_nothing(tiny_model: Path, clip: Path, tmp_path: Path):
    cut = tmp_path / "cut.mkv"
    whole = tmp_path / "whole.mkv"
    with av.open(str(clip)) as source, av.open(str(whole), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    with pytest.raises(InputError) as caught:
        upscale_video(cut, tmp_path / "out.mp4", options(tiny_model, scale=1))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.mkv"]


def test_start_and_duration(clip: Path, tiny_model: Path, tmp_path: Path):
    chosen = options(tiny_model, scale=1, start=0.5, duration=0.25)
    target = upscale_video(clip, tmp_path / "out.mp4", chosen)
    info = probe(target)
    assert info.num_frames == 3
    assert abs(info.duration - Fraction(1, 4)) < Fraction(1, 100)


@pytest.mark.parametrize("start", [50, 999_999_999_999_999])
def test_a_start_after_the_end_is_said(clip: Path, tiny_model: Path, tmp_path: Path, start: int):
    with pytest.raises(DLoRALError, match=r"lasts 1 s, and start is .*; start earlier"):
        upscale_video(clip, tmp_path / "out.mp4", options(tiny_model, start=start))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.5},
        {"scale": 4.5},
        {"scale": float("nan")},
        {"detail": -0.1},
        {"consistency": -1},
        {"window": 2},
        {"codec": "h263"},
        {"crf": 64},
        {"tile": 0},
        {"tile": 16, "tile_overlap": 16},
        {"duration": 0},
        {"start": -1},
        {"color_fix": "sepia"},
        {"batch_size": 0},
        {"bit_depth": 9},
    ],
)
def test_wrong_options_are_named_in_one_line(wrong: dict):
    with pytest.raises(OptionError) as caught:
        UpscaleOptions(**wrong)
    assert "\n" not in str(caught.value)
    assert next(iter(wrong)) in str(caught.value)


def test_the_command_line(clip: Path, tiny_model: Path, tmp_path: Path):
    call = [sys.executable, "-m", "dloral", "upscale", str(clip), "--model", str(tiny_model)]
    done = subprocess.run(
        [*call, "-o", str(tmp_path / "out.mkv"), "--scale", "2", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert probe(tmp_path / "out.mkv").num_frames == 12
    for arguments, status in (
        (["-o", str(tmp_path / "x.mp4"), "--scale", "9"], 2),
        (["-o", str(tmp_path / "x.txt")], 2),
        (["-o", str(tmp_path / "x.mp4"), "--model", "nothing"], 1),
    ):
        failed = subprocess.run([*call, *arguments], capture_output=True, text=True, check=False)
        assert failed.returncode == status, failed.stderr
        assert failed.stderr.startswith("dloral: ")
        assert failed.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(tiny_model: Path, tmp_path: Path):
    """600 frames of one clip need no more than 60, to 10%; one kept frame each would be 1 GB."""
    peaks = []
    for count in (60, 600):
        path = tmp_path / f"{count}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 256, 144, "yuv420p"
            for index in range(count):
                pixels = np.full((144, 256, 3), index % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        script = (
            "import resource, sys; from dloral.cli import main; status = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
        )
        call = ["upscale", str(path), "-o", str(tmp_path / f"{count}.mkv"), "--scale", "2"]
        done = subprocess.run(
            [sys.executable, "-c", script, *call, "--model", str(tiny_model), "--quiet"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0], peaks
