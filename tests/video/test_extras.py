"""Time codes."""

from fractions import Fraction

import pytest

from dloral.video.extras import timecode_at


@pytest.mark.parametrize(
    ("code", "fps", "seconds", "later"),
    [
        ("01:02:03:04", Fraction(25), Fraction(0), "01:02:03:04"),
        ("01:02:03:04", Fraction(25), Fraction(1), "01:02:04:04"),
        ("23:59:59:24", Fraction(25), Fraction(1, 25), "00:00:00:00"),
        ("00:00:59;29", Fraction(30000, 1001), Fraction(1001, 30000), "00:01:00;02"),
        ("00:09:59;29", Fraction(30000, 1001), Fraction(1001, 30000), "00:10:00;00"),
        ("00:00:00;00", Fraction(30000, 1001), Fraction(17982 * 1001, 30000), "00:10:00;00"),
        ("00:00:00:00", Fraction(60), Fraction(1, 2), "00:00:00:30"),
        ("00:00:00:00", Fraction(12), Fraction(0), None),
    ],
)
def test_time_codes_count_frames(code, fps, seconds, later):
    assert timecode_at(code, fps, seconds) == later
