"""Clips that tests make: small, every frame another one, with sound."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from dloral import UpscaleOptions
from dloral.jobs import journal, running
from dloral.models.adapters import add_adapters
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.video import frame_writers
from dloral.video.reader import read_frames


@contextmanager
def short_segments() -> Iterator[None]:
    """Segments of 8 frames, so that clips of a second have some."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (journal, running, frame_writers):
            patch.setattr(module, "SEGMENT_FRAMES", 8)
        yield


def write_clip(path: Path, frames: int, width: int = 32, height: int = 24, gop: int = 30) -> Path:
    """``frames`` frames at 24 a second, a key frame every ``gop``, and as much sound."""
    with av.open(str(path), "w") as container:
        options = {"crf": "10", "preset": "ultrafast"}
        video = container.add_stream("libx264", rate=24, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.gop_size = gop
        sound = container.add_stream("aac", rate=48000, layout="mono")
        for index in range(frames):
            pixels = np.full((height, width, 3), (7 * index) % 256, np.uint8)
            pixels[:, : index % width] = 255 - pixels[:, : index % width]
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        samples = 2000 * frames
        tone = np.sin(np.arange(samples) * 0.05, dtype=np.float32)[None]
        for start in range(0, samples, 1024):
            part = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone[:, start : start + 1024]), "fltp", "mono"
            )
            part.sample_rate, part.pts = 48000, start
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def save_tiny_model(folder: Path) -> Path:
    """A compact model of a few thousand weights, random but for its start near bicubic."""
    sizes = CompactSizes(4, 8, 1, 1, (8, 8), 2, (4, 4, 4, 4), 1, 4)
    pipe = build_pipeline(sizes)
    add_adapters(pipe.unet, 2)
    pipe.save_pretrained(folder)
    return folder


def options(model: Path, **changed: object) -> UpscaleOptions:
    return UpscaleOptions(**{"model": str(model), "device": "cpu", "dtype": "float32"} | changed)


def frames_of(path: Path) -> list[tuple[bytes, Fraction, Fraction]]:
    """Pixels, time and duration of every frame of a clip or a folder."""
    with read_frames(path) as frames:
        return [(frame.pixels.numpy().tobytes(), frame.time, frame.duration) for frame in frames]


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_clip(count: int, height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    """Frames (T,3,H,W) in [0, 1] of smooth noise; every frame is another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (frames + 0.05 * torch.rand(frames.shape, generator=generator)).clamp(0, 1)
