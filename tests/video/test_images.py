"""Pictures that have to be turned, and pictures that say nonsense about it."""

import re
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dloral.errors import InputError
from dloral.video.images import load_image
from dloral.video.probe import probe
from dloral.video.reader import read_frames

UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
"""EXIF 2.32, 4.6.4 A: what the stored picture looks like when it is held right."""


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def save_png(path: Path, stored: np.ndarray, block: bytes) -> None:
    """A PNG with an eXIf chunk of any content right behind its header."""
    done, data = cv2.imencode(".png", stored[..., ::-1])
    assert done
    png, body = data.tobytes(), b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(png[:33] + chunk + png[33:])


def save_tiff(path: Path, stored: np.ndarray, orientation: int) -> None:
    """A plain TIFF in one strip; Pillow writes none of 16 bits a channel."""
    height, width, channels = stored.shape
    bits, at = stored.dtype.itemsize * 8, 8 + 2 + 9 * 12 + 4
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at), (259, 3, 1, 1)),
        *((262, 3, 1, 2), (273, 4, 1, at + 6), (274, 3, 1, orientation)),
        *((277, 3, 1, channels), (279, 4, 1, stored.nbytes)),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    path.write_bytes(head + struct.pack("<3H", *[bits] * 3) + stored.tobytes())


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_orientation_stands_upright(tmp_path, suffix, dtype, orientation):
    peak = np.iinfo(dtype).max
    stored = np.random.default_rng(0).integers(0, peak, (4, 6, 3), dtype, endpoint=True)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        save_png(path, stored, exif(orientation))
    else:
        save_tiff(path, stored, orientation)
    expected = torch.from_numpy(UPRIGHT[orientation](stored).astype(np.float32) / peak)
    pixels, clip = load_image(path), probe(path)
    assert clip.bit_depth == stored.dtype.itemsize * 8
    assert pixels.shape == (3, clip.height, clip.width)
    assert torch.allclose(pixels.permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    "block",
    [b"II*\0", b"", b"II", b"neither order", exif(6)[:-8], exif(99)],
    ids=["header", "empty", "short", "words", "cut", "range"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_broken_exif_block_counts_as_none(tmp_path, block, dtype):
    stored = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype)
    save_png(tmp_path / "a.png", stored, block)
    clip = probe(tmp_path / "a.png")
    assert (clip.height, clip.width) == (4, 6)
    expected = torch.from_numpy(stored.astype(np.float32) / np.iinfo(dtype).max)
    assert torch.allclose(load_image(tmp_path / "a.png").permute(1, 2, 0), expected)


def test_a_broken_exif_block_of_a_jpeg(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0")
    assert load_image(tmp_path / "a.jpg").shape == (3, 4, 6)


def test_damaged_pixels_are_an_error_all_the_same(tmp_path):
    save_png(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8), b"II*\0")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) - 40])
    with pytest.raises(InputError, match="damaged or cut off"):
        probe(tmp_path / "a.png")


def test_a_kind_that_pillow_does_not_know_may_be_whole(ffmpeg, tmp_path):
    """Grey with transparency in 16 bits."""
    path = tmp_path / "a.tiff"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=16x16", "-vf", "format=ya16le", "-vframes", "1", path)
    with pytest.raises(InputError, match="or of a kind that is not supported; get the whole file"):
        probe(path)


def test_an_avif_sequence_is_a_clip(tmp_path):
    first, *others = (Image.new("RGB", (40, 32), colour) for colour in ("red", "lime", "blue"))
    path = tmp_path / "a.avif"
    first.save(path, save_all=True, append_images=others, duration=[100, 200, 300])
    clip = probe(path)
    assert (clip.kind, clip.num_frames, clip.duration) == ("pages", 3, Fraction(3, 5))
    with read_frames(clip) as frames:
        shown = [(frame.time, int(frame.pixels[:, 4, 4].argmax())) for frame in frames]
    assert shown == [(0, 0), (Fraction(1, 10), 1), (Fraction(3, 10), 2)]


def test_lab_is_not_transparent(tmp_path):
    Image.new("RGB", (4, 4), "red").convert("LAB").save(tmp_path / "a.tif")
    assert not probe(tmp_path / "a.tif").has_alpha
    assert load_image(tmp_path / "a.tif")[0].min() > 0.95


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_animation_with_exif_stands_upright(tmp_path, orientation):
    first = np.random.default_rng(orientation).integers(0, 256, (20, 32, 3), np.uint8)
    pictures = [Image.fromarray(codes) for codes in (first, 255 - first)]
    block = Image.Exif()
    block[0x010F], block[0x0112] = "a maker", orientation
    path = tmp_path / "a.apng"
    pictures[0].save(path, format="PNG", save_all=True, append_images=pictures[1:], exif=block)
    clip = probe(path)
    with read_frames(clip) as frames:
        found = [frame.pixels.permute(1, 2, 0).mul(255).round().numpy() for frame in frames]
    wanted = UPRIGHT[orientation](first)
    assert (clip.height, clip.width) == wanted.shape[:2]
    assert len(found) == 2
    assert np.array_equal(found[0], wanted)
    assert np.array_equal(found[1], 255 - wanted)


def bytes_read() -> int:
    """By this process so far, as the system counts them."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count")
def test_a_stack_of_deep_pages_is_read_once(tmp_path):
    draw = np.random.default_rng(0)
    pages = [draw.integers(0, 65536, (64, 48, 3), np.uint16) for _ in range(60)]
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    size = (tmp_path / "a.tif").stat().st_size
    clip = probe(tmp_path / "a.tif")
    before = bytes_read()
    with read_frames(clip) as frames:
        for frame, page in zip(frames, pages, strict=True):
            found = frame.pixels.permute(1, 2, 0).mul(65535).round().numpy()
            assert np.array_equal(found, page[..., ::-1])
    assert bytes_read() - before < 3 * size
