"""``dloral bench`` with a tiny model: what it prints, stores, and times."""

import json
from pathlib import Path

import pytest
import torch
from clips import save_tiny_model
from safetensors.torch import save_file

from dloral.bench.run import Staged, Timed, bench_steps
from dloral.cli import main
from dloral.models.srvgg import SRVGG
from dloral.stages import READ, RETRIEVE, STAGES, WRITE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("bench") / "tiny"))


def bench(*words: str) -> int:
    return main(["bench", "--device", "cpu", "--dtype", "float32", "--frames", "2", *words])


def test_every_stage_of_every_size_is_timed(model: str) -> None:
    told = list(bench_steps(model, "cpu", "float32", [(16, 24), (24, 24)], 2.0, 2))
    assert [type(one) for one in told] == [Timed, Staged, Timed, Staged]
    for timed, staged in zip(told[::2], told[1::2], strict=True):
        assert isinstance(timed, Timed)
        assert isinstance(staged, Staged)
        assert staged.timed is timed
        assert [stage.name for stage in staged.stages] == list(STAGES)
        assert all(stage.seconds > 0 for stage in staged.stages)
        assert 0 < sum(stage.seconds for stage in staged.stages) < staged.overall
        assert len(timed.times) == 2
    small, large = (one.flops for one in told if isinstance(one, Staged))
    assert 1.4 < large / small < 1.7  # nearly all of it grows with the pixels


def test_the_arithmetic_is_that_of_the_layers(model: str) -> None:
    """Retrieval's two products of all pairs of cells, and its 1 x 1 convolutions."""
    *_, staged = bench_steps(model, "cpu", "float32", [(16, 16)], 2.0, 1)
    assert isinstance(staged, Staged)
    (retrieval,) = [stage for stage in staged.stages if stage.name == RETRIEVE]
    cells, channels, inner = 16, 4, 4  # of 32 x 32 pixels; one head of four channels
    pairs = 2 * cells**2 * (inner + 1) + 2 * cells**2 * inner
    layers = 4 * 2 * cells * channels * inner + 2 * cells * inner
    assert retrieval.flops == pairs + layers


def test_a_model_without_networks_has_fewer_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--model", "bicubic", "--size", "16x16", "--scale", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    stages = {line.split()[0] for line in lines[3:]}
    assert {READ, WRITE, "rest"} <= stages
    assert RETRIEVE not in stages


def test_the_first_lines_are_the_short_answer(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--model", model, "--size", "24x16", "--json", str(tmp_path / "b.json")) == 0
    first, second, *more = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{model} on ")
    assert second.startswith("24x16 -> 96x64, float32, 2 frames: median ")
    assert [line.split()[0] for line in more[1 : 1 + len(STAGES)]] == list(STAGES)
    (found,) = json.loads((tmp_path / "b.json").read_text())["models"]
    assert (found["small"], found["large"]) == ([16, 24], [64, 96])
    assert [stage["name"] for stage in found["stages"]] == list(STAGES)
    assert found["host_peak"] is None or found["host_peak"] > 2**20


def test_peers_run_at_the_same_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    save_file(SRVGG(width=4, depth=1).state_dict(), tmp_path / "net.safetensors")
    words = [
        "--model",
        "bicubic",
        "--size",
        "16x16",
        "--network",
        f"mine={tmp_path}/net.safetensors",
    ]
    assert bench(*words, "--peers", "bicubic", "mine", "--json", str(tmp_path / "b.json")) == 0
    assert "mine, 16x16 -> 64x64, float32: median " in capsys.readouterr().out
    peers = json.loads((tmp_path / "b.json").read_text())["peers"]
    assert [(peer["name"], peer["size"]) for peer in peers] == [
        ("bicubic", [16, 16]),
        ("mine", [16, 16]),
    ]
    # 3 -> 4, 4 -> 4 and 4 -> 48 channels, 3 x 3 each, at the small size
    assert peers[1]["flops"] == 2 * 9 * 16**2 * (3 * 4 + 4 * 4 + 4 * 48)


def test_a_peer_that_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--model", "bicubic", "--size", "16x16", "--peers", "realesr-general-x4v3"]
    assert bench(*call) == 2
    assert capsys.readouterr().err == (
        "dloral: realesr-general-x4v3 needs its file; give --network realesr-general-x4v3=FILE\n"
    )


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said before the work."""
    assert bench("--model", "bicubic", "--json", str(tmp_path / "no" / "b.json")) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"dloral: {tmp_path / 'no'} is not a directory\n"
