"""Transparency: what is hidden never shows, and edges keep their colour."""

import struct
import zlib

import numpy as np
import pytest
import torch
from av import VideoFrame
from PIL import Image

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.alpha import fill_hidden, with_alpha
from dloral.video.colour import frame_to_rgb, may_be_seen_through
from dloral.video.encoding import OutputFormat
from dloral.video.probe import probe
from dloral.video.reader import read_frames
from dloral.video.treatment import treated
from dloral.video.vp9_alpha import packet_with_alpha


def notes_of(source, target, **options):
    *_, last = upscale_steps(source, target, UpscaleOptions(model="bicubic", scale=2, **options))
    return last.notes


@pytest.fixture
def picture(tmp_path):
    """A blue box; red is hidden around it."""
    image = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (10, 8, 30, 22))
    image.save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_hidden_colour_is_replaced_by_the_nearest_seen():
    rgb = torch.zeros(3, 16, 16)
    rgb[0] = 1
    alpha = torch.zeros(16, 16)
    rgb[:, 4:9, 5:11] = torch.tensor([0, 0, 1.0])[:, None, None]
    alpha[4:9, 5:11] = 1
    filled = fill_hidden(rgb, alpha)
    assert (filled - torch.tensor([0, 0, 1.0])[:, None, None]).abs().max() < 1e-4
    assert (fill_hidden(rgb, torch.zeros(16, 16)) == 1).all()


def test_opaque_frames_stay_as_they_are():
    rgb = torch.rand(3, 7, 5)
    assert torch.equal(fill_hidden(rgb, torch.ones(7, 5)), rgb)
    assert with_alpha(rgb, None) is rgb


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_pictures_keep_it_without_a_halo(picture, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    assert notes_of(picture, target) == ()
    found = np.array(Image.open(target))
    assert found.shape == (60, 80, 4)
    assert found[2, 2].tolist() == [255, 255, 255, 0]
    assert found[30, 40].tolist() == [0, 0, 255, 255]
    edge = found[(found[..., 3] > 0) & (found[..., 3] < 255)]
    assert len(edge) > 50
    assert (np.abs(edge[:, :3].astype(int) - [0, 0, 255]) <= 1).all()


def test_jpeg_says_that_it_holds_none(picture, tmp_path):
    (note,) = notes_of(picture, tmp_path / "out.jpg")
    assert "over white: .jpg" in note
    assert min(Image.open(tmp_path / "out.jpg").getpixel((2, 2))) > 250


@pytest.mark.parametrize(
    ("codec", "suffix"), [("prores", ".mov"), ("vp9", ".webm"), ("ffv1", ".mkv")]
)
def test_videos_keep_it(tmp_path, ffmpeg, codec, suffix):
    source = tmp_path / "a.mov"
    drawing = "color=red@0.0:s=32x32:r=25:d=0.12,format=yuva444p10le"
    ffmpeg(
        *["-f", "lavfi", "-i", f"{drawing},drawbox=8:8:16:16:blue@1.0:t=fill:replace=1"],
        *["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le", str(source)],
    )
    target = tmp_path / f"out{suffix}"
    assert not any("over white" in note for note in notes_of(source, target, codec=codec))
    clip = probe(target)
    assert clip.has_alpha
    assert clip.num_frames == 3
    kept = treated(clip, UpscaleOptions(), "")
    with read_frames(kept) as frames:
        frame = next(frames)
    assert frame.alpha[2, 2] == pytest.approx(0, abs=0.01)
    assert frame.alpha[32, 32] == pytest.approx(1, abs=0.01)
    assert frame.pixels[:, 32, 32].tolist() == pytest.approx([0, 0, 1], abs=0.03)
    with read_frames(clip) as frames:  # over white, as players show it
        assert next(frames).pixels[:, 2, 2].min() > 0.97


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.webm", ("libvpx", "-b:v", "2M", "-crf", "4", "-auto-alt-ref", "0")),
        ("b.webm", ("libvpx-vp9", "-b:v", "0", "-crf", "4", "-auto-alt-ref", "0")),
        ("c.mkv", ("ffv1",)),
    ],
)
def test_hidden_chroma_of_fewer_samples_does_not_leak(tmp_path, ffmpeg, name, codec):
    drawing = "color=red@0.0:s=32x32:r=25:d=0.04,format=yuva444p10le"
    ffmpeg(
        *["-f", "lavfi", "-i", f"{drawing},drawbox=8:8:16:16:blue@1.0:t=fill:replace=1"],
        *["-c:v", *codec, "-pix_fmt", "yuva420p", str(tmp_path / name)],
    )
    kept = treated(probe(tmp_path / name), UpscaleOptions(), "")
    assert kept.keep_alpha
    with read_frames(kept) as frames:
        frame = next(frames)
    assert frame.pixels[0][frame.alpha > 0.02].max() < 0.15


