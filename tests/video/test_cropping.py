"""Cropping that a container asks for is done before anything else, as ffmpeg's own tool does it."""

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video import worker
from dloral.video.cropping import NO_CROP, Crop
from dloral.video.probe import ClipInfo, probe
from dloral.video.reader import floats_of, read_frames
from dloral.video.seeking import read_frames_from

WAY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
SIDES = {"even": (96, 48, 0, 0), "odd": (95, 47, 1, 1), "aside": (60, 40, 40, -20)}
"""Width and height of a clean aperture in 128 x 64; how far off its centre is, in half pixels."""


def with_aperture(whole: Path, target: Path, wide: int, high: int, across: int, down: int) -> None:
    """``whole`` with a ``clap`` box; its index must come last, so that no offset changes."""
    data = bytearray(whole.read_bytes())
    box = struct.pack(">I4s8i", 40, b"clap", wide, 1, high, 1, across, 2, down, 2)
    at, way = 0, []
    for name in WAY:
        while data[at + 4 : at + 8] != name:
            at += int.from_bytes(data[at : at + 4], "big")
        way.append(at)
        end = at + int.from_bytes(data[at : at + 4], "big")
        at += 16 if name == b"stsd" else 8
    data[end:end] = box
    for at in way:
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 40).to_bytes(4, "big")
    target.write_bytes(data)


@pytest.fixture(scope="module")
def folder(ffmpeg, tmp_path_factory) -> Path:
    """whole.mp4, and clips of it cropped as SIDES has it, some of them turned."""
    folder = tmp_path_factory.mktemp("cropped")
    source = ("-f", "lavfi", "-i", "testsrc2=s=128x64:r=25:d=0.16")
    ffmpeg(*source, "-c:v", "libx264", "-g", "2", "-pix_fmt", "yuv420p", str(folder / "whole.mp4"))
    for name, sides in SIDES.items():
        with_aperture(folder / "whole.mp4", folder / f"{name}.mp4", *sides)
    for suffix in (".mov", ".mkv"):
        ffmpeg("-i", str(folder / "aside.mp4"), "-c", "copy", str(folder / f"aside{suffix}"))
    for name in ("whole.mp4", "aside.mp4", "aside.mkv"):
        turned = ("-display_rotation", "90", "-i", str(folder / name), "-c", "copy")
        ffmpeg(*turned, str(folder / f"turned_{name}"))
    return folder


def frames_of(clip: ClipInfo) -> list[torch.Tensor]:
    with read_frames(clip) as frames:
        return [floats_of(frame.pixels, clip) for frame in frames]


CROPS = {
    "even.mp4": Crop(16, 8, 16, 8),
    "odd.mp4": Crop(17, 9, 16, 8),
    **dict.fromkeys(("aside.mp4", "aside.mov", "aside.mkv"), Crop(54, 2, 14, 22)),
}


@pytest.mark.parametrize("name", CROPS)
def test_frames_are_cropped(folder, ffmpeg, tmp_path, name):
    clip, crop = probe(folder / name), CROPS[name]
    assert clip.crop == crop
    if name != "odd.mp4":  # there ffmpeg rounds to pairs of pixels
        ffmpeg("-i", str(folder / name), "-frames:v", "1", str(tmp_path / "a.png"))
        assert Image.open(tmp_path / "a.png").size == (clip.width, clip.height)
    found, whole = frames_of(clip), frames_of(probe(folder / "whole.mp4"))
    assert len(found) == 4
    for frame, uncropped in zip(found, whole, strict=True):
        wanted = uncropped[:, crop.top : 64 - crop.bottom, crop.left : 128 - crop.right]
        assert torch.equal(frame, wanted)
    as_codes = frames_of(replace(clip, as_codes=True))
    assert all(map(torch.equal, as_codes, found))
    with read_frames_from(clip, 3) as frames:
        assert torch.equal(next(frames).pixels, found[3])


@pytest.mark.parametrize("name", ["turned_aside.mp4", "turned_aside.mkv"])
def test_turned_after_it_is_cropped(folder, ffmpeg, tmp_path, name):
    clip = probe(folder / name)
    ffmpeg("-i", str(folder / name), "-frames:v", "1", str(tmp_path / "a.png"))
    assert (clip.width, clip.height) == Image.open(tmp_path / "a.png").size == (40, 60)
    whole = frames_of(probe(folder / "turned_whole.mp4"))
    wanted = [frame[:, 14:74, 2:42] for frame in whole]
    assert clip.rotation == 270
    assert all(map(torch.equal, frames_of(clip), wanted))


def test_result_is_of_what_is_shown(folder, tmp_path):
    target = tmp_path / "out.mov"
    options = UpscaleOptions(model="bicubic", scale=2)
    *_, last = upscale_steps(folder / "aside.mov", target, options)
    written = probe(target)
    assert (written.width, written.height, written.crop) == (120, 80, NO_CROP)
    assert last.notes == ()


@pytest.mark.skipif(not worker.IS_POSSIBLE, reason="workers are for Linux")
def test_by_a_worker(folder):
    name = folder / "aside.mp4"
    clip = probe(name, isolated=True)
    assert clip == replace(probe(name), isolated=True)
    read = frames_of(replace(clip, as_codes=True))
    assert all(map(torch.equal, read, frames_of(probe(name))))


@pytest.mark.parametrize("aperture", [(200, 48, 0, 0), (0, 0, 0, 0), (96, 48, 90, 0)])
def test_nonsense_crops_nothing(folder, tmp_path, aperture):
    with_aperture(folder / "whole.mp4", tmp_path / "a.mp4", *aperture)
    clip = probe(tmp_path / "a.mp4")
    assert (clip.width, clip.height, clip.sample_aspect_ratio) == (128, 64, Fraction(1))
