"""What of a source is kept alongside the restored picture, and what the target cannot hold.

:func:`planned_tracks` decides, stream by stream; the writers follow it. :func:`carried_notes` says
the same for a source and a target before there is a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from itertools import islice

import av
from av import Packet
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import AttachmentStream, Disposition, Stream

from dloral.errors import OptionError, Setting
from dloral.video import extras, worker
from dloral.video.copied import Copied, Cut
from dloral.video.encoders import CONTAINERS
from dloral.video.labels import lost_marks
from dloral.video.media import open_media, picture_stream, version_of
from dloral.video.probe import ClipInfo
from dloral.video.sound import new_sound

_PCM = {f"pcm_{kind}" for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le")}
_SOUND = {
    ".mp4": {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac"},
    ".mov": {"aac", "mp3", "mp2", "ac3", "eac3", "alac"} | _PCM,
    ".webm": {"opus", "vorbis"},
    ".mkv": {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "vorbis", "dts", "truehd"}
    | _PCM,
}
"""What each container is known to hold and players to support there."""

_SUBTITLES = {
    ".mp4": {"mov_text"},
    ".mov": {"mov_text"},
    ".webm": {"webvtt"},
    ".mkv": {"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"},
}
NEW_SOUND = {".mp4": "aac", ".mov": "aac", ".mkv": "aac", ".webm": "libopus"}
NEW_SUBTITLES = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}
_TEXT_SUBTITLES = {"mov_text", "subrip", "ass", "webvtt", "text"}
_PLACED_SUBTITLES = {"ass", "webvtt"}
"""Text that may have its place in the picture, which no other format is given."""

FONTS = ".mkv"
"""The container that holds attachments."""

_COVERS = (".mp4", ".mkv")
_REHEARSED = 2000
"""Packets of the file to search for the beginning of a sound track."""

PIPED = "a pipe"
"""Stands for a suffix: standard output."""


class Way(Enum):
    """How a stream gets into the result."""

    COPIED = auto()
    CONVERTED = auto()  # decoded, and encoded for the container
    ATTACHED = auto()  # fonts and covers


@dataclass
class Planned:
    """``ways``: of the streams carried over, by index; ``notes``: what is not kept as it is."""

    ways: dict[int, Way] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def carried_notes(clip: ClipInfo, suffix: str, audio: str = "auto") -> list[str]:
    """What the source has besides its picture that a target of this suffix (empty for a folder of
    frames, PIPED for a pipe) does not hold, or not as it is; a line each.

    OptionError if sound is to be copied and cannot be.
    """
    if clip.kind != "video":
        return []
    return list(_notes(clip, suffix, audio, version_of(clip.path)))


@lru_cache(maxsize=64)
def _notes(
    clip: ClipInfo, suffix: str, audio: str, version: tuple[int, int, int] | None
) -> tuple[str, ...]:
    """``version``: distinguishes the file from a rewritten one."""
    if clip.isolated:
        plain = replace(clip, path=clip.path.absolute(), isolated=False)
        limits = worker.memory_to_probe(clip.path), worker.seconds_to_probe(clip.path)
        task = worker.Task("carried_notes", clip.path, (plain, suffix, audio), {}, *limits)
        return tuple(map(str, worker.call(task)))
    with open_media(clip.path) as container:
        if suffix in CONTAINERS:
            return tuple(planned_tracks(container, clip, suffix, audio).notes)
        return tuple(_picture_notes(container, clip, suffix, audio))


def _picture_notes(container: InputContainer, clip: ClipInfo, suffix: str, audio: str) -> list[str]:
    """For pictures, folders of them and pipes, which hold nothing else."""
    covers = any(extras.is_cover(stream) for stream in container.streams.video)
    found = {
        "sound": clip.has_audio and audio != "none",
        "subtitles": bool(clip.subtitle_codecs),
        "chapters": bool(container.chapters()),
        "attachments": bool(container.streams.attachments),
        "cover": covers,
    }
    lost = [name for name, is_there in found.items() if is_there]
    holder = {"": "a folder of frames", PIPED: PIPED}.get(suffix, "a picture")
    return [f"{holder} keeps no {_listed(lost)}"] if lost else []


def _listed(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def planned_tracks(
    container: InputContainer, clip: ClipInfo, suffix: str, audio: str = "auto"
) -> Planned:
    """The plan for every stream of a video except its picture, in a file of this suffix."""
    planned, left_out = Planned(), list[str]()
    picture = picture_stream(container, clip.path)
    tags = dict(clip.tags)
    if clip.has_cover and suffix == ".mp4" and (lost := extras.own_keys(tags)):
        left_out.append(f"tags that {suffix} cannot hold beside a cover ({', '.join(lost)})")
    for stream in container.streams:
        if stream.index in clip.other_programmes:
            left_out.append("another programme")
        elif stream.type == "audio" and audio == "none":
            continue
        elif stream.type in ("audio", "subtitle"):
            way = _way_of_track(stream, clip, suffix, audio, planned.notes)
            if way is not None:
                planned.ways[stream.index] = way
        elif stream.index != picture.index:
            if why := _why_left_out(stream, suffix):
                left_out.append(why)
            elif _is_attached(stream):
                planned.ways[stream.index] = Way.ATTACHED
    kept = [s for s in container.streams if planned.ways.get(s.index, Way.ATTACHED) != Way.ATTACHED]
    marks = dict.fromkeys(mark for s in kept for mark in lost_marks(s, CONTAINERS[suffix]))
    if marks:
        left_out.append(f"track flags that {suffix} cannot hold ({', '.join(marks)})")
    planned.notes.extend(f"{what} left out" for what in dict.fromkeys(left_out))
    return planned


def _is_attached(stream: Stream) -> bool:
    return isinstance(stream, AttachmentStream) or extras.is_cover(stream)


def _why_left_out(stream: Stream, suffix: str) -> str:
    """What is left out when a stream is neither sound nor subtitles; empty: nothing."""
    if isinstance(stream, AttachmentStream):
        return "" if suffix == FONTS else f"attachments such as fonts, which {suffix} cannot hold,"
    if extras.is_cover(stream):
        holds = suffix in _COVERS and extras.is_cover_codec(stream)
        return "" if holds else f"cover picture, which {suffix} cannot hold,"
    if stream.disposition & Disposition.timed_thumbnails:
        return "pictures of chapters"
    if stream.type == "video":
        return "a second video track"
    is_timecode = getattr(stream, "name", "") == "tmcd" or "timecode" in stream.metadata
    is_kept = is_timecode or extras.holds_chapters(stream)
    return "" if is_kept else "a data track (telemetry and the like)"


def _way_of_track(
    stream: Stream, clip: ClipInfo, suffix: str, audio: str, notes: list[str]
) -> Way | None:
    """For sound or subtitles; None if they are left out."""
    name = stream.codec_context.codec.canonical_name if stream.codec_context else None
    what = "sound" if stream.type == "audio" else "subtitles"
    if name is None:
        notes.append(f"{what} of an unknown codec left out")
        return None
    if isinstance(stream, AudioStream) and not _is_sound(stream):
        notes.append("sound left out: its header gives neither rate nor channels")
        return None
    why = _why_not_copied(stream, name, clip, suffix, audio)
    if why is None:
        return Way.COPIED
    if isinstance(stream, AudioStream) and audio == "copy":
        raise OptionError(
            "sound cannot be copied: {value}",
            remedy="use {setting}",
            value=why,
            setting=Setting("audio", "auto"),
        )
    if isinstance(stream, AudioStream):
        made = new_sound(stream, NEW_SOUND[suffix])
        mixed = f", mixed to {made.layout}" if made.is_mixed else ""
        notes.append(f"sound re-encoded as {made.codec}{mixed}: {why}")
        return Way.CONVERTED
    if name in _TEXT_SUBTITLES:
        without = " without their positions" if name in _PLACED_SUBTITLES else ""
        notes.append(f"subtitles converted to {NEW_SUBTITLES[suffix]}{without}: {why}")
        return Way.CONVERTED
    notes.append(f"subtitles left out: {why}")
    return None


def _why_not_copied(
    stream: Stream, name: str, clip: ClipInfo, suffix: str, audio: str
) -> str | None:
    if stream.type == "audio" and audio == "aac" and name != "aac":
        return "as requested"
    if name not in (_SOUND if stream.type == "audio" else _SUBTITLES)[suffix]:
        return f"{suffix} cannot hold {name}"
    if stream.index in clip.changing_sound:
        return "its rate or channels change partway"
    if not _can_be_copied(clip, stream.index, suffix):
        return f"its {name} packets cannot be stored in {suffix} as they are"
    return None


def packet_time(packet: Packet) -> Fraction | None:
    """Seconds, on the source's own clock."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None else ticks * Fraction(packet.time_base)


def _is_sound(stream: AudioStream) -> bool:
    return stream.codec_context.sample_rate > 0 and stream.codec_context.channels > 0


def _can_be_copied(clip: ClipInfo, index: int, suffix: str) -> bool:
    """A rehearsal: whether the muxer accepts the stream's first packets, header and all."""
    with open_media(clip.path) as container:
        stream = container.streams[index]
        output = av.open(BytesIO(), "w", format=CONTAINERS[suffix])
        try:
            track = Copied(stream, output, hides_run_up=True)
            output.start_encoding()
            cut: Cut | None = None
            for packet in islice(clip.clock.demux(container), _REHEARSED):
                time = packet_time(packet)
                if packet.stream_index != index or not packet.size or time is None:
                    continue
                cut = cut or Cut(time, None, whole=True)
                output.mux(list(track.take(packet, cut)))
            output.close()
        except (av.FFmpegError, ValueError):
            return False
    return True
