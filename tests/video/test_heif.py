"""HEIC as telephones write it: grids of tiles, turned, cut, with transparency, of 10 bits."""

import struct

import av
import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image

from dloral import UpscaleOptions, upscale_video
from dloral.video.hdr import PQ
from dloral.video.images import load_image
from dloral.video.known import source_notes
from dloral.video.probe import probe
from dloral.video.reader import read_frames

COLOURS = ("red", "lime", "blue", "yellow")
TILE, WIDTH, HEIGHT = 64, 120, 100


def box(kind: bytes, *parts: bytes, full: int | None = None) -> bytes:
    """A box of ISO/IEC 14496-12; ``full``: version and flags."""
    body = (b"" if full is None else struct.pack(">I", full)) + b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def coded_tile(ffmpeg, colour: str, folder) -> tuple[bytes, bytes]:
    """hvcC record and the one picture of a flat tile."""
    path = folder / f"{colour}.mp4"
    ffmpeg(
        *["-f", "lavfi", "-i", f"color={colour}:s={TILE}x{TILE}:r=25", "-frames:v", "1"],
        *["-pix_fmt", "yuv420p", "-c:v", "libx265", "-x265-params", "log-level=error:info=0"],
        *["-tag:v", "hvc1", str(path)],
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        picture = next(bytes(packet) for packet in container.demux(stream) if packet.size)
        return bytes(stream.codec_context.extradata), picture


def grid(tiles: list[bytes], hvcc: bytes, hidden: bool = True) -> bytes:
    """ISO/IEC 23008-12: two by two tiles, shown as far as WIDTH x HEIGHT, item 5 the whole.
    ``hidden``: tiles are marked so."""
    count, whole = len(tiles), len(tiles) + 1
    layout = struct.pack(">BBBBHH", 0, 0, 1, 1, WIDTH, HEIGHT)
    entries = [
        box(b"infe", struct.pack(">HH", item, 0), b"hvc1\0", full=0x02000000 | hidden)
        for item in range(1, whole)
    ]
    entries.append(box(b"infe", struct.pack(">HH", whole, 0), b"grid\0", full=0x02000000))
    items = struct.pack(f">{count}H", *range(1, whole))
    parts = box(b"dimg", struct.pack(">HH", whole, count), items)
    properties = box(
        b"ipco",
        box(b"hvcC", hvcc),
        box(b"ispe", struct.pack(">II", TILE, TILE), full=0),
        box(b"ispe", struct.pack(">II", WIDTH, HEIGHT), full=0),
    )
    used = [struct.pack(">HBBB", item, 2, 0x81, 2) for item in range(1, whole)]
    used.append(struct.pack(">HBB", whole, 1, 3))

    def meta(at: int) -> bytes:
        places = []
        for item, tile in enumerate(tiles, 1):
            places.append(struct.pack(">HHHHII", item, 0, 0, 1, at, len(tile)))
            at += len(tile)
        places.append(struct.pack(">HHHHII", whole, 1, 0, 1, 0, len(layout)))
        return box(
            b"meta",
            box(b"hdlr", bytes(4), b"pict", bytes(13), full=0),
            box(b"pitm", struct.pack(">H", whole), full=0),
            box(b"iloc", b"\x44\0", struct.pack(">H", whole), *places, full=0x01000000),
            box(b"iinf", struct.pack(">H", whole), *entries, full=0),
            box(b"iref", parts, full=0),
            box(b"iprp", properties, box(b"ipma", struct.pack(">I", whole), *used, full=0)),
            box(b"idat", layout),
            full=0,
        )

    head = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", *tiles)


@pytest.mark.parametrize("hidden", [True, False])
def test_a_grid_is_one_picture(ffmpeg, tmp_path, hidden):
    made = [coded_tile(ffmpeg, colour, tmp_path) for colour in COLOURS]
    path = tmp_path / "a.heic"
    path.write_bytes(grid([picture for _, picture in made], made[0][0], hidden))
    clip = probe(path)
    assert clip.file_notes == ()  # its tiles are no pictures that were left out
    assert (clip.kind, clip.width, clip.height) == ("image", WIDTH, HEIGHT)
    pixels = (load_image(path) * 255).round()
    found = [pixels[:, y, x].tolist() for y in (10, 90) for x in (10, 110)]
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]
    assert np.abs(np.subtract(found, expected)).max() <= 3


