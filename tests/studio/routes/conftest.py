"""The page's calls without a browser: one studio, one visitor."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dloral.studio.routes import build_routes
from dloral.studio.runtime import JobQueue
from dloral.studio.sessions import Sessions
from dloral.studio.studio import Limits, Studio


@pytest.fixture
def studio(tmp_path: Path, models, clip: Path) -> Iterator[Studio]:
    queue = JobQueue()
    studio = Studio(
        sessions=Sessions(tmp_path / "sessions", models, queue),
        models=models,
        queue=queue,
        limits=Limits(max_upload=200_000, max_minutes=1),
        examples={"bar": clip},
    )
    yield studio
    studio.sessions.close_all()


@pytest.fixture
def browser(studio: Studio) -> TestClient:
    return TestClient(build_routes(studio), raise_server_exceptions=False)


@pytest.fixture
def token(studio: Studio) -> str:
    return studio.sessions.open()


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
