"""The appendix's four studies: which variants each compares, and the paper's claims about them.

Every variant is a configuration of ``dloral train`` and differs from the others in one setting.
``study_plan`` decides how long they train, ``study_training`` trains and measures them,
``study_claims`` tests the claims, ``study_report`` and ``study_figures`` show the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dloral.evaluation.published import A1_TEXT, TABLE_A1, TABLE_A2, TABLE_A3
from dloral.evaluation.restore import Scales
from dloral.options import WINDOWS

QUALITY = "quality"
"""In a claim: every measure of quality that is at hand (``study_claims.qualities``)."""


@dataclass(frozen=True)
class Variant:
    """``changes`` to the algorithm's settings; restored with these scales and this window.
    ``share``: of the study's steps, for variants that train only one of the two stages, so that
    they train it for as many steps as the others."""

    name: str
    title: str
    changes: Mapping[str, Any]
    consistency: float = 1.0
    detail: float = 1.0
    window: int = 1
    share: float = 1.0

    @property
    def scales(self) -> Scales:
        return Scales(self.consistency, self.detail, self.window)


@dataclass(frozen=True)
class Claim:
    """The paper ranks ``better`` ahead of ``worse`` by ``measure``.

    ``swings``: if above 0, the claim concerns not the last figures but how far the measure swings
    within a stage: at least this many times as far for ``worse`` as for ``better``.
    """

    measure: str
    better: str
    worse: str
    swings: float = 0.0


@dataclass(frozen=True)
class Study:
    """``seeds``: per variant by default. ``windows``: those that every variant is restored with, if
    not only with its own. ``points``: measurements within each stage, the last at its end; more
    than one shows swings within it. ``published``: by variant, the paper's figures
    (``COLUMNS``)."""

    name: str
    title: str
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    published: Mapping[str, tuple[float, ...]]
    note: str = ""
    seeds: int = 5
    points: int = 1
    windows: tuple[int, ...] = ()

    @property
    def titles(self) -> dict[str, str]:
        return {variant.name: variant.title for variant in self.variants}


STRATEGIES = Study(
    "strategies",
    "Training strategies (Figure A1)",
    (
        Variant("joint", "(a) one space, joint", {"strategy": "joint"}, detail=0.0),
        Variant(
            "alternating",
            "(b) one space, alternating",
            {"strategy": "alternating-one-space"},
            detail=0.0,
        ),
        Variant("dual", "(c) two LoRAs, alternating", {"strategy": "dual"}),
    ),
    (
        Claim(QUALITY, "dual", "joint"),
        Claim(QUALITY, "dual", "alternating"),
        Claim("warping_error", "dual", "alternating", swings=2.0),
    ),
    {},
    A1_TEXT,
    points=4,
)
BRANCHES = Study(
    "branches",
    "LoRA branches (Table A1)",
    (
        Variant("C-only", "C-LoRA only", {"branches": "C-only"}, detail=0.0, share=0.5),
        Variant("D-only", "D-LoRA only", {"branches": "D-only"}, consistency=0.0, share=0.5),
        Variant("both", "C+D LoRA", {"branches": "both"}),
    ),
    (
        Claim(QUALITY, "both", "D-only"),
        Claim(QUALITY, "D-only", "C-only"),
        Claim("warping_error", "C-only", "both"),
        Claim("warping_error", "both", "D-only"),
    ),
    TABLE_A1,
)
ORDER = Study(
    "order",
    "Order of the stages (Table A2)",
    (
        Variant("enhancement-first", "Enhancement first", {"order": "enhancement-first"}),
        Variant("consistency-first", "Consistency first", {"order": "consistency-first"}),
    ),
    (
        Claim(QUALITY, "consistency-first", "enhancement-first"),
        Claim("warping_error", "enhancement-first", "consistency-first"),
    ),
    TABLE_A2,
    seeds=7,
)
TEMPORAL_WINDOWS = Study(
    "windows",
    "Temporal window of CFR (Table A3)",
    tuple(
        Variant(str(n), f"window {n}" + " (without CFR)" * (not n), {"window": n}, window=n)
        for n in WINDOWS
    ),
    (
        Claim(QUALITY, "1", "0"),
        Claim(QUALITY, "1", "3"),
        Claim(QUALITY, "3", "5"),
        Claim("warping_error", "1", "0"),
        Claim("warping_error", "5", "1"),
    ),
    TABLE_A3,
    windows=WINDOWS,
)
STUDIES = {study.name: study for study in (STRATEGIES, BRANCHES, ORDER, TEMPORAL_WINDOWS)}
