"""Transparency: what is hidden never shows, and edges keep their colour."""

import numpy as np
import pytest
import torch
from PIL import Image

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.alpha import fill_hidden, with_alpha
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
