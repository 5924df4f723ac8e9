"""A Hub on this machine with the released files in small, and a home of its own to fetch into."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repo, serve
from huggingface_hub import constants
from released import CHECKPOINT, pin, released_repos

from dloral.weights.registry import DLORAL, MODELS, SD21


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
