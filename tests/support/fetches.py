"""How the tests of fetching fetch."""

from pathlib import Path

import pytest
from hub_server import Hub

from dloral.errors import DLoRALError, WeightsError
from dloral.weights.fetch import fetch
from dloral.weights.registry import fetched


def refusal(name: str = "sd21", kind: type[DLoRALError] = WeightsError, **options: object) -> str:
    """The one line that ``fetch`` refuses with; no model is there then."""
    with pytest.raises(kind) as caught:
        fetch(name, **options)  # type: ignore[arg-type]
    assert fetched(name) is None
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


def no_tagger(hub: Hub) -> Path:
    return fetch("sd21", without=["tagger"])