def stored(mode: str) -> Image.Image:
    """Red above, blue below; in RGBA the lower half is half transparent."""
    pixels = np.zeros((64, 96, len(mode)), np.uint8)
    pixels[:32, :, 0], pixels[32:, :, 2] = 255, 255
    if mode == "RGBA":
        pixels[..., 3] = 255
        pixels[32:, :, 3] = 128
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("orientation", "size"), [(1, (96, 64)), (3, (96, 64)), (6, (64, 96))])
def test_a_turned_picture_stands_upright(tmp_path, orientation, size):
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored("RGB").save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    clip, pixels = probe(tmp_path / "a.heic"), load_image(tmp_path / "a.heic")
    assert (clip.width, clip.height) == size == (pixels.shape[2], pixels.shape[1])
    red = {1: pixels[:, 5, 50], 3: pixels[:, -5, 50], 6: pixels[:, 50, -5]}[orientation]
    assert torch.allclose(red, torch.tensor([1.0, 0, 0]), atol=0.03)


def test_transparency_is_read(tmp_path):
    pillow_heif.register_heif_opener()
    stored("RGBA").save(tmp_path / "a.heic", quality=95)
    assert probe(tmp_path / "a.heic").has_alpha
    pixels = load_image(tmp_path / "a.heic", keep_alpha=True)
    assert pixels[3, 5, 5] == pytest.approx(1, abs=0.02)
    assert pixels[3, -5, 5] == pytest.approx(128 / 255, abs=0.02)
    assert torch.allclose(
        load_image(tmp_path / "a.heic")[:, -5, 5], torch.tensor([0.5, 0.5, 1]), atol=0.03
    )


def test_ten_bits_are_read_as_such(tmp_path):
    codes = np.full((64, 64, 3), 40_000, np.uint16)
    heif = pillow_heif.from_bytes("RGB;16", (64, 64), codes.tobytes())
    heif.save(tmp_path / "a.heic", quality=-1)
    assert probe(tmp_path / "a.heic").bit_depth > 8
    assert load_image(tmp_path / "a.heic").mean() == pytest.approx(40_000 / 65_535, abs=1 / 1023)


def coded_avif(ffmpeg, path, fill: str, *output: str) -> None:
    ffmpeg(
        *["-f", "lavfi", "-i", f"{fill}", *output, "-c:v", "libaom-av1", "-cpu-used", "8"],
        str(path),
    )


@pytest.mark.parametrize(("form", "bits"), [("yuv444p10le", 10), ("yuv444p12le", 12)])
def test_a_deep_avif_is_read_as_such(ffmpeg, tmp_path, form, bits):
    path = tmp_path / "a.avif"
    fill = "color=0xc04020:s=64x48,setparams=range=tv"
    coded_avif(ffmpeg, path, fill, "-frames:v", "1", "-pix_fmt", form)
    clip, pixels = probe(path), load_image(path)
    assert (clip.kind, clip.bit_depth, clip.file_notes) == ("image", bits, ())
    with Image.open(path) as image:
        rounded = torch.tensor(image.getpixel((30, 20))) / 255
    assert torch.allclose(pixels[:, 20, 30], rounded, atol=0.02)
    upscale_video(path, tmp_path / "a.png", UpscaleOptions(model="bicubic", scale=1))
    assert probe(tmp_path / "a.png").bit_depth == 16
    assert torch.allclose(load_image(tmp_path / "a.png"), pixels, atol=1 / 60_000)


def test_a_deep_avif_keeps_steps_that_eight_bits_have_not(ffmpeg, tmp_path):
    path, fill = tmp_path / "a.avif", "color=black:s=512x48,format=gray16le"
    ramp = "geq=lum='20000+4*X':cb=32768:cr=32768"
    coded_avif(
        *(ffmpeg, path, f"{fill},{ramp}", "-frames:v", "1", "-pix_fmt", "yuv444p12le"),
        *("-crf", "0"),
    )
    assert len(load_image(path)[1, 20].unique()) > 3 * 2048 / 256


