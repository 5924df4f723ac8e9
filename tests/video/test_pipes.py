"""Frames from standard input and to standard output: as from files, and how it ends if it must."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from dloral import UpscaleOptions, upscale_steps, upscale_video
from dloral.cli import main
from dloral.video.reader import read_frames
from dloral.weights.loading import load_pipeline

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
Piped = Callable[..., tuple[int, bytes]]
CALL = ["upscale", "--model", "bicubic", "--scale", "2", "-o", "-"]
SOURCE = "testsrc2=s=32x24:r=30000/1001"


def ffmpeg(*arguments: str, frames: int = 6) -> bytes:
    command = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", SOURCE, "-frames:v", str(frames)]
    command += [*arguments, "-strict", "-1", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def y4m(*arguments: str, frames: int = 6) -> bytes:
    return ffmpeg(*arguments, "-f", "yuv4mpegpipe", frames=frames)


@contextmanager
def standard(number: int, descriptor: int) -> Iterator[None]:
    """This process's standard input or output is another file."""
    before = os.dup(number)
    os.dup2(descriptor, number)
    try:
        yield
    finally:
        os.dup2(before, number)
        os.close(before)


@pytest.fixture
def piped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Piped:
    """Run the command line with these bytes on its input: exit status and what it wrote."""

    def run(data: bytes, *arguments: str) -> tuple[int, bytes]:
        given, taken = tmp_path / "stdin", tmp_path / "stdout"
        given.write_bytes(data)
        with (
            given.open("rb") as source,
            taken.open("wb") as target,
            standard(0, source.fileno()),
            standard(1, target.fileno()),
        ):
            status = main([*CALL, *arguments])
        return status, taken.read_bytes()

    return run


FORMATS = ["yuv420p", "yuv444p", "gray", "yuv420p10le", "yuv422p10le", "yuv444p12le"]


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_pipe_is_read_as_a_file(piped: Piped, tmp_path: Path, pixel_format: str) -> None:
    data = y4m("-pix_fmt", pixel_format)
    file = tmp_path / "clip.y4m"
    file.write_bytes(data)
    assert piped(b"", str(file)) == piped(data, "-")
    status, written = piped(data, "-i", "-")
    assert status == 0
    assert written.count(b"FRAME\n") == 6
    ten = "10" in pixel_format or "12" in pixel_format
    head = b"YUV4MPEG2 W64 H48 F30000:1001 Ip A1:1 "
    head += b"C420p10 XYSCSS=420P10" if ten else b"C420mpeg2 XYSCSS=420MPEG2"
    assert written.startswith(head + b" XCOLORRANGE=LIMITED\n")


def test_the_pixels_of_ten_bits_are_those_of_the_file(piped: Piped, tmp_path: Path) -> None:
    data = y4m("-pix_fmt", "yuv420p10le")
    source, piped_out, filed = (tmp_path / name for name in ("in.y4m", "out.y4m", "out.mkv"))
    source.write_bytes(data)
    piped_out.write_bytes(piped(data, "-", "--chroma", "444")[1])
    options = UpscaleOptions(model="bicubic", scale=2, codec="ffv1")
    upscale_video(source, filed, options, pipe=load_pipeline("bicubic"))
    with read_frames(piped_out) as ours, read_frames(filed) as theirs:
        pairs = list(zip(ours, theirs, strict=True))
    assert len(pairs) == 6
    for our, their in pairs:
        assert our.time == pytest.approx(float(their.time), abs=1e-3)
        # one step of ten bits in each of Y, Cb and Cr
        assert (our.pixels - their.pixels).abs().max() < 2.5 / 1023


@pytest.mark.parametrize("value", ["FULL", "LIMITED"])
def test_the_range_is_kept_to(piped: Piped, tmp_path: Path, value: str) -> None:
    head = f"YUV4MPEG2 W16 H16 F25:1 Ip A0:0 C444 XCOLORRANGE={value}\n".encode()
    data = head + b"FRAME\n" + b"\xff" * 256 + b"\x80" * 512
    written = piped(data, "-", "--chroma", "444")[1]
    luma = np.frombuffer(written[written.index(b"FRAME\n") + 6 :], np.uint8)[: 32 * 32]
    assert set(luma) == {235}
    data = head + b"FRAME\n" + b"\x7e" * 256 + b"\x80" * 512  # 126: the middle where limited
    written = piped(data, "-", "--chroma", "444")[1]
    luma = np.frombuffer(written[written.index(b"FRAME\n") + 6 :], np.uint8)[: 32 * 32]
    assert set(luma) == {round(16 + 219 * 126 / 255) if value == "FULL" else 126}


