"""Small files that were made to hurt, and what is wanted of each.

A file's row is its name, whether it can be restored, and what is said about it: in the error, or in
the notes of the result.
"""

import struct
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image


class Row(NamedTuple):
    """``said``: a pattern in the error or the notes, empty where nothing need be said.
    ``refused_online``: one in what the page and the API say of a file that only the command line
    restores, empty where they restore it too."""

    name: str
    is_restored: bool
    said: str
    refused_online: str = ""


ROWS = (
    Row("bomb.png", False, "8192x8192 in"),
    Row("silence.mkv", True, "left out"),
    Row("slow.mkv", True, ""),
    Row("still.flv", True, ""),
    Row("late.flv", True, "", "9:19:15 h exceeds the limit of"),
    Row("nodim.tif", False, "not a readable image"),
    Row("nan.tif", True, "pixels are not numbers"),
    Row("index.mp4", False, "claim 80000000 samples|more than .* to read"),
)


def write_all(folder: Path) -> None:
    """Every file of :data:`ROWS`."""
    Image.new("1", (8192, 8192)).save(folder / "bomb.png")
    write_clip(folder / "silence.mkv", "matroska", [0, 40, 80, 120, 160], sound_at=(0, 10**9))
    write_clip(folder / "slow.mkv", "matroska", [0, 5_000_000])
    write_clip(folder / "still.flv", "flv", [0, 1])
    still = folder / "still.flv"
    still.write_bytes(_same_times(still.read_bytes()))
    write_clip(folder / "late.flv", "flv", [*range(50, 950, 100), 33_555_382])
    save_float_tiff(folder / "nan.tif")
    data = bytearray((folder / "nan.tif").read_bytes())
    data[10:12] = struct.pack("<H", 999)  # the width is another tag now
    (folder / "nodim.tif").write_bytes(data)
    write_clip(folder / "index.mp4", "mp4", [0])
    _claim_samples(folder / "index.mp4", 80_000_000)


def write_clip(path: Path, container: str, times: list[int], sound_at: tuple[int, ...] = ()):
    """Frames of 64 x 48 at ``times`` milliseconds, sound of 0.1 s at seconds."""
    with av.open(str(path), "w", format=container) as output:
        video = output.add_stream("flv" if container == "flv" else "mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono") if sound_at else None
        for time in times:
            pixels = np.full((48, 64, 3), time % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for at in sound_at:
            packet = av.Packet(bytes(1600))
            packet.stream, packet.time_base = sound, Fraction(1, 8000)
            packet.pts = packet.dts = at * 8000
            packet.duration = 800
            output.mux(packet)


def _same_times(data: bytes) -> bytes:
    """An FLV whose tags are all at 0 ms."""
    made, at = bytearray(data), 13
    while at + 11 <= len(made):
        size = int.from_bytes(made[at + 1 : at + 4], "big")
        made[at + 4 : at + 8] = bytes(4)
        at += 11 + size + 4
    return bytes(made)


def _claim_samples(path: Path, count: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"stsz")
    data[at + 12 : at + 16] = struct.pack(">I", count)
    data[at + 8 : at + 12] = struct.pack(">I", 1)  # all of one byte: no table follows
    path.write_bytes(data)


def save_float_tiff(path: Path) -> None:
    """Grey floats with a block of NaN, in one strip."""
    pixels = np.full((48, 64), 0.5, np.float32)
    pixels[8:12, 8:12] = np.nan
    tags = [
        *((256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, 134), (277, 3, 1, 1), (278, 4, 1, 48), (279, 4, 1, pixels.nbytes)),
        (339, 3, 1, 3),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    path.write_bytes(head + pixels.tobytes())