def test_transparency_of_a_deep_avif_is_read(ffmpeg, tmp_path):
    path = tmp_path / "a.avif"
    graph = "[0:v]split[a][b];[b]alphaextract[mask];[a]format=yuv444p10le[colour]"
    coded_avif(
        *(ffmpeg, path, "color=0xc04020@0.5:s=64x48,format=yuva444p10le"),
        *("-filter_complex", graph, "-map", "[colour]", "-map", "[mask]", "-frames:v", "1"),
    )
    assert probe(path).has_alpha
    assert load_image(path, keep_alpha=True)[3].mean() == pytest.approx(0.5, abs=0.01)


def test_a_deep_sequence_is_read_at_its_depth(ffmpeg, tmp_path):
    path = tmp_path / "a.avif"
    coded_avif(ffmpeg, path, "testsrc2=s=64x48:r=5:d=1", "-pix_fmt", "yuv420p10le")
    clip = probe(path)
    assert (clip.kind, clip.num_frames, clip.bit_depth) == ("pages", 5, 10)
    with read_frames(clip) as frames, Image.open(path) as image:
        for number, frame in enumerate(frames):
            image.seek(number)
            rounded = torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1)
            assert (frame.pixels - rounded).abs().median() < 0.01
    assert number == 4


def test_hdr_of_an_avif_is_known(ffmpeg, tmp_path):
    path = tmp_path / "a.avif"
    tags = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"
    fill = f"color=gray:s=64x48,format=yuv444p10le,{tags}"
    coded_avif(ffmpeg, path, fill, "-frames:v", "1")
    clip = probe(path)
    assert (clip.color_primaries, clip.color_transfer) == (9, PQ)
    upscale_video(path, tmp_path / "a.png", UpscaleOptions(model="bicubic", scale=1))
    assert b"cICP" in (tmp_path / "a.png").read_bytes()
    assert probe(tmp_path / "a.png").color_transfer == PQ


@pytest.mark.parametrize(("others", "said"), [(1, "1 more picture"), (2, "2 more pictures")])
def test_further_pictures_of_a_file_are_said(tmp_path, others, said):
    heif = pillow_heif.HeifFile()
    for colour in [(200, 20, 20), (20, 200, 20), (20, 20, 200)][: others + 1]:
        heif.add_from_pillow(Image.new("RGB", (64, 64), colour))
    heif.save(tmp_path / "a.heic", quality=90, primary_index=1)
    clip = probe(tmp_path / "a.heic")
    assert clip.kind == "image"
    assert source_notes(clip, 0, "scale") == [
        f"{said} in the file left out: only the main one is restored"
    ]
    assert load_image(tmp_path / "a.heic")[:, 30, 30].argmax() == 1


def test_a_deep_avif_in_tiles_is_read_with_eight_bits_and_says_so(ffmpeg, tmp_path):
    """FFmpeg gives a grid tile by tile, libheif's own build decodes no AV1, Pillow rounds."""
    path, made = tmp_path / "a.avif", []
    for colour in COLOURS:
        coded_avif(
            *(ffmpeg, tmp_path / f"{colour}.avif", f"color={colour}:s={TILE}x{TILE}"),
            *("-frames:v", "1", "-pix_fmt", "yuv420p10le"),
        )
        content = (tmp_path / f"{colour}.avif").read_bytes()
        at = content.index(b"av1C")
        (size,) = struct.unpack(">I", content[at - 4 : at])
        record = content[at + 4 : at - 4 + size]
        with av.open(str(tmp_path / f"{colour}.avif")) as container:
            made.append((record, next(bytes(p) for p in container.demux() if p.size)))
    content = grid([tile for _, tile in made], made[0][0])
    for was, now in ((b"hvcC", b"av1C"), (b"hvc1", b"av01"), (b"ftypheic", b"ftypavif")):
        content = content.replace(was, now)
    path.write_bytes(content.replace(b"mif1heic", b"mif1avif"))
    clip = probe(path)
    assert (clip.width, clip.height, clip.bit_depth) == (WIDTH, HEIGHT, 8)
    assert clip.file_notes == ("10 bits are reduced to 8: the picture is stored in tiles",)
    assert load_image(path)[:, 10, 10].argmax() == 0
