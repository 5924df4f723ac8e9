"""Everything of the source but its picture, carried over beside the restored one.

Packets are copied where the container can hold their codec; else sound is encoded anew and text
subtitles are converted. They are read from the source in step with the picture, so that no more of
them is held than the encoder's own delay. Nothing here ends a job: what is damaged or cannot be
held is left out, and ``notes`` say so.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import islice

import av
from av import Packet
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import AttachmentStream, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from dloral.errors import OptionError, Setting
from dloral.video import extras
from dloral.video.copied import Copied, Cut, Track
from dloral.video.encoders import CONTAINERS
from dloral.video.labels import label, lost_marks
from dloral.video.media import open_media, picture_stream, reason
from dloral.video.probe import ClipInfo
from dloral.video.sound import NewSound
from dloral.video.subtitles import NewSubtitles

_PCM = {f"pcm_{kind}" for kind in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le")}
_SOUND = {
    ".mp4": {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac"},
    ".mov": {"aac", "mp3", "mp2", "ac3", "eac3", "alac"} | _PCM,
    ".webm": {"opus", "vorbis"},
    ".mkv": {"aac", "mp3", "mp2", "ac3", "eac3", "opus", "flac", "alac", "vorbis", "dts", "truehd"}
    | _PCM,
}
"""What each container is known to hold and players to find there."""

_SUBTITLES = {
    ".mp4": {"mov_text"},
    ".mov": {"mov_text"},
    ".webm": {"webvtt"},
    ".mkv": {"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"},
}
_NEW_SOUND = {".mp4": "aac", ".mov": "aac", ".mkv": "aac", ".webm": "libopus"}
_NEW_SUBTITLES = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}
_TEXT_SUBTITLES = {"mov_text", "subrip", "ass", "webvtt", "text"}

_FONTS = ".mkv"
"""The container that holds attachments."""

_COVERS = (".mp4", ".mkv")
_REHEARSED = 2000
"""Packets of the file in which a sound track's beginning is looked for."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, errno.EFBIG, errno.EROFS}
"""Errors of the disk, which end a job; all others of the muxer are a packet's own."""


