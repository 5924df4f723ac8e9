"""Fixtures of the tests of weights."""

import pytest
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes ten megabytes at a time; what broke off within those comes again."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
