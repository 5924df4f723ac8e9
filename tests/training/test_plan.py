"""What a chain is told to do: settings, data and time that cannot be are refused."""

from pathlib import Path

import pytest

from dloral.data.manifest import list_files, save_manifest
from dloral.errors import DLoRALError, OptionError
from dloral.training.chain import run_chain
from dloral.training.plan import check_budget
from tests.training.conftest import tiny_chain


def test_what_a_pool_does_not_look_at_is_refused(photos: Path) -> None:
    with pytest.raises(OptionError, match="photo_reductions only apply without a pool"):
        tiny_chain(photos, "clips.photo_reductions=(1.0,)")


def test_held_out_sources_are_not_trained_on(photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "held.json"
    save_manifest(list_files([photos]), manifest)
    with pytest.raises(DLoRALError, match=r"no usable source.*held out"):
        run_chain(tiny_chain(photos), tmp_path / "run", manifest=manifest)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "seconds"), [("9h", 32400), ("25m", 1500), ("90", 90)])
def test_a_budget_in_words(text: str, seconds: float) -> None:
    assert check_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "nan", "soon", "0"])
def test_no_budget(text: str) -> None:
    with pytest.raises(OptionError, match="budget"):
        check_budget(text)


def test_a_flow_crop_that_the_pyramid_cannot_halve_is_one_line(
    photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=r"flow\.crop is 40") as caught:
        run_chain(tiny_chain(photos, "flow.crop=40"), tmp_path / "run", steps=4)
    assert "\n" not in str(caught.value)
