"""How a stream is labelled: tags, language, title, marks; and which of them each container holds.

Which marks and languages FFmpeg's muxers write was tested one by one.
"""

from __future__ import annotations

from av.stream import Disposition, Stream

_STALE = ("duration", "bps", "number_of_", "_statistics", "encoder", "vendor_id", "rotate")
"""Tags of a stream that do not apply to the new one, by prefix."""

_USUAL_NAMES = {"videohandler", "soundhandler", "subtitlehandler", "core media video"}

_MARKS = {
    "matroska": (
        *("default", "dub", "original", "comment", "forced"),
        *("hearing_impaired", "visual_impaired", "descriptions"),
    ),
    "webm": ("default", "forced", "captions", "descriptions", "metadata"),
    "mp4": (
        *("default", "dub", "comment", "forced"),
        *("hearing_impaired", "visual_impaired", "captions", "descriptions"),
    ),
    "mov": ("default",),
}
_SAID = ("dub", "original", "comment", "forced", "hearing_impaired", "visual_impaired")
"""Marks that a person set; their loss is reported."""

_QUICKTIME = {
    **{"deu": "ger", "nld": "dut", "zho": "chi", "ell": "gre", "swe": "sve", "fas": "per"},
    **{"isl": "ice", "sqi": "alb", "mkd": "mac", "hye": "arm", "kat": "geo", "bod": "tib"},
    **{"mya": "bur", "msa": "may", "cym": "wel", "eus": "baq", "hrv": "hr ", "srp": "sr "},
    **{"fre": "fra", "cze": "ces", "slo": "slk", "rum": "ron", "nob": "nor", "nno": "nor"},
}
"""QuickTime has its own language codes: ISO 639-2 -> those that differ."""


def label(target: Stream, source: Stream) -> None:
    """Tags, language, title and the marks of a stream (default, forced, for the deaf, ...)."""
    kind = target.container.format.name
    for key, value in source.metadata.items():
        name = key.lower()
        usual = name == "handler_name" and value.lower() in _USUAL_NAMES
        if usual or name == "timecode" or name.startswith(_STALE):
            continue
        if name == "language" and kind == "mov":
            value = _QUICKTIME.get(value, value)
        target.metadata["title" if name == "name" else key] = value
    title = target.metadata.get("title")
    if kind in ("mp4", "mov") and title and "handler_name" not in target.metadata:
        target.metadata["handler_name"] = title  # the name that players show of a track
    target.disposition = source.disposition


def lost_marks(source: Stream, kind: str) -> list[str]:
    """Marks of a stream that a container of FFmpeg's name ``kind`` does not hold."""
    return [
        name.replace("_", " ")
        for name in _SAID
        if source.disposition & getattr(Disposition, name) and name not in _MARKS[kind]
    ]
