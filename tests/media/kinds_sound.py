"""Sound in every codec, layout and rate, and sound that makes trouble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from kinds_base import BOTH, PLAIN, SECONDS, X264, Kind, run, tone


def sounds() -> list[Kind]:
    codecs = {
        "aac.mp4": ("aac",),
        "mp3.mp4": ("libmp3lame",),
        "mp3.avi": ("libmp3lame",),
        "mp2.mpg": ("mp2",),
        "mp2.ts": ("mp2",),
        "ac3.ts": ("ac3",),
        "ac3.vob": ("ac3",),
        "eac3.mkv": ("eac3",),
        "flac.mkv": ("flac",),
        "alac.mov": ("alac",),
        "aac.ts": ("aac",),
        "opus.webm": ("libopus",),
        "vorbis.webm": ("libvorbis",),
        "vorbis.ogv": ("libvorbis",),
        "pcm.mov": ("pcm_s16le",),
        "pcm24.mov": ("pcm_s24le",),
        "float.mkv": ("pcm_f32le",),
        "u8.avi": ("pcm_u8",),
        "mulaw.mov": ("pcm_mulaw",),
        "adpcm.avi": ("adpcm_ima_wav",),
        "wma.wmv": ("wmav2",),
        "dts.mkv": ("dca", "-strict", "-2"),
        "aac.flv": ("aac",),
        "truehd.mkv": ("truehd", "-strict", "-2"),
        "wavpack.mkv": ("wavpack",),
        "tta.mkv": ("tta",),
        "speex.flv": ("nellymoser", "-ar", "44100"),
        "mp3.flv": ("libmp3lame", "-ar", "44100"),
        "pcmdvd.vob": ("pcm_dvd",),
        "bluray.m2ts": ("pcm_bluray", "-ac", "2"),
        "s302m.ts": ("s302m", "-strict", "-2", "-ac", "2"),
    }
    webm = ("-c:v", "libvpx", "-b:v", "1M", "-q:v", "2")
    others = {
        ".webm": webm,
        ".ogv": ("-c:v", "libtheora", "-q:v", "10"),
        ".mpg": ("-c:v", "mpeg2video", "-q:v", "2"),
        ".vob": ("-c:v", "mpeg2video", "-q:v", "2"),
        ".wmv": ("-c:v", "wmv2", "-q:v", "2"),
        ".avi": ("-c:v", "mpeg4", "-q:v", "2"),
    }
    usual = {
        "aac.mp4",
        "mp3.avi",
        "mp2.ts",
        "ac3.vob",
        "flac.mkv",
        "opus.webm",
        "pcm.mov",
        "wma.wmv",
        "aac.ts",
        "u8.avi",
        "vorbis.ogv",
        "truehd.mkv",
    }
    kinds = []
    for name, codec in codecs.items():
        suffix = Path(name).suffix
        video = others.get(suffix, X264)
        extra = ("-f", "vob") if suffix == ".vob" else ()
        output = ("-map", "0:v", "-map", "1:a", *video, "-c:a", *codec, *extra)
        kinds.append(
            Kind(
                f"sound_{name}",
                output,
                BOTH,
                sound=1,
                usual=name in usual,
                tolerance=20,
                repeats=suffix == ".ogv",
            )
        )
    into = {".mkv": "h264", ".mov": "h264", ".webm": "vp9"}
    for suffix, video in into.items():
        for source in ("aac.mp4", "flac.mkv", "ac3.ts", "opus.webm"):
            base = next(kind for kind in kinds if kind.name == f"sound_{source}")
            name = f"to{suffix[1:]}_{source}"
            kinds.append(
                replace(base, name=name, target=suffix, codec=video, usual=source == "flac.mkv")
            )
    for layout in ("stereo", "2.1", "quad", "5.0", "5.1", "6.1", "7.1"):
        kinds.append(
            Kind(
                f"layout_{layout}.mkv",
                ("-map", "0:v", "-map", "1:a", *X264, "-c:a", "flac"),
                (*PLAIN, *tone(layout=layout)),
                target=".mov",
                sound=1,
                layout="7.1" if layout == "6.1" else layout,
                usual=layout in ("2.1", "7.1"),
                notes=("re-encoded",),
            )
        )
    for rate in (8000, 11025, 22050, 32000, 44100, 96000):
        kinds.append(
            Kind(
                f"rate_{rate}.mov",
                ("-map", "0:v", "-map", "1:a", *X264, "-c:a", "pcm_s16le"),
                (*PLAIN, *tone(rate)),
                sound=1,
                usual=rate in (8000, 96000),
            )
        )
    return kinds


def _changing(into: str, *outputs: tuple[str, ...]) -> Callable[[Path], None]:
    """Transport streams of one programme whose sound changes, one behind another."""

    def make(folder: Path) -> None:
        parts = []
        for index, output in enumerate(outputs):
            part = folder / f"{into}.{index}.part.ts"
            offset = ("-output_ts_offset", str(index * (float(SECONDS) + 0.1)))
            run((*BOTH, "-map", "0:v", "-map", "1:a", *X264, *output, *offset, str(part)))
            parts.append(part.read_bytes())
            part.unlink()
        (folder / into).write_bytes(b"".join(parts))

    return make


def troubles() -> list[Kind]:
    maps = ("-map", "0:v", "-map", "1:a")
    lead = ("-itsoffset", "0.5", *PLAIN, *tone(seconds=Fraction(9, 10)))
    late = (*PLAIN, "-itsoffset", "0.2", *tone())
    aac = ("-c:a", "aac")
    two = ("-map", "0:v", "-map", "1:a", "-map", "0:v", "-map", "1:a")
    programmes = ("-program", "title=a:st=0:st=1", "-program", "title=b:st=2:st=3")
    kinds = [
        Kind("lead.mkv", (*maps, *X264, "-c:a", "flac"), lead, sound=1, target=".mkv"),
        Kind("lead.ts", (*maps, *X264, *aac), lead, sound=1),
        Kind("lead.mp4", (*maps, *X264, *aac), lead, sound=1),
        Kind(
            "lead.mov",
            (*maps, *X264, "-c:a", "pcm_s16le"),
            lead,
            sound=1,
            target=".webm",
            codec="vp9",
            usual=False,
        ),
        Kind("sound_late.mkv", (*maps, *X264, "-c:a", "flac"), late, sound=1, target=".mkv"),
        Kind("sound_late.mp4", (*maps, *X264, *aac), late, sound=1),
        Kind("sound_long.mp4", (*maps, *X264, *aac), (*PLAIN, *tone(seconds=Fraction(2))), sound=1),
        Kind(
            "sound_short.mp4",
            (*maps, *X264, *aac),
            (*PLAIN, *tone(seconds=Fraction(1, 10))),
            sound=1,
        ),
        Kind(
            "two_sounds.mkv",
            (*maps, "-map", "1:a", *X264, *aac, "-metadata:s:a:1", "language=nld"),
            BOTH,
            sound=2,
            target=".mkv",
        ),
        Kind(
            "programmes.ts",
            (*two, *X264, *aac, *programmes),
            BOTH,
            sound=1,
            notes=("another programme left out",),
        ),
        Kind(
            "channels_change.ts",
            made=_changing("channels_change.ts", (*aac, "-ac", "1"), (*aac, "-ac", "2")),
            frames=20,
            sound=1,
            notes=("change partway",),
        ),
        Kind(
            "rate_changes.ts",
            made=_changing(
                "rate_changes.ts", ("-c:a", "ac3", "-ar", "48000"), ("-c:a", "ac3", "-ar", "44100")
            ),
            frames=20,
            sound=1,
            notes=("change partway",),
        ),
        Kind(
            "mp2_changes.ts",
            made=_changing(
                "mp2_changes.ts", ("-c:a", "mp2", "-ac", "1"), ("-c:a", "mp2", "-ac", "2")
            ),
            frames=20,
            sound=1,
            notes=("change partway",),
            usual=False,
        ),
        Kind(
            "eac3_changes.ts",
            made=_changing(
                "eac3_changes.ts", ("-c:a", "eac3", "-ac", "1"), ("-c:a", "eac3", "-ac", "6")
            ),
            frames=20,
            sound=1,
            notes=("change partway",),
        ),
        Kind(
            "dts_changes.ts",
            made=_changing(
                "dts_changes.ts",
                ("-c:a", "dca", "-strict", "-2", "-ac", "1"),
                ("-c:a", "dca", "-strict", "-2", "-ac", "2"),
            ),
            frames=20,
            sound=1,
            target=".mkv",
            notes=("change partway",),
            usual=False,
        ),
        Kind(
            "hole.mkv",
            (*maps, *X264, "-af", "aselect=lt(t\\,0.1)+gt(t\\,0.3)", "-c:a", "flac"),
            BOTH,
            sound=1,
            target=".mp4",
        ),
    ]
    return [replace(kind, name=kind.name) for kind in kinds]
