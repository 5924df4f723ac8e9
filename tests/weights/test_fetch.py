"""Fetching through the real Hub client from a Hub on this machine, with everything that goes wrong.

``hub`` speaks the Hub's routes; ``home`` is an empty HF_HOME. The whole way from an empty machine,
by ``HF_ENDPOINT``, is in test_first_start.py.
"""

import itertools
import re
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from fetches import no_tagger, refusal
from hub_server import Hub, Repo
from huggingface_hub import constants, hf_hub_download
from released import BASES, CHECKPOINT, DAPE_REPO, RAM_REPO, RELEASE
from safetensors.torch import load, load_file

from dloral.errors import OutputError
from dloral.weights import fetch as fetching
from dloral.weights.fetch import FetchProgress, fetch, plan_fetch
from dloral.weights.registry import fetched

TEXT_ENCODER = "text_encoder/model.safetensors"


# What comes -----------------------------------------------------------------------------------


def test_plan_says_what_comes_and_brings_nothing(hub: Hub, home: Path) -> None:
    plan, size = plan_fetch("sd21"), f"{CHECKPOINT.stat().st_size / 1e6:.1f} MB"
    told = "\n".join(plan.lines())
    for said in (BASES[2], RELEASE, RAM_REPO, DAPE_REPO, size, "Open RAIL++-M", str(home)):
        assert said in told
    files = [planned.file.target for planned in plan.files]
    assert "unet/diffusion_pytorch_model.safetensors" not in files  # model.pkl holds the UNet
    sizes = sum(len(repo.files[f.found.name]) for f in plan.files for repo in [where(hub, f.found)])
    assert plan.bytes_left == plan.total_bytes == sizes
    assert not hub.asked("GET", "/resolve/")
    assert not home.exists()


def where(hub: Hub, found: fetching.Found) -> Repo:
    prefix = "spaces/" if found.source.kind == "space" else ""
    return hub.repos[prefix + found.source.repo]


def test_fetched_once_converted_and_nothing_else_kept(hub: Hub, home: Path) -> None:
    seen: list[FetchProgress] = []
    folder = fetch("sd21", on_progress=seen.append)
    assert folder == home / "dloral" / "sd21"
    assert (folder / "unet" / "consistency.safetensors").is_file()
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: diffusers")
    assert (home / "dloral" / "tagger" / "dape.safetensors").is_file()
    kinds = {path.suffix for path in home.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".txt", ".md", ".py", ".lock", ""}
    assert not list(fetching.downloads_folder().iterdir())
    stages = [stage for stage, _ in itertools.groupby(seen, key=lambda step: step.stage)]
    assert stages == ["downloading", "converting"] * 2 + ["done"]  # the tagger is one of the two
    assert all(0 <= step.done <= step.total for step in seen)
    assert seen[-1].done == seen[-1].total
    hub.log.clear()
    assert fetch("sd21") == folder
    assert not hub.log


def test_half_precision_unless_asked_otherwise(hub: Hub) -> None:
    folder = no_tagger(hub)
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    shutil.rmtree(folder)
    fetch("sd21", without=["tagger"], dtype="float32")
    exact = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    released = torch.load(CHECKPOINT, weights_only=True)["state_dict_unet"]
    assert torch.equal(exact["conv_in.weight"], released["conv_in.base_layer.weight"])


def test_half_precision_files_are_taken_where_offered(hub: Hub) -> None:
    base = hub.repos[BASES[2]].files
    base["text_encoder/model.fp16.safetensors"] = base[TEXT_ENCODER]
    names = [planned.found.name for planned in plan_fetch("sd21").files]
    assert "text_encoder/model.fp16.safetensors" in names
    assert TEXT_ENCODER not in names
    assert "vae/diffusion_pytorch_model.safetensors" in names


def test_without_the_tagger(hub: Hub) -> None:
    no_tagger(hub)
    assert fetched("tagger") is None
    assert not hub.asked("HEAD", RAM_REPO)


def test_downloads_are_kept_if_asked(hub: Hub) -> None:
    fetch("sd21", without=["tagger"], keep_downloads=True)
    sizes = {path.stat().st_size for path in fetching.downloads_folder().iterdir()}
    assert CHECKPOINT.stat().st_size in sizes


