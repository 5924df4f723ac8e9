"""Small clips from a real encoder: the ffmpeg program, not the library that is under test."""

import re
import subprocess
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch.nn.functional as F

from dloral.video.probe import ClipInfo
from dloral.video.reader import read_frames
from dloral.video.writer import open_writer

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

PICTURE = "testsrc2=s=64x48:r=25:d=1"
SOUND = "sine=f=440:r=44100:d=1"
SUBTITLES = """1
00:00:00,200 --> 00:00:00,600
first line

2
00:00:00,700 --> 00:00:00,900
second line
"""

RECIPES: dict[str, list[str]] = {
    "plain.mp4": ["-f", "lavfi", "-i", PICTURE, "-c:v", "libx264", "-pix_fmt", "yuv420p"],
    "sound.mp4": [
        *["-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", SOUND],
        *["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac"],
    ],
    "sound.mov": ["-i", "@sound.mp4", "-c:v", "copy", "-c:a", "pcm_s16le"],
    "sound.mkv": ["-i", "@sound.mp4", "-c", "copy"],
    "opus.webm": ["-i", "@sound.mp4", "-c:v", "libvpx-vp9", "-c:a", "libopus"],
    "sound.avi": ["-i", "@sound.mp4", "-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame"],
    "h264.avi": ["-i", "@plain.mp4", "-c:v", "libx264", "-bf", "2"],
    "sound.mpg": ["-i", "@sound.mp4", "-c:v", "mpeg2video", "-c:a", "mp2"],
    "flv1.flv": ["-i", "@plain.mp4", "-c:v", "flv1"],
    "sound.ts": ["-i", "@sound.mp4", "-c:v", "copy", "-c:a", "copy"],
    "plain.gif": ["-i", "@plain.mp4"],
    "vp8.webm": [
        "-i",
        "@plain.mp4",
        "-c:v",
        "libvpx",
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "16",
    ],
    "rotated.mp4": ["-display_rotation", "90", "-i", "@sound.mp4", "-c", "copy"],
    "anamorphic.mp4": ["-i", "@plain.mp4", "-vf", "setsar=16/11", "-c:v", "libx264"],
    "ten.mkv": ["-i", "@plain.mp4", "-c:v", "ffv1", "-pix_fmt", "yuv420p10le"],
    "odd.mkv": [
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=63x47:r=25:d=0.4",
        "-pix_fmt",
        "bgr0",
        "-c:v",
        "ffv1",
    ],
    "ntsc.mp4": ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001:d=1", "-c:v", "libx264"],
    "variable.mp4": [
        *["-f", "lavfi", "-i", PICTURE, "-vf", "setpts='(N*N+7*N)*2/25/TB/10'"],
        *["-fps_mode", "vfr", "-c:v", "libx264", "-enc_time_base", "1:90000"],
    ],
    "variable.mkv": ["-i", "@variable.mp4", "-c", "copy"],
    "subtitled.mkv": [
        *["-i", "@sound.mp4", "-i", "@lines.srt", "-c", "copy"],
        *["-metadata:s:s:0", "language=nld", "-metadata", "title=A clip"],
    ],
    "subtitled.mp4": ["-i", "@subtitled.mkv", "-c", "copy", "-c:s", "mov_text"],
    "late.mkv": [  # the sound begins 0.3 s after the picture
        *["-i", "@plain.mp4", "-itsoffset", "0.3", "-f", "lavfi", "-i", SOUND],
        *["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "flac"],
    ],
    "soundonly.m4a": ["-f", "lavfi", "-i", SOUND, "-c:a", "aac"],
    "beep.mkv": [  # at 1.5 s the picture turns white and a tone begins
        *["-f", "lavfi", "-i", "color=black:s=64x48:r=20:d=3", "-f", "lavfi"],
        *["-i", "aevalsrc='gte(t,1.5)*sin(2*PI*1000*t)*0.5':s=48000:d=3"],
        *["-vf", "geq=lum='if(gte(T,1.5),235,16)':cb=128:cr=128", "-g", "200"],
        *["-c:v", "libx264", "-c:a", "aac"],
    ],
}


class Clips:
    """Makes each clip once, when a test asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "lines.srt").write_text(SUBTITLES)

    def __call__(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            arguments = [
                str(self(part[1:])) if part.startswith("@") else part for part in RECIPES[name]
            ]
            run_ffmpeg(*arguments, "-map_metadata", "0", str(path))
        return path


def run_ffmpeg(*arguments: str) -> str:
    """Run ffmpeg; what it prints to standard output."""
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def ffmpeg():
    return run_ffmpeg


@pytest.fixture(scope="session")
def frame_times():
    """Times of a file's frames in seconds, as the ffmpeg program decodes them."""

    def times(path: Path) -> list[Fraction]:
        text = run_ffmpeg(
            *["-copyts", "-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough"],
            *["-enc_time_base", "demux", "-f", "framemd5", "-"],
        )
        unit = Fraction(re.search(r"#tb 0: (\d+/\d+)", text)[1])
        rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
        return [int(row[2]) * unit for row in rows]

    return times


@pytest.fixture(scope="session")
def packet_hashes():
    """Hashes of a file's packets of one kind (``a`` or ``s``), as stored."""

    def hashes(path: Path, kind: str) -> list[str]:
        text = run_ffmpeg("-i", str(path), "-map", f"0:{kind}", "-c", "copy", "-f", "framemd5", "-")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return [line.split(",")[5].strip() for line in lines]

    return hashes


def copy_clip(source: ClipInfo, target: Path, scale: int = 2, start=0, duration=None, **options):
    """Write ``source`` enlarged by repeating pixels; the writer's notes."""
    height, width = source.height * scale, source.width * scale
    writing = open_writer(
        target,
        width=width,
        height=height,
        source=source,
        start=start,
        duration=duration,
        **options,
    )
    with writing as writer, read_frames(source, start, duration) as frames:
        for frame in frames:
            enlarged = F.interpolate(frame.pixels[None], (height, width))[0]
            writer.write(enlarged, frame.time, frame.duration)
    return writer.notes
