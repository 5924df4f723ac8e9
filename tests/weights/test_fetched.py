"""What a fetch brought, and its steps: files that do not fit, stops, offers."""

import shutil
from pathlib import Path

import pytest
import torch
from fetches import no_tagger, refusal
from filelock import FileLock
from hub_server import Hub
from released import CHECKPOINT, RELEASE, pin

from dloral.errors import CancelledError, OptionError, WeightsError
from dloral.weights import fetch as fetching
from dloral.weights.fetch import FetchProgress, fetch, fetch_steps, plan_fetch
from dloral.weights.loading import load_pipeline
from dloral.weights.registry import fetched

# What came -------------------------------------------------------------------------------------


class RunsCode:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.target, "the code ran")


def give_checkpoint(hub: Hub, checkpoint: object, tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "given.pkl")
    hub.repos[RELEASE].files["model.pkl"] = (tmp_path / "given.pkl").read_bytes()
    pin(hub.repos[RELEASE].files["model.pkl"])


def test_pickle_with_code_in_it(hub: Hub, tmp_path: Path) -> None:
    """Even with the right hash."""
    proof = tmp_path / "proof"
    checkpoint = torch.load(CHECKPOINT, weights_only=True)
    give_checkpoint(hub, checkpoint | {"extra": RunsCode(proof)}, tmp_path)
    assert "would run code" in refusal(without=["tagger"])
    assert not proof.exists()


def test_checkpoint_for_another_base(hub: Hub, tmp_path: Path) -> None:
    checkpoint = torch.load(CHECKPOINT, weights_only=True)
    unet = checkpoint["state_dict_unet"]
    unet["conv_in.base_layer.weight"] = torch.zeros(320, 8, 3, 3)
    give_checkpoint(hub, checkpoint, tmp_path)
    assert "made for a different base" in refusal(without=["tagger"])


def test_wrong_calls(hub: Hub) -> None:
    with pytest.raises(OptionError, match="choose from sd21"):
        fetch("sd22")
    with pytest.raises(OptionError, match="its companions: tagger"):
        fetch("sd21", without=["vae"])
    with pytest.raises(OptionError, match="choose from float16"):
        fetch("sd21", dtype="int8")
    assert not hub.log


def test_a_hash_that_is_a_path_is_none(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would name the file of the download; this one leads out of the folder."""
    path = "../" * 12 + "etag"
    monkeypatch.setattr("hub_server.etag_of", lambda name, content: path)
    assert "does not report the size or hash" in refusal(without=["tagger"])


def test_a_finished_download_that_was_damaged_comes_again(hub: Hub, home: Path) -> None:
    """As after a power cut: the name is there, not all of the bytes."""
    fetch("sd21", without=["tagger"], keep_downloads=True)
    shutil.rmtree(fetched("sd21"))
    kept = max(fetching.downloads_folder().iterdir(), key=lambda path: path.stat().st_size)
    kept.write_bytes(kept.read_bytes()[:-100] + bytes(100))
    assert no_tagger(hub).is_dir()
    assert len(hub.asked("GET", "/cdn/" + RELEASE)) == 2


def test_what_a_killed_fetch_left_goes_with_the_next(hub: Hub, home: Path) -> None:
    models = fetching.models_home()
    for left in (".convert-abc", ".taesd-unfinished", "downloads/assembled-abc"):
        (models / left / "model").mkdir(parents=True)
        (models / left / "model" / "half").write_bytes(b"half")
    (models / "downloads" / "hash.part").write_bytes(b"gone on with")
    no_tagger(hub)
    found = {path.relative_to(models).as_posix() for path in models.glob("**/*")}
    assert not [path for path in found if "abc" in path or "unfinished" in path]
    assert "downloads/hash.part" in found


def test_a_damaged_model_says_how_to_fetch_it_anew(hub: Hub, home: Path) -> None:
    """It is in the way: another fetch would find it there."""
    folder = no_tagger(hub)
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(
        WeightsError, match="remove that folder, then run: python -m dloral fetch sd21"
    ):
        load_pipeline("sd21", device="cpu", dtype="float32")
    assert not fetching.plan_fetch("sd21", ["tagger"]).models
    shutil.rmtree(folder)
    assert load_pipeline(str(no_tagger(hub)), device="cpu", dtype="float32")


# Steps -----------------------------------------------------------------------------------------


def test_a_fetch_that_waits_for_another_can_be_stopped(hub: Hub, home: Path) -> None:
    fetching.downloads_folder().mkdir(parents=True)
    with FileLock(fetching.models_home() / ".lock"):
        steps = fetch_steps("sd21", ["tagger"])
        assert next(steps) == FetchProgress("waiting", "sd21", 0, 0)
        steps.close()  # type: ignore[attr-defined]
    assert not hub.log
    assert no_tagger(hub).is_dir()


def test_steps_can_be_stopped_and_gone_on_with(hub: Hub) -> None:
    steps = fetch_steps("sd21", ["tagger"])
    plan = next(steps)
    assert isinstance(plan, fetching.FetchPlan)
    for step in steps:
        assert isinstance(step, FetchProgress)
        if step.what == "model.pkl":
            break
    steps.close()  # type: ignore[attr-defined]
    assert fetched("sd21") is None
    assert plan.bytes_left < plan.total_bytes
    stages = [
        step.stage for step in fetch_steps("sd21", ["tagger"]) if isinstance(step, FetchProgress)
    ]
    assert stages[-1] == "done"
    assert fetched("sd21")


def test_steps_raise_what_the_fetch_raises(hub: Hub) -> None:
    hub.repos[RELEASE].status = 401
    with pytest.raises(WeightsError, match="HF_TOKEN"):
        list(fetch_steps("sd21"))


def test_progress_that_raises_stops_the_fetch(hub: Hub) -> None:
    def stop(progress: FetchProgress) -> None:
        if progress.done > 5_000_000:
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        fetch("sd21", on_progress=stop)
    assert fetched("sd21") is None
    assert plan_fetch("sd21").bytes_left < plan_fetch("sd21").total_bytes


def test_offers_ask_nobody(hub: Hub) -> None:
    (offer,) = fetching.offers()
    assert offer.name == "sd21"
    assert not offer.is_here
    assert offer.download > CHECKPOINT.stat().st_size
    assert "CreativeML Open RAIL++-M" in offer.licences
    assert not hub.log
    fetch("sd21")
    (offer,) = fetching.offers()
    assert offer.is_here
    assert not offer.download
