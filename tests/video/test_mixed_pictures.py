"""Pictures that differ, and transparency that is not used: what a clip of them is said to be."""

from pathlib import Path
from zlib import compress, crc32

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from dloral.errors import InputError
from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.probe import probe

DEEP = np.full((12, 16, 3), 0x1234, np.uint16)


def notes_of(source: Path, target: Path) -> str:
    *_, last = upscale_steps(source, target, UpscaleOptions(model="bicubic", scale=1))
    return " | ".join(last.notes)


def picture(mode: str = "RGB", colour=(10, 20, 30)) -> Image.Image:
    return Image.new("RGB", (16, 12), colour).convert(mode)


def some_clear(mode: str = "RGBA") -> Image.Image:
    image = picture("RGBA")
    image.putpixel((3, 2), (10, 20, 30, 0))
    return image.convert(mode)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "frames").mkdir()
    return tmp_path / "frames"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_folder_is_as_deep_as_its_deepest_picture(folder, tmp_path, suffix):
    picture().save(folder / "0.png")
    cv2.imwrite(str(folder / f"1{suffix}"), DEEP)
    assert probe(folder).bit_depth == 16
    assert notes_of(folder, tmp_path / "out") == ""
    for name in ("0.png", "1.png"):
        assert cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert (cv2.imread(str(tmp_path / "out" / "1.png"), cv2.IMREAD_UNCHANGED) == 0x1234).all()
    notes_of(folder, tmp_path / "out.mkv")
    assert probe(tmp_path / "out.mkv").bit_depth == 10


def test_pages_are_as_deep_as_the_deepest(tmp_path):
    path = tmp_path / "a.tif"
    assert cv2.imwritemulti(str(path), [np.full((12, 16, 3), 80, np.uint8), DEEP])
    assert probe(path).bit_depth == 16
    notes_of(path, tmp_path / "out")
    assert (cv2.imread(str(tmp_path / "out" / "00000001.png"), -1) == 0x1234).all()
    assert (cv2.imread(str(tmp_path / "out" / "00000000.png"), -1) == 80 * 257).all()


def test_later_page_may_be_transparent(tmp_path):
    picture().save(tmp_path / "a.tif", save_all=True, append_images=[some_clear()])
    assert probe(tmp_path / "a.tif").has_alpha
    assert "shown over white" in notes_of(tmp_path / "a.tif", tmp_path / "out.mp4")
    notes_of(tmp_path / "a.tif", tmp_path / "out.webp")
    with Image.open(tmp_path / "out.webp") as written:
        written.seek(1)
        assert written.convert("RGBA").getpixel((3, 2))[3] == 0


def test_grey_before_colour(folder, tmp_path):
    picture("L").save(folder / "0.png")
    picture().save(folder / "1.png")
    assert notes_of(folder, tmp_path / "out") == ""
    assert Image.open(tmp_path / "out" / "1.png").getpixel((0, 0)) == (10, 20, 30)


def test_further_pictures_of_a_frame_are_named(folder, tmp_path):
    picture().save(folder / "0.png")
    picture().save(folder / "1.webp", save_all=True, append_images=[picture(colour=(9, 9, 9))])
    told = "only the first picture of a file is read (1.webp hold more)"
    assert told in notes_of(folder, tmp_path / "out.mp4")


def test_hdr_of_different_primaries_is_refused(folder):
    for name, primaries in (("0.png", 9), ("1.png", 12)):
        _, data = cv2.imencode(".png", DEEP)
        png = data.tobytes()
        chunk = b"cICP" + bytes((primaries, 16, 0, 1))
        stored = (4).to_bytes(4, "big") + chunk + crc32(chunk).to_bytes(4, "big")
        (folder / name).write_bytes(png[:33] + stored + png[33:])
    with pytest.raises(InputError, match="HDR frames of different primaries"):
        probe(folder)


KINDS = {
    "a.png": {},
    "a.webp": {"lossless": True},
    "a.tif": {},
    "a.avif": {},
    "pages.webp": {"save_all": True, "lossless": True},
    "pages.tif": {"save_all": True},
}