def test_tiny_vae(hub: Hub, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).save_pretrained(tmp_path / "taesd")
    files = {path.name: path.read_bytes() for path in (tmp_path / "taesd").iterdir()}
    hub.repos["madebyollin/taesd"] = Repo(files)
    folder = fetch("taesd")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


# Mirrors ---------------------------------------------------------------------------------------


def test_first_mirror_gone_second_breaks_and_is_resumed(hub: Hub) -> None:
    hub.repos[BASES[1]] = hub.repos.pop(BASES[2])
    hub.repos[BASES[1]].break_after = [100_000, 200_000]
    folder = no_tagger(hub)
    assert hub.asked("HEAD", BASES[0])  # was asked first, and answered 404
    assert [line.split()[-1] for line in hub.asked("GET", "/cdn/") if "bytes=" in line] == [
        "bytes=100000-",
        "bytes=300000-",
    ]
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_file()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits a second between its tries; here it need not."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
def test_broken_for_good_then_gone_on_with(hub: Hub) -> None:
    """The client gives up after five tries without a byte; the next call goes on from there."""
    release = hub.repos[RELEASE]
    release.break_after = [3_000_000, *[0] * 20]
    line = refusal(without=["tagger"])
    assert (
        f"{RELEASE} dropped the connection at 3,000,000 of {CHECKPOINT.stat().st_size:,} bytes"
        in line
    )
    assert "python -m dloral fetch sd21" in line
    assert 'model="compact"' in line
    release.break_after = []
    hub.log.clear()
    assert plan_fetch("sd21", ["tagger"]).bytes_left == CHECKPOINT.stat().st_size - 3_000_000
    no_tagger(hub)
    assert hub.asked("GET", "/cdn/" + RELEASE) == [f"GET /cdn/{RELEASE}/model.pkl bytes=3000000-"]
    assert not hub.asked("GET", "/cdn/" + BASES[2])  # those were whole


@pytest.mark.usefixtures("no_waiting")
def test_mirror_that_breaks_for_good_is_left(hub: Hub) -> None:
    good = hub.repos[BASES[2]]
    hub.repos[BASES[0]] = Repo(dict(good.files), break_after=[200_000, *[0] * 5])
    no_tagger(hub)
    vae = [line for line in hub.asked("GET", "/cdn/") if "/vae/" in line]
    assert vae[0].startswith(f"GET /cdn/{BASES[0]}")
    assert vae[-1] == (f"GET /cdn/{BASES[2]}/vae/diffusion_pytorch_model.safetensors bytes=200000-")


def test_wrong_bytes_are_refused_and_the_next_mirror_asked(hub: Hub) -> None:
    good = hub.repos[BASES[2]]
    wrong = bytearray(good.files[TEXT_ENCODER])
    wrong[-1] ^= 1
    hub.repos[BASES[0]] = Repo(dict(good.files), sends={TEXT_ENCODER: bytes(wrong)})
    folder = no_tagger(hub)
    assert hub.asked("GET", f"/cdn/{BASES[0]}/{TEXT_ENCODER}")
    assert hub.asked("GET", f"/cdn/{BASES[2]}/{TEXT_ENCODER}")
    assert not list(fetching.downloads_folder().iterdir())
    stored, released = load_file(folder / TEXT_ENCODER), load(good.files[TEXT_ENCODER])
    assert stored.keys() == released.keys()
    assert all(torch.equal(tensor, released[name].half()) for name, tensor in stored.items())


def test_wrong_bytes_everywhere(hub: Hub) -> None:
    wrong = bytes(len(hub.repos[RELEASE].files["model.pkl"]))
    hub.repos[RELEASE].sends["model.pkl"] = wrong
    assert "sent data that does not match" in refusal(without=["tagger"])
    assert not list(fetching.downloads_folder().glob("*.part"))


def test_wrong_bytes_of_a_small_file(hub: Hub) -> None:
    """Those have git's hash on the Hub, not SHA-256."""
    hub.repos[BASES[2]].sends["tokenizer/merges.txt"] = b"x" * len(
        hub.repos[BASES[2]].files["tokenizer/merges.txt"]
    )
    assert "sent data that does not match" in refusal(without=["tagger"])


def test_another_file_of_that_name_is_not_downloaded(hub: Hub) -> None:
    hub.repos[RELEASE].files["model.pkl"] = bytes(CHECKPOINT.stat().st_size)
    assert "has a different model.pkl" in refusal(without=["tagger"])
    assert not hub.asked("GET", "/cdn/" + RELEASE)


