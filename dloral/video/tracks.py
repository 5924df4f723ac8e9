"""Everything in the source except its picture, carried over alongside the restored one.

What is carried over, and how, is decided by :mod:`dloral.video.carried`. Packets are read from the
source in step with the picture, so that no more are held than the encoder's own delay requires.
Nothing here ends a job: what is damaged or cannot be held is left out, and ``notes`` say so.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction

import av
from av import Packet
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import AttachmentStream, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from dloral.video import extras
from dloral.video.carried import (
    FONTS,
    NEW_SOUND,
    NEW_SUBTITLES,
    Way,
    packet_time,
    planned_tracks,
)
from dloral.video.copied import Copied, Cut, Track
from dloral.video.encoding import time_unit
from dloral.video.labels import label
from dloral.video.media import open_media, picture_stream, reason
from dloral.video.probe import ClipInfo
from dloral.video.sound import NewSound
from dloral.video.subtitles import NewSubtitles, mov_text_unit

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, errno.EFBIG, errno.EROFS}
"""Disk errors, which end a job; all other muxer errors concern a single packet."""


class Tracks:
    """All streams of ``clip`` in their order, added to ``output``. Use it in a ``with`` block.

    ``audio``: auto copies sound where possible, copy does so or refuses, aac re-encodes all of it,
    none leaves it out. ``add_picture`` is called when it is the restored picture's turn among the
    streams, and returns its stream.
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
        planned = planned_tracks(container, clip, suffix, audio)
        for stream in container.streams:
            if stream.index == picture.index:
                self._picture = add_picture()
                label(self._picture, picture)
            elif stream.index in planned.ways:
                self._add(stream, planned.ways[stream.index])
        if suffix in (".mp4", ".mov"):
            for track in output.streams.subtitles:
                track.time_base = mov_text_unit(time_unit(clip), container.streams.audio)
        self._timecode = extras.timecode_of(container, picture)
        notes.extend(planned.notes)
        chosen = [s for s in container.streams if s.index in self._tracks.keys() | self._covers]
        if chosen:
            self._packets = clip.clock.demux(container, *chosen)

    def _add(self, stream: Stream, way: Way) -> None:
        output, suffix = self._output, self._suffix
        if way == Way.COPIED:
            hides_run_up = suffix in (".mp4", ".mov")
            self._tracks[stream.index] = Copied(stream, output, hides_run_up)
        elif isinstance(stream, AudioStream):
            self._tracks[stream.index] = NewSound(stream, output, NEW_SOUND[suffix])
        elif isinstance(stream, SubtitleStream):
            self._tracks[stream.index] = NewSubtitles(stream, output, NEW_SUBTITLES[suffix])
        elif isinstance(stream, AttachmentStream):
            extras.attach(stream, output)
        elif suffix == FONTS:
            extras.attach_cover(stream, self._cover_data(stream.index), output)
        else:
            self._covers[stream.index] = extras.Cover(stream, output)

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
        """Set which part is written: ``origin``, ``end`` in seconds from the first frame, which is
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
            time = packet_time(packet)
            waits = seconds is not None and time is not None and time - cut.origin > seconds
            if waits and cover is None:
                break
            self._next = None
            if cover is not None:
                if packet.size:
                    self._mux([cover.take(packet)])
            elif time is not None and (cut.end is None or time < cut.end):
                self._mux(self._tracks[packet.stream_index].take(packet, cut))
        if seconds is not None:
            for track in self._tracks.values():
                self._mux(track.until(seconds))

    def finish(self, seconds: Fraction, is_short: bool = False) -> None:
        """Write the rest. A part that was cut out ends no sooner than its last frame, at
        ``seconds`` of the result; ``is_short``: nothing follows that frame."""
        cut = self._cut
        assert cut is not None, "begin() comes first"
        if is_short:
            cut = self._cut = replace(cut, end=cut.origin + seconds)
        elif cut.end is not None:
            cut = self._cut = replace(cut, end=max(cut.end, cut.origin + seconds))
        if cut.last is None:
            cut = self._cut = replace(cut, last=cut.origin + seconds)
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
