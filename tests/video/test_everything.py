"""One clip with everything in it, in and out: what comes along, and what is said of the rest."""

from fractions import Fraction

import av
import pytest
from av.stream import Disposition

from dloral.options import UpscaleOptions
from dloral.upscale import upscale_steps
from dloral.video.probe import probe

META = """;FFMETADATA1
title=Everything
artist=A
DATE=2019-02-03
MOOD=calm
"""
CHAPTERS = "".join(
    f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={n * 100}\nEND={n * 100 + 100}\ntitle=Part {n + 1}\n"
    for n in range(3)
)
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,Own,12,&H00FFFFFF

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.05,0:00:00.25,Default,,0,0,0,,{\\b1}Hello
"""
HDR10 = (
    "log-level=error:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=900,4"
    ":master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory, ffmpeg):
    folder = tmp_path_factory.mktemp("everything")
    (folder / "meta.txt").write_text(META + CHAPTERS)
    (folder / "lines.ass").write_text(ASS)
    (folder / "own.ttf").write_bytes(b"\0\1\0\0font")
    ffmpeg("-f", "lavfi", "-i", "color=red:s=12x16", "-frames:v", "1", str(folder / "cover.png"))
    waves = "|".join(f"0.1*sin({300 + 40 * n}*t)" for n in range(8))
    inputs = [
        *["-f", "lavfi", "-i", "testsrc2=s=32x32:r=25:d=0.4"],
        *["-f", "lavfi", "-i", f"aevalsrc={waves}:c=7.1:s=48000:d=0.4"],
        *["-f", "lavfi", "-i", "sine=d=0.4", "-i", str(folder / "lines.ass")],
        *["-f", "ffmetadata", "-i", str(folder / "meta.txt")],
    ]
    maps = ["-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s"]
    maps += ["-map_metadata", "4", "-map_chapters", "4"]
    variable = ["-vf", "setpts='(N+0.1*N*N)/25/TB',format=yuv420p10le", "-fps_mode", "vfr"]
    codecs = ["-c:v", "libx265", "-x265-params", HDR10, "-c:a:0", "flac", "-c:a:1", "aac"]
    labels = ["-metadata:s:a:0", "language=eng", "-metadata:s:a:0", "title=Surround"]
    labels += ["-metadata:s:a:1", "language=nld", "-disposition:a:1", "comment"]
    labels += ["-metadata:s:s:0", "language=deu", "-disposition:s:0", "forced"]
    attached = ["-attach", str(folder / "own.ttf"), "-attach", str(folder / "cover.png")]
    attached += ["-metadata:s:t:0", "mimetype=font/ttf", "-metadata:s:t:1", "mimetype=image/png"]
    path = folder / "all.mkv"
    ffmpeg(*inputs, *maps, *variable, *codecs, *labels, *attached, str(path))
    return path


def said_of(path):
    """Streams with what they say of themselves, tags, chapters, and when frames are shown."""
    with av.open(str(path)) as container:
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        streams = [
            (s.type, s.codec_context.codec.canonical_name, s.language, int(s.disposition))
            for s in container.streams
            if s.codec_context and s.type != "data" and s not in covers
        ]
        layouts = [s.layout.name for s in container.streams.audio]
        fonts = [bytes(s.data) for s in container.streams.attachments if b"font" in bytes(s.data)]
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]
        tags = {key.lower(): value for key, value in container.metadata.items()}
        tags = {key: tags.get(key) for key in ("title", "artist", "date", "mood")}
        picture = next(s for s in container.streams.video if s not in covers)
        times = [frame.pts * frame.time_base for frame in container.decode(picture)]
    return streams, layouts, fonts, len(covers), chapters, tags, [t - times[0] for t in times]


def restored(source, target):
    options = UpscaleOptions(model="bicubic", scale=1, codec="h265")
    *_, last = upscale_steps(source, target, options)
    return list(last.notes)


def test_matroska_gives_all_of_it_back(everything, tmp_path):
    target = tmp_path / "out.mkv"
    assert restored(everything, target) == ["HDR (PQ) is kept, with 10 bits"]
    assert said_of(target) == said_of(everything)
    before, after = probe(everything), probe(target)
    assert after.mastering == before.mastering
    assert after.mastering.max_cll == 900
    assert (after.color_transfer, after.color_primaries, after.bit_depth) == (16, 9, 10)


def test_mp4_gives_back_what_it_holds_and_says_the_rest(everything, tmp_path):
    target = tmp_path / "out.mp4"
    notes = restored(everything, target)
    for words in ("converted to mov_text", "(MOOD) left out", "attachments such as fonts"):
        assert any(words in note for note in notes), notes
    assert len(notes) == 4
    streams, layouts, fonts, covers, chapters, tags, times = said_of(target)
    assert [s[2] for s in streams[1:]] == ["eng", "nld", "deu"]
    assert streams[2][3] & Disposition.comment
    assert layouts == ["7.1", "mono"]
    assert (fonts, covers) == ([], 1)
    assert tags == {"title": "Everything", "artist": "A", "date": "2019-02-03", "mood": None}
    was = said_of(everything)
    assert chapters == was[4]
    assert times == [round(time * 1000) * Fraction(1, 1000) for time in was[6]]
    assert probe(target).mastering == probe(everything).mastering


def test_mov_gives_back_what_it_holds_and_says_the_rest(everything, tmp_path):
    target = tmp_path / "out.mov"
    notes = restored(everything, target)
    said = ("re-encoded as aac", "converted to mov_text", "fonts", "cover", "(comment, forced)")
    for words in said:
        assert any(words in note for note in notes), notes
    streams, layouts, _, covers, chapters, tags, times = said_of(target)
    assert [s[2] for s in streams[1:]] == ["eng", "dut", "ger"]  # QuickTime's codes
    assert layouts == ["7.1", "mono"]
    assert covers == 0
    assert tags["mood"] == "calm"
    assert chapters == said_of(everything)[4]
    assert times == said_of(everything)[6]