RGB = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), dtype=np.uint8)
ALPHA = np.full((3, 12, 16, 1), 255, np.uint8)
RAW = {
    "rgb24": RGB,
    "bgr24": RGB[..., ::-1],
    "rgba": np.concatenate([RGB, ALPHA], axis=3),
    "gbrp": RGB[..., [1, 2, 0]].transpose(0, 3, 1, 2),
    "rgb48le": RGB.astype("<u2") * 257,
    "rgba64": np.concatenate([RGB, ALPHA], axis=3).astype("<u2") * 257,
}


@pytest.mark.parametrize("pixel_format", RAW)
def test_raw_video_is_told_by_options(piped: Piped, pixel_format: str) -> None:
    told = ["--size", "16x12", "--fps", "25", "--bit-depth", "8", "--pixel-format"]
    expected = piped(RGB.tobytes(), "-", *told, "rgb24")
    assert expected[0] == 0
    assert piped(RAW[pixel_format].tobytes(), "-", *told, pixel_format) == expected


@pytest.mark.parametrize(("pixel_format", "planar"), [("nv12", "yuv420p"), ("p010le", "yuv420p10")])
def test_raw_video_without_headers(piped: Piped, pixel_format: str, planar: str) -> None:
    raw = ffmpeg("-pix_fmt", pixel_format, "-f", "rawvideo")
    told = ["--size", "32x24", "--fps", "30000/1001", "--pixel-format"]
    status, bare = piped(raw, "-", *told, pixel_format, "--pipe-format", "rawvideo")
    assert status == 0
    as_y4m = piped(y4m("-pix_fmt", planar.replace("p10", "p10le")), "-")[1]
    frames = as_y4m[as_y4m.index(b"FRAME") :]
    size = len(frames) // 6
    parts = [frames[at + 6 : at + size] for at in range(0, len(frames), size)]
    assert [len(bare), bare[:size]] == [sum(map(len, parts)), b"".join(parts)[:size]]


def test_programs_on_both_sides(tmp_path: Path) -> None:
    made = tmp_path / "made.mkv"
    before = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", SOURCE, "-frames:v", "9"]
    before += ["-pix_fmt", "yuv420p10le", "-strict", "-1", "-f", "yuv4mpegpipe", "-"]
    behind = [FFMPEG, "-v", "error", "-i", "-", "-c:v", "ffv1", str(made)]
    writer = subprocess.Popen(before, stdout=subprocess.PIPE)
    reader = subprocess.Popen(behind, stdin=subprocess.PIPE)
    assert writer.stdout is not None
    assert reader.stdin is not None
    with standard(0, writer.stdout.fileno()), standard(1, reader.stdin.fileno()):
        status = main([*CALL, "-"])
    writer.stdout.close()
    reader.stdin.close()
    assert (status, writer.wait(), reader.wait()) == (0, 0, 0)
    with read_frames(made) as frames:
        assert [frame.pixels.shape for frame in frames] == [(3, 48, 64)] * 9


def test_a_closed_reader_ends_the_job_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    given, giving = os.pipe()
    os.write(giving, y4m(frames=2))
    os.close(giving)
    with standard(0, given), standard(1, writing):
        status = main([*CALL, "-", "--quiet"])
    os.close(writing)
    os.close(given)
    assert status == 1
    told = capfd.readouterr().err
    assert told.startswith("dloral: standard output was closed by its reader at frame 1; ")
    assert told.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are read in turn there")
def test_a_program_that_falls_silent(tmp_path: Path) -> None:
    """Frames come as soon as they are there, and the job can be ended while none comes."""
    given, giving = os.pipe()
    os.write(giving, y4m(frames=2))  # and its end does not come
    with standard(0, given):
        steps = upscale_steps("-", tmp_path / "out.mp4", UpscaleOptions("bicubic", 2))
        while next(steps).frame < 2:
            pass
        steps.close()
    os.close(giving)
    os.close(given)
    assert not list(tmp_path.iterdir())


