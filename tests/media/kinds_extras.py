"""Chapters, fonts, tags, covers, time codes, subtitles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kinds_base import BOTH, PLAIN, X264, YUV420, Kind, picture, run, tone

CHAPTERS = """;FFMETADATA1
title=T
artist=A
comment=C
[CHAPTER]
TIMEBASE=1/1000
START=0
END=200
title=One
[CHAPTER]
TIMEBASE=1/1000
START=200
END=400
title=Two
"""
LINES = "1\n00:00:00,100 --> 00:00:00,300\nA line\n\n"
TAGS = {"title": "T", "artist": "A", "comment": "C"}


def write_helpers(folder: Path) -> None:
    (folder / "chapters.txt").write_text(CHAPTERS)
    (folder / "lines.srt").write_text(LINES)
    (folder / "font.ttf").write_bytes(b"\0\1\0\0font")
    run([*picture(16, 16), "-frames:v", "1", str(folder / "cover.png")])


def extras() -> list[Kind]:
    meta = (*PLAIN, *tone(), "-f", "ffmetadata", "-i", "@chapters.txt")
    all_of = ("-map", "0:v", "-map", "1:a", "-map_metadata", "2", "-map_chapters", "2", *X264)
    aac = ("-c:a", "aac")
    font = ("-attach", "@font.ttf", "-metadata:s:t", "mimetype=application/x-truetype-font")
    base = Kind(
        "chapters.mkv", (*all_of, *aac), meta, sound=1, chapters=2, tags=TAGS, target=".mkv"
    )
    cover = (
        "-map",
        "0:v",
        "-map",
        "1:v",
        *X264[:2],
        *YUV420,
        "-c:v:1",
        "png",
        "-disposition:v:1",
        "attached_pic",
    )
    subs = (*PLAIN, "-i", "@lines.srt")
    with_lines = ("-map", "0:v", "-map", "1:s", *X264)
    phone = {"creation_time": "2015-06-07T08:09:10.000000Z", "location": "+52.3700+004.9000/"}
    code = ("-timecode", "01:02:03:04")
    kinds = [
        base,
        replace(base, name="chapters.mp4", target=".mp4"),
        replace(base, name="chapters.mov", target=".mov", usual=False),
        replace(base, name="chapters_to.mp4", target=".mkv", usual=False),
        replace(base, name="chapters.mka.mkv", target=".mp4", usual=False),
        replace(base, name="chapters_to_mov.mkv", target=".mov", usual=False),
        replace(
            base, name="chapters_to_webm.mkv", target=".webm", codec="vp9", notes=("re-encoded",)
        ),
        replace(base, name="font.mkv", output=(*all_of, *aac, *font)),
        replace(
            base,
            name="font_lost.mkv",
            output=(*all_of, *aac, *font),
            target=".mp4",
            notes=("attachments",),
        ),
        replace(
            base,
            name="all_to_gif.mkv",
            output=(*all_of, *aac, *font),
            target=".gif",
            **{"sound": 0, "chapters": 0, "tags": {}},
            notes=("a picture keeps no sound, chapters or attachments",),
        ),
        Kind(
            "phone.mp4",
            (
                "-map",
                "0:v",
                *X264,
                "-metadata",
                "creation_time=2015-06-07T08:09:10Z",
                "-metadata",
                "location=+52.37+004.90/",
            ),
            PLAIN,
            tags=phone,
        ),
        Kind(
            "phone.mov",
            (
                "-map",
                "0:v",
                *X264,
                "-movflags",
                "use_metadata_tags",
                "-metadata",
                "com.apple.quicktime.make=Apple",
                "-metadata",
                "title=T",
            ),
            PLAIN,
            target=".mov",
            tags={"com.apple.quicktime.make": "Apple", "title": "T"},
        ),
        Kind(
            "android.mp4",
            (
                "-map",
                "0:v",
                *X264,
                "-movflags",
                "use_metadata_tags",
                "-metadata",
                "com.android.version=14",
            ),
            PLAIN,
            tags={"com.android.version": "14"},
        ),
        Kind(
            "own_tag.mkv",
            ("-map", "0:v", *X264, "-metadata", "MOOD=calm"),
            PLAIN,
            target=".mp4",
            tags={"MOOD": "calm"},
        ),
        Kind(
            "tags.avi",
            ("-map", "0:v", "-c:v", "mpeg4", "-q:v", "2", "-metadata", "title=T"),
            PLAIN,
            tags={"title": "T"},
            target=".mkv",
        ),
        Kind(
            "tags.ogv",
            ("-map", "0:v", "-c:v", "libtheora", "-q:v", "10", *YUV420, "-metadata", "artist=A"),
            PLAIN,
            patches=False,
            usual=False,
            repeats=True,
        ),
        Kind("cover.mp4", cover, (*PLAIN, "-i", "@cover.png"), notes=()),
        Kind(
            "cover.mkv",
            ("-map", "0:v", *X264, "-attach", "@cover.png", "-metadata:s:t", "mimetype=image/png"),
            PLAIN,
            target=".mkv",
        ),
        Kind("cover_to_mkv.mp4", cover, (*PLAIN, "-i", "@cover.png"), target=".mkv"),
        Kind(
            "cover_to_mp4.mkv",
            ("-map", "0:v", *X264, "-attach", "@cover.png", "-metadata:s:t", "mimetype=image/png"),
            PLAIN,
            usual=False,
        ),
        Kind(
            "cover_to_webm.mp4",
            cover,
            (*PLAIN, "-i", "@cover.png"),
            target=".webm",
            codec="vp9",
            notes=("cover picture",),
            usual=False,
        ),
        Kind("timecode.mov", ("-map", "0:v", *X264, *code), PLAIN, target=".mov"),
        Kind(
            "timecode.mkv",
            ("-map", "0:v", *X264, "-metadata", "timecode=01:02:03:04"),
            PLAIN,
            target=".mp4",
        ),
        Kind(
            "timecode.mxf",
            ("-map", "0:v", "-c:v", "mpeg2video", "-g", "1", "-q:v", "2", *YUV420, *code),
            PLAIN,
            target=".mkv",
            usual=False,
        ),
        Kind("srt.mkv", (*with_lines, "-c:s", "srt"), subs, target=".mkv"),
        Kind("ass.mkv", (*with_lines, "-c:s", "ass"), subs, target=".mkv", usual=False),
        Kind("mov_text.mp4", (*with_lines, "-c:s", "mov_text"), subs),
        Kind(
            "webvtt.webm",
            (
                "-map",
                "0:v",
                "-map",
                "1:s",
                "-c:v",
                "libvpx",
                "-b:v",
                "1M",
                "-q:v",
                "2",
                "-c:s",
                "webvtt",
            ),
            subs,
            target=".webm",
            codec="vp9",
            usual=False,
        ),
        Kind(
            "sound_first.mkv",
            ("-map", "1:a", "-map", "0:v", *X264, *aac),
            BOTH,
            sound=1,
            target=".mkv",
        ),
        Kind(
            "two_pictures.mkv",
            ("-map", "0:v", "-map", "0:v", *X264),
            PLAIN,
            target=".mkv",
            notes=("second video track",),
        ),
    ]
    return kinds
