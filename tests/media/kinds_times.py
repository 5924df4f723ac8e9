"""Rates, shapes, and clocks that jump."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from kinds_base import BOTH, PLAIN, X264, YUV420, Kind, picture


def times() -> list[Kind]:
    kinds = []
    for rate in ("24000/1001", "24", "30000/1001", "30", "50", "60000/1001", "12.5", "120", "5"):
        name = rate.replace("/", "_").replace(".", "_")
        count = {"24000/1001": 10, "24": 10, "30000/1001": 12, "12.5": 5}.get(rate)
        kinds.append(
            Kind(
                f"fps_{name}.mp4",
                ("-map", "0:v", *X264),
                tuple(picture(rate=rate)),
                frames=count,
                usual=rate in ("24000/1001", "60000/1001", "12.5"),
            )
        )
    variable = ("-vf", "setpts='(N*N+7*N)*2/25/TB/10'", "-fps_mode", "vfr")
    kinds += [
        Kind("vfr.mkv", ("-map", "0:v", *variable, *X264), PLAIN),
        Kind("vfr.mp4", ("-map", "0:v", *variable, *X264, "-enc_time_base", "1:90000"), PLAIN),
        Kind("late.ts", ("-map", "0:v", *X264, "-output_ts_offset", "500"), PLAIN),
        Kind("wraps.ts", ("-map", "0:v", *X264, "-output_ts_offset", "95442.2"), PLAIN),
        Kind("late.mkv", ("-map", "0:v", *X264, "-output_ts_offset", "7"), PLAIN, target=".mkv"),
        Kind(
            "slow.mkv",
            (
                "-map",
                "0:v",
                "-vf",
                "setpts=N*5000/TB",
                "-fps_mode",
                "vfr",
                "-frames:v",
                "2",
                "-c:v",
                "ffv1",
            ),
            PLAIN,
            frames=2,
            last=5000.0,
        ),
        Kind(
            "lapse.mkv", (*X264,), tuple(picture(rate="1/600", seconds=Fraction(6000))), last=5400.0
        ),
        Kind(
            "day.mkv",
            (*X264,),
            tuple(picture(16, 16, "1/600", Fraction(90001))),
            frames=None,
            size=(16, 16),
            usual=False,
        ),
    ]
    for name, size in {
        "odd": (33, 31),
        "thin": (16, 96),
        "flat": (128, 16),
        "tiny": (8, 8),
    }.items():
        kinds.append(
            Kind(
                f"size_{name}.mkv",
                ("-map", "0:v", "-c:v", "ffv1", "-pix_fmt", "bgr0"),
                tuple(picture(*size)),
                size=size,
                notes=("is odd",) if name == "odd" else (),
                patches=name != "tiny",
            )
        )
    for sar in ("16:11", "4:3", "8:9"):
        output = ("-map", "0:v", "-vf", f"setsar={sar.replace(':', '/')}", *X264)
        aspect = Fraction(sar.replace(":", "/"))
        kinds.append(Kind(f"aspect_{sar.replace(':', '_')}.mp4", output, PLAIN, aspect=aspect))
    for degrees in (90, 180, 270):
        kinds.append(
            Kind(
                f"turned_{degrees}.mp4",
                ("-c", "copy"),
                ("-display_rotation", str(degrees), "-i", "@h264_wide.mp4"),
                size=(32, 48) if degrees != 180 else (48, 32),
                patches=False,
                needs=("h264_wide.mp4",),
                usual=degrees == 90,
            )
        )
    wide = tuple(picture(48, 32))
    kinds.append(Kind("h264_wide.mp4", ("-map", "0:v", *X264), wide, size=(48, 32), usual=False))
    return kinds


def joined(*names: str, into: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / into).write_bytes(b"".join((folder / name).read_bytes() for name in names))

    return make


def without_packet(name: str, into: str, seed: int) -> Callable[[Path], None]:
    """``name`` less one transport packet, behind the tables and the first key frame."""

    def make(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        at = random.Random(seed).randrange(12, len(data) // 188 - 4)
        del data[188 * at : 188 * (at + 1)]
        (folder / into).write_bytes(data)

    return make


def clocks() -> list[Kind]:
    maps = ("-map", "0:v", "-map", "1:a")
    h264 = (*maps, "-c:v", "libx264", *YUV420, "-c:a", "aac")
    dvd = (*maps, "-c:v", "mpeg2video", "-q:v", "2", "-c:a", "ac3", "-f", "vob")
    offsets = {"ahead": "1000", "day": "93600", "pause": "5.4", "back": "0.2"}
    kinds = [
        Kind("part.ts", h264, BOTH, sound=1),
        Kind("part.vob", dvd, BOTH, sound=1),
        Kind("part.mpg", (*maps, "-c:v", "mpeg2video", "-q:v", "2", "-c:a", "mp2"), BOTH, sound=1),
        Kind("part.m2ts", h264, BOTH, sound=1, usual=False),
        Kind("silent.ts", ("-map", "0:v", *X264), PLAIN, usual=False),
        Kind("mp2.ts", (*maps, "-c:v", "mpeg2video", "-b:v", "300k", "-c:a", "mp2"), BOTH, sound=1),
        Kind("live.flv", (*maps, *X264, "-c:a", "aac"), BOTH, sound=1, usual=False),
    ]
    for name, seconds in offsets.items():
        kinds.append(
            Kind(f"at_{name}.ts", (*h264, "-output_ts_offset", seconds), BOTH, sound=1, usual=False)
        )
    jump = ("clock jumps once",)
    pairs: list[tuple[str, tuple[str, ...], dict[str, object]]] = [
        ("joined.ts", ("part.ts", "part.ts"), {"last": 0.76}),
        # ffmpeg's own sound comes 0.38 s late behind the joint: its picture and its sound find the
        # jump one after the other. Ours keeps each part's own sync.
        ("joined.vob", ("part.vob", "part.vob"), {"last": 0.76, "sound_end": 0.81}),
        ("joined.mpg", ("part.mpg", "part.mpg"), {"last": 0.76}),
        ("joined.m2ts", ("part.m2ts", "part.m2ts"), {"last": 0.76, "usual": False}),
        ("joined_silent.ts", ("silent.ts", "silent.ts"), {"last": 0.76, "sound": 0}),
        ("joined_3.ts", ("part.ts",) * 3, {"last": 1.16, "frames": 30, "notes": ("2 times",)}),
        ("jump_ahead.ts", ("part.ts", "at_ahead.ts"), {"last": 0.76}),
        ("jump_day.ts", ("part.ts", "at_day.ts"), {"last": 0.76, "usual": False}),
        ("jump_back.ts", ("at_ahead.ts", "part.ts"), {"last": 0.76}),
        (
            "jump_and_back.ts",
            ("part.ts", "at_ahead.ts", "part.ts"),
            {"last": 1.16, "frames": 30, "notes": ("2 times",)},
        ),
        ("pause.ts", ("part.ts", "at_pause.ts"), {"notes": ()}),
        ("joined_mp2.ts", ("mp2.ts", "mp2.ts"), {"last": 0.76, "usual": False}),
    ]
    for name, parts, wanted in pairs:
        base = Kind(
            name,
            made=joined(*parts, into=name),
            needs=tuple(dict.fromkeys(parts)),
            frames=20,
            sound=1,
            notes=jump,
            tolerance=24,
        )
        kinds.append(replace(base, **wanted))  # type: ignore[arg-type]
        if name in ("joined.ts", "jump_ahead.ts"):
            into = f"webm_{name}"
            kinds.append(
                replace(
                    base,
                    **wanted,
                    name=into,
                    made=joined(*parts, into=into),
                    target=".webm",  # type: ignore[arg-type]
                    codec="vp9",
                    usual=False,
                )
            )
    for seed in range(12):
        source = ("part.ts", "mp2.ts")[seed % 2]
        name = f"lost_{seed}.ts"
        kinds.append(
            Kind(
                name,
                made=without_packet(source, name, seed),
                needs=(source,),
                frames=None,
                sound=1,
                patches=False,
                usual=seed < 4,
            )
        )
    return kinds
