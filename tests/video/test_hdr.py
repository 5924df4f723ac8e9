"""HDR in the encoding that is restored, and back."""

from fractions import Fraction

import av
import pytest
import torch

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_video
from dloral.video.hdr import HLG, LINEAR, PQ, from_restorable, to_restorable, to_sdr
from dloral.video.probe import probe
from dloral.video.reader import read_frames

MASTERING = (
    "hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
    "L(10000000,50):max-cll=1000,400"
)


def flat(code: float) -> torch.Tensor:
    return torch.full((3, 2, 2), code)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_what_is_restored_can_be_turned_back(transfer):
    codes = torch.linspace(0, 1, 300).reshape(3, 10, 10)
    there = to_restorable(codes, transfer)
    assert there.min() >= 0
    assert there.max() <= 1
    assert (from_restorable(there, transfer) - codes).abs().max() < 1e-4


def test_linear_light_is_turned_back_beyond_white():
    light = torch.tensor([0.0, 0.01, 0.18, 1, 4, 40]).expand(3, 1, -1)
    back = from_restorable(to_restorable(light, LINEAR), LINEAR)
    assert torch.allclose(back, light, rtol=2e-3, atol=1e-5)


def test_white_and_grey_of_pq():
    """BT.2408: reference white is 58 % of PQ; the darker half of the encoding is a power law."""
    white = to_restorable(flat(0.5807), PQ)
    assert white.mean() == pytest.approx(0.7, abs=2e-3)
    grey = to_restorable(flat(0.3795), PQ)  # about 26 cd/m2
    assert 0.25 < grey.mean() < 0.35


def test_tone_mapping_keeps_order_and_hue():
    steps = [to_sdr(flat(code), PQ, True, 1000).mean() for code in (0.0, 0.3, 0.5, 0.58, 0.75)]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert steps[-1] == pytest.approx(1, abs=0.02)
    grey = to_sdr(flat(0.5), PQ, True, 1000)
    assert (grey - grey.mean()).abs().max() < 2e-3


@pytest.fixture(scope="module")
def hdr10(tmp_path_factory, ffmpeg):
    """Two flat patches, PQ codes 300 and 700 of 1023, and a mastering display."""
    path = tmp_path_factory.mktemp("hdr") / "hdr.mp4"
    colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    params = f"log-level=error:lossless=1:{colours}:{MASTERING}"
    ffmpeg(
        *["-f", "lavfi", "-i", "color=black:s=64x32:r=25:d=0.08,format=yuv420p10le"],
        *["-vf", "geq=lum='if(lt(X,32),300,700)':cb=512:cr=512", "-c:v", "libx265"],
        *["-x265-params", params, str(path)],
    )
    return path


def luma(path):
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        plane = frame.reformat(format="yuv420p10le").to_ndarray(format="yuv420p10le")
        return frame, plane[16, 24].item(), plane[16, 104].item()


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_patches_and_mastering_come_back(hdr10, tmp_path, codec):
    target = tmp_path / "out.mp4"
    options = UpscaleOptions(model="bicubic", scale=2, codec=codec)
    upscale_video(hdr10, target, options)
    frame, dark, bright = luma(target)
    assert (dark, bright) == (pytest.approx(300, abs=3), pytest.approx(700, abs=5))
    assert frame.format.name == "yuv420p10le"
    assert (int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace)) == (9, 16, 9)
    assert probe(target).mastering == probe(hdr10).mastering
    assert probe(target).mastering.max_cll == 1000


def test_sdr_by_choice_is_marked_so(hdr10, tmp_path):
    target = tmp_path / "out.mp4"
    upscale_video(hdr10, target, UpscaleOptions(model="bicubic", scale=1, hdr="sdr"))
    clip = probe(target)
    assert (clip.color_primaries, clip.color_transfer, clip.color_space) == (1, 1, 1)
    assert clip.mastering is None


def test_png_frames_are_16_bits_with_cicp(hdr10, tmp_path):
    upscale_video(hdr10, tmp_path / "frames", UpscaleOptions(model="bicubic", scale=1))
    clip = probe(tmp_path / "frames", Fraction(25))
    assert (clip.bit_depth, clip.color_transfer, clip.color_primaries) == (16, PQ, 9)
    with read_frames(clip) as frames, read_frames(hdr10) as truth:
        assert (next(frames).pixels - next(truth).pixels).abs().max() < 1e-3


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_coloured_patches_come_back_through_the_compact_model(ffmpeg, tmp_path, transfer):
    """Within 1% of the codes' range, as the model knows nothing of HDR."""
    source, target = tmp_path / "a.mkv", tmp_path / "b.mkv"
    luma = "if(lt(X,32),300,700)"
    marks = f"color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc"
    ffmpeg(
        *["-f", "lavfi", "-i", "color=black:s=64x32:r=25:d=0.04,format=yuv420p10le"],
        *["-vf", f"geq=lum='{luma}':cb='if(lt(Y,8),512,560)':cr=480,setparams={marks}"],
        *["-c:v", "ffv1", str(source)],
    )
    upscale_video(source, target, UpscaleOptions(scale=2, codec="h265", tagger="none"))
    with read_frames(source) as frames, read_frames(target) as restored:
        before, after = next(frames).pixels, next(restored).pixels
    for y, x in ((4, 16), (4, 48), (24, 16), (24, 48)):
        patch = after[:, 2 * y - 3 : 2 * y + 3, 2 * x - 3 : 2 * x + 3].mean((1, 2))
        assert (patch - before[:, y, x]).abs().max() < 0.01
    assert probe(target).color_transfer in (PQ, HLG)
    assert probe(target).color_transfer == probe(source).color_transfer
