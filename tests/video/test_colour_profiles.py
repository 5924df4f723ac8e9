"""Pictures whose colours only their profile tells: print's inks, grey, palettes."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps

WHITE = struct.pack(">3i", 63190, 65536, 54061)  # D50, in 65536ths


def profile(space: bytes, connection: bytes, **tags: bytes) -> bytes:
    """ICC.1:2001-04, 6: a profile of version 2."""
    tags |= {"wtpt": b"XYZ " + bytes(4) + WHITE}
    tags |= {"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)}
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", start + len(data), b"lcms", 0x02400000, b"prtr", space, connection
    )
    head += bytes(12) + b"acsp" + bytes(28) + WHITE
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data


def of_linear_grey() -> bytes:
    return profile(b"GRAY", b"XYZ ", kTRC=b"curv" + bytes(4) + struct.pack(">IH", 1, 256))


def of_grey_inks() -> bytes:
    """A press whose inks are all grey: each of C, M and Y takes a quarter of the lightness."""
    inks = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = b"".join(bytes([0 if k else 255 - 64 * (c + m + y), 128, 128]) for c, m, y, k in inks)
    same = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    line = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + same + 4 * line + grid + 3 * line
    return profile(b"CMYK", b"Lab ", A2B0=table)


def of_swapped_rgb() -> bytes:
    """sRGB with the primaries of red and blue exchanged."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


PICTURES = {
    "inks.jpg": ("CMYK", (255, 0, 0, 0), of_grey_inks, (184, 184, 184)),
    "inks.tif": ("CMYK", (255, 0, 0, 0), of_grey_inks, (184, 184, 184)),
    "grey.jpg": ("L", 128, of_linear_grey, (188, 188, 188)),
    "grey.png": ("L", 128, of_linear_grey, (188, 188, 188)),
    "usual_grey.png": ("L", 128, of_swapped_rgb, (128, 128, 128)),
    "of_another_kind.png": ("L", 128, of_grey_inks, (128, 128, 128)),
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".mkv"])
@pytest.mark.parametrize("name", PICTURES)
def test_inks_and_grey_become_srgb_through_their_profile(tmp_path, name, suffix):
    mode, colour, made, shown = PICTURES[name]
    source, target = tmp_path / name, tmp_path / f"out{suffix}"
    more = {} if name.endswith("png") else {"quality": 100}
    Image.new(mode, (16, 12), colour).save(source, icc_profile=made(), **more)
    assert np.abs(first_pixel(source, target) - shown).max() <= 2


@pytest.mark.parametrize("target", ["out.png", "out.mkv"])
def test_a_palette_has_the_colours_of_its_profile(tmp_path, target):
    source = tmp_path / "a.png"
    Image.new("RGB", (16, 12), (220, 40, 40)).quantize(2).save(source, icc_profile=of_swapped_rgb())
    assert np.abs(first_pixel(source, tmp_path / target) - (40, 40, 220)).max() <= 2


def test_transparent_grey_stays_transparent(tmp_path):
    source = tmp_path / "a.png"
    Image.new("LA", (16, 12), (128, 40)).save(source, icc_profile=of_linear_grey())
    first_pixel(source, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.getpixel((3, 3)) == (188, 188, 188, 40)


def first_pixel(source: Path, target: Path) -> np.ndarray:
    """A pixel of the result in sRGB, through the result's own profile if it has one."""
    list(upscale_steps(source, target, UpscaleOptions(model="bicubic", scale=1, codec="ffv1")))
    if target.suffix == ".mkv":
        with av.open(str(target)) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24")[3, 3].astype(int)
    with Image.open(target) as image:
        own = image.info.get("icc_profile")
        if own:
            srgb = ImageCms.createProfile("sRGB")
            shown = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(own)), srgb
            )
        else:
            shown = image
        return np.asarray(shown)[3, 3].astype(int)
