"""Metadata of a video's picture: 3D layout, 360-degree, Dolby Vision, closed captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from av import VideoFrame
from av.sidedata.sidedata import Type as SideData

from dloral.video.side_data import side_data_of

_STEREO = {
    1: ("left_right", "right_left"),
    2: ("top_bottom", "bottom_top"),
    3: ("block_lr", "block_rl"),
    4: ("checkerboard_lr", "checkerboard_rl"),
    6: ("row_interleaved_lr", "row_interleaved_rl"),
    7: ("col_interleaved_lr", "col_interleaved_rl"),
}
"""FFmpeg's AVStereo3DType -> Matroska's name, with the left view first and with the right one."""

_IN_X264 = {
    **{"checkerboard_lr": 0, "col_interleaved_lr": 1, "row_interleaved_lr": 2},
    **{"left_right": 3, "top_bottom": 4, "block_lr": 5},
}
"""Frame packing in H.264 itself (ISO/IEC 14496-10, D.2.26)."""

_UNNAMED = "3D"


@dataclass(frozen=True)
class PictureMarks:
    """``stereo``: how two views are packed into a frame, by Matroska's name, ``3D`` where that is
    not said and empty for a single view; ``is_spherical``: it is seen from within, as 360-degree
    video is; ``has_dolby_vision``, ``has_captions``: metadata between the picture's own data."""

    stereo: str = ""
    is_spherical: bool = False
    has_dolby_vision: bool = False
    has_captions: bool = False

    def x264_packing(self) -> int | None:
        """The value of x264's option ``frame-packing``; None if it has none for this."""
        return _IN_X264.get(self.stereo)

    def matroska_mode(self, suffix: str) -> str | None:
        """The value of the tag ``stereo_mode`` of a video track; None where that is not held."""
        is_named = self.stereo and self.stereo != _UNNAMED
        return self.stereo if is_named and suffix in (".mkv", ".webm") else None

    def lost(self, suffix: str, codec: str) -> list[str]:
        """A line for each that a target of this suffix does not hold. A pipe, a folder and pictures
        hold none."""
        in_h264 = codec == "h264" and suffix in (".mp4", ".mov") and self.x264_packing() is not None
        notes = []
        if self.stereo and not in_h264 and self.matroska_mode(suffix) is None:
            notes.append("3D layout left out: players show both views at once")
        if self.is_spherical:
            notes.append("360-degree metadata left out: players show the picture flat")
        if self.has_dolby_vision:
            notes.append("Dolby Vision metadata left out: the base picture is restored")
        if self.has_captions:
            notes.append("closed captions left out: they are embedded in the picture's stream")
        return notes


NO_MARKS = PictureMarks()


def marks_of(first: VideoFrame, kinds: Iterable[SideData] = ()) -> PictureMarks:
    """``first``: the clip's first frame; ``kinds``: of side data of frames that follow it."""
    sides = side_data_of(first)
    found = {*sides, *kinds}
    return PictureMarks(
        _stereo_of(sides.get(SideData.STEREO3D, b"")),
        SideData.SPHERICAL in found,
        not found.isdisjoint((SideData.DOVI_RPU_BUFFER, SideData.DOVI_METADATA)),
        SideData.A53_CC in found,
    )


def _stereo_of(raw: bytes) -> str:
    """FFmpeg's AVStereo3D: its type, then flags, of which the first says that the views are
    exchanged."""
    kind, flags = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 4))
    if not kind:
        return ""
    return _STEREO[kind][flags & 1] if kind in _STEREO else _UNNAMED
