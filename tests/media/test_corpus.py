"""Every kind of file in, and what comes out against ffmpeg's own reading of the source.

The network is replaced by bicubic at scale 1, so that the picture comes back as it was.
"""

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from kinds_base import FFMPEG, PATCHES, Kind
from kinds_extras import write_helpers
from media_kinds import KINDS, make_all

from dloral import UpscaleOptions, upscale_video
from dloral.errors import DLoRALError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def cases() -> list:
    return [
        pytest.param(kind, id=kind.name, marks=[] if kind.usual else pytest.mark.slow)
        for kind in KINDS
    ]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, request) -> Path:
    """The files of the kinds that this run asks for."""
    folder = tmp_path_factory.mktemp("corpus")
    write_helpers(folder)
    asked = {
        item.callspec.params["kind"].name
        for item in request.session.items
        if getattr(item, "originalname", None) == test_kind.__name__
    }
    make_all([kind for kind in KINDS if kind.name in asked], folder)
    return folder


@dataclass
class Reading:
    """What ffmpeg reads, in seconds: frames, and begin and end of sound, track by track."""

    frames: list[Fraction]
    sound: list[list[tuple[Fraction, Fraction]]]


def read_by_ffmpeg(path: Path, tracks: int) -> Reading:
    outputs = ["-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", "1:90000"]
    outputs += ["-f", "framecrc", f"{path}.v"]
    for track in range(tracks):
        outputs += ["-map", f"0:a:{track}", "-f", "framecrc", f"{path}.a{track}"]
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", "-i", str(path), *outputs]
    subprocess.run(command, check=True, capture_output=True)
    frames = [begin for begin, _ in _rows(Path(f"{path}.v"))]
    return Reading(frames, [_rows(Path(f"{path}.a{track}")) for track in range(tracks)])


def _rows(path: Path) -> list[tuple[Fraction, Fraction]]:
    text = path.read_text()
    unit = Fraction(re.search(r"#tb 0: (\d+/\d+)", text)[1])
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    return [(int(row[2]) * unit, (int(row[2]) + int(row[3])) * unit) for row in rows]


def outcome(kind: Kind, source: Path, target: Path) -> tuple[list[str], str]:
    """The notes, or the line that refuses the source."""
    notes: list[str] = []
    options = UpscaleOptions(model="bicubic", scale=1, codec=kind.codec)
    try:
        upscale_video(
            source, target, options, lambda told: notes.__setitem__(slice(None), told.notes)
        )
    except DLoRALError as error:
        return [], str(error)
    return notes, ""


@pytest.mark.parametrize("kind", cases())
def test_kind(kind: Kind, corpus: Path, tmp_path: Path):
    source, target = corpus / kind.name, tmp_path / f"out{kind.target}"
    before = source.read_bytes()
    notes, refusal = outcome(kind, source, target)
    assert source.read_bytes() == before
    if refusal:
        assert kind.refused or kind.either, refusal
        assert kind.refused in refusal
        assert "\n" not in refusal
        assert list(tmp_path.iterdir()) == []
        return
    assert not kind.refused
    assert list(tmp_path.iterdir()) == [target]
    assert all("\n" not in note for note in notes)
    if kind.either:
        return
    for words in kind.notes:
        assert any(words in note for note in notes), notes
    check_picture(kind, source, target)
    check_sound(kind, source, target)
    check_extras(kind, source, target)


def check_picture(kind: Kind, source: Path, target: Path):
    expected = read_by_ffmpeg(source, 0).frames
    with av.open(str(target)) as container:
        stream = next(s for s in container.streams.video if not s.disposition & 1024)
        frames = list(container.decode(stream))
        assert (frames[0].width, frames[0].height) == kind.size
        aspect = stream.sample_aspect_ratio or Fraction(1)
        assert aspect == kind.aspect
    times = [frame.pts * frame.time_base for frame in frames]
    if kind.frames is not None:
        assert len(times) == kind.frames
    if not kind.repeats:
        assert abs(len(times) - len(expected)) <= (0 if kind.frames is not None else 2)
    if len(times) == len(expected):
        for time, wanted in zip(times, expected, strict=True):
            assert float(time - times[0]) == pytest.approx(float(wanted - expected[0]), abs=0.002)
    if kind.last is not None:
        assert float(times[-1]) == pytest.approx(kind.last, abs=0.002)
    if kind.patches:
        for frame in (frames[0], frames[-1]):
            check_patches(frame.to_ndarray(format="rgb24"), kind.tolerance)


def check_patches(pixels: np.ndarray, tolerance: int):
    height, width, _ = pixels.shape
    for index, colour in enumerate(PATCHES):
        y = height * (1 + 2 * (index // 2)) // 4
        x = width * (1 + 2 * (index % 2)) // 4
        found = pixels[y - 1 : y + 1, x - 1 : x + 1].reshape(-1, 3).mean(0)
        assert np.abs(found - colour).max() <= tolerance, (index, found, colour)


def check_sound(kind: Kind, source: Path, target: Path):
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == kind.sound
        if kind.layout:
            assert container.streams.audio[0].layout.name == kind.layout
    if not kind.sound:
        return
    before, after = read_by_ffmpeg(source, kind.sound), read_by_ffmpeg(target, kind.sound)
    for wanted, found in zip(before.sound, after.sound, strict=True):
        begin, end = wanted[0][0] - before.frames[0], wanted[-1][1] - before.frames[0]
        # less than 0.1 s ahead of the picture is an encoder's run-up, which Matroska cannot hide
        first = found[0][0] - after.frames[0]
        assert float(first) == pytest.approx(float(begin), abs=0.11)
        end = float(end) if kind.sound_end is None else kind.sound_end
        assert float(found[-1][1] - after.frames[0]) == pytest.approx(end, abs=0.13)


def check_extras(kind: Kind, source: Path, target: Path):
    with av.open(str(source)) as old, av.open(str(target)) as new:
        tags = {key.lower(): value for key, value in new.metadata.items()}
        for key, value in kind.tags.items():
            assert tags[key.lower()] == value
        assert len(new.chapters()) == kind.chapters
        for was, now in zip(old.chapters(), new.chapters(), strict=False):
            assert now["metadata"] == was["metadata"]
            for edge in ("start", "end"):
                moved = now[edge] * now["time_base"] - was[edge] * was["time_base"]
                assert abs(moved) <= Fraction(1, 500)
        if kind.target == ".mkv":
            assert [s.data for s in old.streams.attachments] == [
                s.data for s in new.streams.attachments
            ]
        if kind.target in (".mkv", ".mov") and kind.name.startswith(("sound_first", "two_sounds")):
            assert [s.type for s in new.streams] == [s.type for s in old.streams]
            assert [s.language for s in new.streams] == [s.language for s in old.streams]
        if kind.name.startswith("cover") and kind.target != ".webm":
            covers: list = [s for s in new.streams.video if s.disposition & 1024]
            assert len(covers) == 1
        if kind.name.startswith("timecode"):
            everywhere = [new.metadata, *(stream.metadata for stream in new.streams)]
            codes = {v for tags in everywhere for k, v in tags.items() if k.lower() == "timecode"}
            assert codes == {"01:02:03:04"}
        if kind.name.startswith(("srt", "ass", "mov_text", "webvtt")):
            assert len(new.streams.subtitles) == 1
