"""The kinds of file that people bring: a table of what makes each and what is wanted of it.

Nothing is stored: ffmpeg makes each from the same few seconds of four flat patches and a tone, and
bytes are damaged afterwards. ``make_all`` builds many with one process, since starting it costs
more than such a clip.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

PATCHES = ((0x20, 0x40, 0xC0), (0xC0, 0x40, 0x20), (0x20, 0xA0, 0x40), (0xC0, 0xC0, 0xC0))
"""RGB of the quarters: top left, top right, bottom left, bottom right."""

SECONDS = Fraction(2, 5)
RATE = 25


def picture(
    width: int = 32, height: int = 32, rate: str = "25", seconds: Fraction = SECONDS
) -> list[str]:
    w, h = (width + 1) // 2, (height + 1) // 2
    colours = ["0x" + bytes(patch).hex() for patch in PATCHES]
    boxes = [
        f"drawbox={x}:{y}:{w}:{h}:{colour}:t=fill"
        for (x, y), colour in zip(((w, 0), (0, h), (w, h)), colours[1:], strict=True)
    ]
    graph = f"color={colours[0]}:s={width}x{height}:r={rate}:d={float(seconds)},format=rgb24"
    return ["-f", "lavfi", "-i", ",".join([graph, *boxes])]


def tone(rate: int = 48000, layout: str = "mono", seconds: Fraction = SECONDS) -> list[str]:
    count = {"mono": 1, "stereo": 2, "2.1": 3, "quad": 4, "5.0": 5, "5.1": 6, "6.1": 7, "7.1": 8}
    waves = "|".join(f"0.1*sin({300 + 40 * n}*2*PI*t)" for n in range(count[layout]))
    return ["-f", "lavfi", "-i", f"aevalsrc={waves}:c={layout}:s={rate}:d={float(seconds)}"]


@dataclass(frozen=True)
class Kind:
    """One kind of file, by its ``name``.

    ``inputs``, ``output``: ffmpeg's arguments; ``made``: or what makes it from other kinds, given
    the folder. ``target``: suffix of the result, with its ``codec``. ``size``, ``frames``,
    ``aspect``: wanted.
    ``patches``: whether the four patches are there, to within ``tolerance`` of 255.
    ``sound``: tracks wanted. ``refused``: words of the one line that is wanted instead.
    ``either``: a result or one line; both are right for damaged data. ``notes``: words wanted.
    ``sound_end``: seconds, where ffmpeg's own reading is wrong; ``repeats``: whether it leaves out
    frames that are shown again. ``usual``: part of every run, not of the long one only.
    """

    name: str
    output: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    made: Callable[[Path], None] | None = None
    target: str = ".mp4"
    codec: str = "h264"
    size: tuple[int, int] = (32, 32)
    frames: int | None = 10
    aspect: Fraction = Fraction(1)
    patches: bool = True
    tolerance: int = 14
    sound: int = 0
    refused: str = ""
    either: bool = False
    notes: tuple[str, ...] = ()
    last: float | None = None
    layout: str = ""
    usual: bool = True
    needs: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    chapters: int = 0
    sound_end: float | None = None
    repeats: bool = False

    def __hash__(self) -> int:
        return hash(self.name)


def run(arguments: Iterable[str]) -> None:
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def make_all(kinds: Iterable[Kind], folder: Path) -> None:
    """Make the files of ``kinds`` and of those that they need, where they are not there yet."""
    wanted: dict[str, Kind] = {}

    def want(kind: Kind) -> None:
        for name in kind.needs:
            want(BY_NAME[name])
        wanted.setdefault(kind.name, kind)

    for kind in kinds:
        want(kind)
    missing = [kind for kind in wanted.values() if not (folder / kind.name).exists()]
    groups: dict[tuple[str, ...], list[Kind]] = {}
    for kind in missing:
        if kind.made is None:
            groups.setdefault(kind.inputs, []).append(kind)
    for inputs, group in groups.items():
        outputs = [part for kind in group for part in (*kind.output, str(folder / kind.name))]
        run([part.replace("@", f"{folder}/") for part in (*inputs, *outputs)])
    for kind in missing:
        if kind.made is not None:
            kind.made(folder)


# ---- pictures in every codec and container


PLAIN = tuple(picture())
BOTH = (*picture(), *tone())
_420 = ("-pix_fmt", "yuv420p")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", *_420)


def _pictures() -> list[Kind]:
    def kind(name: str, *output: str, **wanted: object) -> Kind:
        return Kind(name, ("-map", "0:v", *output), PLAIN, **wanted)  # type: ignore[arg-type]

    best = ("-q:v", "2")
    return [
        kind("h264.mp4", *X264),
        kind("h264.mov", *X264, usual=False),
        kind("h264.mkv", *X264, usual=False),
        kind("h264.flv", *X264),
        kind("h264.avi", *X264, "-bf", "2"),
        kind("h264.ts", *X264),
        kind("h264.m2ts", *X264),
        kind("h264.3gp", *X264, usual=False),
        kind("h264.nut", *X264),
        kind("h264.h264", *X264),
        kind("h264b.h264", "-c:v", "libx264", *_420, "-bf", "3", usual=False),
        kind("h265.mp4", "-c:v", "libx265", *_420, "-x265-params", "log-level=none"),
        kind("h265.hevc", "-c:v", "libx265", *_420, "-x265-params", "log-level=none"),
        kind("h265.ts", "-c:v", "libx265", *_420, "-x265-params", "log-level=none", usual=False),
        kind("av1.mp4", "-c:v", "libaom-av1", "-cpu-used", "8", *_420),
        kind("av1.obu", "-c:v", "libaom-av1", "-cpu-used", "8", *_420),
        kind("av1.ivf", "-c:v", "libaom-av1", "-cpu-used", "8", *_420, usual=False),
        kind("vp8.webm", "-c:v", "libvpx", *best, "-b:v", "1M"),
        kind("vp8.ivf", "-c:v", "libvpx", *best, "-b:v", "1M", "-auto-alt-ref", "1"),
        kind("vp9.webm", "-c:v", "libvpx-vp9", *_420, "-crf", "20", "-b:v", "0"),
        kind("vp9.ivf", "-c:v", "libvpx-vp9", *_420, "-crf", "20", "-b:v", "0", usual=False),
        kind("mpeg1.mpg", "-c:v", "mpeg1video", *best),
        kind("mpeg2.mpg", "-c:v", "mpeg2video", *best),
        kind("mpeg2.vob", "-c:v", "mpeg2video", *best, "-f", "vob"),
        kind("mpeg2.ts", "-c:v", "mpeg2video", *best),
        kind("mpeg2.m2v", "-c:v", "mpeg2video", *best),
        kind("mpeg2.mxf", "-c:v", "mpeg2video", *best, *_420, "-g", "1"),
        kind(
            "mpeg2.gxf",
            "-c:v",
            "mpeg2video",
            *best,
            "-s",
            "720x576",
            size=(720, 576),
            usual=False,
            patches=False,
        ),
        kind("mpeg4.avi", "-c:v", "mpeg4", *best, "-bf", "2"),
        kind("mpeg4.mp4", "-c:v", "mpeg4", *best),
        kind("mpeg4.m4v", "-c:v", "mpeg4", *best, "-f", "m4v"),
        kind("xvid.avi", "-c:v", "libxvid", *best, usual=False),
        kind(
            "h263.3gp",
            "-c:v",
            "h263",
            *best,
            "-s",
            "128x96",
            size=(128, 96),
            aspect=Fraction(12, 11),
        ),
        kind(
            "h261.h261",
            "-c:v",
            "h261",
            *best,
            "-s",
            "176x144",
            size=(176, 144),
            frames=None,
            usual=False,
        ),
        kind("flv1.flv", "-c:v", "flv", *best),
        kind("flashsv.flv", "-c:v", "flashsv", usual=False),
        kind("wmv1.wmv", "-c:v", "wmv1", *best, usual=False),
        kind("wmv2.wmv", "-c:v", "wmv2", *best),
        kind("msmpeg4.avi", "-c:v", "msmpeg4v2", *best, usual=False),
        kind("wtv.wtv", "-c:v", "mpeg2video", *best),
        kind("rv20.rm", "-c:v", "rv20", *best, "-s", "176x144", size=(176, 144)),
        kind("rv10.rm", "-c:v", "rv10", *best, "-s", "176x144", size=(176, 144), usual=False),
        kind("theora.ogv", "-c:v", "libtheora", "-q:v", "10", *_420, repeats=True),
        kind("mjpeg.avi", "-c:v", "mjpeg", *best),
        kind("mjpeg.mjpeg", "-c:v", "mjpeg", *best),
        kind("mjpeg.mov", "-c:v", "mjpeg", *best, usual=False),
        kind("prores.mov", "-c:v", "prores_ks"),
        kind("prores4444.mov", "-c:v", "prores_ks", "-profile:v", "4", usual=False),
        kind(
            "dnxhr.mov",
            "-c:v",
            "dnxhd",
            "-profile:v",
            "dnxhr_hq",
            "-pix_fmt",
            "yuv422p",
            "-s",
            "256x128",
            size=(256, 128),
            patches=False,
            usual=False,
        ),
        kind("cineform.mov", "-c:v", "cfhd", usual=False),
        kind("png.mov", "-c:v", "png", usual=False),
        kind("qtrle.mov", "-c:v", "qtrle"),
        kind("rpza.mov", "-c:v", "rpza", tolerance=20, usual=False),
        kind("smc.mov", "-c:v", "smc", tolerance=90, usual=False),
        kind("svq1.mov", "-c:v", "svq1", tolerance=24, usual=False),
        kind("hap.mov", "-c:v", "hap", tolerance=24, usual=False),
        kind("jpeg2000.mov", "-c:v", "jpeg2000", usual=False),
        kind(
            "cinepak.avi",
            "-c:v",
            "cinepak",
            "-s",
            "64x64",
            size=(64, 64),
            tolerance=30,
            usual=False,
        ),
        kind("huffyuv.avi", "-c:v", "huffyuv"),
        kind("ffvhuff.avi", "-c:v", "ffvhuff", usual=False),
        kind("utvideo.avi", "-c:v", "utvideo", usual=False),
        kind("magicyuv.avi", "-c:v", "magicyuv", usual=False),
        kind("zmbv.avi", "-c:v", "zmbv", usual=False),
        kind("msvideo1.avi", "-c:v", "msvideo1", tolerance=20, usual=False),
        kind("msrle.avi", "-c:v", "msrle", tolerance=90, usual=False),
        kind("asv2.avi", "-c:v", "asv2", *best, tolerance=24, usual=False),
        kind("raw.avi", "-c:v", "rawvideo", "-pix_fmt", "bgr24"),
        kind("v210.mov", "-c:v", "v210", usual=False),
        kind("ffv1.mkv", "-c:v", "ffv1"),
        kind("snow.avi", "-c:v", "snow", *best, "-strict", "-2", usual=False),
        kind(
            "dirac.drc",
            "-c:v",
            "vc2",
            "-pix_fmt",
            "yuv422p",
            "-s",
            "64x64",
            "-b:v",
            "60M",
            "-f",
            "dirac",
            size=(64, 64),
            patches=False,
            usual=False,
        ),
        kind("y4m.y4m", *_420),
        kind("anim.gif", tolerance=24),
        kind("anim.apng", "-c:v", "apng", "-plays", "0"),
        kind("smjpeg.mov", "-c:v", "mjpeg", "-pix_fmt", "yuvj444p", usual=False),
        kind("x264rgb.mkv", "-c:v", "libx264rgb", "-crf", "5"),
        kind(
            "vvc.266",
            "-c:v",
            "libvvenc",
            "-s",
            "64x64",
            "-pix_fmt",
            "yuv420p10le",
            "-preset",
            "faster",
            "-f",
            "vvc",
            size=(64, 64),
            usual=False,
        ),
        kind(
            "dv.dv",
            "-c:v",
            "dvvideo",
            "-s",
            "720x576",
            *_420,
            size=(720, 576),
            aspect=Fraction(16, 15),
        ),
    ]


def _formats() -> list[Kind]:
    names = (
        "yuv410p yuv411p yuv420p yuv422p yuv440p yuv444p yuvj420p yuv420p10le yuv422p10le "
        "yuv444p10le yuv420p12le yuv444p16le gbrp gbrp10le gbrp16le rgb24 rgb48le bgr0 bgra "
        "yuva420p yuva444p10le gray gray16le"
    ).split()
    usual = {"yuv411p", "yuv444p", "yuv420p10le", "gbrp", "rgb48le", "bgra", "gray"}
    kinds = []
    for name in names:
        codec = "png" if name in ("rgb24", "rgb48le") else "ffv1"
        kinds.append(
            Kind(
                f"format_{name}.mkv",
                ("-map", "0:v", "-c:v", codec, "-pix_fmt", name),
                PLAIN,
                patches=not name.startswith("gray"),
                tolerance=16,
                usual=name in usual,
            )
        )
    for name in "nv12 yuyv422 uyvy422 rgb555le bgr24 monow".split():
        kinds.append(
            Kind(
                f"raw_{name}.nut",
                ("-map", "0:v", "-c:v", "rawvideo", "-pix_fmt", name),
                PLAIN,
                patches=name != "monow",
                usual=name in ("nv12", "monow"),
            )
        )
    return kinds


# ---- sound


def _sounds() -> list[Kind]:
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
                notes=("encoded anew",),
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


# ---- times and shapes


def _times() -> list[Kind]:
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


# ---- clocks that jump


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


def _clocks() -> list[Kind]:
    maps = ("-map", "0:v", "-map", "1:a")
    h264 = (*maps, "-c:v", "libx264", *_420, "-c:a", "aac")
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


# ---- sound that makes trouble


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


def _troubles() -> list[Kind]:
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
            notes=("change on the way",),
        ),
        Kind(
            "rate_changes.ts",
            made=_changing(
                "rate_changes.ts", ("-c:a", "ac3", "-ar", "48000"), ("-c:a", "ac3", "-ar", "44100")
            ),
            frames=20,
            sound=1,
            notes=("change on the way",),
        ),
        Kind(
            "mp2_changes.ts",
            made=_changing(
                "mp2_changes.ts", ("-c:a", "mp2", "-ac", "1"), ("-c:a", "mp2", "-ac", "2")
            ),
            frames=20,
            sound=1,
            notes=("change on the way",),
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


# ---- everything else in a file


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


def _extras() -> list[Kind]:
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
        *_420,
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
            base, name="chapters_to_webm.mkv", target=".webm", codec="vp9", notes=("encoded anew",)
        ),
        replace(base, name="font.mkv", output=(*all_of, *aac, *font)),
        replace(
            base,
            name="font_lost.mkv",
            output=(*all_of, *aac, *font),
            target=".mp4",
            notes=("attachments",),
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
            ("-map", "0:v", "-c:v", "libtheora", "-q:v", "10", *_420, "-metadata", "artist=A"),
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
            ("-map", "0:v", "-c:v", "mpeg2video", "-g", "1", "-q:v", "2", *_420, *code),
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
            notes=("second picture",),
        ),
    ]
    return kinds


# ---- sizes that change, damage, and what is no video


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


def _damages() -> list[Kind]:
    mpeg2 = ("-c:v", "mpeg2video", "-q:v", "2")
    h265 = ("-c:v", "libx265", *_420, "-x265-params", "log-level=none")
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
            notes=("shape of its pixels",),
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
            ("-map", "0:v", "-map", "1:a", "-c:v", "libx264", *_420, "-g", "20", "-c:a", "aac"),
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


KINDS = [
    *_pictures(),
    *_formats(),
    *_sounds(),
    *_times(),
    *_clocks(),
    *_troubles(),
    *_extras(),
    *_damages(),
]
BY_NAME = {kind.name: kind for kind in KINDS}
