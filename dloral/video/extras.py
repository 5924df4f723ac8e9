"""What a file holds besides picture and sound: tags, chapters, fonts, cover, timecode."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from av import Packet
from av.container import InputContainer, OutputContainer
from av.stream import AttachmentStream, Discard, Disposition, Stream

from dloral.video.copied import Cut
from dloral.video.labels import label

_OF_THE_FILE = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration"),
    *("timecode", "location-eng"),
}
"""Tags that describe the source's own file; the timecode is kept apart, a place comes twice."""

_ITUNES = {
    *("title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"),
    *("copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"),
    *("network", "keywords", "episode_sort", "season_number", "media_type", "hd_video"),
    *("gapless_playback", "compilation", "track", "disc", "tempo", "sort_name", "sort_artist"),
    *("sort_album", "sort_album_artist", "sort_composer", "sort_show", "creation_time"),
    *("location", "encoder"),
}
"""Tags that the MP4 muxer of FFmpeg writes where players look for them."""

_TIMECODE_RATES = (24, 25, 30, 48, 50, 60, 100, 120)
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d{1,3})")
"""FFmpeg gives frames one digit up to 10 a second, and three above 100."""

_MIME = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


def tags_of(container: InputContainer) -> dict[str, str]:
    """The file's tags that also apply to a restored copy."""
    return {k: v for k, v in container.metadata.items() if k.lower() not in _OF_THE_FILE}


def own_keys(tags: dict[str, str]) -> list[str]:
    """Tags for which an MP4 or MOV has to hold all of them as named keys, since iTunes' list lacks
    them.

    Players show fewer named keys than iTunes tags, so they are the second choice; and FFmpeg writes
    no cover beside them, so an MP4 with a cover does without these tags.
    """
    return [key for key in tags if key.lower() not in _ITUNES]


def write_tags(tags: dict[str, str], output: OutputContainer, suffix: str) -> None:
    for key, value in tags.items():
        known = suffix in (".mp4", ".mov") and key.lower() in _ITUNES
        output.metadata[key.lower() if known else key] = value


def write_chapters(container: InputContainer, output: OutputContainer, cut: Cut) -> None:
    """Write the chapters of the part being written, with times from its start."""
    kept: list[Any] = []
    for chapter in container.chapters():
        unit = chapter["time_base"]
        if not unit:
            continue
        first = chapter["start"] * unit - cut.origin
        last = max(chapter["end"] * unit - cut.origin, first)
        if cut.end is not None:
            last = min(last, cut.end - cut.origin)
        first = max(first, Fraction(0))
        if last > first or (last == first and chapter["start"] == chapter["end"]):
            times = {"start": round(first * 1_000_000), "end": round(last * 1_000_000)}
            kept.append({**chapter, **times, "time_base": Fraction(1, 1_000_000)})
    output.set_chapters(kept)


def attach(stream: AttachmentStream, output: OutputContainer) -> None:
    """A font or another file that Matroska holds."""
    name = stream.metadata.get("filename", "attachment")
    kind = stream.mimetype or stream.metadata.get("mimetype") or "application/octet-stream"
    output.add_attachment(name, kind, stream.data)


class Cover:
    """An MP4 file's cover picture: one packet, written at the start."""

    def __init__(self, stream: Stream, output: OutputContainer) -> None:
        self._stream = output.add_stream_from_template(stream, opaque=True)
        label(self._stream, stream)

    def take(self, packet: Packet) -> Packet:
        packet.pts = packet.dts = 0
        packet.stream = self._stream
        return packet


def has_cover(container: InputContainer) -> bool:
    """Whether there is a cover that can be carried over."""
    return any(is_cover(stream) and is_cover_codec(stream) for stream in container.streams.video)


def is_cover(stream: Stream) -> bool:
    marks = stream.disposition
    is_picture = stream.type == "video" and marks & Disposition.attached_pic
    return bool(is_picture and not marks & Disposition.timed_thumbnails)


def holds_chapters(stream: Stream) -> bool:
    """Whether this is the track in which QuickTime keeps the names of chapters: FFmpeg has read
    them, and reads no more of it."""
    return stream.type == "data" and stream.discard == Discard.all


def is_cover_codec(stream: Stream) -> bool:
    context = stream.codec_context
    return context is not None and context.codec.canonical_name in _MIME


def attach_cover(stream: Stream, data: bytes, output: OutputContainer) -> None:
    """In Matroska a cover is an attachment, identified by its name."""
    name, kind = _MIME[stream.codec_context.codec.canonical_name]
    output.add_attachment(stream.metadata.get("filename", name), kind, data)


def timecode_of(container: InputContainer, picture: Stream) -> str | None:
    """The first frame's timecode, HH:MM:SS:FF; a semicolon before FF marks drop-frame."""
    for tags in (picture.metadata, container.metadata, *(s.metadata for s in container.streams)):
        for key, value in tags.items():
            if key.lower() == "timecode" and _TIMECODE.fullmatch(value):
                return value
    return None


def timecode_at(code: str, fps: Fraction, seconds: Fraction) -> str | None:
    """The timecode ``seconds`` later; None if ``fps`` has none (SMPTE 12M)."""
    found = _TIMECODE.fullmatch(code)
    rate = round(fps)
    if found is None or rate not in _TIMECODE_RATES:
        return None
    hours, minutes, secs, frames = (int(found[i]) for i in (1, 2, 3, 5))
    drops = found[4] in ";.," and rate % 30 == 0
    dropped = rate // 15 if drops else 0  # frame numbers skipped each minute but the tenth
    count = ((hours * 60 + minutes) * 60 + secs) * rate + frames
    all_minutes = hours * 60 + minutes
    count -= dropped * (all_minutes - all_minutes // 10)
    count += round(seconds * fps)
    if drops:
        tens, rest = divmod(count, rate * 600 - 9 * dropped)
        count += 9 * dropped * tens
        if rest >= dropped:
            count += dropped * max((rest - dropped) // (rate * 60 - dropped), 0)
    total, frames = divmod(count, rate)
    digits = max(len(found[5]), 2)
    parts = total // 3600 % 24, total // 60 % 60, total % 60
    return "{:02}:{:02}:{:02}".format(*parts) + (";" if drops else ":") + f"{frames:0{digits}}"