def test_alpha_next_to_nothing_trusts_no_colour():
    rgb = torch.zeros(3, 16, 16)
    rgb[0] = 1
    alpha = torch.full((16, 16), 0.004)
    rgb[:, 6:10, 6:10] = torch.tensor([0, 0, 1.0])[:, None, None]
    alpha[6:10, 6:10] = 1
    assert fill_hidden(rgb, alpha)[0].max() < 0.01


def test_vp9_packets_are_put_together():
    packet = packet_with_alpha(b"picture", b"alpha of it")
    assert bytes(packet) == b"picture"
    assert bytes(packet.get_sidedata("matroska_block_additional"))[8:] == b"alpha of it"


def test_formats_without_alpha_are_not_asked_for_it():
    assert OutputFormat(".mov", 32, 32, "prores", alpha=True).pixel_format == "yuva444p10le"
    assert OutputFormat(".mov", 32, 32, "prores").pixel_format == "yuv422p10le"


HALF = 16
"""Columns of the pictures below: opaque, then half transparent, then invisible."""


def grey_and_alpha(dtype: type) -> np.ndarray:
    """(24,48,2): grey 100/255 wherever it is seen, black wherever it is not."""
    most = np.iinfo(dtype).max
    codes = np.zeros((24, 3 * HALF, 2), dtype)
    codes[:, : 2 * HALF, 0] = 100 * (most // 255)
    codes[:, :HALF, 1], codes[:, HALF : 2 * HALF, 1] = most, most // 2
    return codes


@pytest.fixture(params=["ya8", "ya16be"])
def grey_clip(request, tmp_path, ffmpeg):
    """Grey frames with alpha, three times the same, by ffmpeg: an APNG, or a MOV of PNGs."""
    wide = request.param != "ya8"
    codes = grey_and_alpha(np.uint16 if wide else np.uint8)
    (tmp_path / "raw").write_bytes(np.stack([codes] * 3).tobytes())
    form = request.param.replace("be", "le")
    given = ["-f", "rawvideo", "-pix_fmt", form, "-s", "48x24", "-r", "10", "-i"]
    target = tmp_path / ("a.mov" if wide else "a.apng")
    ffmpeg(*given, str(tmp_path / "raw"), "-c:v", "png" if wide else "apng", str(target))
    assert probe(target).pixel_format == request.param
    return target


def check_parts(frame, tolerance=0.02):
    at = [HALF, 3 * HALF, 5 * HALF]  # twice as large
    assert frame.alpha[24, at].tolist() == pytest.approx([1, 0.5, 0], abs=tolerance)
    assert frame.pixels[:, 24, at[:2]].flatten().tolist() == pytest.approx(
        [100 / 255] * 6, abs=tolerance
    )


@pytest.mark.parametrize(
    ("target", "codec"),
    [
        ("b.mov", "prores"),
        ("b.mkv", "ffv1"),
        ("b.apng", "h264"),
        ("b.webp", "h264"),
        ("b/", "h264"),
    ],
)
def test_grey_animations_keep_it(grey_clip, tmp_path, target, codec):
    told = notes_of(grey_clip, tmp_path / target, codec=codec)
    assert not any("transparency" in note for note in told)
    found = probe(tmp_path / target)
    assert (found.has_alpha, found.num_frames) == (True, 3)
    with read_frames(treated(found, UpscaleOptions(), "")) as frames:
        shown = list(frames)
    assert len(shown) == 3
    for frame in shown:
        check_parts(frame)


def test_grey_animations_are_shown_over_white(grey_clip, tmp_path):
    (note,) = [note for note in notes_of(grey_clip, tmp_path / "b.mp4") if "transparency" in note]
    assert "over white" in note
    with read_frames(tmp_path / "b.mp4") as frames:
        pixels = next(frames).pixels
    assert pixels[:, 24, [HALF, 5 * HALF]].mean(0).tolist() == pytest.approx(
        [100 / 255, 1], abs=0.02
    )


FORMATS = [
    *("abgr", "argb", "bgra", "rgba", "rgba64be", "bgra64le", "gbrap", "gbrap10le", "gbrap16be"),
    *("ya8", "ya16le", "ya16be", "yuva420p", "yuva422p10le", "yuva444p12be", "yuva444p16le"),
    *("ayuv64le", "vuya", "uyva"),
]


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_every_format_with_it_is_read(pixel_format):
    codes = np.zeros((16, 48, 4), np.uint8)
    codes[:, : 2 * HALF, :3] = 100
    codes[:, :HALF, 3], codes[:, HALF : 2 * HALF, 3] = 255, 128
    frame = VideoFrame.from_ndarray(codes, "rgba").reformat(format=pixel_format, threads=1)
    frame.color_range = 2 if pixel_format.startswith("ya") else frame.color_range
    assert may_be_seen_through(frame)
    rgba = frame_to_rgb(frame, keep_alpha=True)
    assert rgba[3, 8, [8, 24, 40]].tolist() == pytest.approx([1, 0.5, 0], abs=0.01)
    assert rgba[:3, 8, 8].tolist() == pytest.approx([100 / 255] * 3, abs=0.02)
    assert frame_to_rgb(frame)[:, 8, 40].tolist() == pytest.approx([1, 1, 1], abs=0.01)


@pytest.mark.parametrize(("target", "codec"), [("b.mov", "prores"), ("b.mkv", "ffv1"), ("b/", "")])
def test_folders_may_hold_pictures_with_and_without_it(picture, tmp_path, target, codec):
    (tmp_path / "in").mkdir()
    picture.rename(tmp_path / "in" / "0.png")
    Image.new("RGB", (40, 30), (0, 0, 255)).save(tmp_path / "in" / "1.png")
    chosen = {"codec": codec} if codec else {}
    notes_of(tmp_path / "in", tmp_path / target, **chosen)
    with read_frames(treated(probe(tmp_path / target), UpscaleOptions(), "")) as frames:
        alphas = [frame.alpha for frame in frames]
    assert alphas[0][2, 2] < 0.01
    assert alphas[1].min() > 0.99


def test_the_grey_that_a_deep_png_calls_transparent_is(tmp_path):
    row = struct.pack(">32H", *([25700] * 16 + [1000] * 16))
    head = struct.pack(">IIBBBBB", 32, 32, 16, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", struct.pack(">H", 1000))]
    chunks += [(b"IDAT", zlib.compress((b"\0" + row) * 32)), (b"IEND", b"")]
    with (tmp_path / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, body in chunks:
            file.write(struct.pack(">I", len(body)) + name + body)
            file.write(struct.pack(">I", zlib.crc32(name + body)))
    notes_of(tmp_path / "a.png", tmp_path / "b.mkv", codec="ffv1")
    with read_frames(treated(probe(tmp_path / "b.mkv"), UpscaleOptions(), "")) as frames:
        frame = next(frames)
    assert frame.alpha[32, [8, 56]].tolist() == pytest.approx([1, 0], abs=0.01)
    assert frame.pixels[:, 32, 8].tolist() == pytest.approx([25700 / 65535] * 3, abs=0.01)