# Doors -----------------------------------------------------------------------------------------


def test_private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[RELEASE].status = 401
    hub.tokens = {"hf_mine"}
    monkeypatch.delenv("HF_TOKEN", raising=False)
    line = refusal()
    assert (
        f"dloral could not be fetched: {RELEASE} is private or does not exist: set HF_TOKEN" in line
    )
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert no_tagger(hub).is_dir()


def test_gated(hub: Hub) -> None:
    hub.repos[RAM_REPO].status = 403
    hub.repos[RAM_REPO].error_code = "GatedRepo"
    hub.repos.pop(BASES[1], None)
    line = refusal()
    assert f"{RAM_REPO} requires accepting its terms" in line
    assert no_tagger(hub).is_dir()


@pytest.mark.usefixtures("no_waiting")
def test_hub_that_is_ill(hub: Hub) -> None:
    hub.repos[RELEASE].status = 500
    assert f"{RELEASE} answered with HTTP 500" in refusal()


def test_no_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"  # nobody listens there
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    line = refusal()
    assert "cannot be reached" in line
    assert 'model="compact"' in line


def test_something_that_is_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    template = hub.url + "/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert "does not exist" in refusal()


def test_offline_with_a_cold_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = refusal()
    assert "HF_HUB_OFFLINE is set" in line
    assert 'model="compact"' in line
    assert not hub.log


def test_offline_with_a_warm_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that other software brought into the Hub's cache are enough, and stay there."""
    for planned in plan_fetch("sd21").files:
        source = planned.found.source
        hf_hub_download(
            source.repo,
            planned.found.name,
            repo_type=source.kind,
            revision=source.revision,
        )
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = sorted(path for path in Path(constants.HF_HUB_CACHE).rglob("*"))
    plan = plan_fetch("sd21")
    assert plan.bytes_left == 0
    assert fetch("sd21").is_dir()
    assert fetched("tagger")
    assert not hub.log
    assert sorted(path for path in Path(constants.HF_HUB_CACHE).rglob("*")) == before


def test_other_bytes_in_the_hubs_cache_are_not_taken(hub: Hub) -> None:
    cached = hf_hub_download(RELEASE, "model.pkl")
    blob = Path(cached).resolve()
    blob.chmod(0o644)
    blob.write_bytes(bytes(blob.stat().st_size))
    hub.log.clear()
    no_tagger(hub)
    assert hub.asked("GET", f"/cdn/{RELEASE}/model.pkl")


# The disk --------------------------------------------------------------------------------------


def test_disk_too_small_is_said_before_anything_comes(hub: Hub) -> None:
    hub.repos[RAM_REPO].sizes["ram_swin_large_14m.pth"] = 10**15
    line = refusal(kind=OutputError)
    assert re.search(r"100\d{4}\.\d GB needed, [\d.]+ GB free", line)
    assert "HF_HOME" in line
    assert not hub.asked("GET", "/resolve/")


def test_disk_full_in_the_middle(hub: Hub) -> None:
    """The system refuses to write on; what came stays for the next try."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, hard))
    try:
        line = refusal(kind=OutputError, without=["tagger"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free" in line
    assert "needed" in line
    assert no_tagger(hub).is_dir()
    assert any("bytes=4000000-" in line for line in hub.asked("GET", "/cdn/"))


def test_disk_full_where_files_cannot_be_linked(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads are copied together there before they are converted."""

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    shutil.rmtree(fetch("sd21", without=["tagger"], keep_downloads=True))
    monkeypatch.setattr(Path, "symlink_to", refuse)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert "cannot be written: File too large" in refusal(kind=OutputError, without=["tagger"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert no_tagger(hub).is_dir()


def test_a_real_full_disk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of 6 MB, of which the plan believes that it is larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        monkeypatch.setattr(constants, "HF_HOME", str(disk))
        assert "free" in refusal(kind=OutputError, without=["tagger"])
        assert not hub.asked("GET", "/resolve/")
        monkeypatch.setattr(fetching, "_check_space", lambda plan: None)
        line = refusal(kind=OutputError, without=["tagger"])
        assert re.search(rf"disk space for {disk}\S*: \d\.\d MB needed, 0\.0 MB free", line)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_home_that_cannot_be_written(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file" / "home"))
    assert "set HF_HOME" in refusal(kind=OutputError)
