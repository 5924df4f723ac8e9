"""Pictures of 256 colours, as used by GIF."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import numpy as np
from av import VideoFormat, VideoFrame
from av.filter import Graph
from PIL import Image

_DITHER = "bayer:bayer_scale=5"
"""The faintest static pattern there is: error diffusion flickers (decisions.md)."""

_OPAQUE = 128


def gif_picture(codes: np.ndarray) -> bytes:
    """A GIF of one picture, uint8 (H,W,3) or, with half-transparent as transparent, (H,W,4).

    The palette is the picture's own, found by FFmpeg's palettegen.
    """
    indices, palette = _indexed(codes)
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(palette[:, :3].tobytes(), "RGB")
    clear = np.flatnonzero(palette[:, 3] == 0)
    kept = {} if codes.shape[2] == 3 or not len(clear) else {"transparency": int(clear[-1])}
    buffer = BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=0, **kept)
    return buffer.getvalue()


def _indexed(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (H,W) and its palette of RGBA, (256,4)."""
    height, width, channels = codes.shape
    form = "rgba" if channels == 4 else "rgb24"
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=VideoFormat(form), time_base=Fraction(1, 100)
    )
    both = graph.add("split")
    find = graph.add("palettegen", f"stats_mode=single:reserve_transparent={int(channels == 4)}")
    use = graph.add("paletteuse", f"new=1:dither={_DITHER}:alpha_threshold={_OPAQUE}")
    sink = graph.add("buffersink")
    for one, other, at in ((source, both, 0), (find, use, 1), (use, sink, 0)):
        one.link_to(other, 0, at)
    both.link_to(find, 0, 0)
    both.link_to(use, 1, 0)
    graph.configure()
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(codes), format=form)
    frame.pts, frame.time_base = 0, Fraction(1, 100)
    source.push(frame)
    source.push(None)
    indexed = sink.pull()
    assert isinstance(indexed, VideoFrame)
    plane, colours = indexed.planes[0], np.frombuffer(memoryview(indexed.planes[1]), np.uint8)
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
    palette = colours[:1024].reshape(256, 4)[:, [2, 1, 0, 3]]
    return rows[:, :width].copy(), palette.copy()
