"""Pictures made to hurt: one line each, before memory or time is spent."""

import struct
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dloral import UpscaleOptions, upscale_video
from dloral.errors import InputError, ResourceError
from dloral.jobs import admission
from dloral.video.images import load_image
from dloral.video.probe import probe


def save_float_tiff(path, pixels: np.ndarray) -> None:
    """A TIFF of one channel of 32-bit floats, in one strip."""
    height, width = pixels.shape
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 32), (259, 3, 1, 1)),
        *((262, 3, 1, 1), (273, 4, 1, 8 + 2 + 10 * 12 + 4), (277, 3, 1, 1)),
        *((278, 4, 1, height), (279, 4, 1, pixels.nbytes), (339, 3, 1, 3)),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    path.write_bytes(head + pixels.astype("<f4").tobytes())


def test_no_size_in_a_tiff_is_one_line(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("RGB", (8, 6)).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HH", 256, 4) if b"\0\1\4\0" in data else struct.pack("<H", 256))
    data[at : at + 2] = struct.pack("<H", 999)  # ImageWidth is another tag now
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a readable image: damaged") as caught:
        probe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp", ".jpg", ".bmp", ".tga"])
def test_whatever_bytes_are_damaged_is_one_line(tmp_path, suffix):
    """Either a picture within its range, or one line of ours; a decoder's own error fails here."""
    path = tmp_path / f"a{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    generator, refusals = np.random.default_rng(1), []
    for _ in range(60):
        data = bytearray(whole)
        for at in generator.integers(0, len(data), 4):
            data[at] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            clip = probe(path)
            if clip.width * clip.height < 1_000_000 and clip.kind == "image":
                found = load_image(path)
                assert found.isfinite().all()
                assert 0 <= found.min() <= found.max() <= 1
        except InputError as error:
            refusals.append(str(error))
    assert not [line for line in refusals if "\n" in line]


def test_numbers_that_are_none_are_filled_and_said(tmp_path):
    pixels = np.full((12, 16), 0.5)
    pixels[3:6, 4:8] = np.nan
    pixels[8, 8], pixels[9, 9] = np.inf, -np.inf
    save_float_tiff(tmp_path / "a.tif", pixels)
    notes = []
    found = load_image(tmp_path / "a.tif", on_note=notes.append)
    torch.testing.assert_close(found, torch.full((3, 12, 16), 0.5))
    assert notes == ["14 pixels are not numbers: filled in from around them"]
    told = []
    options = UpscaleOptions(model="bicubic", scale=1)
    upscale_video(tmp_path / "a.tif", tmp_path / "out.png", options, told.append)
    assert told[-1].notes[-1] == notes[0]
    assert np.unique(np.asarray(Image.open(tmp_path / "out.png"))).tolist() == [128]


def test_floats_beyond_white_are_refused(tmp_path):
    save_float_tiff(tmp_path / "a.tif", np.full((4, 4), 37.0))
    with pytest.raises(InputError, match="holds values up to 37, but 1 is white; scale them"):
        load_image(tmp_path / "a.tif")


def test_a_surface_in_a_few_bytes_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (8192, 8192)).save(path)
    begin = time.monotonic()
    with pytest.raises(InputError, match="8192x8192 in 8"):
        probe(path)
    assert time.monotonic() - begin < 1


def test_frames_that_do_not_fit_are_refused_by_the_header(tmp_path, monkeypatch):
    path, target = tmp_path / "a.png", tmp_path / "out.png"
    Image.new("RGB", (100, 100)).save(path)
    monkeypatch.setattr(admission, "free_memory", lambda device: 2_000_000)
    with pytest.raises(ResourceError, match="would become 400x400: that needs") as caught:
        upscale_video(path, target, UpscaleOptions(model="bicubic", scale=4))
    assert "use a smaller scale" in str(caught.value)
    assert not target.exists()
    upscale_video(path, target, UpscaleOptions(model="bicubic", scale=1))
