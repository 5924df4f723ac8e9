"""What is known of a source before the work: how it will be handled, or why it cannot be."""

from __future__ import annotations

from dloral.errors import InputError, Setting
from dloral.video.probe import ClipInfo

_LEAST_MISSING = 1
"""Seconds by which a file may be wrong about its own length."""


def source_notes(clip: ClipInfo, start: float, size_changes: str) -> list[str]:
    """What is worth knowing of a source before the work; InputError for what makes it pointless.

    That is a start after the clip's end, and frames of several sizes if those are refused.
    """
    if clip.duration is not None and clip.kind != "image" and start >= clip.duration:
        raise InputError(
            "{path} lasts {length:g} s, and {start} is {value:g}",
            remedy="start earlier",
            path=clip.path,
            length=round(float(clip.duration), 3),
            value=start,
            start=Setting("start"),
        )
    notes = list(clip.file_notes)
    if clip.clock.jumps:
        where = "once" if clip.clock.jumps == 1 else f"{clip.clock.jumps} times"
        notes.append(f"the source's clock jumps {where} (joined recordings?): time continues there")
    if clip.missing > max(_LEAST_MISSING, (clip.duration or 0) / 20):
        notes.append(
            f"the source is damaged: it claims to last {float(clip.missing):.1f} s longer than "
            "can be read"
        )
    changes = clip.size_changes
    height, width = clip.whole_size
    sizes = [change for change in changes if (change.width, change.height) != (width, height)]
    if sizes:
        at, *other, _ = sizes[0]
        before, there = f"{width}x{height}", "x".join(map(str, other))
        if size_changes == "refuse":
            raise InputError(
                f"{{path}} changes size at {float(at):.2f} s: {before} before, {there} there",
                remedy="cut it in two, or use {setting}",
                path=clip.path,
                setting=Setting("size_changes", "scale"),
            )
        notes.append(
            f"the source changes size at {float(at):.2f} s ({before} to {there}): scaled to the "
            "first size"
        )
    elif changes:
        notes.append(
            f"the source changes its pixel aspect ratio at {float(changes[0].time):.2f} s: "
            "the first is kept"
        )
    return notes
