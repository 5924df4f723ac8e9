"""Conversion of the released checkpoint: what is refused, how, and what is left behind."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dloral.errors import DLoRALError, OutputError
from dloral.weights import loading
from dloral.weights.checkpoint_io import open_pickle
from dloral.weights.convert import convert
from dloral.weights.loading import load_pipeline


@pytest.fixture(scope="module")
def checkpoint(reference: Path) -> dict[str, Any]:
    return torch.load(reference / "model.pkl", weights_only=True)


def refusal(checkpoint: Path, base: Path, folder: Path) -> str:
    """The one line that ``convert`` refuses with, having written nothing into ``folder``."""
    folder.mkdir()
    with pytest.raises(DLoRALError) as caught:
        convert(checkpoint, base, folder / "model")
    assert not list(folder.iterdir())
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


class RunsCode:
    """Unpickled without care, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "the code ran")


@pytest.mark.parametrize("plain", [False, True])
def test_hostile_pickle_runs_nothing(
    checkpoint: dict[str, Any], reference: Path, tmp_path: Path, plain: bool
) -> None:
    proof = tmp_path / "proof"
    hostile = {**checkpoint, "extra": RunsCode(proof)}
    path = tmp_path / "model.pkl"
    if plain:
        path.write_bytes(pickle.dumps({"extra": RunsCode(proof)}))
    else:
        torch.save(hostile, path)
    line = refusal(path, reference / "sd_base", tmp_path / "out")
    assert not proof.exists()
    assert str(path) in line
    assert "code" in line
    # The file is hostile indeed: opened without care, its code runs.
    if plain:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.001, 0.1, 0.5, 0.999])
def test_cut_short(reference: Path, tmp_path: Path, share: float) -> None:
    whole = (reference / "model.pkl").read_bytes()
    path = tmp_path / "model.pkl"
    path.write_bytes(whole[: int(share * len(whole))])
    assert str(path) in refusal(path, reference / "sd_base", tmp_path / "out")