class Tracks:
    """All streams of ``clip`` in their order, added to ``output``. Use it in a ``with`` block.

    ``audio``: auto copies sound where possible, copy does so or refuses, aac encodes all of it
    anew, none leaves it out. ``add_picture`` is called where the restored picture's stream has
    its place, and returns it.
    """

    def __init__(
        self,
        clip: ClipInfo,
        output: OutputContainer,
        suffix: str,
        notes: list[str],
        add_picture: Callable[[], VideoStream],
        audio: str = "auto",
    ) -> None:
        self._audio = audio
        self._clip, self._output, self._suffix, self.notes = clip, output, suffix, notes
        self._cut: Cut | None = None
        self._tracks: dict[int, Track] = {}
        self._covers: dict[int, extras.Cover] = {}
        self._next: Packet | None = None
        self._refused = 0
        self._stack = ExitStack()
        self._source: InputContainer | None = None
        self._packets: Iterator[Packet] = iter(())
        if clip.kind != "video":
            add_picture()
            return
        self._source = container = self._stack.enter_context(open_media(clip.path))
        tags = dict(clip.tags)
        extras.write_tags(tags, output, suffix)
        picture = picture_stream(container, clip.path)
        left_out: list[str] = []
        if clip.has_cover and suffix == ".mp4" and (lost := extras.own_keys(tags)):
            left_out.append(f"tags that {suffix} cannot hold beside a cover ({', '.join(lost)})")
        for stream in container.streams:
            if stream.index == picture.index:
                self._picture = add_picture()
                label(self._picture, picture)
            elif stream.index in clip.other_programmes:
                left_out.append("another programme")
            else:
                left_out += self._add(stream)
        self._timecode = extras.timecode_of(container, picture)
        kept = [s for s in container.streams if s.index in self._tracks]
        kind = CONTAINERS[suffix]
        marks = dict.fromkeys(mark for s in kept for mark in lost_marks(s, kind))
        if marks:
            left_out.append(f"marks of tracks that {suffix} cannot hold ({', '.join(marks)})")
        notes.extend(f"{what} left out" for what in dict.fromkeys(left_out))
        chosen = [s for s in container.streams if s.index in self._tracks.keys() | self._covers]
        if chosen:
            self._packets = clip.clock.demux(container, *chosen)

    def _add(self, stream: Stream) -> list[str]:
        """Carry a stream over; what is left out of it."""
        if stream.type == "audio" and self._audio == "none":
            return []
        if stream.type in ("audio", "subtitle"):
            track = self._make_track(stream)
            if track is not None:
                self._tracks[stream.index] = track
        elif isinstance(stream, AttachmentStream):
            if self._suffix != _FONTS:
                return [f"attachments such as fonts, which {self._suffix} cannot hold,"]
            extras.attach(stream, self._output)
        elif stream.type == "video" and stream.disposition & av.stream.Disposition.attached_pic:
            if self._suffix not in _COVERS or not extras.is_cover_codec(stream):
                return [f"cover picture, which {self._suffix} cannot hold,"]
            if self._suffix == _FONTS:
                extras.attach_cover(stream, self._cover_data(stream.index), self._output)
            else:
                self._covers[stream.index] = extras.Cover(stream, self._output)
        elif stream.type == "video":
            return ["a second picture track"]
        elif getattr(stream, "name", "") != "tmcd" and "timecode" not in stream.metadata:
            return ["a data track (telemetry and the like)"]
        return []

    def _cover_data(self, index: int) -> bytes:
        with open_media(self._clip.path) as container:
            for packet in container.demux(container.streams[index]):
                return bytes(packet)
        return b""

    def __enter__(self) -> Tracks:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def begin(self, origin: Fraction, end: Fraction | None, lead_in: Fraction) -> None:
        """Say which part is written: ``origin``, ``end`` in seconds from the first frame, which is
        shown ``lead_in`` seconds after the result begins."""
        clip = self._clip
        start = clip.start_time
        stop = None if end is None else start + end
        last = None if clip.duration is None else start + clip.duration
        cut = self._cut = Cut(start + origin - lead_in, stop, whole=origin == 0, last=last)
        if self._source is None:
            return
        extras.write_chapters(self._source, self._output, cut)
        if self._timecode is not None:
            code = extras.timecode_at(self._timecode, clip.fps, origin)
            if code is None:
                self.notes.append(f"time code left out: there is none for {float(clip.fps):g} fps")
            elif self._suffix in (".mp4", ".mov"):
                self._picture.metadata["timecode"] = code
            else:
                self._output.metadata["timecode"] = code

    def mux_until(self, seconds: Fraction | None) -> None:
        """Write all packets up to ``seconds`` of the result (None: all that are left)."""
        cut = self._cut
        assert cut is not None, "begin() comes first"
        while (packet := self._peek()) is not None:
            cover = self._covers.get(packet.stream_index)
            time = _packet_time(packet)
            waits = seconds is not None and time is not None and time - cut.origin > seconds
            if waits and cover is None:
                return
            self._next = None
            if cover is not None:
                if packet.size:
                    self._mux([cover.take(packet)])
            elif time is not None and (cut.end is None or time < cut.end):
                self._mux(self._tracks[packet.stream_index].take(packet, cut))

    def finish(self, seconds: Fraction, is_short: bool = False) -> None:
        """Write the rest. A part that was cut out ends no sooner than its last frame does,
        at ``seconds`` of the result; ``is_short``: nothing comes after that frame."""
        cut = self._cut
        assert cut is not None, "begin() comes first"
        if is_short:
            cut = self._cut = replace(cut, end=cut.origin + seconds)
        elif cut.end is not None:
            cut = self._cut = replace(cut, end=max(cut.end, cut.origin + seconds))
        self.mux_until(None)
        for track in self._tracks.values():
            self._mux(track.rest(cut))
        lost = self._refused + sum(track.lost for track in self._tracks.values())
        if lost:
            what = "packet" if lost == 1 else "packets"
            self.notes.append(f"{lost} damaged or repeated {what} of sound or subtitles left out")

    def _mux(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            try:
                self._output.mux(packet)
            except av.FFmpegError as error:
                if error.errno in _FULL:
                    raise
                self._refused += 1

    def _peek(self) -> Packet | None:
        if self._next is None:
            try:
                self._next = next(self._packets, None)
            except av.FFmpegError as error:
                self._packets = iter(())
                self.notes.append(f"sound ends early: it cannot be read further ({reason(error)})")
        return self._next

    def _make_track(self, stream: Stream) -> Track | None:
        suffix, notes = self._suffix, self.notes
        name = stream.codec_context.codec.canonical_name if stream.codec_context else None
        what = "sound" if stream.type == "audio" else "subtitles"
        if name is None:
            notes.append(f"{what} of an unknown codec left out")
            return None
        if isinstance(stream, AudioStream) and not _is_sound(stream):
            notes.append("sound left out: its header says neither rate nor channels")
            return None
        why = self._why_not_copied(stream, name)
        if why is None:
            return Copied(stream, self._output, hides_run_up=suffix in (".mp4", ".mov"))
        if isinstance(stream, AudioStream) and self._audio == "copy":
            raise OptionError(
                "sound cannot be copied: {value}",
                remedy="use {setting}",
                value=why,
                setting=Setting("audio", "auto"),
            )
        if isinstance(stream, AudioStream):
            track = NewSound(stream, self._output, _NEW_SOUND[suffix])
            mixed = f", mixed to {track.layout}" if track.mixed else ""
            notes.append(f"sound encoded anew as {track.codec}{mixed}: {why}")
            return track
        if isinstance(stream, SubtitleStream) and name in _TEXT_SUBTITLES:
            new = _NEW_SUBTITLES[suffix]
            notes.append(f"subtitles converted to {new}: {why}")
            return NewSubtitles(stream, self._output, new)
        notes.append(f"subtitles left out: {why}")
        return None

    def _why_not_copied(self, stream: Stream, name: str) -> str | None:
        suffix = self._suffix
        if stream.type == "audio" and self._audio == "aac" and name != "aac":
            return "that was asked for"
        if name not in (_SOUND if stream.type == "audio" else _SUBTITLES)[suffix]:
            return f"{suffix} cannot hold {name}"
        if stream.index in self._clip.changing_sound:
            return "its rate or its channels change on the way"
        if not _can_be_copied(self._clip, stream.index, suffix):
            return f"its {name} packets do not fit into {suffix} as they are"
        return None


def _packet_time(packet: Packet) -> Fraction | None:
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None else ticks * Fraction(packet.time_base)


def _is_sound(stream: AudioStream) -> bool:
    return stream.codec_context.sample_rate > 0 and stream.codec_context.channels > 0


def _can_be_copied(clip: ClipInfo, index: int, suffix: str) -> bool:
    """A rehearsal: whether the muxer takes the stream's first packets, header and all."""
    with open_media(clip.path) as container:
        stream = container.streams[index]
        output = av.open(BytesIO(), "w", format=CONTAINERS[suffix])
        try:
            track = Copied(stream, output, hides_run_up=True)
            output.start_encoding()
            cut: Cut | None = None
            for packet in islice(clip.clock.demux(container), _REHEARSED):
                time = _packet_time(packet)
                if packet.stream_index != index or not packet.size or time is None:
                    continue
                cut = cut or Cut(time, None, whole=True)
                output.mux(list(track.take(packet, cut)))
            output.close()
        except (av.FFmpegError, ValueError):
            return False
    return True
