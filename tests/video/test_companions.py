"""Photos of telephones and cameras, whose files hold more than the picture."""

import re
from pathlib import Path

import pytest
from PIL import Image

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.companions import without_claims

CAMERA = b'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
PARTS = (
    b'<Container:Directory xmlns:Container="http://ns.google.com/photos/1.0/container/">'
    b"<rdf:Seq><rdf:li><Container:Item/></rdf:li></rdf:Seq></Container:Directory>"
)
GAIN = b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
MOTION = CAMERA + b' GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" GCamera:Burst="7"'
STILL = CAMERA + b' GCamera:MotionPhoto="0"'

NO_HDR = "HDR gain map left out: only the picture is restored"
NO_VIDEO = "the video of this motion photo left out: only its picture is restored"
NO_OTHER = "1 more picture in the file left out: only the main one is restored"


def xmp(attributes: bytes, inside: bytes = PARTS) -> bytes:
    syntax = b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    about = b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="kept" ' + attributes
    described = b"<rdf:Description " + about + b">" + inside + b"</rdf:Description>"
    packet = b"<rdf:RDF " + syntax + b">" + described + b"</rdf:RDF>"
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + packet + b"</x:xmpmeta>"


def photo(path: Path, told: bytes, others: int = 0) -> Path:
    more = [Image.new("RGB", (8, 6)) for _ in range(others)]
    whole = {"format": "MPO", "save_all": True, "append_images": more} if others else {}
    Image.new("RGB", (16, 12), (200, 100, 50)).save(path, xmp=told, **whole)
    return path


def notes_of(source: Path, target: Path) -> tuple[str, ...]:
    *_, last = upscale_steps(source, target, UpscaleOptions(model="bicubic", scale=1))
    return last.notes


@pytest.mark.parametrize(
    ("told", "others", "notes"),
    [
        (GAIN, 1, (NO_HDR,)),
        (GAIN + b" " + MOTION, 1, (NO_HDR, NO_VIDEO)),
        (MOTION, 0, (NO_VIDEO,)),
        (STILL, 0, ()),
        (b"", 1, (NO_OTHER,)),
        (b"", 0, ()),
    ],
)
def test_what_a_jpeg_holds_beside_the_picture_is_said_and_no_longer_claimed(
    tmp_path, told, others, notes
):
    source = photo(tmp_path / "a.jpg", xmp(told), others)
    assert notes_of(source, tmp_path / "b.jpg") == notes
    with Image.open(tmp_path / "b.jpg") as image:
        kept = image.info["xmp"]
    assert b'dc:format="kept"' in kept
    assert (b'GCamera:Burst="7"' in kept) == (MOTION in told)
    assert not re.search(rb"hdrgm:V|MotionPhoto|Directory|Item", kept)


def test_a_smaller_version_of_the_picture_is_no_other_picture(tmp_path):
    source = photo(tmp_path / "a.jpg", xmp(b""), 1)
    data = source.read_bytes()
    entry = data.index(b"MPF\0II") + 4 + 50 + 16  # the second, after a directory of three tags
    assert notes_of(source, tmp_path / "b.jpg") == (NO_OTHER,)
    with Image.open(source) as image:
        assert image._getmp()[0xB002][1]["Attribute"]["MPType"] == "Undefined"
    source.write_bytes(data[:entry] + b"\x01\0\x01\0" + data[entry + 4 :])
    with Image.open(source) as image:
        assert "Thumbnail" in image._getmp()[0xB002][1]["Attribute"]["MPType"]
    assert notes_of(source, tmp_path / "b.jpg") == ()


def test_a_map_of_hdr_in_a_heif_is_said(tmp_path):
    """Apple's name for it takes the place of the one for transparency."""
    source = tmp_path / "a.avif"
    Image.new("RGBA", (16, 12), (200, 100, 50, 128)).save(source)
    alpha = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
    gain = b"urn:com:apple:photo:2020:aux:hdrgainmap".ljust(len(alpha), b"\0")
    data = source.read_bytes()
    assert data.count(alpha) == 1
    source.write_bytes(data.replace(alpha, gain))
    assert notes_of(source, tmp_path / "b.png") == (NO_HDR,)


def test_xmp_without_claims_is_as_it_was():
    for told in (
        b"",
        b"no XML",
        xmp(b"", b""),
        xmp(b'xmlns:a="x" a:Version="1"', b"<a:Directory>"),
    ):
        assert without_claims(told) == told
    told = xmp(GAIN.replace(b"hdrgm", b"h"), b"<h:Gain>1</h:Gain><dc:x/><h:Max /><h:Open>")
    assert without_claims(told) == xmp(
        GAIN.split(b" ")[0].replace(b"hdrgm", b"h"), b"<dc:x/><h:Open>"
    )
