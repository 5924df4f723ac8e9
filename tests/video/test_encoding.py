"""Segments' encoders: the same bytes on every machine, in every run."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import pytest
import torch
from clips import write_clip

from dloral.errors import ResourceError
from dloral.video.encoding import OutputFormat, header_of
from dloral.video.media import open_media
from dloral.video.probe import ClipInfo, probe

_M_PERTURB = -6
"""glibc: what new and freed memory is filled with."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ClipInfo:
    return probe(write_clip(tmp_path_factory.mktemp("clip") / "in.mp4", 2))


def encoded(source: ClipInfo, chosen: OutputFormat) -> str:
    """A hash of some frames that move and fade."""
    encoder = chosen.new_encoder(source, Fraction(0))
    texture = torch.rand(3, 80, 80, generator=torch.Generator().manual_seed(0))
    texture = texture.repeat_interleave(4, 1).repeat_interleave(4, 2)
    digest = sha256()
    for index in range(10):
        part = texture[:, index : index + chosen.height, 2 * index : 2 * index + chosen.width]
        for frame in encoder.encode(part * (1 - index / 12), Fraction(index, 24), Fraction(1, 24)):
            digest.update(frame.data)
    for frame in encoder.finish():
        digest.update(frame.data)
    return digest.hexdigest()


@contextmanager
def on_one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_result_does_not_depend_on_how_many_cores_there_are(source, codec):
    chosen = OutputFormat(".mp4", 128, 288, codec)
    with on_one_core():
        alone, header = encoded(source, chosen), header_of(source, chosen)
    assert encoded(source, chosen) == alone
    assert header_of(source, chosen) == header


@pytest.mark.parametrize(("width", "height"), [(96, 64), (64, 96), (64, 64)])
def test_small_h265_does_not_depend_on_what_was_in_memory(source, width, height):
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("needs glibc")
    found = set()
    for value in (85, 170):
        ctypes.CDLL(None).mallopt(_M_PERTURB, value)
        found.add(encoded(source, OutputFormat(".mp4", width, height, "h265")))
    ctypes.CDLL(None).mallopt(_M_PERTURB, 0)
    assert len(found) == 1


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN])
def test_memory_that_runs_out_is_not_called_a_damaged_file(source, number):
    with (
        pytest.raises(ResourceError, match="memory has run out"),
        open_media(Path(source.path)),
    ):
        av.error.err_check(-number)
