"""Text subtitles decoded to lines and encoded for another container."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
from av import Packet
from av.container import OutputContainer
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from dloral.video.copied import Cut
from dloral.video.labels import label


class NewSubtitles:
    def __init__(self, stream: SubtitleStream, output: OutputContainer, library: str) -> None:
        self._source = stream
        self._stream = cast(SubtitleStream, output.add_stream(library))
        self._stream.time_base = Fraction(1, 1000)
        stream.codec_context.open(strict=False)
        self._stream.codec_context.subtitle_header = stream.codec_context.subtitle_header
        self.lost = 0
        label(self._stream, stream)

    def take(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        if not packet.size or packet.pts is None:
            return
        unit = Fraction(packet.time_base)
        begin = packet.pts * unit - cut.origin
        end = begin + (packet.duration or 0) * unit
        if cut.end is not None:
            end = min(end, cut.end - cut.origin)
        begin = max(begin, Fraction(0))
        try:
            rects = self._source.decode(packet)
            lines = [rect.ass for rect in rects if isinstance(rect, AssSubtitle)]
            if not lines or end <= begin:
                return
            length = round((end - begin) * 1000)
            text = SubtitleSet.create(text=lines[0], start=0, end=length)
            made = self._stream.codec_context.encode_subtitle(text)
        except av.FFmpegError:
            self.lost += 1
            return
        made.time_base = Fraction(1, 1000)
        made.pts = made.dts = round(begin * 1000)
        made.duration = length
        made.stream = self._stream
        yield made

    def rest(self, cut: Cut) -> Iterator[Packet]:
        return iter(())
