"""What a decoder says beside a frame's pixels: how to turn it, how it was graded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from av import VideoFrame
from av.sidedata.sidedata import Type


@dataclass(frozen=True)
class Orientation:
    """How to turn stored pixels upright: transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation(self) -> int:
        """Clockwise degrees, 0, 90, 180 or 270 (of a mirrored picture: before mirroring)."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0


UPRIGHT = Orientation()


def side_data_of(frame: VideoFrame) -> dict[Type, bytes]:
    """By kind. Those of which PyAV's list knows nothing, such as EXIF, have a number for a name."""
    sides: Any = frame.side_data  # PyAV's type hint names another class
    return {data.type: bytes(data) for data in sides}


def orientation_of(frame: VideoFrame, usual: Orientation = UPRIGHT) -> Orientation:
    """How the frame's display matrix (ISO/IEC 14496-12, 6.2.2) turns it, to quarter turns;
    ``usual`` where it has none, as all frames of an APNG but the first."""
    raw = side_data_of(frame).get(Type.DISPLAYMATRIX)
    if raw is None:
        return usual
    a, b, _, c, d = (
        int.from_bytes(raw[at : at + 4], "little", signed=True) for at in range(0, 20, 4)
    )
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def _unlisted(value: object) -> Type:
    kind: Any = object.__new__(Type)
    kind._name_, kind._value_ = f"kind {value}", value
    return kind  # type: ignore[no-any-return]


Type._missing_ = _unlisted  # type: ignore[method-assign]  # else they are an error