def save(image: Image.Image, path: Path) -> None:
    more = KINDS[path.name]
    if "save_all" in more:
        more = {**more, "append_images": [picture("RGBA", (1, 2, 3)), image]}
        image = picture("RGBA")
    image.save(path, **more)
    if path.name == "pages.webp":  # other programs say that there is transparency without any
        data = bytearray(path.read_bytes())
        data[20] |= 0x10
        path.write_bytes(data)


@pytest.mark.parametrize("name", KINDS)
def test_an_unused_channel_is_no_transparency(tmp_path, name):
    save(picture("RGBA"), tmp_path / name)
    assert not probe(tmp_path / name).has_alpha
    target = tmp_path / ("out.mp4" if name.startswith("pages") else "out.jpg")
    assert "transparency" not in notes_of(tmp_path / name, target)
    save(some_clear(), tmp_path / name)
    assert probe(tmp_path / name).has_alpha
    assert "transparency is shown over white" in notes_of(tmp_path / name, target)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_of_every_mode(tmp_path, mode):
    picture("RGBA").convert(mode).save(tmp_path / "a.png")
    assert not probe(tmp_path / "a.png").has_alpha
    some_clear(mode).save(tmp_path / "a.png")
    assert probe(tmp_path / "a.png").has_alpha


def test_of_16_bits(tmp_path):
    deep = np.full((12, 16, 4), 0xFFFF, np.uint16)
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), deep)
        assert not probe(tmp_path / f"a{suffix}").has_alpha
    deep[3, 2, 3] = 0
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), deep)
        clip = probe(tmp_path / f"a{suffix}")
        assert (clip.has_alpha, clip.bit_depth) == (True, 16)


def test_folder_of_opaque_frames(folder, tmp_path):
    for index in range(3):
        picture("RGBA").save(folder / f"{index}.png")
    assert notes_of(folder, tmp_path / "out.mp4") == ""
    some_clear().save(folder / "2.png")
    assert "transparency is shown over white" in notes_of(folder, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("clear_from", "words"), [(99, ""), (3, "h264 in .mp4 has no"), (30, "24")]
)
def test_video_is_judged_by_what_it_shows(ffmpeg, tmp_path, clear_from, words):
    opacity = f"255*lt(N,{clear_from})"
    graph = f"color=red:s=16x12:r=50:d=0.8,format=rgba,geq=r=255:g=0:b=0:a='{opacity}'"
    source = tmp_path / "a.mov"
    ffmpeg("-f", "lavfi", "-i", graph, "-c:v", "png", "-pix_fmt", "rgba", str(source))
    notes = notes_of(source, tmp_path / "out.mp4")
    assert words in notes
    assert ("shown over white" in notes) == bool(words)


def test_what_a_folder_does_not_keep_of_its_pictures_is_said(folder, tmp_path):
    """Not what every program writes into a TIFF, nor a profile through which colours were read."""
    exif, dots = Image.Exif(), Image.Exif()
    exif[0x0132], dots[0x011A], dots[0x0131] = "2015:06:07 08:09:10", 72.0, "a program"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture().save(folder / "0.tif", exif=dots, icc_profile=srgb)
    assert notes_of(folder, tmp_path / "out") == ""
    for name in ("1.jpg", "2.jpg"):
        picture().save(folder / name, exif=exif, xmp=b"<x/>" if name == "1.jpg" else b"")
    told = "EXIF left out: not kept for folders (1.jpg, 2.jpg) | XMP left out: not kept for folders"
    assert notes_of(folder, tmp_path / "out2") == f"{told} (1.jpg)"


@pytest.mark.parametrize("suffix", [".mkv", ".png", ""])
def test_a_profile_that_deep_pictures_are_not_read_through_is_said(folder, tmp_path, suffix):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    body = b"iCCPof RGB\0\0" + compress(srgb)
    chunk = (len(body) - 4).to_bytes(4, "big") + body + crc32(body).to_bytes(4, "big")
    png = cv2.imencode(".png", DEEP)[1].tobytes()
    (folder / "0.png").write_bytes(png[:33] + chunk + png[33:])
    lost = "colour profile left out: more than 8 bits are taken for sRGB"
    source = folder if not suffix else folder / "0.png"
    wanted = {".mkv": lost, ".png": "", "": f"{lost} (0.png)"}[suffix]
    assert notes_of(source, tmp_path / f"out{suffix}") == wanted