WHOLE = b"YUV4MPEG2 W4 H4 F25:1 C444\n" + b"FRAME\n" + b"\x80" * 48

BAD = {
    "nothing": (b"", [], 1, "standard input is empty (0 bytes)"),
    "another kind": (b"\x1aE\xdf\xa3 matroska", [], 1, "standard input is not y4m"),
    "no frame": (b"YUV4MPEG2 W4 H4 F25:1 C444\n", [], 1, "has no frame from 0 s on"),
    "half a header": (b"YUV4MPEG2 W4 H4 F2", [], 1, "header is cut off"),
    "a header without size": (b"YUV4MPEG2 F25:1\n", [], 1, "damaged y4m header"),
    "no height": (b"YUV4MPEG2 W4 H0 F25:1\n", [], 1, "no picture size"),
    "too large": (b"YUV4MPEG2 W99999 H9 F25:1\n", [], 1, "at most 16384"),
    "an unknown format": (b"YUV4MPEG2 W4 H4 F25:1 Cxyz\n", [], 1, "unknown pixel format (Cxyz)"),
    "half a frame": (WHOLE[:-7], [], 1, "ends within frame 1 (41 of 48 bytes)"),
    "half a second frame": (WHOLE + b"FRAME\n12", [], 1, "within frame 2 (2 of 48 bytes)"),
    "half a frame's line": (WHOLE + b"FRA", [], 1, "within frame 2 (3 bytes)"),
    "something between": (WHOLE + b"ffmpeg says", [], 1, "no frame where frame 2 should begin"),
    "raw without rate": (b"x" * 48, ["--size", "4x4", "--pixel-format", "rgb24"], 2, "--fps is"),
    "raw without format": (b"x" * 48, ["--size", "4x4"], 2, "--pixel-format is missing"),
    "raw without size": (b"x" * 48, ["--pixel-format", "rgb24"], 2, "--size is missing"),
    "raw of no format": (
        b"x" * 48,
        ["--size", "4x4", "--fps", "25", "--pixel-format", "h264"],
        2,
        "--pixel-format is 'h264'; choose from gray",
    ),
    "raw that is cut": (
        b"x" * 50,
        ["--size", "4x4", "--fps", "25", "--pixel-format", "rgb24"],
        1,
        "ends within frame 2 (2 of 48 bytes)",
    ),
    "y4m told as raw": (
        WHOLE,
        ["--size", "4x4", "--fps", "25", "--pixel-format", "rgb24"],
        1,
        "leave out --size and --pixel-format",
    ),
    "an odd size": (WHOLE, ["--size", "4 by 4"], 2, "--size is '4 by 4'; give width x height"),
    "a codec": (WHOLE, ["--codec", "h265"], 2, "--codec is given, but frames on standard output"),
    "a journal": (WHOLE, ["--resume"], 2, "read and written once, from its start"),
    "two sources": (WHOLE, ["-i", "-"], 2, "standard input and output are for one clip"),
    "devices": (WHOLE, ["--devices", "cpu,cpu"], 2, "leave out --devices"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_said_in_one_line(
    piped: Piped, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    data, arguments, expected, line = BAD[kind]
    status, written = piped(data, "-", "--quiet", *arguments)
    told = capfd.readouterr().err
    assert (status, told.count("\n")) == (expected, 1), told
    assert line in told
    # frames that came whole are written, and nothing else is
    assert written.count(b"FRAME") == (1 if "frame 2" in line else 0)


def test_interlaced_frames_are_made_whole(piped: Piped) -> None:
    data = y4m("-pix_fmt", "yuv420p").replace(b" Ip ", b" It ", 1)
    written = piped(data, "-", "--deinterlace", "field")[1]
    assert b" F60000:1001 Ip " in written[:80]
    assert written.count(b"FRAME\n") == 12


def test_size_is_for_pipes_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, str(tmp_path / "clip.yuv"), "--size", "4x4"]) == 2
    assert "--size describes raw video on standard input" in capfd.readouterr().err


def test_what_others_print_is_not_among_the_frames(
    piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dloral.video import pipes

    plain = piped(WHOLE, "-")[1]
    write = pipes.PipeWriter.write

    def noisy(*arguments: object) -> None:
        os.write(1, b"a library says something")
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipes.PipeWriter, "write", noisy)
    assert piped(WHOLE, "-")[1] == plain
