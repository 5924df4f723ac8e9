"""What is known of a picture before it is decoded."""

from fractions import Fraction
from typing import NamedTuple


class Header(NamedTuple):
    """Height and width as shown upright, kind (png, jpeg, ...), bits per channel, 8 or more, and
    the EXIF orientation that decoded pixels still have, 1 to 8.

    ``has_alpha``: it has a channel of transparency; ``primaries``, ``transfer``: code points of
    ISO/IEC 23091-2 where the file says so; ``page_times``: when each of its pictures is shown, if
    there are several, ``end``: when the last one ends, in seconds; ``plays``: how often they are
    shown, 0 for ever, None if the file does not say; ``notes``: what in the file is not read, a
    line each; ``unkept``: what is not kept of a frame of a folder.
    """

    height: int
    width: int
    kind: str
    bits: int = 8
    orientation: int = 1
    has_alpha: bool = False
    primaries: int | None = None
    transfer: int | None = None
    page_times: tuple[Fraction, ...] = ()
    end: Fraction = Fraction(0)
    plays: int | None = None
    notes: tuple[str, ...] = ()
    unkept: tuple[str, ...] = ()