@pytest.mark.parametrize("content", [b"hello\n", b"<html>404</html>", b"\x00" * 100, b"\x80\x02."])
def test_no_checkpoint_at_all(reference: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    assert str(path) in refusal(path, reference / "sd_base", tmp_path / "out")


@pytest.mark.parametrize("seed", range(20))
def test_damaged_pickles(reference: Path, tmp_path: Path, seed: int) -> None:
    """A plain pickle with some bytes changed breaks in many ways; each is one line."""
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": [1, 2]}, stream, _use_new_zipfile_serialization=False)
    damaged = bytearray(stream.getvalue())
    generator = torch.Generator().manual_seed(seed)
    for place in torch.randint(len(damaged), (12,), generator=generator).tolist():
        damaged[place] = int(torch.randint(256, (), generator=generator))
    path = tmp_path / "model.pkl"
    path.write_bytes(damaged)
    assert str(path) in refusal(path, reference / "sd_base", tmp_path / "out")


@pytest.mark.parametrize("name", ["absent.pkl", "."])
def test_no_file(reference: Path, tmp_path: Path, name: str) -> None:
    assert "does not exist" in refusal(tmp_path / name, reference / "sd_base", tmp_path / "out")


CONV = "mid_block.resnets.0.conv1.base_layer.weight"
LORA = "conv_in.lora_A.default_encoder_quality.weight"
CFR = "cross_attn_module.threshold_fc.weight"
SPYNET = "spynet.basic_module.0.basic_module.0.conv.weight"

Change = Callable[[dict[str, Any]], None]


def drop(part: str, name: str) -> Change:
    return lambda checkpoint: checkpoint[part].pop(name)


def put(part: str, name: str, value: Any) -> Change:
    return lambda checkpoint: checkpoint[part].update({name: value})


CHANGES: dict[str, tuple[Change, str]] = {
    "missing tensor": (drop("state_dict_unet", CONV), CONV),
    "missing lora": (drop("state_dict_unet", LORA), "conv_in.lora_A.detail.weight"),
    "missing in cfr": (drop("state_dict_bpp", CFR), "threshold.weight"),
    "missing query": (drop("state_dict_bpp", "cross_attn_module.query_conv.weight"), "query_conv"),
    "missing in flow": (drop("state_dict_bpp", SPYNET), "pyramid.0.0.weight"),
    "misshapen": (put("state_dict_unet", CONV, torch.zeros(3, 5)), "(3, 5)"),
    "misshapen lora": (put("state_dict_unet", LORA, torch.zeros(9, 5)), "(9, 5)"),
    "misshapen in cfr": (put("state_dict_bpp", CFR, torch.zeros(1, 9)), "(1, 9)"),
    "misshapen query": (
        put("state_dict_bpp", "cross_attn_module.query_conv.weight", torch.zeros(7, 4, 1, 1)),
        "query_conv",
    ),
    "too many": (
        put("state_dict_unet", "up_blocks.9.weight", torch.zeros(2)),
        "up_blocks.9.weight",
    ),
    "too many in cfr": (
        put("state_dict_bpp", "cross_attn_module.norm.weight", torch.zeros(2)),
        "norm.weight",
    ),
    "odd name in cfr": (put("state_dict_bpp", "cross_attn_module.odd", torch.zeros(2)), "odd"),
    "another flow net": (
        put("state_dict_bpp", "spynet.encoder.weight", torch.zeros(2)),
        "spynet.encoder.weight",
    ),
    "not finite": (put("state_dict_unet", "conv_in.base_layer.bias", None), "conv_in"),
    "no tensor": (put("state_dict_unet", CONV, "hello"), CONV),
    "a rank that is none": (lambda c: c.update(lora_rank_unet_quality="four"), "lora_rank"),
    "a rank that fills the memory": (
        lambda c: c.update(lora_rank_unet_quality=10**12),
        "'lora_rank_unet_quality' is 1000000000000, but the rank of its tensors is 4",
    ),
    "a name that is none": (put("state_dict_unet", 7, torch.zeros(2)), "7 is not a tensor name"),  # type: ignore[arg-type]
    "a layer that is none": (
        put("state_dict_bpp", SPYNET.replace("0.conv", "x.conv"), torch.zeros(2)),
        "basic_module.x.conv",
    ),
    "a rank of nothing": (lambda c: c.update(lora_rank_unet_quality=0), "lora_rank"),
    "no dictionary": (lambda c: c.update(state_dict_unet=[1, 2]), "state_dict_unet"),
    **{
        f"no {key}": (lambda c, key=key: c.pop(key), key)
        for key in ("state_dict_unet", "state_dict_bpp", "lora_rank_unet_consistency")
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_named(
    checkpoint: dict[str, Any], reference: Path, tmp_path: Path, change: str
) -> None:
    changed = {k: dict(v) if isinstance(v, dict) else v for k, v in checkpoint.items()}
    apply, named = CHANGES[change]
    apply(changed)
    if change == "not finite":
        bias = checkpoint["state_dict_unet"]["conv_in.base_layer.bias"].clone()
        bias[1] = float("nan")
        changed["state_dict_unet"]["conv_in.base_layer.bias"] = bias
    path = tmp_path / "model.pkl"
    torch.save(changed, path)
    line = refusal(path, reference / "sd_base", tmp_path / "out")
    assert named in line
    assert str(path) in line


def test_another_object(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    torch.save([1, 2], path)
    assert "list" in refusal(path, reference / "sd_base", tmp_path / "out")


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler", "unet"])
@pytest.mark.parametrize("damage", ["missing", "empty", "not json"])
def test_broken_base(reference: Path, tmp_path: Path, part: str, damage: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(reference / "sd_base", base)
    shutil.rmtree(base / part)
    if damage != "missing":
        (base / part).mkdir()
    if damage == "not json":
        for name in ("config.json", "scheduler_config.json", "tokenizer_config.json"):
            (base / part / name).write_text("{ not json")
    line = refusal(reference / "model.pkl", base, tmp_path / "out")
    assert str(base) in line
    assert part in line


@pytest.mark.parametrize("kind", ["absent", "file", "other"])
def test_wrong_base(reference: Path, tmp_path: Path, kind: str) -> None:
    base = tmp_path / "base"
    if kind == "file":
        base.write_text("hello")
    if kind == "other":
        base.mkdir()
        (base / "model_index.json").write_text("{}")
    assert str(base) in refusal(reference / "model.pkl", base, tmp_path / "out")


def test_base_of_other_widths(reference: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(reference / "sd_base", base)
    config = base / "unet" / "config.json"
    changed = json.loads(config.read_text())
    changed["cross_attention_dim"] += 8
    config.write_text(json.dumps(changed))
    assert "a different base" in refusal(reference / "model.pkl", base, tmp_path / "out")


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_target_in_the_way(reference: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "model"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    with pytest.raises(OutputError) as caught:
        convert(reference / "model.pkl", reference / "sd_base", target)
    assert str(target) in str(caught.value)
    mine = target if kind == "file" else target / "mine"
    assert mine.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


def test_parent_is_a_file(reference: Path, tmp_path: Path) -> None:
    """No folder can be made there, not by root either."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError) as caught:
        convert(reference / "model.pkl", reference / "sd_base", tmp_path / "file" / "model")
    assert "could not be written" in str(caught.value)
    assert "\n" not in str(caught.value)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from dloral.errors import OutputError
from dloral.weights import loading
from dloral.weights.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    convert(*map(Path, sys.argv[1:]))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_full_disk(reference: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "model"
    target.parent.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, reference / "model.pkl", reference / "sd_base", target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert f"{target} could not be written" in result.stdout
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize("native", [True, False])
def test_empty_target_folder_is_taken_and_dtype_kept(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    """In the files always; in memory by what the CPU multiplies, as ``load_pipeline`` says."""
    target = tmp_path / "new" / "model"
    target.mkdir(parents=True)
    convert(reference / "model.pkl", reference / "sd_base", target, dtype=torch.bfloat16)
    assert list(target.parent.iterdir()) == [target]
    assert not list(target.rglob("*.bin"))
    assert not list(target.rglob("*.pkl"))
    stored = [load_file(path) for path in target.glob("*/*.safetensors")]
    assert len(stored) >= 6
    assert {t.dtype for part in stored for t in part.values() if t.is_floating_point()} == {
        torch.bfloat16
    }
    monkeypatch.setattr(loading, "_multiplies", lambda dtype: native)
    loaded = load_pipeline(target, device="cpu", dtype="bfloat16")
    assert loaded.unet.has_adapters
    for part in (loaded.unet, loaded.vae, loaded.text_encoder):
        for module in part.modules():
            kept = native or isinstance(module, loading.LARGE)
            for parameter in module.parameters(recurse=False):
                assert parameter.dtype == (torch.bfloat16 if kept else torch.float32)


def test_a_compressed_checkpoint_is_read_as_a_stored_one(reference: Path, tmp_path: Path) -> None:
    """torch maps deflated tensors into memory as if they were plain."""
    stored = torch.load(reference / "model.pkl", weights_only=True)
    small = {name: tensor for name, tensor in stored["state_dict_bpp"].items() if "cross" in name}
    assert small
    torch.save(small, tmp_path / "stored.pkl")
    with (
        zipfile.ZipFile(tmp_path / "stored.pkl") as plain,
        zipfile.ZipFile(tmp_path / "deflated.pkl", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in plain.namelist():
            deflated.writestr(entry, plain.read(entry))
    for name in ("stored.pkl", "deflated.pkl"):
        found = open_pickle(tmp_path / name, "it")
        assert all(torch.equal(found[key], tensor) for key, tensor in small.items())
