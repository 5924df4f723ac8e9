"""How long a video lasts and at which rate, from its scan and what its container says."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from dloral.errors import InputError
from dloral.video.media import MAX_DAYS
from dloral.video.scan import Scan

FASTEST_RATE = Fraction(1000)
"""Frames per second; times closer together are damaged, and encoders refuse such a rate."""

_LEAST_LEAD_IN = Fraction(1, 10)
"""Seconds: less sound before the picture is an encoder's run-up."""

_LONGEST_LEAD_IN = 60
"""Seconds: more than that is a damaged time."""

_LONGEST_LAST_FRAME = 10
"""Seconds; a tag that says more than that is considered stale."""


def picture_seconds(stream: VideoStream, scan: Scan, usual: Fraction) -> Fraction:
    """How long the picture lasts; Matroska says in a tag how long its last frame is shown."""
    if not scan.timed:
        return max(scan.num_frames, 1) * usual
    end = scan.end if scan.end > scan.last else scan.last + usual
    told = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if told:
        hours, minutes, rest = told.groups()
        tagged = int(hours) * 3600 + int(minutes) * 60 + Fraction(rest)
        if scan.last < tagged < end + _LONGEST_LAST_FRAME:
            end = tagged
    return end - scan.first


def average_rate(stream: VideoStream, scan: Scan) -> Fraction:
    """The stream's own rate if its frames agree with it, else the frames per second counted."""
    told = Fraction(stream.average_rate or stream.guessed_rate or 0)
    seconds = scan.end - scan.first
    if not scan.timed:
        return Fraction(stream.guessed_rate or told or 25)
    if told and abs(told * seconds - scan.num_frames) <= max(1, scan.num_frames // 100):
        return told
    if seconds > 0 and scan.num_frames:
        counted = scan.num_frames / seconds
        if counted < 1:  # a time lapse: the period is the plain number
            return 1 / (1 / counted).limit_denominator(1001)
        return min(counted.limit_denominator(1001), FASTEST_RATE)
    return told or Fraction(25)


def undone_rounding(
    container: InputContainer, stream: VideoStream, scan: Scan, fps: Fraction
) -> Fraction:
    """By how much all times are to be stretched. FFmpeg rounds each delay of an APNG to ticks of
    its own, and adds them up: with 24 frames a second all alike, they come at 23.998."""
    if container.format.name != "apng" or not scan.steady or not stream.time_base:
        return Fraction(1)
    stretch = 1 / (fps * scan.steady * stream.time_base)
    return stretch if abs(stretch - 1) * scan.steady <= Fraction(1, 2) else Fraction(1)


def check_duration(path: Path, seconds: Fraction) -> None:
    if seconds > MAX_DAYS * 86400:
        raise InputError(
            "{path} says it lasts {value:.0f} days",
            remedy=f"at most {MAX_DAYS} are read: cut it into parts",
            path=path,
            value=float(seconds) / 86400,
        )


def lead_in(scan: Scan) -> Fraction:
    if scan.sound_first is None or not scan.timed:
        return Fraction(0)
    lead = scan.first - scan.sound_first
    return lead if _LEAST_LEAD_IN <= lead <= _LONGEST_LEAD_IN else Fraction(0)
