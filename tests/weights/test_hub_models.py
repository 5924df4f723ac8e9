"""Models by their Hub id: pushed by ``convert``, loaded again; ids of something else."""

import json
from pathlib import Path

import pytest
import torch
from hub_server import Hub, Repo
from huggingface_hub import constants
from released import BASE, CHECKPOINT

from dloral.cli import main
from dloral.errors import OutputError, WeightsError
from dloral.weights.card import push
from dloral.weights.loading import load_pipeline


def refusal(model: str) -> str:
    with pytest.raises(WeightsError) as caught:
        load_pipeline(model, device="cpu", dtype="float32")
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    assert repr(model) in line
    assert 'model="compact"' in line
    return line


def test_convert_and_push_then_load_by_id(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # no Xet storage on this machine
    folder = tmp_path / "model"
    call = ["convert", str(CHECKPOINT), "--base", str(BASE), "-o", str(folder)]
    assert main([*call, "--push-to-hub", "me/dloral-sd21"]) == 0
    assert "--model me/dloral-sd21" in capsys.readouterr().out
    pushed = hub.repos["me/dloral-sd21"].files
    assert pushed == {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    card = pushed["README.md"].decode()
    assert "library_name: diffusers" in card
    assert "Open RAIL++-M" in card
    frame = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    here, there = (
        load_pipeline(model, device="cpu", dtype="float32")(frame).frames
        for model in (folder, "me/dloral-sd21")
    )
    assert torch.equal(here, there)


def test_push_that_is_refused_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    hub.refuses_pushes = True
    with pytest.raises(OutputError, match="HF_TOKEN") as caught:
        push(tmp_path, "someone/else")
    assert "was written, but could not be pushed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_id_to_push_to(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="owner/name"):
        push(tmp_path, "no id at all")


def test_dry_run_of_an_id_brings_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "some/model", "--dry-run"]) == 2
    assert "a Hub id is fetched as it is" in capsys.readouterr().err
    assert not hub.log


def test_id_of_something_else(hub: Hub) -> None:
    """Nothing but the index is downloaded: the rest may be a hundred gigabytes."""
    weights = {"unet/diffusion_pytorch_model.safetensors": b"x" * 1000, "config.json": b"{}"}
    hub.repos["some/llm"] = Repo(dict(weights))
    assert "has no model_index.json" in refusal("some/llm")
    index = json.dumps({"_class_name": "StableDiffusionPipeline"}).encode()
    hub.repos["some/sd"] = Repo(weights | {"model_index.json": index})
    assert "is a StableDiffusionPipeline" in refusal("some/sd")
    asked = {line.split("/")[-1] for line in hub.asked("GET", "/resolve/")}
    assert asked == {"model_index.json"}


def test_id_that_is_not_there_or_private(hub: Hub) -> None:
    assert "does not exist" in refusal("no/body")
    hub.repos["my/secret"] = Repo({}, status=401)
    assert "set HF_TOKEN" in refusal("my/secret")


def test_id_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal("some/model")
    assert not hub.log


def test_id_without_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries five times
    assert "cannot be reached" in refusal("some/model")


def test_sd21_without_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match=r"HF_HUB_OFFLINE is set; try again .* model=\"compact\""
    ):
        load_pipeline("sd21")
