"""Options check themselves when they are made."""

import dataclasses

import pytest

from dloral.errors import DLoRALError, OptionError, OutputError
from dloral.options import UpscaleOptions

GOOD = [
    {},
    {"scale": 1},
    {"scale": 1.5},
    {"scale": 4},
    {"consistency": 0, "detail": 2},
    {"window": 0},
    {"window": 5},
    {"tile": None},
    {"tile": "auto"},
    {"tile": 64, "tile_overlap": 0},
    {"start": 1.5, "duration": 0.1},
    {"crf": 0},
    {"crf": 63},
    {"bit_depth": 10, "codec": "h265"},
    {"batch_size": 4},
]

BAD = [
    {"scale": 0.99},
    {"scale": 4.01},
    {"scale": float("nan")},
    {"scale": float("inf")},
    {"scale": "four"},
    {"scale": None},
    {"consistency": -0.1},
    {"detail": 2.1},
    {"detail": float("nan")},
    {"window": 2},
    {"window": 1.0},
    {"window": "1"},
    {"color_fix": "sepia"},
    {"codec": "mpeg1"},
    {"bit_depth": 12},
    {"start": -1},
    {"duration": 0},
    {"duration": -2},
    {"duration": float("inf")},
    {"crf": -1},
    {"crf": 64},
    {"crf": float("nan")},
    {"batch_size": 0},
    {"batch_size": 1.5},
    {"tile": 0},
    {"tile": -5},
    {"tile": 2.5},
    {"tile": "huge"},
    {"tile_overlap": -1},
    {"tile_overlap": 96},
    {"tile_overlap": 0.5},
]


def label(options: dict[str, object]) -> str:
    return "-".join(f"{name}={value}" for name, value in options.items()) or "defaults"


@pytest.mark.parametrize("options", GOOD, ids=label)
def test_good(options: dict[str, object]) -> None:
    made = UpscaleOptions(**options)
    for name, value in options.items():
        assert getattr(made, name) == value


@pytest.mark.parametrize("options", BAD, ids=label)
def test_bad_is_one_line_that_names_the_option(options: dict[str, object]) -> None:
    with pytest.raises(OptionError) as caught:
        UpscaleOptions(**options)
    line = str(caught.value)
    (name,) = options
    assert name in line
    assert str(options[name]) in line
    assert "\n" not in line


@pytest.mark.parametrize("tile", [32, 1])
def test_overlap_must_be_smaller_than_the_tile(tile: int) -> None:
    with pytest.raises(OptionError, match="tile_overlap is 32"):
        UpscaleOptions(tile=tile, tile_overlap=32)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        UpscaleOptions().scale = 2.0


def test_changed_copies_are_checked_too() -> None:
    with pytest.raises(OptionError):
        dataclasses.replace(UpscaleOptions(), window=4)


def test_errors_are_caught_as_one_kind_and_say_one_line() -> None:
    for error in (OptionError("what"), OutputError("what")):
        assert isinstance(error, DLoRALError)
        assert str(error) == "what"
