"""What the paper's appendix publishes for its studies (arXiv 2506.15591, A.2).

Figure A1 publishes curves; only the numbers given in the text are here.
"""

from collections.abc import Mapping

COLUMNS = ("musiq", "clipiqa", "maniqa", "warping_error")

TABLE_A1 = {
    "C-only": (50.5394, 0.3052, 0.2147, 1.48),
    "D-only": (65.8557, 0.5420, 0.3412, 1.62),
    "both": (66.6174, 0.5475, 0.3791, 1.51),
}
TABLE_A2 = {
    "enhancement-first": (49.484, 0.299, 0.258, 7.040),
    "consistency-first": (63.846, 0.567, 0.344, 7.497),
}
TABLE_A3 = {
    "0": (64.5732, 0.5148, 0.3386, 1.58),
    "1": (66.6174, 0.5475, 0.3791, 1.51),
    "3": (65.4470, 0.5452, 0.3645, 1.53),
    "5": (62.1562, 0.5019, 0.3204, 1.50),
}
A1_TEXT = (
    "Figure A1 (as its text has it): joint training ends with a low warping error and poor "
    "quality; alternating in one space trades one for the other; the dual strategy settles near "
    "MUSIQ 66, with a warping error that in the end varies by less than 0.5 x 1e-3."
)

PUBLISHED: dict[str, dict[str, Mapping[str, float]]] = {
    "videolq": {"DLoRAL, as the paper has it": dict(zip(COLUMNS, TABLE_A1["both"], strict=True))}
}
"""Data set, by the beginning of its name in lower case -> row's title -> measure -> figure. Of the
paper's main table the appendix repeats this row alone (Table A1, VideoLQ)."""
