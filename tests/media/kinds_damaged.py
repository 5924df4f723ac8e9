"""Sizes that change, damage, and what is no video."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from kinds_base import BOTH, PLAIN, SECONDS, X264, YUV420, Kind, picture, run, tone


def _sizes(into: str, *sizes: tuple[int, int, tuple[str, ...]]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        parts = []
        for index, (width, height, codec) in enumerate(sizes):
            part = folder / f"{into}.{index}.part.ts"
            offset = ("-output_ts_offset", str(index * (float(SECONDS) + 0.1)))
            run((*picture(width, height), *codec, *offset, str(part)))
            parts.append(part.read_bytes())
            part.unlink()
        (folder / into).write_bytes(b"".join(parts))

    return make


def damaged(name: str, into: str, seed: int, edits: int = 20) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        rng = random.Random(seed)
        for _ in range(edits):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (folder / into).write_bytes(data)

    return make


def cut(name: str, into: str, part: float) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / into).write_bytes(data[: int(len(data) * part)])

    return make


def content(into: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / into).write_bytes(data) and None


def damages() -> list[Kind]:
    mpeg2 = ("-c:v", "mpeg2video", "-q:v", "2")
    h265 = ("-c:v", "libx265", *YUV420, "-x265-params", "log-level=none")
    scaled = ("scaled to the first size",)
    kinds = [
        Kind(
            "sizes_h264.ts",
            made=_sizes("sizes_h264.ts", (32, 32, X264), (48, 32, X264)),
            frames=20,
            notes=scaled,
        ),
        Kind(
            "sizes_mpeg2.ts",
            made=_sizes("sizes_mpeg2.ts", (32, 32, mpeg2), (64, 48, mpeg2)),
            frames=None,
            notes=scaled,
            tolerance=20,
        ),
        Kind(
            "sizes_h265.ts",
            made=_sizes("sizes_h265.ts", (32, 32, h265), (64, 48, h265)),
            frames=20,
            notes=scaled,
            usual=False,
        ),
        Kind(
            "aspects.ts",
            made=_sizes(
                "aspects.ts",
                (32, 32, (*mpeg2, "-aspect", "4:3")),
                (32, 32, (*mpeg2, "-aspect", "16:9")),
            ),
            frames=20,
            aspect=Fraction(4, 3),
            notes=("pixel aspect ratio at",),
        ),
        Kind("empty.mp4", made=content("empty.mp4", b""), refused="is empty"),
        Kind("zeros.mp4", made=content("zeros.mp4", bytes(4000)), refused="zeros only"),
        Kind("text.mkv", made=content("text.mkv", b"just words\n" * 50), refused="text"),
        Kind(
            "list.mp4",
            made=content("list.mp4", b"#EXTM3U\n#EXTINF:1,\nh264.ts\n"),
            refused="playlist",
        ),
        Kind(
            "noise.ts",
            made=content("noise.ts", random.Random(1).randbytes(9000)),
            refused="not a readable video",
        ),
        Kind("sound.m4a", ("-map", "1:a", "-c:a", "aac"), BOTH, refused="sound only"),
        Kind(
            "nothing.mp4",
            ("-map", "0:v", "-vf", "select=0", "-c:v", "mpeg4"),
            PLAIN,
            refused="holds no",
        ),
        Kind(
            "middle.ts",
            made=lambda folder: (
                (folder / "middle.ts").write_bytes((folder / "long.ts").read_bytes()[188 * 40 :])
                and None
            ),
            needs=("long.ts",),
            frames=None,
            patches=False,
            sound=1,
        ),
        Kind(
            "long.ts",
            ("-map", "0:v", "-map", "1:a", "-c:v", "libx264", *YUV420, "-g", "20", "-c:a", "aac"),
            (*picture(seconds=Fraction(2)), *tone(seconds=Fraction(2))),
            frames=50,
            sound=1,
            usual=False,
        ),
    ]
    for name in ("sound_aac.mp4", "sound_flac.mkv", "sound_mp3.avi", "sound_pcm.mov", "anim.gif"):
        into = f"cut_{name}"
        kinds.append(Kind(into, made=cut(name, into, 0.6), needs=(name,), refused="is cut off"))
    for name in ("part.ts", "part.vob", "h264.h264", "mpeg2.m2v"):
        into = f"cut_{name}"
        sound = int(name.startswith("part"))
        kinds.append(
            Kind(
                into,
                made=cut(name, into, 0.6),
                needs=(name,),
                frames=None,
                sound=sound,
                patches=False,
                usual=sound == 1,
                either=not sound,
            )
        )
    sources = (
        "sound_aac.mp4",
        "sound_flac.mkv",
        "part.ts",
        "part.vob",
        "sound_mp3.avi",
        "live.flv",
        "sound_vorbis.ogv",
        "sound_wma.wmv",
        "h264.h264",
        "anim.gif",
    )
    for seed, name in enumerate(sources):
        for edits in (3, 60):
            into = f"damaged{edits}_{name}"
            kinds.append(
                Kind(
                    into,
                    made=damaged(name, into, seed, edits),
                    needs=(name,),
                    either=True,
                    frames=None,
                    patches=False,
                    usual=seed < 4,
                )
            )
    return kinds
